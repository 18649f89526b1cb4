/**
 * The test bed: the real object, loaded once a file with small maps and without pins, its maps filled from a readable
 * description, its XDP program run by BPF_PROG_TEST_RUN on one frame at a time.
 */
import { fileURLToPath } from "node:url";
import { type BpfMap, type BpfObject, openObject, RingBuffer } from "libbpf-ts";
import {
  AddressFamily,
  ConnectionState,
  type Event,
  ForwardingMethod,
  type Maps,
  Protocol,
  RealServerState,
  Scheduler,
  SchedulerFlag,
  type SweepRequest,
} from "../../src/dataplane/sluice.bpf.js";
import { ipv4Bytes, macBytes } from "./addresses.js";
import { age, ConnectionTable, type Entry, type Load } from "./connection-table.js";
import { type Counted, type CountedRealServer, Counting } from "./counted.js";
import { INTERFACES, type InterfaceName, network } from "./network.js";
import { type State, stateNumber, TICK_SECONDS, TIMEOUTS } from "./states.js";

export const OBJECT = fileURLToPath(new URL("../../../build/bpf/sluice.bpf.o", import.meta.url));

export type Method = "nat" | "dr" | "tun" | "fullnat";

export interface RealServerSetup {
  readonly address: string;
  /** nat, fullnat; left out: the service's. */
  readonly port?: number;
  readonly method: Method;
  /** Left out: 1. */
  readonly weight?: number;
  /** Out of its service; what its connections get. */
  readonly removed?: Removal | undefined;
  /** Connections from which on it takes no new ones, and below which it does again; left out: 0, none. */
  readonly thresholds?: readonly [upper: number, lower: number];
  /** fullnat: which of the setup's local addresses its connections come from, and which ports; left out: all, and the setup's. */
  readonly localPool?: { readonly addresses: readonly string[]; readonly ports: readonly [number, number] };
  /** The director's address towards it; left out: that on the next hop's interface. */
  readonly director?: string;
  readonly hop: { readonly mac: string; readonly interface?: InterfaceName; readonly mtu?: number } | "unresolved";
}

export type Removal = "drop" | "keep" | "reset";
const STATES = {
  drop: RealServerState.REAL_REMOVED,
  keep: RealServerState.REAL_DRAINING,
  reset: RealServerState.REAL_RESET,
} as const;

function stateOf(removed: Removal | undefined): RealServerState {
  return removed === undefined ? RealServerState.REAL_ACTIVE : STATES[removed];
}

export type SchedulerName = Lowercase<keyof typeof Scheduler extends `SCHEDULER_${infer N}` ? N : never>;

/** They look at the real servers as they are, quiesced ones too. */
const LIVE: readonly SchedulerName[] = ["lc", "wlc", "sed", "nq", "lblc", "lblcr", "fo", "ovf", "twos"];

const FLAGS = { fallback: SchedulerFlag.SCHEDULER_FALLBACK, port: SchedulerFlag.SCHEDULER_PORT } as const;

const PROTOCOLS = {
  tcp: Protocol.PROTOCOL_TCP,
  udp: Protocol.PROTOCOL_UDP,
  sctp: Protocol.PROTOCOL_SCTP,
  mark: Protocol.PROTOCOL_IP,
} as const;

export interface ServiceSetup {
  /** "mark": a firewall mark's service; its VIP is the mark as 0.0.0.mark, its port 0. */
  readonly protocol: keyof typeof PROTOCOLS;
  readonly vip: string;
  /** 0: any. */
  readonly port: number;
  /** Left out: none. The mask is over the client's address; left out: all of it. */
  readonly persistence?: { readonly seconds: number; readonly mask?: string };
  readonly onePacket?: boolean;
  /** Seconds, where they are not the setup's. */
  readonly timeouts?: Partial<Record<State, number>>;
  /** Left out: rr. */
  readonly scheduler?: SchedulerName;
  /** Of sh and mh; left out: none. */
  readonly schedulerFlags?: readonly ("fallback" | "port")[];
  readonly realServers: readonly RealServerSetup[];
  /** Places in realServers, in the order of the ring's slots; left out: each with a weight once, with a live scheduler each once. */
  readonly ring?: readonly number[];
}

/** What is left out matches anything. Ports are first and last. */
export interface MarkRuleSetup {
  readonly mark: number;
  /** Left out: IPv4, as are all addresses here. */
  readonly family?: "ipv6";
  readonly protocol?: "tcp" | "udp" | "sctp";
  readonly source?: { readonly address: string; readonly mask: string };
  readonly destination?: { readonly address: string; readonly mask: string };
  readonly sourcePorts?: readonly [number, number];
  readonly destinationPorts?: readonly [number, number];
}

