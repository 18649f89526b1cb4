/**
 * The packet rows: what is measured, of which state of the tables, with which packets.
 *
 * All packets come in on the interface towards the clients, and the real servers are behind it as well, so they leave by
 * XDP_TX as the references' do; the rows named -redirect leave by another interface.
 */
import { ConnectionDirection } from "../../src/dataplane/sluice.bpf.js";
import { ipv4Bytes } from "../packet/addresses.js";
import type { Bed, Method, SchedulerName, ServiceSetup, Setup } from "../packet/bed.js";
import { CLIENT, realAddress, realMac, VIP } from "../packet/network.js";
import { clientFlows, emptyFlows, everyNth, type Flows, shuffle } from "../prelude/flows.js";
import { type Bench, type Contender, type RowResult, TABLE_ENTRIES } from "./bench.js";
import { echoFrame, tcpFrame, udpFrame } from "./frames.js";
import { pairwise, summarize } from "./statistics.js";

export interface Row {
  readonly name: string;
  /** Left out by --quick. */
  readonly slow: boolean;
  readonly run: (bench: Bench) => Promise<RowResult>;
}

/** enum xdp_action of linux/bpf.h. */
const XDP_PASS = 2;
const XDP_TX = 3;
const XDP_REDIRECT = 4;

const REAL_SERVERS = 60;
const PORT = 80;
const REAL_PORT = 8080;
const LOCAL_ADDRESSES = ["10.0.0.201", "10.0.0.202", "10.0.0.203", "10.0.0.204"];
/** A prime of mh's list (docs/reference.md). */
const RING_SLOTS = 4093;
/** Of a sample, where the flows are fewer: some milliseconds, less than the time slice that another process would get. */
const PACKETS = 50_000;

function addressNumber(text: string): number {
  return new DataView(ipv4Bytes(text).buffer).getUint32(0);
}

/** By which interface packets leave: the one they came in on, or another. */
type Way = "transmit" | "redirect";

function setupFor(method: Method, protocol: "tcp" | "udp", way: Way): Setup {
  const mapped = method === "nat" || method === "fullnat";
  const service: ServiceSetup = {
    protocol,
    vip: VIP,
    port: PORT,
    scheduler: "mh",
    realServers: Array.from({ length: REAL_SERVERS }, (_, i) => ({
      address: realAddress(i + 1),
      method,
      ...(mapped && { port: REAL_PORT }),
      hop: { mac: realMac(i + 1), interface: way === "transmit" ? "c0" : "r0" },
    })),
    ring: Array.from({ length: RING_SLOTS }, (_, slot) => slot % REAL_SERVERS),
  };
  return { services: [service], localAddresses: LOCAL_ADDRESSES };
}

const verdictOf = { transmit: XDP_TX, redirect: XDP_REDIRECT } as const;

function requestFlows(count: number): Flows {
  return clientFlows(count, addressNumber(VIP), PORT);
}

function requestFrame(flags: string): Uint8Array {
  return tcpFrame(CLIENT, VIP, PORT, flags);
}

function replyFrame(flags: string): Uint8Array {
  return tcpFrame(realAddress(1), CLIENT, 0x8000, flags);
}

/** What the replies to all connections look like when they come from the real servers: the reverse entries of the table. */
function replyFlows(bed: Bed): Flows {
  const table = bed.object.map("connection_table");
  const bucket = bed.object.btf.codec("bucket");
  const entry = bed.object.btf.codec("connection");
  const at = {
    tags: bucket.offsetOf("tags"),
    slots: bucket.offsetOf("slots"),
    direction: entry.offsetOf("direction"),
    source: entry.offsetOf("flow.source"),
    destination: entry.offsetOf("flow.destination"),
    sourcePort: entry.offsetOf("flow.source_port"),
    destinationPort: entry.offsetOf("flow.destination_port"),
  };
  const slotsPerBucket = Math.floor((bucket.size - at.slots) / entry.size);
  const found: [number, number, number, number][] = [];
  const key = new DataView(new ArrayBuffer(4));
  for (let index = 0; index < table.maxEntries; index++) {
    key.setUint32(0, index, true);
    const value = table.getRaw(new Uint8Array(key.buffer));
    if (value === undefined) throw new RangeError(`bucket ${index} is not in the table`);
    const view = new DataView(value.buffer, value.byteOffset, value.byteLength);
    for (let slot = 0; slot < slotsPerBucket; slot++) {
      const start = at.slots + slot * entry.size;
      if (view.getUint16(at.tags + 2 * slot, true) === 0) continue;
      if (view.getUint8(start + at.direction) !== ConnectionDirection.DIRECTION_REVERSE) continue;
      found.push([
        view.getUint32(start + at.source),
        view.getUint32(start + at.destination),
        view.getUint16(start + at.sourcePort),
        view.getUint16(start + at.destinationPort),
      ]);
    }
  }
  const flows = emptyFlows(found.length);
  for (const [i, [source, destination, sourcePort, destinationPort]] of found.entries()) {
    flows.source[i] = source;
    flows.destination[i] = destination;
    flows.sourcePort[i] = sourcePort;
    flows.destinationPort[i] = destinationPort;
  }
  shuffle(flows, 2);
  return flows;
}

