/**
 * The director of a replay: Sluice's own data plane, loaded, attached and published to as the daemon does it, whose pinned program
 * is run on one packet at a time.
 */
import { execFileSync } from "node:child_process";
import { readFileSync } from "node:fs";
import { BpfMap, Program } from "libbpf-ts";
import { DataPlane, type DataPlaneOptions } from "../../src/dataplane/index.js";
import { layout, type Maps } from "../../src/dataplane/sluice.bpf.js";
import {
  type DesiredState,
  EMPTY_STATE,
  type RealServerCounters,
  realServerName,
  type ServiceKey,
  serviceName,
  type VirtualService,
  validateDesiredState,
} from "../../src/model/index.js";
import { build, type Frame, type Layer, parse } from "../packet/frame.js";
import { INTERFACES, network, ROUTER_MAC, realAddress, realMac } from "../packet/network.js";
import type { Command } from "./command.js";
import type { ListedConnection, Outgoing, Side } from "./trace.js";

const INSTANCE = `replay-${process.pid}`;
const PINS = `/sys/fs/bpf/${INSTANCE}`;
const LIMITS = { connections: 8192, services: 32, realServers: 256, ringSlots: 65_536 };
/** IPVS has one size compiled in (CONFIG_IP_VS_MH_TAB_INDEX = 12). */
const KERNEL_TABLE_SIZE = 4093;
const REAL_SERVERS = 40;

export interface Packet {
  readonly side: Side;
  readonly protocol: "tcp" | "udp";
  readonly flags: string;
  readonly source: string;
  readonly sourcePort: number;
  readonly destination: string;
  readonly destinationPort: number;
  /** Bytes of payload. */
  readonly length: number;
}

export type Fate =
  /** The local stack gets it. */
  | { readonly verdict: "pass" }
  | { readonly verdict: "drop"; readonly reason: string | undefined }
  | { readonly verdict: "forward"; readonly out: Outgoing };

const quiet = { debug: () => undefined, info: () => undefined, warn: () => undefined };

/** In this namespace: the director's interfaces, routes and neighbours. */
export function prepareNetwork(): void {
  network();
  for (let n = 1; n <= REAL_SERVERS; n++) {
    const neighbour = [realAddress(n), "lladdr", realMac(n), "dev", "r0", "nud", "permanent"];
    execFileSync("ip", ["neighbour", "replace", ...neighbour]);
  }
}

export class Director {
  readonly #dataPlane: DataPlane;
  readonly #program: Program;
  readonly #sweeper: Program;
  readonly #buckets: number;
  readonly #cursors: BpfMap<Maps["cursors"]["key"], Maps["cursors"]["value"]>;
  readonly #services: BpfMap<Maps["services"]["key"], Maps["services"]["value"]>;
  readonly #rings: BpfMap<Maps["rings"]["key"], Maps["rings"]["value"]>;
  readonly #realServers: BpfMap<Maps["real_servers"]["key"], Maps["real_servers"]["value"]>;
  readonly #errors: unknown[];
  #desired: DesiredState = EMPTY_STATE;

  private constructor(dataPlane: DataPlane, errors: unknown[]) {
    this.#dataPlane = dataPlane;
    this.#errors = errors;
    this.#program = Program.open(`${PINS}/programs/sluice`);
    this.#sweeper = Program.open(`${PINS}/programs/sweep`);
    using table = BpfMap.open(`${PINS}/maps/connection_table`);
    this.#buckets = table.maxEntries;
    this.#cursors = BpfMap.open(`${PINS}/maps/cursors`);
    this.#services = BpfMap.open(`${PINS}/maps/services`);
    this.#rings = BpfMap.open(`${PINS}/maps/rings`);
    this.#realServers = BpfMap.open(`${PINS}/maps/real_servers`);
  }

  /** A new data plane. Wants prepareNetwork(). */
  static async open(): Promise<Director> {
    const errors: unknown[] = [];
    return new Director(await DataPlane.open(options(errors)), errors);
  }

