/**
 * The connection table as it lies in its map, read whole and judged: what bpf/connection.h promises about buckets, tags,
 * twins and counts, worked out a second time.
 */
import type { BpfMap } from "libbpf-ts";
import { ConnectionDirection, type ConnectionState, layout } from "../../src/dataplane/sluice.bpf.js";
import { ipv4Text } from "./addresses.js";
import { isActive, type State, stateName } from "./states.js";

/**
 * Whether a violation passes by itself: where two processors were at one connection, a reverse entry may be left without its
 * forward one for about a second (connection.h, TWIN_GRACE_TICKS). A forward entry never may be without its reverse one.
 */
export function passes(violation: string): boolean {
  return violation.startsWith("reverse entry") && violation.includes("twin");
}

const BUCKET_SLOTS = 16;
const NOWHERE = 0xffffffff;
const BUCKET = layout.Bucket.offsets;
const CONNECTION = layout.Connection.offsets;
const FLOW = layout.Flow.offsets;

export interface Entry {
  /** bucket << 4 | slot */
  readonly location: number;
  /** "none": a persistence template. */
  readonly direction: "forward" | "reverse" | "none";
  readonly source: string;
  readonly sourcePort: number;
  readonly destination: string;
  readonly destinationPort: number;
  readonly protocol: number;
  readonly state: State;
  /** Tick. */
  readonly expires: number;
  readonly real: number;
  /** Forward: the location of the template that led it. A template: how many connections name it. */
  readonly template: number | undefined;
  /** The location of the other direction's entry. */
  readonly twin: number | undefined;
  readonly id: number;
  /** fullnat: index of the local address, and the local port. */
  readonly local: { readonly address: number; readonly port: number };
}

/** What a real server is counted by. */
export interface Load {
  readonly active: number;
  readonly inactive: number;
  readonly templates: number;
  readonly onePacket: number;
}

function countOf(state: State): keyof Load {
  if (state === "TEMPLATE" || state === "TEMPLATE_ASSURED") return "templates";
  if (state === "ONE_PACKET") return "onePacket";
  return isActive(state) ? "active" : "inactive";
}

/** The rodata that places depend on. */
export interface Placement {
  readonly buckets: number;
  readonly seed: readonly bigint[];
}

const MASK32 = 0xffffffffn;
const MASK64 = 0xffffffffffffffffn;

/** connection.h, mix(). */
function mix(hash: bigint): bigint {
  let mixed = hash ^ (hash >> 32n);
  mixed = (mixed * 0x9fb21c651e98df25n) & MASK64;
  return mixed ^ (mixed >> 28n);
}

/** Lets every entry of the table expire so many ticks sooner. No packet may be under way. */
export function age(map: BpfMap, ticks: number): void {
  const key = new Uint8Array(4);
  for (let bucket = 0; bucket < map.maxEntries; bucket++) {
    new DataView(key.buffer).setUint32(0, bucket, true);
    const value = map.getRaw(key);
    if (value === undefined) throw new RangeError(`there is no bucket ${bucket}`);
    const view = new DataView(value.buffer, value.byteOffset, value.byteLength);
    for (let slot = 0; slot < BUCKET_SLOTS; slot++) {
      const at = BUCKET.slots + slot * layout.Connection.size + CONNECTION.expires;
      view.setUint32(at, view.getUint32(at, true) - ticks, true);
    }
    map.setRaw(key, value);
  }
}

export class ConnectionTable {
  readonly #bytes: Uint8Array;
  readonly #view: DataView;
  readonly #placement: Placement;

  /** A copy of what the map holds now; while packets run, it is not of one moment. */
  constructor(map: BpfMap, placement: Placement) {
    this.#placement = placement;
    this.#bytes = new Uint8Array(placement.buckets * layout.Bucket.size);
    this.#view = new DataView(this.#bytes.buffer);
    const key = new Uint8Array(4);
    for (let bucket = 0; bucket < placement.buckets; bucket++) {
      new DataView(key.buffer).setUint32(0, bucket, true);
      const value = map.getRaw(key);
      if (value?.length !== layout.Bucket.size) throw new RangeError(`there is no bucket ${bucket}`);
      this.#bytes.set(value, bucket * layout.Bucket.size);
    }
  }