interface Established {
  readonly requests: Flows;
  readonly replies: Flows;
}

/** Opens connections as clients and real servers do, so that all are ESTABLISHED. */
async function establish(bench: Bench, bed: Bed, method: Method, requests: Flows, way: Way): Promise<Established> {
  const program = bed.object.program("sluice");
  const count = requests.source.length;
  const verdict = verdictOf[way];
  bed.configure(setupFor(method, "tcp", way));
  await bench.send(program, { frame: requestFrame("S"), flows: requests }, count, verdict);
  const twoWays = method === "nat" || method === "fullnat";
  const replies = twoWays ? replyFlows(bed) : emptyFlows(0);
  if (twoWays) {
    if (replies.source.length !== count) {
      throw new Error(`${count} connections by ${method} were opened and ${replies.source.length} are in the table`);
    }
    await bench.send(program, { frame: replyFrame("SA"), flows: replies }, count, XDP_TX);
  }
  await bench.send(program, { frame: requestFrame("A"), flows: requests }, count, verdict);
  return { requests, replies };
}

function plural(count: number): string {
  return `${count.toLocaleString("en")} ${count === 1 ? "connection" : "connections"}`;
}

function floorFor(bench: Bench, method: Method): Contender {
  return method === "tun"
    ? { name: "constant IPIP", program: bench.reference("push_ipip") }
    : { name: "MAC swap", program: bench.reference("swap_macs") };
}

function established(method: Method, count: number, way: Way = "transmit"): Row {
  const name = `${method}-${count}${way === "redirect" ? "-redirect" : ""}`;
  const title = `${method}, ${plural(count)}${way === "redirect" ? ", out by another interface" : ""}`;
  return {
    name,
    slow: count > 100_000,
    run: async (bench) => {
      const key = `${method} ${count} ${way}`;
      const { requests } = await bench.scene(key, () => establish(bench, bench.bed, method, requestFlows(count), way));
      const packets = { frame: requestFrame("A"), flows: requests };
      await bench.send(bench.sluice, packets, count, verdictOf[way]);
      const sluice = { name: "sluice", program: bench.sluice };
      const contenders = [floorFor(bench, method), sluice] as const;
      return bench.compare({ name, title, packets, packetsPerSample: Math.max(PACKETS, count), contenders });
    },
  };
}

function replies(method: "nat" | "fullnat", count: number): Row {
  const name = `${method}-${count}-reply`;
  return {
    name,
    slow: count > 100_000,
    run: async (bench) => {
      const key = `${method} ${count} transmit`;
      const state = await bench.scene(key, () => establish(bench, bench.bed, method, requestFlows(count), "transmit"));
      const packets = { frame: replyFrame("A"), flows: state.replies };
      await bench.send(bench.sluice, packets, count, XDP_TX);
      const sluice = { name: "sluice", program: bench.sluice };
      const title = `${method}, ${plural(count)}, replies`;
      const contenders = [floorFor(bench, method), sluice] as const;
      return bench.compare({ name, title, packets, packetsPerSample: Math.max(PACKETS, count), contenders });
    },
  };
}

function establishedUdp(method: Method, count: number): Row {
  const name = `udp-${method}-${count}`;
  return {
    name,
    slow: false,
    run: async (bench) => {
      const packets = { frame: udpFrame(CLIENT, VIP, PORT), flows: requestFlows(count) };
      await bench.scene(name, async () => {
        bench.bed.configure(setupFor(method, "udp", "transmit"));
        await bench.send(bench.sluice, packets, count, XDP_TX);
      });
      const title = `UDP by ${method}, ${plural(count)}`;
      const contenders = [floorFor(bench, method), { name: "sluice", program: bench.sluice }] as const;
      return bench.compare({ name, title, packets, packetsPerSample: PACKETS, contenders });
    },
  };
}

/** The base of "new" flows: 17 bits are added to it. */
const NEW_CLIENTS = "198.18.0.0";

function newFrame(flags: string): Uint8Array {
  return tcpFrame(NEW_CLIENTS, VIP, PORT, flags);
}