  /** Takes the data plane out of the kernel. */
  async close(): Promise<void> {
    for (const handle of [this.#program, this.#sweeper, this.#cursors, this.#services, this.#rings, this.#realServers])
      handle.close();
    await this.#dataPlane.close();
    await DataPlane.unload({ instance: INSTANCE });
    if (this.#errors.length > 0) throw new AggregateError(this.#errors, "the data plane logged errors");
  }

  get services(): readonly VirtualService[] {
    return this.#desired.services;
  }

  /** Does what an ipvsadm command says. */
  async apply(command: Command): Promise<void> {
    const { timeouts } = this.#desired;
    if (command.kind === "timeouts") {
      const { tcp, tcpFin, udp } = command;
      this.#desired = {
        ...this.#desired,
        timeouts: {
          ...timeouts,
          tcp_established: tcp || timeouts.tcp_established,
          tcp_fin_wait: tcpFin || timeouts.tcp_fin_wait,
          udp: udp || timeouts.udp,
        },
      };
    } else {
      this.#desired = { ...after(this.#desired, command), timeouts };
    }
    await this.#dataPlane.publish(this.#desired);
  }

  /** Puts one packet in. */
  run(packet: Packet): Fate {
    const frame = build(frameOf(packet));
    const context = new DataView(new ArrayBuffer(24)); // struct xdp_md: data, data_end, data_meta, ingress_ifindex, ...
    context.setUint32(4, frame.length, true);
    context.setUint32(12, network()[packet.side === "c" ? "c0" : "r0"], true);
    const drops = this.#drops();
    const { returnValue, data } = this.#program.testRun({
      data: frame,
      context: new Uint8Array(context.buffer),
      dataOutSize: frame.length + 256,
    });
    switch (returnValue) {
      case XDP_PASS:
        return { verdict: "pass" };
      case XDP_TX:
      case XDP_REDIRECT:
        return { verdict: "forward", out: outgoing(parse(data)) };
      case XDP_DROP: {
        const after = this.#drops();
        const reason = Object.keys(after).find((name) => after[name]?.packets !== drops[name]?.packets);
        return { verdict: "drop", reason };
      }
      default:
        throw new RangeError(`the program answers ${returnValue}, which is no verdict it gives`);
    }
  }

  /** Removes what is expired, without waiting for the data plane's own sweeper. Returns how many connections that were. */
  sweep(): number {
    const { size, offsets } = layout.SweepRequest;
    const request = new DataView(new ArrayBuffer(size));
    request.setUint32(offsets.first, 0, true);
    request.setUint32(offsets.count, this.#buckets, true);
    request.setUint32(offsets.longest, 0xffff_ffff, true);
    const { data } = this.#sweeper.testRun({ data: new Uint8Array(request.buffer), dataOutSize: size });
    return new DataView(data.buffer, data.byteOffset).getUint32(offsets.removed, true);
  }

  #drops(): ReturnType<DataPlane["drops"]> {
    return this.#dataPlane.drops();
  }

  /** Counters of a service's real servers, in their order. */
  async counters(service: VirtualService): Promise<readonly RealServerCounters[]> {
    const counted = await this.#dataPlane.serviceCounters(serviceName(service));
    return service.realServers.map((realServer) => {
      const counters = counted?.realServers.get(realServerName(realServer));
      if (counters === undefined) throw new RangeError(`there is nothing counted for ${realServerName(realServer)}`);
      return counters;
    });
  }

  /** The pinned iterator's list, with the seconds that each has left. */
  connections(): (ListedConnection & { readonly seconds: number })[] {
    const [, ...lines] = readFileSync(`${PINS}/connections`, "utf8").trimEnd().split("\n");
    return lines.map((line) => {
      const [protocol = "", state = "", seconds = "", client = "", virtual = "", , real = ""] = line.split(/ +/);
      const spaced = (endpoint: string): string => endpoint.replace(":", " ");
      return {
        protocol,
        state,
        seconds: Number(seconds),
        client: spaced(client),
        virtual: spaced(virtual),
        real: spaced(real),
      };
    });
  }

  /** The addresses that a wrr service's turns lead to, from the first slot of its ring on. */
  turns(service: ServiceKey): readonly string[] {
    const { ring } = this.#find(service);
    return Array.from({ length: ring.length }, (_, slot) => {
      const index = this.#rings.get(ring.chunk + Math.floor(slot / CHUNK_SLOTS))?.slots[slot % CHUNK_SLOTS];
      const bytes = index === undefined ? undefined : this.#realServers.get(index)?.address.bytes;
      return Array.from(bytes?.subarray(0, 4) ?? []).join(".");
    });
  }

  /** Lets a wrr service's next turn be that of the given slot. */
  turnTo(service: ServiceKey, slot: number): void {
    this.#cursors.set(this.#find(service).index, { next: BigInt(slot) });
  }

  #find(service: ServiceKey): { index: number; ring: { chunk: number; length: number } } {
    const wanted = service.address;
    for (let index = 0; index < LIMITS.services; index++) {
      const found = this.#services.get(index);
      if (
        found !== undefined &&
        found.ring.length > 0 &&
        found.port === service.port &&
        found.protocol === PROTOCOLS[service.protocol] &&
        Array.from(found.vip.bytes.subarray(0, 4)).join(".") === wanted
      ) {
        return { index, ring: found.ring };
      }
    }
    return { index: 0, ring: { chunk: 0, length: 0 } };
  }
}

const CHUNK_SLOTS = 16;
const PROTOCOLS = { tcp: 6, udp: 17, sctp: 132 } as const;
const [XDP_DROP, XDP_PASS, XDP_TX, XDP_REDIRECT] = [1, 2, 3, 4];

