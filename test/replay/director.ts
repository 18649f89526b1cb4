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
  EMPTY_STATE,
  type RealServer,
  type RealServerCounters,
  realServerName,
  type ServiceKey,
  serviceName,
} from "../../src/model/index.js";
import { build, type Frame, parse } from "../packet/frame.js";
import { network, realAddress, realMac } from "../packet/network.js";
import { frameOf, outgoing, type Packet, PROTOCOL_NUMBERS, REAL_SERVERS } from "./frames.js";
import { desiredState, EMPTY_TABLES, type KernelService, ownKey, type Tables, vipOf } from "./tables.js";
import type { ListedConnection, Outgoing, Side } from "./trace.js";

const INSTANCE = `replay-${process.pid}`;
const PINS = `/sys/fs/bpf/${INSTANCE}`;
const LIMITS = { connections: 8192, services: 32, realServers: 256, ringSlots: 65_536 };

type Unforwarded =
  /** The local stack gets it. */
  { readonly verdict: "pass" } | { readonly verdict: "drop"; readonly reason: string | undefined };
export type Fate = Unforwarded | { readonly verdict: "forward"; readonly out: Outgoing };
export type FrameFate = Unforwarded | { readonly verdict: "forward"; readonly frame: Frame };

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
  #tables = EMPTY_TABLES;
  #desired = EMPTY_STATE;

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

  /** What the kernel's tables would hold. */
  get tables(): Tables {
    return this.#tables;
  }

  /** Does what makes the kernel's tables hold this. @throws ModelError where ours cannot */
  async apply(tables: Tables): Promise<void> {
    const desired = desiredState(tables, this.#desired);
    this.#tables = tables;
    this.#desired = desired;
    await this.#dataPlane.publish(desired);
  }

  /** Puts one packet in. */
  run(packet: Packet): Fate {
    const fate = this.runFrame(packet.side, build(frameOf(packet)));
    return fate.verdict === "forward" ? { verdict: "forward", out: outgoing(fate.frame) } : fate;
  }

  /** The same byte for byte. */
  runFrame(side: Side, frame: Uint8Array): FrameFate {
    const context = new DataView(new ArrayBuffer(24)); // struct xdp_md: data, data_end, data_meta, ingress_ifindex, ...
    context.setUint32(4, frame.length, true);
    context.setUint32(12, network()[side === "c" ? "c0" : "r0"], true);
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
        return { verdict: "forward", frame: parse(data) };
      case XDP_DROP: {
        const after = this.#drops();
        const reason = Object.keys(after).find((name) => after[name]?.packets !== drops[name]?.packets);
        return { verdict: "drop", reason };
      }
      default:
        throw new RangeError(`the program answers ${returnValue}, which is no verdict it gives`);
    }
  }

  /**
   * Removes connections that are expired, or over since their real server was removed, without waiting for the data plane's own sweeper:
   * the kernel has a timer for each.
   */
  sweep(): void {
    const { size, offsets } = layout.SweepRequest;
    const request = new DataView(new ArrayBuffer(size));
    request.setUint32(offsets.first, 0, true);
    request.setUint32(offsets.count, this.#buckets, true);
    request.setUint32(offsets.longest, 0xffff_ffff, true);
    request.setUint32(offsets.resets, 1, true);
    this.#sweeper.testRun({ data: new Uint8Array(request.buffer), dataOutSize: size });
  }

  #drops(): ReturnType<DataPlane["drops"]> {
    return this.#dataPlane.drops();
  }

  /** Counters of a service's real servers, in their order. */
  async counters({ key, realServers }: KernelService): Promise<readonly RealServerCounters[]> {
    const counted = await this.#dataPlane.serviceCounters(serviceName(key));
    return realServers.map((realServer: RealServer) => {
      const name = realServerName(ownKey(key, realServer));
      const counters = counted?.realServers.get(name);
      if (counters === undefined) throw new RangeError(`there is nothing counted for ${name}`);
      return counters;
    });
  }

  /** The pinned iterator's list, with the seconds that each has left. */
  connections(): ListedConnection[] {
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

  #find(key: ServiceKey): { index: number; ring: { chunk: number; length: number } } {
    const vip = vipOf(key);
    const protocol = key.protocol === undefined ? 0 : PROTOCOL_NUMBERS[key.protocol];
    for (let index = 0; index < LIMITS.services; index++) {
      const found = this.#services.get(index);
      if (
        found !== undefined &&
        found.ring.length > 0 &&
        found.port === (key.port ?? 0) &&
        found.protocol === protocol &&
        Array.from(found.vip.bytes.subarray(0, 4)).join(".") === vip
      ) {
        return { index, ring: found.ring };
      }
    }
    return { index: 0, ring: { chunk: 0, length: 0 } };
  }
}

const CHUNK_SLOTS = 16;
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
