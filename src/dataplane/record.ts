/** Elements of the mapped arrays, read and written by the field offsets that the compiled object states. */
import { ADDRESS_BYTES, type Address } from "./address.js";
import {
  AddressFamily,
  type ForwardingMethod,
  layout,
  type Protocol,
  RealServerState,
  type Scheduler,
  type SchedulerFlag,
  type ServiceKey,
} from "./sluice.bpf.js";
import type { ArrayMemory } from "./tables.js";

/** Slots in one element of the rings map. */
export const CHUNK_SLOTS = layout.RingChunk.size / Uint32Array.BYTES_PER_ELEMENT;

/** Slots of a ring and where they are. A ring of length 0 is nowhere: no connection can be opened. */
export interface Ring {
  readonly chunk: number;
  readonly length: number;
}

export const NO_RING: Ring = { chunk: 0, length: 0 };

export function ringChunks(length: number): number {
  return Math.ceil(length / CHUNK_SLOTS);
}

/** How frames reach a real server. */
export interface NextHop {
  readonly ifindex: number;
  readonly destinationMac: Uint8Array;
  readonly sourceMac: Uint8Array;
  /** Largest IP packet in bytes. */
  readonly mtu: number;
  /** The address that the outer header of a tunnelled packet comes from. */
  readonly tunnelSource: Uint8Array;
}

export interface RealServerRecord {
  readonly address: Address;
  readonly port: number;
  readonly method: ForwardingMethod;
  readonly state: RealServerState;
  readonly service: number;
  readonly weight: number;
}

/** How a service picks. */
export interface Scheduling {
  readonly scheduler: Scheduler;
  readonly flags: SchedulerFlag;
}

export interface ServiceRecord {
  readonly key: ServiceKey;
  readonly scheduling: Scheduling;
  readonly ring: Ring;
}

const service = layout.Service.offsets;
const ring = layout.Ring.offsets;
const real = layout.RealServer.offsets;
const load = layout.RealLoad.offsets;

/** Undefined where the element is free. */
export function readService(services: ArrayMemory, index: number): ServiceRecord | undefined {
  const base = index * services.stride;
  const family = services.bytes[base + service.family] as AddressFamily;
  if (family === AddressFamily.FAMILY_NONE) {
    return undefined;
  }
  const vip = services.bytes.slice(base + service.vip, base + service.vip + ADDRESS_BYTES);
  return {
    key: {
      vip: { bytes: vip },
      port: services.u16[(base + service.port) / 2]!,
      protocol: services.bytes[base + service.protocol] as Protocol,
      family,
    },
    scheduling: {
      scheduler: services.bytes[base + service.scheduler] as Scheduler,
      flags: services.bytes[base + service.scheduler_flags] as SchedulerFlag,
    },
    ring: {
      chunk: services.u32[(base + service.ring + ring.chunk) / 4]!,
      length: services.u32[(base + service.ring + ring.length) / 4]!,
    },
  };
}

/** A service without a ring. */
export function writeService(services: ArrayMemory, index: number, key: ServiceKey, scheduling: Scheduling): void {
  const base = index * services.stride;
  clear(services, index);
  services.bytes.set(key.vip.bytes, base + service.vip);
  services.u16[(base + service.port) / 2] = key.port;
  services.bytes[base + service.protocol] = key.protocol;
  writeScheduling(services, index, scheduling);
  services.bytes[base + service.family] = key.family;
}

export function writeScheduling(services: ArrayMemory, index: number, { scheduler, flags }: Scheduling): void {
  const base = index * services.stride;
  services.bytes[base + service.scheduler] = scheduler;
  services.bytes[base + service.scheduler_flags] = flags;
}

// Chunk and length side by side, to be stored as the one word that the data plane reads.
const ringWord = new BigUint64Array(1);
const ringFields = new Uint32Array(ringWord.buffer);

/** Publishes a ring by one aligned 64-bit store. */
export function writeRing(services: ArrayMemory, index: number, { chunk, length }: Ring): void {
  ringFields[ring.chunk / 4] = chunk;
  ringFields[ring.length / 4] = length;
  Atomics.store(services.u64, (index * services.stride + service.ring) / 8, ringWord[0]!);
}

export function ringSlots(rings: ArrayMemory, { chunk, length }: Ring): Uint32Array {
  const start = chunk * CHUNK_SLOTS;
  return rings.u32.subarray(start, start + length);
}

