/**
 * Two processors at the same persistence templates and the same translations of one-packet scheduling: what they count, and that a
 * client has one real server. The connection table itself: connection-table.test.ts.
 */
import "./own-namespace.js";
import t from "tap";
import { emptyFlows, type Flows, randomIntegers } from "../prelude/flows.js";
import { Prelude } from "../prelude/prelude.js";
import { Bed, type Method, type Setup } from "./bed.js";
import { passes } from "./connection-table.js";
import { build, counting } from "./frame.js";
import { VIP } from "./network.js";
import { datagram, real, segment } from "./packets.js";

t.setTimeout(60_000);

const FLOWS = 400;
const CLIENTS = 8;
const RUNS = 40_000;

/** Connections of a few clients, of ports that repeat nowhere. */
function flowsOfFewClients(): Flows {
  const random = randomIntegers(3);
  const flows = emptyFlows(FLOWS);
  for (let i = 0; i < FLOWS; i++) {
    flows.source[i] = 0xc612_0001 + random(CLIENTS);
    flows.sourcePort[i] = 1024 + i;
  }
  flows.destination.fill(0x0a00_0064);
  flows.destinationPort.fill(80);
  return flows;
}

function setup(method: Method, seconds: number, timeouts: Setup["timeouts"] = {}): Setup {
  return {
    services: (["tcp", "udp"] as const).map((protocol) => ({
      protocol,
      vip: VIP,
      port: 80,
      persistence: { seconds },
      realServers: [1, 2, 3].map((n) => real(n, method)),
    })),
    localAddresses: ["10.1.0.1"],
    localPorts: [1024, 65535],
    timeouts,
  };
}

const tcp = (flags: string): Uint8Array => build([...segment(flags), { kind: "payload", bytes: counting(22) }]);
const udp = build([...datagram(), { kind: "payload", bytes: counting(22) }]);

const bed = await Bed.open({ buckets: 64 });
const preludes = [await Prelude.load(FLOWS, bed.interfaces.c0), await Prelude.load(FLOWS, bed.interfaces.c0)];
t.teardown(() => {
  for (const prelude of preludes) prelude.close();
  bed.close();
});
for (const prelude of preludes) prelude.setProgram(bed.object.program("sluice"));
const flows = flowsOfFewClients();

/** Both at once: thread pool threads, which the kernel spreads over the processors. */
async function both(frames: readonly [Uint8Array, Uint8Array]): Promise<void> {
  const sweeping = setInterval(() => bed.sweep(), 3);
  await Promise.all(
    frames.map(async (frame, which) => {
      preludes[which]?.setPackets({ frame, flows, first: 0 });
      await preludes[which]?.run(RUNS);
    }),
  );
  clearInterval(sweeping);
}

const pairs = [
  { name: "opening the same", frames: [tcp("S"), tcp("S")] },
  { name: "opening and establishing", frames: [tcp("S"), tcp("A")] },
  { name: "opening and resetting", frames: [tcp("S"), tcp("R")] },
  { name: "closing and opening", frames: [tcp("FA"), tcp("S")] },
  { name: "UDP and TCP", frames: [udp, tcp("S")] },
] as const;

for (const method of ["dr", "nat"] as const) {
  t.test(`${method}: whatever opens first, a client's connections all go to one real server`, async (t) => {
    for (let round = 0; round < 10; round++) {
      bed.configure(setup(method, 300));
      await both([tcp("S"), tcp("S")]);
      t.strictSame(
        bed.violations().filter((violation) => !passes(violation)),
        [],
      );
      const servers = new Map(bed.templates().map(({ source, real: server }) => [source, server]));
      t.equal(bed.templates().length, CLIENTS, "a template each");
      const strays = bed.connections().filter(({ source, real: server }) => servers.get(source) !== server);
      t.strictSame(strays, []);
      t.equal(bed.connections().length, FLOWS);
    }
  });

  // The templates end and begin all the time; so do the connections, and the sweeper takes both.
  for (const { brief, seconds, timeouts } of [
    { brief: "templates that last", seconds: 300, timeouts: { CLOSE: 0, SYN_RECV: 0, UDP: 0.01 } },
    { brief: "templates that are over at once", seconds: 0.005, timeouts: { CLOSE: 0, SYN_RECV: 0, UDP: 0.01 } },
  ]) {
    t.test(`${method}, ${brief}`, async (t) => {
      bed.configure(setup(method, seconds, timeouts));
      for (const { name, frames } of pairs) {
        await both(frames);
        const lasting = bed.violations().filter((violation) => !passes(violation));
        t.strictSame(lasting, [], name);
      }
      t.comment(`drops ${JSON.stringify(bed.counted().drops)}`);
      bed.advance(1000);
      bed.sweep();
      bed.advance(1000);
      bed.sweep();
      t.strictSame(bed.table().entries(), [], "in the end nothing is left");
      t.strictSame(bed.violations(), []);
    });
  }
}

for (const method of ["nat", "fullnat"] as const) {
  t.test(`${method}: one-packet scheduling, a translation for each client and real server`, async (t) => {
    const [, service] = setup(method, 0).services;
    if (service === undefined) throw new Error("unreachable");
    const onePacket = { ...setup(method, 0), services: [{ ...service, onePacket: true }] };
    bed.configure(onePacket);
    await both([udp, udp]);
    const { services, drops } = bed.counted();
    t.strictSame(
      bed.violations().filter((violation) => !passes(violation)),
      [],
    );
    const translations = bed
      .connections()
      .map(({ source, sourcePort, real: server }) => `${source}:${sourcePort} ${server}`);
    t.equal(new Set(translations).size, translations.length, "none twice");
    t.ok(translations.length > FLOWS && translations.length <= 3 * FLOWS, `${translations.length}`);
    const dropped = Object.values(drops).reduce((sum, { packets }) => sum + packets, 0);
    t.equal(services[`udp:${VIP}:80`]?.connections, 2 * RUNS - dropped, "every packet is a connection or was dropped");
    t.comment(`drops ${JSON.stringify(drops)}`);

    bed.configure({ ...onePacket, timeouts: { ONE_PACKET: 0.005 } });
    await both([udp, udp]);
    bed.advance(1000);
    bed.sweep();
    t.strictSame(bed.table().entries(), [], "in the end nothing is left");
    t.strictSame(bed.violations(), []);
  });
}

t.test("thresholds: no more connections than one a processor too many", async (t) => {
  const [service] = setup("dr", 0).services;
  if (service === undefined) throw new Error("unreachable");
  for (let round = 0; round < 10; round++) {
    const realServers = [1, 2].map((n) => real(n, "dr", { thresholds: [50, 0] }));
    bed.configure({ services: [{ ...service, realServers }] });
    await both([tcp("S"), tcp("S")]);
    for (const index of [0, 1]) {
      const { active } = bed.load(index);
      t.ok(active >= 50 && active <= 51, `${active} connections`);
    }
    t.strictSame(bed.violations(), []);
  }
});
