/**
 * A million TCP connections, opened and closed by two processors at once through the real program, in a table that is swept
 * meanwhile: no count is ever below zero, and in the end nothing is left of any of them.
 */
import "../packet/own-namespace.js";
import { setTimeout as sleep } from "node:timers/promises";
import t from "tap";
import { ENTRIES_PER_BUCKET } from "../../src/dataplane/sizes.js";
import type { SweepRequest } from "../../src/dataplane/sluice.bpf.js";
import { tcpFrame } from "../bench/frames.js";
import { ipv4Bytes } from "../packet/addresses.js";
import { Bed, type Method, type ServiceSetup, type Setup } from "../packet/bed.js";
import { passes } from "../packet/connection-table.js";
import { CLIENT, realAddress, realMac, VIP } from "../packet/network.js";
import { emptyFlows, type Flows } from "../prelude/flows.js";
import { Prelude } from "../prelude/prelude.js";
import { bucketsInUse, repliesTo } from "./table.js";
import { Watch } from "./watch.js";

t.setTimeout(280_000);

const CONNECTIONS = 1_000_000;
/** Entries. */
const CAPACITY = 2 ** 19;
const PROCESSORS = 2;
/** Connections that a processor opens and closes together, and of these the ones that the other does as well. */
const BATCH = 32_768;
const SHARED = BATCH / 4;

const METHODS = ["nat", "dr", "fullnat"] as const satisfies readonly Method[];
/** One service a method, and one more with persistence by networks of clients. */
const KINDS = [false, true].flatMap((isPersistent) => METHODS.map((method) => ({ method, isPersistent })));
const REAL_SERVERS = 4;
const ALL_REAL_SERVERS = KINDS.length * REAL_SERVERS;
const FIRST_PORT = 80;
const FULLNAT_PORT = FIRST_PORT + METHODS.indexOf("fullnat");
const LOCAL_ADDRESSES = ["10.1.0.1", "10.1.0.2"];
const LOCAL_PORTS = [1024, 1024 + 8191] as const;
/** Connections that fullnat can have at once. */
const LOCAL_ENDPOINTS = REAL_SERVERS * LOCAL_ADDRESSES.length * 8192;

/** A connection is over so soon that the table has room for those that come, and some expire in every state. */
const TIMEOUTS: Setup["timeouts"] = {
  SYN_SENT: 1,
  SYN_RECV: 1,
  ESTABLISHED: 2,
  FIN_WAIT: 0.3,
  TIME_WAIT: 0.3,
  CLOSE: 0.1,
  CLOSE_WAIT: 0.3,
  LAST_ACK: 0.1,
};
/** Longer than a connection lives, unless the machine is busy: a template that is over and still named gets a minute more. */
const PERSISTENCE = { seconds: 6, mask: "255.255.255.0" };
const PATIENCE_SECONDS = 90;

function service({ method, isPersistent }: { method: Method; isPersistent: boolean }, index: number): ServiceSetup {
  return {
    protocol: "tcp",
    vip: VIP,
    port: FIRST_PORT + index,
    ...(isPersistent && { persistence: PERSISTENCE }),
    realServers: Array.from({ length: REAL_SERVERS }, (_, n) => ({
      address: realAddress(n + 1),
      method,
      hop: { mac: realMac(n + 1) },
    })),
  };
}
const SETUP: Setup = {
  services: KINDS.map(service),
  localAddresses: LOCAL_ADDRESSES,
  localPorts: LOCAL_PORTS,
  timeouts: TIMEOUTS,
};

type Side = "client" | "server";

/** What both sides send, in this order, each for a part of a batch: so many eighths from the first on. */
const SEQUENCE: readonly { from: Side; flags: string; first: number; eighths: number }[] = [
  { from: "client", flags: "S", first: 0, eighths: 8 },
  { from: "server", flags: "SA", first: 0, eighths: 7 }, // the others stay half-open
  { from: "client", flags: "A", first: 0, eighths: 7 },
  { from: "client", flags: "FA", first: 0, eighths: 3 },
  { from: "server", flags: "FA", first: 0, eighths: 3 },
  { from: "client", flags: "A", first: 0, eighths: 3 },
  { from: "server", flags: "FA", first: 3, eighths: 1 }, // the server closes first
  { from: "client", flags: "FA", first: 3, eighths: 1 },
  { from: "client", flags: "R", first: 4, eighths: 1 },
  { from: "server", flags: "R", first: 5, eighths: 1 }, // the seventh is idle until it expires
  { from: "client", flags: "S", first: 2, eighths: 3 }, // once more from the same port
];