/** As abi.h's struct settings has them. */
export interface SettingsSetup {
  readonly icmpRate?: number;
  readonly connReuseMode?: number;
  readonly expireNodestConn?: boolean;
  readonly expireQuiescentTemplate?: boolean;
  readonly natIcmpSend?: boolean;
  readonly sloppyTcp?: boolean;
  readonly sloppySctp?: boolean;
}

export interface Setup {
  readonly services: readonly ServiceSetup[];
  readonly localAddresses?: readonly string[];
  readonly localPorts?: readonly [number, number];
  /** Seconds; left out: IPVS's. */
  readonly timeouts?: Partial<Record<State, number>>;
  readonly markRules?: readonly MarkRuleSetup[];
  /** Left out: IPVS's defaults, and no ICMP errors. */
  readonly settings?: SettingsSetup;
  /** Left out: all. */
  readonly egress?: readonly InterfaceName[];
}

/** Fixed by the load; others are large enough for every setup in these tests. */
export interface Sizes {
  /** Of the connection table. */
  readonly buckets: number;
  /** Left out: 64. */
  readonly realServers?: number;
  /** Of each service's ring at most; left out: 4096, the largest mh table of these tests. */
  readonly ringSlots?: number;
}
const { CONNECTION_STATES } = ConnectionState;
const SERVICES = 16;
const REAL_SERVERS = 64;
const RING_SLOTS = 4096;
const CHUNK_SLOTS = 16;
/** Behind the rings of the services lie those of the local addresses: one for all real servers, then those of single ones. */
const POOL_CHUNKS = 16;
/** The table's hash is keyed with it; any will do, and the same in every run. */
const SEED = Array.from({ length: 6 }, (_, i) => (BigInt(i + 1) * 0x9e3779b97f4a7c15n) & 0xffffffffffffffffn);

export type Verdict = "aborted" | "drop" | "pass" | "transmit" | "redirect";
const VERDICTS: readonly Verdict[] = ["aborted", "drop", "pass", "transmit", "redirect"];

export interface Result {
  readonly verdict: Verdict;
  readonly frame: Uint8Array;
  readonly counted: Counted;
}

export const NO_LOAD = {
  active: 0,
  inactive: 0,
  templates: 0,
  one_packet: 0,
  overloaded: 0,
  last_weight: 0,
  upper: 0,
  lower: 0,
};

function addressValue(text: string): { bytes: Uint8Array } {
  const bytes = new Uint8Array(16);
  bytes.set(ipv4Bytes(text));
  return { bytes };
}

/** Which set of timeouts a service's real servers name. */
function timeoutSet({ timeouts }: ServiceSetup, serviceIndex: number): number {
  return timeouts === undefined ? 0 : serviceIndex + 1;
}

export class Bed {
  readonly interfaces: Readonly<Record<InterfaceName, number>>;
  readonly object: BpfObject;
  readonly sizes: Required<Sizes>;
  readonly #events: Uint8Array[] = [];
  readonly #ringBuffer: RingBuffer;
  #setup: Setup = { services: [] };
  #services: string[] = [];
  #realServers: CountedRealServer[] = [];
  /** Where the next pool of a single real server goes. */
  #poolChunk = 0;
  readonly #counting: Counting;

  private constructor(object: BpfObject, sizes: Required<Sizes>, interfaces: Bed["interfaces"]) {
    this.object = object;
    this.sizes = sizes;
    this.interfaces = interfaces;
    this.#ringBuffer = new RingBuffer(object.map("events"), (records) => this.#events.push(...records));
    this.#counting = new Counting(object);
  }

  /** Must run in a network namespace that may be changed: see own-namespace.ts. */
  static async open(
    { buckets, realServers = REAL_SERVERS, ringSlots = RING_SLOTS }: Sizes = { buckets: 16 },
  ): Promise<Bed> {
    const sizes = { buckets, realServers, ringSlots: Math.ceil(ringSlots / CHUNK_SLOTS) * CHUNK_SLOTS };
    const open = openObject(OBJECT);
    open.setRodata({ connection_buckets: sizes.buckets, hash_seed: SEED });
    open.map("connection_table").setMaxEntries(sizes.buckets);
    for (const name of ["services", "cursors", "service_index", "vips"]) {
      open.map(name).setMaxEntries(SERVICES);
    }
    for (const name of ["real_servers", "real_load", "real_counters", "local_pools", "nat_endpoints"]) {
      open.map(name).setMaxEntries(realServers);
    }
    open.map("rings").setMaxEntries((SERVICES * sizes.ringSlots) / CHUNK_SLOTS + POOL_CHUNKS);
    return new Bed(await open.load(), sizes, network());
  }

