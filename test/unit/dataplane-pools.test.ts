/** fullnat's local addresses: which index each has and for how long, and which of them a real server's connections come from. */
import fc from "fast-check";
import t from "tap";
import { formatAddress } from "../../src/dataplane/address.js";
import { readLocalAddress } from "../../src/dataplane/local-address.js";
import { readLocalPool } from "../../src/dataplane/local-pool.js";
import { PoolWatch } from "../../src/dataplane/pool-watch.js";
import { GRACE } from "../../src/dataplane/retire.js";
import { ringSlots } from "../../src/dataplane/ring-record.js";
import {
  type DesiredState,
  EMPTY_STATE,
  type FullnatPool,
  type NamedFullnatPool,
  type RealServer,
  type VirtualService,
} from "../../src/model/index.js";
import { setLoad } from "./plain-tables.js";
import { Bench, desiredState, kinds, requireDesired, requireValid, server, service } from "./publish-bench.js";

const DEFAULT: FullnatPool = { localAddresses: ["10.1.1.1", "10.2.1.1"], localPorts: [1024, 2000] };
const OTHER: NamedFullnatPool = { name: "other", localAddresses: ["10.3.1.1"], localPorts: [5000, 5009] };

function fullnat(number: number, more: Partial<RealServer> = {}): RealServer {
  return server(number, { method: "fullnat", ...more });
}

function state(services: readonly VirtualService[], pool = DEFAULT, pools = [OTHER]): DesiredState {
  return { ...EMPTY_STATE, services, fullnat: pool, pools };
}

/** The addresses and ports that connections to a real server come from. */
function pool(bench: Bench, name: string, service = "tcp:10.0.0.100:80"): { addresses: string[]; ports: number[] } {
  const { index } = bench.realServer(service, name);
  const { ring, ports } = readLocalPool(bench.tables.localPools, index);
  const addresses = Array.from(ringSlots(bench.tables.rings, ring), (slot) =>
    formatAddress(readLocalAddress(bench.tables.localAddresses, slot)!),
  );
  return { addresses, ports: [...ports] };
}

/** By index; an element that is free is missing. */
function addresses(bench: Bench): string[] {
  return Array.from({ length: bench.tables.localAddresses.length }, (_, index) => {
    const address = readLocalAddress(bench.tables.localAddresses, index);
    return address === undefined ? "" : formatAddress(address);
  }).filter((text, index, all) => text !== "" || all.slice(index).some(Boolean));
}

t.test("a service's real servers have its pool, or the default one", async (t) => {
  const bench = new Bench();
  const other = { ...service(81, [fullnat(1)]), fullnatPool: "other" };
  const desired = state([service(80, [fullnat(1), server(2)]), other]);
  const plan = bench.publishState(desired);
  t.strictSame(pool(bench, "10.1.0.1:8080"), { addresses: ["10.1.1.1", "10.2.1.1"], ports: [1024, 2000] });
  t.strictSame(pool(bench, "10.1.0.1:8080", "tcp:10.0.0.100:81"), { addresses: ["10.3.1.1"], ports: [5000, 5009] });
  t.strictSame(pool(bench, "10.1.0.2:8080"), { addresses: [], ports: [0, 0] }, "nat has none");
  const order = kinds(plan.preparations);
  t.ok(order.indexOf("local pool") < order.indexOf("real server"), "it is there before the real server is");
  bench.restart();
  t.strictSame(bench.publishState(desired).writes, []);
});

t.test("pools change under their services", async (t) => {
  const bench = new Bench();
  bench.watch = () => {
    requireValid(bench.tables);
  };
  const services = [service(80, [fullnat(1)]), service(81, [server(1)])];
  bench.publishState(state(services));
  const plan = bench.publishState(state(services, { localAddresses: ["10.2.1.1", "10.4.1.1"], localPorts: [9, 99] }));
  t.strictSame(pool(bench, "10.1.0.1:8080"), { addresses: ["10.2.1.1", "10.4.1.1"], ports: [9, 99] });
  t.strictSame(plan.changes.services.changed, ["tcp:10.0.0.100:80"], "no other is touched");
  const choosing = { ...service(80, [fullnat(1)]), fullnatPool: "other" };
  bench.publishState(state([choosing]));
  t.strictSame(pool(bench, "10.1.0.1:8080").addresses, ["10.3.1.1"]);
});

t.test("real servers with the same addresses share a ring, which goes with the last of them", async (t) => {
  const bench = new Bench();
  const free = bench.inventory.freeChunks.free;
  bench.publishState(state([service(80, [fullnat(1), fullnat(2)]), service(81, [fullnat(1)])]));
  t.equal(bench.inventory.freeChunks.free, free - 3, "one of each service, and one for all three");
  bench.restart();
  t.equal(bench.inventory.freeChunks.free, free - 3, "also after a restart");
  bench.publishState(state([service(80, [fullnat(2)])]));
  for (let time = 0; time < 2; time++) {
    bench.now += GRACE;
    bench.reap();
  }
  t.equal(bench.inventory.freeChunks.free, free - 2);
  bench.publishState(state([]));
  for (let time = 0; time < 2; time++) {
    bench.now += GRACE;
    bench.reap();
  }
  t.equal(bench.inventory.freeChunks.free, free);
});