/** Every packet opens a connection, in a table that each sample begins with empty. */
function opening(method: Method): Row {
  const name = `syn-${method}`;
  return {
    name,
    slow: false,
    run: async (bench) => {
      const setup = setupFor(method, "tcp", "transmit");
      bench.bed.configure(setup);
      const packets = { frame: newFrame("S"), flows: "new" } as const;
      await bench.send(bench.sluice, packets, 1000, XDP_TX);
      const prepare = (): void => bench.bed.configure(setup);
      const title = `new SYN each, ${method}, table not full`;
      const contenders = [floorFor(bench, method), { name: "sluice", program: bench.sluice, prepare }] as const;
      return bench.compare({ name, title, packets, packetsPerSample: PACKETS, contenders });
    },
  };
}

/** The same with a table in which a connection has to go for each that comes, or in which none may go. */
function openingInFullTable(method: Method, filled: "half-open" | "established"): Row {
  const name = `syn-${method}-full-${filled}`;
  return {
    name,
    slow: true,
    run: async (bench) => {
      bench.bed.configure(setupFor(method, "tcp", "transmit"));
      const count = Math.round(1.6 * TABLE_ENTRIES);
      const packets = { frame: newFrame("S"), flows: "new" } as const;
      bench.prelude.setProgram(bench.sluice);
      bench.prelude.setPackets(packets);
      await bench.prelude.run(count);
      if (filled === "established") {
        bench.prelude.setPackets({ frame: newFrame("A"), flows: "new" });
        await bench.prelude.run(count);
      }
      const title = `new SYN each, ${method}, table full of ${filled} connections`;
      const contenders = [floorFor(bench, method), { name: "sluice", program: bench.sluice }] as const;
      const unseen = { ...packets, first: count };
      return bench.compare({ name, title, packets: unseen, packetsPerSample: PACKETS, contenders });
    },
  };
}

function notForUs(count: number): Row {
  const name = `pass-${count}`;
  return {
    name,
    slow: false,
    run: async (bench) => {
      bench.bed.configure(setupFor("dr", "tcp", "transmit"));
      const other = "10.0.0.99";
      const packets = {
        frame: tcpFrame(CLIENT, other, PORT, "A"),
        flows: clientFlows(count, addressNumber(other), PORT),
      };
      await bench.send(bench.sluice, packets, count, XDP_PASS);
      const title = `not for us, ${count === 1 ? "1 flow" : `${count.toLocaleString("en")} flows`}`;
      const contenders = [floorFor(bench, "dr"), { name: "sluice", program: bench.sluice }] as const;
      return bench.compare({ name, title, packets, packetsPerSample: PACKETS, contenders });
    },
  };
}

function echo(): Row {
  return {
    name: "echo",
    slow: false,
    run: async (bench) => {
      bench.bed.configure(setupFor("dr", "tcp", "transmit"));
      const packets = { frame: echoFrame(CLIENT, VIP), flows: clientFlows(1000, addressNumber(VIP), 0) };
      await bench.send(bench.sluice, packets, 1000, XDP_TX);
      const contenders = [floorFor(bench, "dr"), { name: "sluice", program: bench.sluice }] as const;
      return bench.compare({ name: "echo", title: "ping to a VIP", packets, packetsPerSample: PACKETS, contenders });
    },
  };
}

/**
 * What a full table costs: the same working set, a tenth of the table's configured capacity, is looked up in a table that holds nothing
 * else and in one that is filled to its capacity.
 */
function load(): Row {
  const entries = 2 ** 20;
  return {
    name: "load",
    slow: false,
    run: async (bench) => {
      const { all, working, light, full } = await bench.scene("load", async () => {
        const flows = requestFlows(entries);
        const beds = { light: await bench.anotherBed(entries), full: await bench.anotherBed(entries) };
        const some = everyNth(flows, 10);
        await establish(bench, beds.light, "dr", some, "transmit");
        await establish(bench, beds.full, "dr", flows, "transmit");
        return { all: flows, working: some, ...beds };
      });
      const packets = { frame: requestFrame("A"), flows: working };
      const result = await bench.compare({
        name: "load",
        title: `dr, ${plural(working.source.length)} of a table for ${all.source.length.toLocaleString("en")}`,
        packets,
        packetsPerSample: 2 * working.source.length,
        contenders: [
          floorFor(bench, "dr"),
          { name: "table at 10 %", program: light.object.program("sluice") },
          { name: "table at 100 %", program: full.object.program("sluice") },
        ],
      });
      const [atTenth, atFull] = result.measured;
      if (atTenth === undefined || atFull === undefined) throw new RangeError("two programs were measured");
      const above = (samples: readonly number[]) => pairwise(samples, result.floor.samples, (a, b) => a - b);
      return {
        ...result,
        ratio: summarize(pairwise(above(atFull.samples), above(atTenth.samples), (a, b) => a / b)),
      };
    },
  };
}

