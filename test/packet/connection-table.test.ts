/** The connection table at its configured capacity, and under two processors at once. */
import "./own-namespace.js";
import t from "tap";
import { ENTRIES_PER_BUCKET } from "../../src/dataplane/sizes.js";
import { emptyFlows, type Flows, randomIntegers } from "../prelude/flows.js";
import { Prelude } from "../prelude/prelude.js";
import { ipv4Bytes } from "./addresses.js";
import { Bed, type Method, type Setup } from "./bed.js";
import { passes } from "./connection-table.js";
import { build, counting, type Layer } from "./frame.js";
import { INTERFACES, ROUTER_MAC, realAddress, realMac, VIP } from "./network.js";

t.setTimeout(170_000);

/** `limits.connections` of the default configuration. */
const CAPACITY = 1_048_576;

function setup(method: Method, timeouts: Setup["timeouts"] = {}): Setup {
  return {
    services: (["tcp", "udp"] as const).map((protocol) => ({
      protocol,
      vip: VIP,
      port: 80,
      realServers: [1, 2, 3].map((n) => ({ address: realAddress(n), method, hop: { mac: realMac(n) } })),
    })),
    localAddresses: ["10.1.0.1", "10.1.0.2"],
    localPorts: [1024, 65535],
    timeouts,
  };
}

/** Clients with addresses from the whole of IPv4 and any port; no address twice. */
function randomFlows(count: number, seed: number): Flows {
  const random = randomIntegers(seed);
  const flows = emptyFlows(count);
  for (let i = 0; i < count; i++) {
    flows.source[i] = random(0x1_0000_0000);
    flows.sourcePort[i] = random(0x1_0000);
  }
  flows.destination.fill(Buffer.from(ipv4Bytes(VIP)).readUInt32BE());
  flows.destinationPort.fill(80);
  return flows;
}

function frame(transport: Layer): Uint8Array {
  return build([
    { kind: "ethernet", destination: INTERFACES.c0.mac, source: ROUTER_MAC },
    { kind: "ipv4", source: "198.18.0.1", destination: VIP },
    transport,
    { kind: "payload", bytes: counting(22) },
  ]);
}
function tcp(flags: string): Uint8Array {
  return frame({ kind: "tcp", sourcePort: 1, destinationPort: 80, flags });
}
const udp = frame({ kind: "udp", sourcePort: 1, destinationPort: 80 });

t.test(`${CAPACITY} entries of random flows`, async (t) => {
  const buckets = Math.ceil(CAPACITY / ENTRIES_PER_BUCKET);
  const bed = await Bed.open({ buckets });
  t.teardown(() => bed.close());

  t.test("at most 90 bytes an entry", async (t) => {
    const { valueSize, maxEntries } = bed.map("connection_table");
    const bytes = (valueSize * maxEntries) / CAPACITY;
    t.ok(bytes <= 90, `${bytes.toFixed(2)} bytes`);
  });

  for (const { method, connections, seed } of [
    { method: "dr", connections: CAPACITY, seed: 1 },
    { method: "nat", connections: CAPACITY / 2, seed: 2 },
  ] as const) {
    t.test(`${method}, seed ${seed}: fewer than one in a million finds no room`, async (t) => {
      const prelude = await Prelude.load(connections, bed.interfaces.c0);
      t.teardown(() => prelude.close());
      prelude.setProgram(bed.object.program("sluice"));
      bed.configure(setup(method));
      // SYN and ACK at once, so that every entry is an established connection, which makes room for none.
      const flows = randomFlows(connections, seed);
      const slice = connections / 16;
      for (let done = 0; done < connections; done += slice) {
        prelude.setPackets({ frame: tcp("S"), flows: part(flows, done, slice) });
        await prelude.run(slice);
        prelude.setPackets({ frame: tcp("A"), flows: part(flows, done, slice) });
        await prelude.run(slice);
      }
      const { drops } = bed.counted();
      const table = bed.table();
      const held = [...table.locations()].length;
      const entries = connections * (method === "dr" ? 1 : 2);
      t.comment(`${method}: ${held} of ${entries} entries, drops ${JSON.stringify(drops)}`);
      t.ok(entries - held <= entries / 1_000_000, `${entries - held} missing`);
      t.ok((drops.table_full?.packets ?? 0) <= entries / 1_000_000, "and none was refused");
      t.strictSame(bed.violations(), []);
      const loads = [0, 1, 2].map((real) => bed.load(real));
      t.equal(
        loads.reduce((sum, { active, inactive }) => sum + active + inactive, 0),
        held / (method === "dr" ? 1 : 2),
      );
    });
  }
});