  get #sharedPool(): number {
    return (SERVICES * this.sizes.ringSlots) / CHUNK_SLOTS;
  }

  close(): void {
    this.#ringBuffer.close();
    this.object.close();
  }

  /** A map of the object with its types. */
  map<Name extends keyof Maps>(name: Name): BpfMap<Maps[Name]["key"], Maps[Name]["value"]> {
    return this.object.map<Maps[Name]["key"], Maps[Name]["value"]>(name);
  }

  /** Empties every map and fills them as the control plane would. */
  configure(setup: Setup): void {
    this.#clear();
    this.#setup = setup;
    this.#services = [];
    this.#realServers = [];
    this.setTimeouts(setup.timeouts ?? {});
    this.#setMarkRules(setup.markRules ?? []);
    this.setSettings(setup.settings ?? {});
    const locals = setup.localAddresses ?? [];
    for (const [index, address] of locals.entries()) this.map("local_addresses").set(index, addressValue(address));
    this.#setRing(this.#sharedPool, [...locals.keys()]);
    this.#poolChunk = this.#sharedPool + Math.ceil(locals.length / CHUNK_SLOTS);
    for (const name of setup.egress ?? (Object.keys(this.interfaces) as InterfaceName[])) {
      this.map("egress").set(this.interfaces[name], this.interfaces[name]);
    }
    for (const service of setup.services) this.#addService(service);
    this.#counting.follow({ services: this.#services, realServers: this.#realServers });
  }

  /** Seconds, the others as IPVS has them; for what is opened or moved on from now. Set 0 is that of services without timeouts of their own. */
  setTimeouts(timeouts: Partial<Record<State, number>>, set = 0): void {
    const ticks: number[] = [];
    for (const [state, seconds] of Object.entries({ ...TIMEOUTS, ...timeouts })) {
      ticks[stateNumber(state as State)] = Math.round(seconds / TICK_SECONDS);
    }
    this.map("timeouts").set(set, {
      ticks: Array.from({ length: CONNECTION_STATES }, (_, state) => ticks[state] ?? 0),
    });
  }

  setSettings(settings: SettingsSetup): void {
    const bit = (on: boolean | undefined): number => (on ? 1 : 0);
    this.map("settings").set(0, {
      mark_rules: { first: 0, count: this.#setup.markRules?.length ?? 0 },
      icmp_rate: settings.icmpRate ?? 0,
      conn_reuse_mode: settings.connReuseMode ?? 1,
      expire_nodest_conn: bit(settings.expireNodestConn),
      expire_quiescent_template: bit(settings.expireQuiescentTemplate),
      nat_icmp_send: bit(settings.natIcmpSend),
      sloppy_tcp: bit(settings.sloppyTcp),
      sloppy_sctp: bit(settings.sloppySctp),
    });
  }

  /** Other rules from now on. */
  changeMarkRules(markRules: readonly MarkRuleSetup[]): void {
    this.#setup = { ...this.#setup, markRules };
    this.#setMarkRules(markRules);
    this.setSettings(this.#setup.settings ?? {});
  }

  #setMarkRules(rules: readonly MarkRuleSetup[]): void {
    const any = { address: "0.0.0.0", mask: "0.0.0.0" };
    for (const [index, rule] of rules.entries()) {
      const { source = any, destination = any } = rule;
      this.map("mark_rules").set(index, {
        source: addressValue(source.address),
        source_mask: addressValue(source.mask),
        destination: addressValue(destination.address),
        destination_mask: addressValue(destination.mask),
        source_ports: [...(rule.sourcePorts ?? [0, 65535])],
        destination_ports: [...(rule.destinationPorts ?? [0, 65535])],
        mark: rule.mark,
        protocol: rule.protocol === undefined ? Protocol.PROTOCOL_IP : PROTOCOLS[rule.protocol],
        family: rule.family === undefined ? AddressFamily.FAMILY_IPV4 : AddressFamily.FAMILY_IPV6,
      });
    }
  }

  #setRing(chunk: number, ring: readonly number[]): void {
    for (let at = 0; at < ring.length; at += CHUNK_SLOTS) {
      const slots = Array.from({ length: CHUNK_SLOTS }, (_, i) => ring[at + i] ?? 0);
      this.map("rings").set(chunk + at / CHUNK_SLOTS, { slots });
    }
  }

  #clear(): void {
    for (const name of ["service_index", "vips", "egress", "destinations", "nat_endpoints"] as const) {
      const map = this.object.map(name);
      for (const key of [...map.keys()]) map.delete(key);
    }
    for (const name of [
      "connection_table",
      "services",
      "cursors",
      "real_servers",
      "real_load",
      "local_pools",
    ] as const) {
      const map = this.object.map(name);
      const key = new Uint8Array(4);
      const zero = new Uint8Array(map.valueSize);
      for (let index = 0; index < map.maxEntries; index++) {
        new DataView(key.buffer).setUint32(0, index, true);
        map.setRaw(key, zero);
      }
    }
    this.#events.length = 0;
  }

  #addService(service: ServiceSetup): void {
    const index = this.#services.length;
    const name = `${service.protocol}:${service.vip}:${service.port}`;
    this.#services.push(name);
    const key = {
      vip: addressValue(service.vip),
      port: service.port,
      protocol: PROTOCOLS[service.protocol],
      family: AddressFamily.FAMILY_IPV4,
    } as const;
    const first = this.#realServers.length;
    if (service.timeouts !== undefined) {
      this.setTimeouts({ ...this.#setup.timeouts, ...service.timeouts }, timeoutSet(service, index));
    }
    for (const real of service.realServers) this.#addRealServer(real, service, index);

    const places = [...service.realServers.keys()];
    const weighted = places.filter((i) => (service.realServers[i]?.weight ?? 1) > 0);
    const scheduler = service.scheduler ?? "rr";
    const ring = (service.ring ?? (LIVE.includes(scheduler) ? places : weighted)).map((place) => first + place);
    if (ring.length > this.sizes.ringSlots)
      throw new RangeError(`a ring has at most ${this.sizes.ringSlots} slots here`);
    const chunk = (index * this.sizes.ringSlots) / CHUNK_SLOTS;
    this.#setRing(chunk, ring);
    const { persistence } = service;
    this.map("services").set(index, {
      ...key,
      scheduler: Scheduler[`SCHEDULER_${scheduler.toUpperCase() as Uppercase<SchedulerName>}`],
      scheduler_flags: (service.schedulerFlags ?? []).reduce<number>(
        (bits, flag) => bits | FLAGS[flag],
        0,
      ) as SchedulerFlag,
      ring: { chunk, length: ring.length },
      one_packet: service.onePacket ? 1 : 0,
      persistence: Math.round((persistence?.seconds ?? 0) / TICK_SECONDS),
      persistence_mask: addressValue(persistence?.mask ?? "255.255.255.255"),
    });
    this.map("service_index").set(key, index);
    if (service.protocol === "mark") return;
    const vip = { address: key.vip, family: key.family };
    this.map("vips").set(vip, { services: (this.map("vips").get(vip)?.services ?? 0) + 1 });
  }

  #addRealServer(real: RealServerSetup, service: ServiceSetup, serviceIndex: number): void {
    const index = this.#realServers.length;
    const port = real.port ?? service.port;
    const hop = real.hop === "unresolved" ? undefined : real.hop;
    const by = hop?.interface ?? "r0";
    const name = `${this.#services[serviceIndex] ?? ""} ${real.address}:${port}`;
    this.#realServers.push({ name, service: serviceIndex });
    this.map("real_servers").set(index, {
      address: addressValue(real.address),
      director: addressValue(real.director ?? INTERFACES[by].address),
      ifindex: hop === undefined ? 0 : this.interfaces[by],
      destination_mac: hop === undefined ? new Uint8Array(6) : macBytes(hop.mac),
      source_mac: hop === undefined ? new Uint8Array(6) : macBytes(INTERFACES[by].mac),
      mtu: hop === undefined ? 0 : (hop.mtu ?? 1500),
      port,
      method: ForwardingMethod[`METHOD_${real.method.toUpperCase() as Uppercase<Method>}`],
      family: AddressFamily.FAMILY_IPV4,
      state: stateOf(real.removed),
      timeouts: timeoutSet(service, serviceIndex),
      service: serviceIndex,
      weight: real.weight ?? 1,
    });
    const [upper, lower] = real.thresholds ?? [0, 0];
    this.map("real_load").set(index, { ...NO_LOAD, upper, lower });
    this.#addLocalPool(index, real);
    if (real.method === "nat") {
      const protocol = PROTOCOLS[service.protocol];
      const endpoint = { vip: addressValue(real.address), port, protocol, family: AddressFamily.FAMILY_IPV4 } as const;
      this.map("nat_endpoints").set(endpoint, index);
    }
  }

  #addLocalPool(index: number, { localPool }: RealServerSetup): void {
    const all = this.#setup.localAddresses ?? [];
    const ring = { chunk: this.#sharedPool, length: all.length };
    if (localPool !== undefined) {
      Object.assign(ring, { chunk: this.#poolChunk++, length: localPool.addresses.length });
      if (ring.length > CHUNK_SLOTS) throw new RangeError(`a pool has at most ${CHUNK_SLOTS} addresses here`);
      this.#setRing(
        ring.chunk,
        localPool.addresses.map((address) => all.indexOf(address)),
      );
    }
    const [first_port, last_port] = localPool?.ports ?? this.#setup.localPorts ?? [1024, 32767];
    this.map("local_pools").set(index, { ring, first_port, last_port });
  }

  /** Changes the setup of a real server that is there: its service's n-th, from 0. */
  changeRealServer(service: number, place: number, change: Partial<RealServerSetup>): void {
    const before = this.#setup.services.slice(0, service);
    const index = before.reduce((count, { realServers }) => count + realServers.length, 0) + place;
    const old = this.map("real_servers").get(index);
    if (old === undefined) throw new RangeError(`there is no real server ${index}`);
    this.map("real_servers").set(index, {
      ...old,
      ...("removed" in change && { state: stateOf(change.removed) }),
      ...(change.weight !== undefined && { weight: change.weight }),
      ...(change.hop === "unresolved" && { ifindex: 0 }),
    });
    if (change.thresholds === undefined) return;
    const [upper, lower] = change.thresholds;
    this.map("real_load").set(index, { ...(this.map("real_load").get(index) ?? NO_LOAD), upper, lower });
  }

  /** As if so much time had gone by: all that is in the table expires so much sooner. */
  advance(seconds: number): void {
    age(this.object.map("connection_table"), Math.round(seconds / TICK_SECONDS));
  }

  /** Sends one frame; it arrives on c0 unless another interface is named. */
  run(frame: Uint8Array, on: InterfaceName = "c0"): Result {
    const context = new DataView(new ArrayBuffer(24)); // struct xdp_md: data, data_end, data_meta, ingress_ifindex, ...
    context.setUint32(4, frame.length, true);
    context.setUint32(12, this.interfaces[on], true);
    const { returnValue, data } = this.object
      .program("sluice")
      .testRun({ data: frame, context: new Uint8Array(context.buffer), dataOutSize: frame.length + 256 });
    const verdict = VERDICTS[returnValue];
    if (verdict === undefined) throw new RangeError(`${returnValue} is no XDP verdict`);
    return { verdict, frame: data, counted: this.counted() };
  }

  /** What was counted since the last frame or call. */
  counted(): Counted {
    return this.#counting.take();
  }

  /** Runs the maintenance program over a slice of buckets; all, unless others are named, however long it takes. */
  sweep(first = 0, count = this.sizes.buckets, longest = 0xffff_ffff): SweepRequest {
    const codec = this.object.btf.codec<SweepRequest>("sweep_request");
    const request = codec.encode({ first, count, removed: 0, orphans: 0, entries: 0, resets: 1, longest });
    return codec.decode(this.object.program("sweep").testRun({ data: request, dataOutSize: codec.size }).data);
  }

  /** Events since the last call, once the event loop had the chance to deliver them. */
  async events(): Promise<Event[]> {
    await new Promise((resolve) => setTimeout(resolve, 5));
    const codec = this.object.btf.codec<Event>("event");
    return this.#events.splice(0).map((record) => codec.decode(record));
  }

  table(): ConnectionTable {
    return new ConnectionTable(this.object.map("connection_table"), { buckets: this.sizes.buckets, seed: SEED });
  }

  /** The connections in the table, by their forward entries. */
  connections(): Entry[] {
    return this.table()
      .entries()
      .filter(({ direction }) => direction === "forward");
  }

  /** The persistence templates in the table. */
  templates(): Entry[] {
    return this.table()
      .entries()
      .filter(({ direction }) => direction === "none");
  }

  /** What is counted for the n-th real server of all, from 0. */
  load(index: number): Pick<Load, "active" | "inactive"> {
    const { active, inactive } = this.loads()[index] ?? NO_LOAD;
    return { active, inactive };
  }

  loads(): Load[] {
    return Array.from({ length: this.sizes.realServers }, (_, index) => {
      const { active, inactive, templates, one_packet } = this.map("real_load").get(index) ?? NO_LOAD;
      return { active, inactive, templates, onePacket: one_packet };
    });
  }

  /** What does not hold of the table's and the counts' promises: nothing, always. */
  violations(): string[] {
    return this.table().violations(this.loads());
  }
}