/** Undefined where the element is free. */
export function readRealServer(realServers: ArrayMemory, index: number): RealServerRecord | undefined {
  const base = index * realServers.stride;
  const state = realServers.bytes[base + real.state] as RealServerState;
  if (state === RealServerState.REAL_FREE) {
    return undefined;
  }
  return {
    address: {
      family: realServers.bytes[base + real.family] as AddressFamily,
      bytes: realServers.bytes.slice(base + real.address, base + real.address + ADDRESS_BYTES),
    },
    port: realServers.u16[(base + real.port) / 2]!,
    method: realServers.bytes[base + real.method] as ForwardingMethod,
    state,
    service: realServers.u32[(base + real.service) / 4]!,
    weight: realServers.u32[(base + real.weight) / 4]!,
  };
}

/** A real server without a next hop. Its state is stored last, so an interrupted write leaves a free element. */
export function writeRealServer(realServers: ArrayMemory, index: number, record: RealServerRecord): void {
  const base = index * realServers.stride;
  clear(realServers, index);
  realServers.bytes.set(record.address.bytes, base + real.address);
  realServers.bytes[base + real.family] = record.address.family;
  realServers.u16[(base + real.port) / 2] = record.port;
  realServers.bytes[base + real.method] = record.method;
  realServers.u32[(base + real.service) / 4] = record.service;
  realServers.u32[(base + real.weight) / 4] = record.weight;
  writeState(realServers, index, record.state);
}

export function writeWeight(realServers: ArrayMemory, index: number, weight: number): void {
  realServers.u32[(index * realServers.stride + real.weight) / 4] = weight;
}

export function writeState(realServers: ArrayMemory, index: number, state: RealServerState): void {
  Atomics.store(realServers.bytes, index * realServers.stride + real.state, state);
}

/**
 * Replaces a next hop: no interface first, then everything else, then the interface, so that whoever sees an interface
 * sees what belongs to it.
 */
export function writeNextHop(realServers: ArrayMemory, index: number, hop: NextHop | undefined): void {
  const base = index * realServers.stride;
  const interfaceAt = (base + real.ifindex) / 4;
  Atomics.store(realServers.u32, interfaceAt, 0);
  if (hop === undefined) {
    return;
  }
  realServers.bytes.set(hop.destinationMac, base + real.destination_mac);
  realServers.bytes.set(hop.sourceMac, base + real.source_mac);
  realServers.u16[(base + real.mtu) / 2] = hop.mtu;
  realServers.bytes.set(hop.tunnelSource, base + real.tunnel_source);
  Atomics.store(realServers.u32, interfaceAt, hop.ifindex);
}

export function sameNextHop(realServers: ArrayMemory, index: number, hop: NextHop | undefined): boolean {
  const base = index * realServers.stride;
  const ifindex = realServers.u32[(base + real.ifindex) / 4];
  if (hop === undefined) {
    return ifindex === 0;
  }
  const holds = (bytes: Uint8Array, at: number): boolean => {
    for (let position = 0; position < bytes.length; position++) {
      if (bytes[position] !== realServers.bytes[base + at + position]) {
        return false;
      }
    }
    return true;
  };
  return (
    ifindex === hop.ifindex &&
    realServers.u16[(base + real.mtu) / 2] === hop.mtu &&
    holds(hop.destinationMac, real.destination_mac) &&
    holds(hop.sourceMac, real.source_mac) &&
    holds(hop.tunnelSource, real.tunnel_source)
  );
}

export function readLoad(realLoad: ArrayMemory, index: number): { active: number; inactive: number } {
  const base = index * realLoad.stride;
  return { active: realLoad.u32[(base + load.active) / 4]!, inactive: realLoad.u32[(base + load.inactive) / 4]! };
}

/** The last weight above 0, which mh goes by. */
export function readLastWeight(realLoad: ArrayMemory, index: number): number {
  return realLoad.u32[(index * realLoad.stride + load.last_weight) / 4]!;
}

export function writeLastWeight(realLoad: ArrayMemory, index: number, weight: number): void {
  realLoad.u32[(index * realLoad.stride + load.last_weight) / 4] = weight;
}

/** Makes an element all zero, which means free. */
export function clear(memory: ArrayMemory, index: number): void {
  memory.bytes.fill(0, index * memory.stride, (index + 1) * memory.stride);
}