function part(flows: Flows, first: number, count: number): Flows {
  return {
    source: flows.source.subarray(first, first + count),
    destination: flows.destination.subarray(first, first + count),
    sourcePort: flows.sourcePort.subarray(first, first + count),
    destinationPort: flows.destinationPort.subarray(first, first + count),
  };
}

t.test("two processors, the same flows", async (t) => {
  const bed = await Bed.open({ buckets: 32 });
  t.teardown(() => bed.close());
  const FLOWS = 300;
  const RUNS = 100_000;
  const preludes = [await Prelude.load(FLOWS, bed.interfaces.c0), await Prelude.load(FLOWS, bed.interfaces.c0)];
  t.teardown(() => {
    for (const prelude of preludes) prelude.close();
  });
  for (const prelude of preludes) prelude.setProgram(bed.object.program("sluice"));
  const flows = randomFlows(FLOWS, 7);

  /** Both at once: thread pool threads, which the kernel spreads over the processors. */
  const both = async (first: Uint8Array, second: Uint8Array): Promise<void> => {
    await Promise.all(
      [first, second].map(async (packet, which) => {
        preludes[which]?.setPackets({ frame: packet, flows, first: 0 });
        await preludes[which]?.run(RUNS);
      }),
    );
  };

  const pairs = [
    { name: "opening the same", frames: [tcp("S"), tcp("S")] },
    { name: "opening and establishing", frames: [tcp("S"), tcp("A")] },
    { name: "opening and resetting", frames: [tcp("S"), tcp("R")] },
    { name: "resetting and closing", frames: [tcp("R"), tcp("FA")] },
    { name: "closing and opening", frames: [tcp("FA"), tcp("S")] },
    { name: "UDP and TCP", frames: [udp, tcp("S")] },
    { name: "UDP", frames: [udp, udp] },
  ] as const;

  for (const method of ["nat", "fullnat", "dr"] as const) {
    for (const { brief, timeouts } of [
      { brief: "IPVS's timeouts", timeouts: {} },
      { brief: "connections that are over at once", timeouts: { CLOSE: 0, SYN_RECV: 0, UDP: 0.01 } },
    ]) {
      t.test(`${method}, ${brief}`, async (t) => {
        bed.configure(setup(method, timeouts));
        bed.counted();
        for (const { name, frames } of pairs) {
          const sweeping = setInterval(() => bed.sweep(), 3);
          await both(frames[0], frames[1]);
          clearInterval(sweeping);
          const lasting = bed.violations().filter((violation) => !passes(violation));
          t.strictSame(lasting, [], name);
        }
        t.comment(`drops ${JSON.stringify(bed.counted().drops)}`);
        await new Promise((resolve) => setTimeout(resolve, 1300));
        bed.sweep();
        t.strictSame(bed.violations(), [], "and a second later nothing is left over");
      });
    }
  }
});

t.test("two processors, neck and neck through flows that are new to both", async (t) => {
  // Whoever is behind finds what the other has inserted, which is quicker than inserting, and catches up.
  const buckets = 8192;
  const bed = await Bed.open({ buckets });
  t.teardown(() => bed.close());
  const preludes = [await Prelude.load(1, bed.interfaces.c0), await Prelude.load(1, bed.interfaces.c0)];
  t.teardown(() => {
    for (const prelude of preludes) prelude.close();
  });
  for (const { method, connections } of [
    { method: "dr", connections: buckets * 11 },
    { method: "nat", connections: buckets * 5 },
  ] as const) {
    t.test(method, async (t) => {
      bed.configure(setup(method));
      bed.counted();
      for (const prelude of preludes) {
        prelude.setProgram(bed.object.program("sluice"));
        prelude.setPackets({ frame: tcp("S"), flows: "new" });
      }
      await Promise.all(preludes.map(async (prelude) => prelude.run(connections)));
      const { services, drops } = bed.counted();
      t.comment(JSON.stringify({ services, drops }));
      const lasting = bed.violations().filter((violation) => !passes(violation));
      t.strictSame(lasting, []);
      const contended = drops.table_contended?.packets ?? 0;
      const opened = services[`tcp:${VIP}:80`]?.connections ?? 0;
      // Where both withdrew, the flow's next packet would open it; there is none here.
      t.ok(opened <= connections && opened >= connections - contended, `${opened} of ${connections} are open`);
      t.equal(bed.connections().length, opened, "each of them once");
    });
  }
});