t.test("an address keeps its index, and another gets it only when there is no fullnat connection", async (t) => {
  const bench = new Bench();
  const of = (...localAddresses: string[]): DesiredState =>
    state([service(80, [fullnat(1)])], { localAddresses, localPorts: [1, 9] }, []);
  bench.publishState(of("10.9.0.1", "10.9.0.2", "10.9.0.3"));
  setLoad(bench.tables, bench.realServer("tcp:10.0.0.100:80", "10.1.0.1:8080").index, { inactive: 1 });
  bench.publishState(of("10.9.0.3"));
  bench.now += 10 * GRACE;
  bench.reap();
  bench.publishState(of("10.9.0.4", "10.9.0.3"));
  t.strictSame(addresses(bench), ["10.9.0.1", "10.9.0.2", "10.9.0.3", "10.9.0.4"]);
  t.strictSame(pool(bench, "10.1.0.1:8080").addresses, ["10.9.0.4", "10.9.0.3"]);
  bench.restart();
  bench.publishState(of("10.9.0.4", "10.9.0.3"));
  bench.now += 10 * GRACE;
  bench.reap();
  t.equal(addresses(bench).length, 4, "nor after a restart");
  const many = ["5", "6", "7", "8", "9"].map((last) => `10.9.0.${last}`);
  t.throws(() => bench.publishState(of(...many)), {
    code: "CAPACITY_EXCEEDED",
    field: "fullnat.local_addresses",
    wanted: 9,
    available: 8,
    message: /those that went while fullnat connections were open included/,
  });
  bench.publishState(of("10.9.0.1"));
  t.equal(addresses(bench)[0], "10.9.0.1", "one that comes back has its index again");
  setLoad(bench.tables, bench.realServer("tcp:10.0.0.100:80", "10.1.0.1:8080").index, { inactive: 0 });
  bench.reap();
  t.equal(addresses(bench).length, 4, "not before the grace is over");
  bench.now += GRACE;
  bench.reap();
  t.strictSame(addresses(bench), ["10.9.0.1"]);
  bench.publishState(of(...many));
  t.strictSame(addresses(bench), ["10.9.0.1", ...many]);
});

t.test("addresses of the network that leads to a real server are preferred, and follow its route", async (t) => {
  const bench = new Bench();
  const services = [service(80, [fullnat(1), fullnat(2), fullnat(3)])];
  bench.interfaces.set("10.1.0.1", 1).set("10.1.0.2", 2).set("10.1.0.3", 7);
  bench.publishState(state(services));
  const all = (): string[][] => [1, 2, 3].map((n) => pool(bench, `10.1.0.${n}:8080`).addresses);
  t.strictSame(all(), [["10.1.1.1"], ["10.2.1.1"], ["10.1.1.1", "10.2.1.1"]], "all where the network has none");
  bench.restart();
  t.strictSame(bench.publishState(state(services)).writes, []);
  bench.interfaces.set("10.1.0.1", 2);
  const same = bench.inventory.published!;
  t.strictSame(bench.publishState(same).writes, [], "nobody said that a route is another");
  const plan = bench.publishState(same, true);
  t.strictSame(kinds(plan.writes), ["local pool"]);
  t.strictSame(all()[0], ["10.2.1.1"]);
});

t.test("whatever changes, pools are what is desired and every state between is right", async () => {
  const ways = fc.array(fc.integer({ min: 0, max: 3 }), { minLength: 5, maxLength: 5 });
  fc.assert(
    fc.property(fc.array(fc.tuple(desiredState(), ways), { minLength: 1, maxLength: 5 }), (steps) => {
      const bench = new Bench();
      bench.watch = () => {
        requireValid(bench.tables);
      };
      for (const [desired, interfaces] of steps) {
        for (const [index, ifindex] of interfaces.entries()) {
          bench.interfaces.set(`10.1.0.${index + 1}`, ifindex);
        }
        bench.publishState(desired, true);
        requireDesired(bench, desired);
        bench.now += GRACE;
        bench.reap();
        requireDesired(bench, desired);
      }
    }),
    { numRuns: 150 },
  );
});

t.test("it is said once when a real server's local ports run out", async (t) => {
  const bench = new Bench();
  bench.publishState(state([{ ...service(80, [fullnat(1), server(2)]), fullnatPool: "other" }]));
  const { index } = bench.realServer("tcp:10.0.0.100:80", "10.1.0.1:8080");
  const logged: string[] = [];
  const quiet = (): void => undefined;
  const log = { debug: quiet, info: quiet, error: quiet, warn: (_: object, message: string) => logged.push(message) };
  const watch = new PoolWatch(bench.tables.realLoad, log);
  const look = (active: number, inactive: number, one_packet: number): number => {
    setLoad(bench.tables, index, { active, inactive, one_packet });
    watch.look(bench.inventory);
    return logged.length;
  };
  t.equal(look(3, 3, 1), 0);
  t.equal(look(3, 3, 2), 1);
  t.match(logged[0], /^8 of 10 local ports towards 10\.1\.0\.1:8080 are in use; give its pool more/);
  t.equal(look(10, 0, 0), 1, "once");
  t.equal(look(7, 0, 0), 1);
  t.equal(look(8, 0, 0), 2, "and again when it was better meanwhile");
});