  #tag(bucket: number, slot: number): number {
    return this.#view.getUint16(bucket * layout.Bucket.size + BUCKET.tags + slot * 2, true);
  }

  #bucketField(bucket: number, field: "used" | "lodgers"): number {
    return this.#view.getUint32(bucket * layout.Bucket.size + BUCKET[field], true);
  }

  /** Where a slot's connection begins in the bytes. */
  #at(location: number): number {
    return (location >>> 4) * layout.Bucket.size + BUCKET.slots + (location & 15) * layout.Connection.size;
  }

  #u32(location: number, field: "expires" | "real" | "template" | "twin"): number {
    return this.#view.getUint32(this.#at(location) + CONNECTION[field], true);
  }

  #id(location: number): number {
    return this.#view.getUint16(this.#at(location) + CONNECTION.id, true);
  }

  #direction(location: number): Entry["direction"] {
    switch (this.#view.getUint8(this.#at(location) + CONNECTION.direction) as ConnectionDirection) {
      case ConnectionDirection.DIRECTION_FORWARD:
        return "forward";
      case ConnectionDirection.DIRECTION_REVERSE:
        return "reverse";
      case ConnectionDirection.DIRECTION_NONE:
        return "none";
    }
  }

  #isForward(location: number): boolean {
    return this.#direction(location) === "forward";
  }

  #state(location: number): State {
    return stateName(this.#view.getUint8(this.#at(location) + CONNECTION.state) as ConnectionState);
  }

  #flow(location: number): Buffer {
    const at = this.#at(location) + CONNECTION.flow;
    return Buffer.from(this.#bytes.buffer, at, layout.Flow.size);
  }

  #inUse(location: number): boolean {
    const bucket = location >>> 4;
    const slot = location & 15;
    return bucket < this.#placement.buckets && slot < BUCKET_SLOTS && this.#tag(bucket, slot) !== 0;
  }

  /** Locations in use, in the order of the table. */
  *locations(): Generator<number> {
    for (let bucket = 0; bucket < this.#placement.buckets; bucket++) {
      for (let slot = 0; slot < BUCKET_SLOTS; slot++) {
        if (this.#tag(bucket, slot) !== 0) yield (bucket << 4) | slot;
      }
    }
  }

  entry(location: number): Entry {
    const at = this.#at(location);
    const flow = at + CONNECTION.flow;
    const address = (offset: number): string => ipv4Text(this.#bytes.subarray(flow + offset, flow + offset + 4));
    const twin = this.#u32(location, "twin");
    const template = this.#u32(location, "template");
    return {
      location,
      direction: this.#direction(location),
      source: address(FLOW.source),
      sourcePort: this.#view.getUint16(flow + FLOW.source_port),
      destination: address(FLOW.destination),
      destinationPort: this.#view.getUint16(flow + FLOW.destination_port),
      protocol: this.#view.getUint8(flow + FLOW.protocol),
      state: this.#state(location),
      expires: this.#u32(location, "expires"),
      real: this.#u32(location, "real"),
      template: template === NOWHERE ? undefined : template,
      twin: twin === NOWHERE ? undefined : twin,
      id: this.#id(location),
      local: {
        address: this.#view.getUint16(at + CONNECTION.local_address, true),
        port: this.#view.getUint16(at + CONNECTION.local_port),
      },
    };
  }

  entries(): Entry[] {
    return Array.from(this.locations(), (location) => this.entry(location));
  }

  /** connection.h, flow_hash() and what is cut from it; IPv4 only. */
  #place(location: number): { first: number; second: number; tag: number } {
    const { buckets, seed } = this.#placement;
    const flow = this.#at(location) + CONNECTION.flow;
    const nh = (left: number, right: number, key = 0n): bigint => {
      const a = (BigInt(this.#view.getUint32(flow + left * 4, true)) + (key & MASK32)) & MASK32;
      const b = (BigInt(this.#view.getUint32(flow + right * 4, true)) + (key >> 32n)) & MASK32;
      return a * b;
    };
    const hash = mix((nh(0, 4, seed[0]) + nh(8, 9, seed[1])) & MASK64);
    const below = (bits: bigint, bound: number): number => Number(((bits >> 32n) * BigInt(bound)) >> 32n);
    const first = below(hash, buckets);
    const other = below(mix(hash ^ (seed[5] ?? 0n)), buckets - 1); // among all but the first
    return {
      first,
      second: other < first ? other : other + 1,
      tag: Number(hash & 0xffffn) || 1,
    };
  }

  /** Promises that do not hold, in words; none, always. `loads` is what real_load holds, by index. */
  violations(loads: readonly Load[]): string[] {
    return [...this.#structureViolations(), ...this.#countViolations(loads)];
  }

  #countViolations(loads: readonly Load[]): string[] {
    const found: string[] = [];
    const holds = loads.map(() => ({ active: 0, inactive: 0, templates: 0, onePacket: 0 }));
    const named = new Map<number, number>();
    for (const location of this.locations()) {
      if (this.#direction(location) === "reverse") continue;
      const held = holds[this.#u32(location, "real")];
      if (held !== undefined) held[countOf(this.#state(location))]++;
      const template = this.#u32(location, "template");
      if (this.#isForward(location) && template !== NOWHERE) named.set(template, (named.get(template) ?? 0) + 1);
    }
    for (const location of this.locations()) {
      if (this.#direction(location) !== "none") continue;
      const said = this.#u32(location, "template");
      const counted = named.get(location) ?? 0;
      if (said !== counted) found.push(`template ${location}: says that ${said | 0} name it, ${counted} do`);
      named.delete(location);
    }
    for (const location of named.keys()) found.push(`a connection names ${location}, which is no template`);
    for (const [real, load] of loads.entries()) {
      const held = holds[real] ?? { active: 0, inactive: 0, templates: 0, onePacket: 0 };
      for (const kind of ["active", "inactive", "templates", "onePacket"] as const) {
        // A count below zero would show as one near 2^32.
        if (load[kind] !== held[kind]) {
          found.push(`real server ${real}: ${kind} is ${load[kind] | 0}, holds ${held[kind]}`);
        }
      }
    }
    return found;
  }

  #structureViolations(): string[] {
    const { buckets } = this.#placement;
    const found: string[] = [];
    const lodgers = new Uint32Array(buckets);
    const used = new Uint32Array(buckets);

    for (const location of this.locations()) {
      const bucket = location >>> 4;
      used[bucket] = (used[bucket] ?? 0) + 1;
      const name = `${this.#direction(location)} entry ${bucket}/${location & 15}`;
      const { first, second, tag } = this.#place(location);
      if (tag !== this.#tag(bucket, location & 15)) found.push(`${name}: the tag is not its flow's`);
      if (bucket !== first && bucket !== second) found.push(`${name}: lies in neither of its buckets`);
      if (bucket !== first) {
        lodgers[first] = (lodgers[first] ?? 0) + 1;
        if (this.#holds(first, this.#flow(location))) found.push(`${name}: its flow is in both its buckets`);
      }
      for (let slot = (location & 15) + 1; slot < BUCKET_SLOTS; slot++) {
        const other = (bucket << 4) | slot;
        if (this.#tag(bucket, slot) === tag && this.#flow(other).equals(this.#flow(location))) {
          found.push(`${name}: its flow is twice in its bucket`);
        }
      }
      if (this.#id(location) === 0) found.push(`${name}: has no id`);
      const wrongTwin = this.#wrongTwin(location);
      if (wrongTwin !== undefined) found.push(`${name}: ${wrongTwin}`);
    }

    for (let bucket = 0; bucket < buckets; bucket++) {
      const says = (field: "used" | "lodgers", counted: number): void => {
        const said = this.#bucketField(bucket, field);
        if (said !== counted) found.push(`bucket ${bucket}: ${field} is ${said}, counted ${counted}`);
      };
      says("used", used[bucket] ?? 0);
      says("lodgers", lodgers[bucket] ?? 0);
    }
    return found;
  }

  #holds(bucket: number, flow: Buffer): boolean {
    for (let slot = 0; slot < BUCKET_SLOTS; slot++) {
      if (this.#tag(bucket, slot) !== 0 && this.#flow((bucket << 4) | slot).equals(flow)) return true;
    }
    return false;
  }

  #wrongTwin(location: number): string | undefined {
    const twin = this.#u32(location, "twin");
    if (twin === NOWHERE) return this.#direction(location) === "reverse" ? "has no twin" : undefined;
    if (!this.#inUse(twin)) return "its twin is gone";
    if (this.#u32(twin, "twin") !== location) return "its twin names another";
    if (this.#id(twin) !== this.#id(location)) return "its twin's id is another";
    if (this.#isForward(twin) === this.#isForward(location)) return "its twin has the same direction";
    if (this.#u32(twin, "real") !== this.#u32(location, "real")) return "its twin has another real server";
    return undefined;
  }
}