function options(errors: unknown[]): DataPlaneOptions {
  const interfaces = [
    { name: "c0", mode: "native" as const },
    { name: "r0", mode: "native" as const },
  ];
  const log = {
    ...quiet,
    error: (...error: unknown[]) => {
      errors.push(error);
    },
  };
  return { instance: INSTANCE, interfaces, limits: LIMITS, log };
}

/** The state after a command: new real servers go to the head of the list, as in the kernel (ip_vs_ctl.c, ip_vs_add_dest()). */
function after(desired: DesiredState, command: Exclude<Command, { kind: "timeouts" }>): DesiredState {
  if (command.kind === "clear") return EMPTY_STATE;
  const { services } = desired;
  const same = (key: ServiceKey): boolean => serviceName(key) === serviceName(command.service);
  const changed = (change: (service: VirtualService) => VirtualService): DesiredState => ({
    ...desired,
    services: services.map((service) => (same(service) ? change(service) : service)),
  });
  switch (command.kind) {
    case "add service":
      return { ...desired, services: [...services, newService(command)] };
    case "edit service":
      return changed((service) => ({ ...newService(command), realServers: service.realServers }));
    case "delete service":
      return { ...desired, services: services.filter((service) => !same(service)) };
    case "add server":
      return changed((service) => ({ ...service, realServers: [command.realServer, ...service.realServers] }));
    case "edit server": {
      const name = realServerName(command.realServer);
      return changed((service) => ({
        ...service,
        realServers: service.realServers.map((real) => (realServerName(real) === name ? command.realServer : real)),
      }));
    }
    case "delete server": {
      const name = realServerName(command.realServer);
      return changed((service) => ({
        ...service,
        realServers: service.realServers.filter((real) => realServerName(real) !== name),
      }));
    }
    default:
      return command satisfies never;
  }
}

function newService(command: Extract<Command, { kind: "add service" | "edit service" }>): VirtualService {
  const { service, scheduler, flags } = command;
  const { services } = validateDesiredState({
    services: [
      {
        ...service,
        scheduler,
        scheduler_flags: flags, // ipvsadm's default is none
        ...(scheduler === "mh" && { table_size: KERNEL_TABLE_SIZE }),
        real_servers: [],
      },
    ],
  });
  return services[0]!;
}

function frameOf(packet: Packet): Frame {
  const { side, source, sourcePort, destination, destinationPort } = packet;
  const outside: Layer[] = [
    side === "c"
      ? { kind: "ethernet", destination: INTERFACES.c0.mac, source: ROUTER_MAC }
      : { kind: "ethernet", destination: INTERFACES.r0.mac, source: realMac(realNumber(source)) },
    { kind: "ipv4", source, destination, id: 1001, ttl: 64 },
  ];
  const payload: Layer[] = packet.length > 0 ? [{ kind: "payload", bytes: "78".repeat(packet.length) }] : [];
  if (packet.protocol === "udp") return [...outside, { kind: "udp", sourcePort, destinationPort }, ...payload];
  const flags = Array.from("FSRPAUEC")
    .filter((letter) => packet.flags.includes(letter))
    .join("");
  const sequence = side === "c" ? 1000 : 5000;
  return [...outside, { kind: "tcp", sourcePort, destinationPort, sequence, flags, window: 65_535 }, ...payload];
}

/** 1 for 10.1.0.11; 0 for what is no real server of the test bed. */
function realNumber(address: string): number {
  for (let n = 1; n <= REAL_SERVERS; n++) if (realAddress(n) === address) return n;
  return 0;
}

/** What left, as traces tell it: of a tunnelled packet the inner one. */
function outgoing(frame: Frame): Outgoing {
  const ethernet = frame.find((layer) => layer.kind === "ethernet");
  const packets = frame.filter((layer) => layer.kind === "ipv4");
  const inner = packets[packets.length - 1];
  const tcp = frame.find((layer) => layer.kind === "tcp");
  const ports = tcp ?? frame.find((layer) => layer.kind === "udp");
  if (ethernet === undefined || inner === undefined || ports === undefined) {
    throw new TypeError("what left is no TCP or UDP over IPv4");
  }
  const real = Array.from({ length: REAL_SERVERS }, (_, i) => i + 1).find((n) => realMac(n) === ethernet.destination);
  return {
    side: ethernet.source === INTERFACES.c0.mac ? "c" : "r",
    ...(real !== undefined && { real }),
    source: inner.source,
    sourcePort: ports.sourcePort,
    destination: inner.destination,
    destinationPort: ports.destinationPort,
    protocol: tcp === undefined ? PROTOCOLS.udp : PROTOCOLS.tcp,
    ...(tcp?.flags !== undefined && { flags: tcp.flags }),
    ttl: inner.ttl ?? 64,
  };
}