const FRAMES = new Map(SEQUENCE.map(({ flags }) => [flags, tcpFrame(CLIENT, VIP, FIRST_PORT, flags)]));

/** Which 2^15 addresses of 198.18.0.0/15 clients have: those of a processor alone, or of both. */
function network(clients: number | "both"): number {
  return 0xc612_0000 + (clients === "both" ? PROCESSORS : clients) * 0x8000;
}

const VIP_NUMBER = Buffer.from(ipv4Bytes(VIP)).readUInt32BE();

/** The i-th of `flows` becomes the n-th connection of some clients. */
function setClient(flows: Flows, i: number, clients: number | "both", n: number): void {
  const mixed = Math.imul(n, 0x9e3779b1) & 0x7fff_ffff; // odd, so each of 2^31 numbers has its own
  flows.source[i] = network(clients) + (mixed >>> 16);
  flows.sourcePort[i] = mixed & 0xffff;
  flows.destination[i] = VIP_NUMBER;
  flows.destinationPort[i] = FIRST_PORT + (n % KINDS.length);
}

/** Each eighth of it begins with connections that both processors have at the same places, so that they meet there. */
function batchOf(processor: number, batch: number): Flows {
  const flows = emptyFlows(BATCH);
  for (let i = 0; i < BATCH; i++) {
    const isShared = i % (BATCH / 8) < SHARED / 8;
    setClient(flows, i, isShared ? "both" : processor, batch * BATCH + i);
  }
  return flows;
}

function keep(flows: Flows, wanted: (i: number) => boolean): Flows {
  const some = <A extends Uint32Array | Uint16Array>(column: A): A => column.filter((_, i) => wanted(i)) as A;
  return {
    source: some(flows.source),
    destination: some(flows.destination),
    sourcePort: some(flows.sourcePort),
    destinationPort: some(flows.destinationPort),
  };
}