/** Frames that go out over a veth: what of the difference is left when receiving and sending are paid as well. */
function live(count: number): Row {
  const name = `live-dr-${count}`;
  return {
    name,
    slow: true,
    run: async (bench) => {
      await bench.swallow("c0-peer");
      const key = `dr ${count} transmit`;
      const { requests } = await bench.scene(key, () =>
        establish(bench, bench.bed, "dr", requestFlows(count), "transmit"),
      );
      const packets = { frame: requestFrame("A"), flows: requests };
      const contenders = [floorFor(bench, "dr"), { name: "sluice", program: bench.sluice }] as const;
      const title = `dr, ${plural(count)}, frames that leave by veth`;
      return bench.compare({ name, title, packets, packetsPerSample: PACKETS, contenders, live: true });
    },
  };
}

/** What each scheduler needs as its ring, of so many real servers: for the cost of a pick only its length counts. */
function ringFor(scheduler: SchedulerName, servers: number): readonly number[] | undefined {
  const table = (slots: number): number[] => Array.from({ length: slots }, (_, slot) => slot % servers);
  switch (scheduler) {
    case "mh":
      return table(servers > 256 ? MH_SLOTS : 4093);
    case "sh":
    case "dh":
      return table(256);
    default:
      return undefined;
  }
}

/** The control plane's choice for 4096 real servers (src/model/service.ts, TABLE_SIZES). */
const MH_SLOTS = 131_071;
const MOST_SERVERS = 4096;
const MAX_WEIGHT = 65_535;
const PICK_ENTRIES = 2 ** 16;

/** Every packet opens a connection of a service with so many real servers. */
function picking(scheduler: SchedulerName, servers: number): Row {
  const name = `pick-${scheduler}-${servers}`;
  return {
    name,
    slow: servers === MOST_SERVERS,
    run: async (bench) => {
      const bed = await bench.scene("pick", () =>
        bench.anotherBed(PICK_ENTRIES, { realServers: MOST_SERVERS, ringSlots: MH_SLOTS }),
      );
      const ring = ringFor(scheduler, servers);
      const setup: Setup = {
        services: [
          {
            protocol: "tcp",
            vip: VIP,
            port: PORT,
            scheduler,
            ...(ring !== undefined && { ring }),
            realServers: Array.from({ length: servers }, (_, n) => ({
              address: `10.1.${1 + (n >> 8)}.${n & 255}`,
              method: "dr" as const,
              weight: MAX_WEIGHT, // or ovf would soon have none that takes another connection
              hop: { mac: realMac(1), interface: "c0" as const },
            })),
          },
        ],
      };
      const program = bed.object.program("sluice");
      const packets = { frame: newFrame("S"), flows: "new" } as const;
      const prepare = (): void => bed.configure(setup);
      prepare();
      await bench.send(program, packets, 100, XDP_TX);
      const title = `new SYN each, ${scheduler}, ${servers.toLocaleString("en")} real servers`;
      const contenders = [floorFor(bench, "dr"), { name: "sluice", program, prepare }] as const;
      return bench.compare({
        name,
        title,
        packets,
        packetsPerSample: servers === MOST_SERVERS ? 2000 : 20_000,
        contenders,
      });
    },
  };
}

const PICKED: readonly SchedulerName[] = [
  "rr",
  "wrr",
  "lc",
  "wlc",
  "sh",
  "dh",
  "sed",
  "nq",
  "lblc",
  "lblcr",
  "mh",
  "fo",
  "ovf",
  "twos",
];

const COUNTS = [1, 1000, 100_000, 1_000_000];

/** All rows, those that share a state of the tables next to each other. */
export const rows: readonly Row[] = [
  ...COUNTS.map((count) => established("dr", count)),
  ...COUNTS.map((count) => established("tun", count)),
  ...COUNTS.flatMap((count) => [established("nat", count), replies("nat", count)]),
  ...COUNTS.flatMap((count) => [established("fullnat", count), replies("fullnat", count)]),
  established("dr", 1000, "redirect"),
  establishedUdp("dr", 1000),
  establishedUdp("nat", 1000),
  opening("dr"),
  opening("nat"),
  opening("fullnat"),
  openingInFullTable("dr", "half-open"),
  openingInFullTable("dr", "established"),
  notForUs(1),
  notForUs(100_000),
  ...[16, 256, MOST_SERVERS].flatMap((servers) => PICKED.map((scheduler) => picking(scheduler, servers))),
  echo(),
  load(),
  live(1),
  live(100_000),
];
