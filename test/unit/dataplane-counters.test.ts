/** What services and real servers are said to have counted. */
import t from "tap";
import { addToRetired, type CounterMaps, readServiceCounters } from "../../src/dataplane/counters.js";
import { layout } from "../../src/dataplane/sluice.bpf.js";
import { EMPTY_STATE, type VirtualService } from "../../src/model/index.js";
import { plainArray, setLoad } from "./plain-tables.js";
import { atOnce, Bench, server, service } from "./publish-bench.js";

const NAME = "tcp:10.0.0.100:80";
const CPUS = 2;

/** Per-processor counters of real servers: on each processor as many connections as its element says, and ten times as many packets. */
function counters(bench: Bench, connections: readonly number[]): CounterMaps {
  const words = layout.Traffic.size / 8;
  const { connections: connectionsAt, in_packets: packetsAt } = layout.Traffic.offsets;
  const realServers = {
    getRaw: (key: Uint8Array) => {
      const values = new BigUint64Array(CPUS * words);
      for (let cpu = 0; cpu < CPUS; cpu++) {
        const count = BigInt(connections[key[0]!] ?? 0);
        values[cpu * words + connectionsAt / 8] = count;
        values[cpu * words + packetsAt / 8] = 10n * count;
      }
      return new Uint8Array(values.buffer);
    },
  };
  const retired = plainArray(4, layout.Traffic.size);
  return { realServers, drops: realServers, retired, realLoad: bench.tables.realLoad };
}

function bed(...states: VirtualService[][]): Bench {
  const bench = new Bench();
  for (const services of states) {
    bench.publishState({
      ...EMPTY_STATE,
      services,
      fullnat: { localAddresses: ["10.1.1.1", "10.1.1.2"], localPorts: [1000, 1009] },
    });
  }
  return bench;
}

t.test("a service's traffic is that of all real servers that it has and had", async (t) => {
  const bench = bed([service(80, [server(1), server(2)])], [service(80, [server(2)])]);
  const maps = counters(bench, [1, 20, 300]);
  const read = (): { connections: bigint; inPackets: bigint; names: string[] } => {
    const { connections, inPackets, realServers } = atOnce(
      readServiceCounters(maps, bench.inventory.services.get(NAME)!),
    );
    return { connections, inPackets, names: [...realServers.keys()] };
  };
  t.strictSame(read(), { connections: 42n, inPackets: 420n, names: ["10.1.0.2:8080"] });
  addToRetired(maps.retired, 0, maps.realServers, 2);
  t.strictSame(read(), { connections: 642n, inPackets: 6420n, names: ["10.1.0.2:8080"] });
  addToRetired(maps.retired, 0, maps.realServers, 2);
  addToRetired(maps.retired, 1, maps.realServers, 2);
  t.equal(read().connections, 1242n, "added up, for each service by itself");
});

t.test("of two elements of one real server, while its former method drains, both count", async (t) => {
  const bench = bed([service(80, [server(1)])], [service(80, [server(1, { method: "fullnat" })])]);
  setLoad(bench.tables, 0, { active: 1, templates: 2 });
  setLoad(bench.tables, 1, { active: 3, inactive: 4, one_packet: 5 });
  const { realServers } = atOnce(readServiceCounters(counters(bench, [1, 2]), bench.inventory.services.get(NAME)!));
  t.strictSame(
    [...realServers],
    [
      [
        "10.1.0.1:8080",
        {
          connections: 6n,
          inPackets: 60n,
          inBytes: 0n,
          outPackets: 0n,
          outBytes: 0n,
          active: 4,
          inactive: 4,
          persistentConnections: 2,
          overloaded: false,
          localPortsInUse: 12,
          localPorts: 20,
        },
      ],
    ],
  );
});

t.test("what fullnat alone has is not said of others", async (t) => {
  const bench = bed([service(80, [server(1)])]);
  setLoad(bench.tables, 0, { active: 4, upper: 4, overloaded: 1 });
  const { realServers } = atOnce(readServiceCounters(counters(bench, [1]), bench.inventory.services.get(NAME)!));
  const found = realServers.get("10.1.0.1:8080");
  t.match(found, { active: 4, overloaded: true });
  t.notOk(found !== undefined && ("localPorts" in found || "localPortsInUse" in found));
});