t.test(`${CONNECTIONS} connections by ${METHODS.join(", ")}`, async (t) => {
  const buckets = Math.ceil(CAPACITY / ENTRIES_PER_BUCKET);
  const bed = await Bed.open({ buckets });
  bed.configure(SETUP);
  const table = bed.object.map("connection_table");
  const watch = new Watch(bed.object.map("real_load"), ALL_REAL_SERVERS);
  const preludes: Prelude[] = [];
  t.teardown(() => {
    for (const prelude of preludes) prelude.close();
    watch.close();
    bed.close();
  });
  for (let processor = 0; processor < PROCESSORS; processor++) {
    const prelude = await Prelude.load(LOCAL_ENDPOINTS + 1, bed.interfaces.c0);
    prelude.setProgram(bed.object.program("sluice"));
    preludes.push(prelude);
  }

  /** On a thread of its own. Goes round the flows if there are more packets. */
  const send = async (processor: number, flags: string, flows: Flows, packets = flows.source.length): Promise<void> => {
    const frame = FRAMES.get(flags);
    if (frame === undefined || packets === 0) return;
    preludes[processor]?.setPackets({ frame, flows });
    await preludes[processor]?.run(packets);
  };

  /** Opens a batch's connections and closes them, both processors going on to the next step together. */
  const churn = async (batch: number): Promise<void> => {
    const requests = preludes.map((_, processor) => batchOf(processor, batch));
    let replies: Flows[] | undefined;
    for (const { from, flags, first, eighths } of SEQUENCE) {
      if (from === "server") replies ??= await Promise.all(requests.map(async (flows) => repliesTo(table, flows)));
      const packets = from === "client" ? requests : (replies ?? []);
      const begin = (first * BATCH) / 8;
      const end = ((first + eighths) * BATCH) / 8;
      const some = packets.map((flows) => keep(flows, (i) => i >= begin && i < end && flows.source[i] !== 0));
      await Promise.all(some.map(async (flows, processor) => send(processor, flags, flows)));
    }
  };

  let isOver = false;
  /** Over and over, which the daemon's sweeper does not, so that it meets the others. */
  const sweepAllTheWhile = async (): Promise<void> => {
    const codec = bed.object.btf.codec<SweepRequest>("sweep_request");
    let first = 0;
    while (!isOver) {
      const request = { first, count: 512, removed: 0, orphans: 0, entries: 0, resets: 0, longest: 2e6 };
      const { data } = await bed.object.program("sweep").testRunAsync({ data: codec.encode(request) });
      first = (first + codec.decode(data).count) % buckets;
    }
  };

  await t.test("open and close", async (t) => {
    watch.start();
    const sweeping = sweepAllTheWhile();
    const start = performance.now();
    const drops: Record<string, number> = {};
    let opened = 0;
    for (let batch = 0; opened < CONNECTIONS; batch++) {
      await churn(batch);
      const counted = bed.counted();
      for (const { connections = 0 } of Object.values(counted.realServers)) opened += connections;
      for (const [reason, { packets }] of Object.entries(counted.drops)) drops[reason] = (drops[reason] ?? 0) + packets;
    }
    isOver = true;
    await sweeping;
    const seconds = (performance.now() - start) / 1000;
    const byProcessor = packetsByProcessor(bed);
    t.comment(`${opened} in ${seconds.toFixed(1)} s, packets by processor ${byProcessor.join(", ")}`);
    t.comment(
      `${watch.looks} looks at the counts, at most ${JSON.stringify(watch.highest)}; drops ${JSON.stringify(drops)}`,
    );
    t.ok(byProcessor.filter((packets) => packets > CONNECTIONS / 10).length > 1, "by more than one processor");
    t.ok(Math.min(...Object.values(watch.highest)) > 0, "every kind of count was seen above zero");
    t.strictSame([...watch.negative], [], "and none below");
    t.strictSame(
      bed.violations().filter((violation) => !passes(violation)),
      [],
    );
  });

  await t.test("nothing is left when all have expired", async (t) => {
    const start = performance.now();
    const seconds = (): number => (performance.now() - start) / 1000;
    while (bed.sweep().entries > 0 && seconds() < PATIENCE_SECONDS) await sleep(500);
    t.comment(`after ${seconds().toFixed(1)} s`);
    t.equal(bucketsInUse(table), 0, "the table is empty");
    t.strictSame(
      bed.loads().filter((load) => Object.values(load).some((count) => count !== 0)),
      [],
      "every count is 0",
    );
    t.strictSame(bed.violations(), []);
  });

  await t.test("every local port of fullnat is free", async (t) => {
    bed.setTimeouts({ ...TIMEOUTS, SYN_RECV: 60 });
    const clients = emptyFlows(LOCAL_ENDPOINTS + 1);
    for (let i = 0; i < clients.source.length; i++) setClient(clients, i, 0, i);
    clients.destinationPort.fill(FULLNAT_PORT);
    let replies = emptyFlows(clients.source.length);
    const isWaiting = (i: number): boolean => replies.source[i] === 0;
    // A bounded number of ports is tried for each SYN, so it takes some when few are left.
    for (let round = 0; round < 200; round++) {
      const waiting = keep(clients, isWaiting);
      if (waiting.source.length <= 1) break;
      await send(0, "S", waiting, Math.max(waiting.source.length, 50_000));
      replies = await repliesTo(table, clients);
    }
    const taken = new Set<string>();
    for (const [i, source] of replies.source.entries()) {
      if (!isWaiting(i)) taken.add(`${source} ${replies.destination[i]} ${replies.destinationPort[i]}`);
    }
    t.equal(taken.size, LOCAL_ENDPOINTS, "each is taken by a connection of its own");
    t.equal(keep(clients, isWaiting).source.length, 1, "and the next one finds none");
  });
});

/** How many of the clients' packets each processor forwarded. */
function packetsByProcessor(bed: Bed): number[] {
  const sums: number[] = [];
  for (let real = 0; real < ALL_REAL_SERVERS; real++) {
    for (const [cpu, { in_packets }] of (bed.map("real_counters").getPerCpu(real) ?? []).entries()) {
      sums[cpu] = (sums[cpu] ?? 0) + Number(in_packets);
    }
  }
  return sums;
}
