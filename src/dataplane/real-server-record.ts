/** Elements of the real_servers map, read and written by the field offsets that the compiled object states. */
import { ADDRESS_BYTES, type Address } from "./address.js";
import { type AddressFamily, type ForwardingMethod, layout, RealServerState } from "./sluice.bpf.js";
import { type ArrayMemory, clear } from "./tables.js";

/** How frames reach a real server. */
export interface NextHop {
  readonly ifindex: number;
  readonly destinationMac: Uint8Array;
  readonly sourceMac: Uint8Array;
  /** Largest IP packet in bytes. */
  readonly mtu: number;
  /** This host's address towards it: the source of a tunnelled packet's outer header, and of ICMP. */
  readonly director: Uint8Array;
}

export interface RealServerRecord {
  readonly address: Address;
  readonly port: number;
  readonly method: ForwardingMethod;
  readonly state: RealServerState;
  /** Index of its set of timeouts. */
  readonly timeouts: number;
  readonly service: number;
  readonly weight: number;
}

const offsets = layout.RealServer.offsets;

/** Undefined where the element is free. */
export function readRealServer(realServers: ArrayMemory, index: number): RealServerRecord | undefined {
  const base = index * realServers.stride;
  const state = realServers.bytes[base + offsets.state] as RealServerState;
  if (state === RealServerState.REAL_FREE) {
    return undefined;
  }
  return {
    address: {
      family: realServers.bytes[base + offsets.family] as AddressFamily,
      bytes: realServers.bytes.slice(base + offsets.address, base + offsets.address + ADDRESS_BYTES),
    },
    port: realServers.u16[(base + offsets.port) / 2]!,
    method: realServers.bytes[base + offsets.method] as ForwardingMethod,
    state,
    timeouts: realServers.bytes[base + offsets.timeouts]!,
    service: realServers.u32[(base + offsets.service) / 4]!,
    weight: realServers.u32[(base + offsets.weight) / 4]!,
  };
}

/** A real server without a next hop. Its state is stored last, so an interrupted write leaves a free element. */
export function writeRealServer(realServers: ArrayMemory, index: number, record: RealServerRecord): void {
  const base = index * realServers.stride;
  clear(realServers, index);
  realServers.bytes.set(record.address.bytes, base + offsets.address);
  realServers.bytes[base + offsets.family] = record.address.family;
  realServers.u16[(base + offsets.port) / 2] = record.port;
  realServers.bytes[base + offsets.method] = record.method;
  realServers.bytes[base + offsets.timeouts] = record.timeouts;
  realServers.u32[(base + offsets.service) / 4] = record.service;
  realServers.u32[(base + offsets.weight) / 4] = record.weight;
  writeState(realServers, index, record.state);
}

export function writeWeight(realServers: ArrayMemory, index: number, weight: number): void {
  realServers.u32[(index * realServers.stride + offsets.weight) / 4] = weight;
}

export function writeState(realServers: ArrayMemory, index: number, state: RealServerState): void {
  Atomics.store(realServers.bytes, index * realServers.stride + offsets.state, state);
}

export function writeTimeoutSet(realServers: ArrayMemory, index: number, set: number): void {
  Atomics.store(realServers.bytes, index * realServers.stride + offsets.timeouts, set);
}

/**
 * Replaces a next hop: no interface first, then everything else, then the interface, so that whoever sees an interface
 * sees what belongs to it.
 */
export function writeNextHop(realServers: ArrayMemory, index: number, hop: NextHop | undefined): void {
  const base = index * realServers.stride;
  const interfaceAt = (base + offsets.ifindex) / 4;
  Atomics.store(realServers.u32, interfaceAt, 0);
  if (hop === undefined) {
    return;
  }
  realServers.bytes.set(hop.destinationMac, base + offsets.destination_mac);
  realServers.bytes.set(hop.sourceMac, base + offsets.source_mac);
  realServers.u16[(base + offsets.mtu) / 2] = hop.mtu;
  realServers.bytes.set(hop.director, base + offsets.director);
  Atomics.store(realServers.u32, interfaceAt, hop.ifindex);
}

export function sameNextHop(realServers: ArrayMemory, index: number, hop: NextHop | undefined): boolean {
  const base = index * realServers.stride;
  const ifindex = realServers.u32[(base + offsets.ifindex) / 4];
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
    realServers.u16[(base + offsets.mtu) / 2] === hop.mtu &&
    holds(hop.destinationMac, offsets.destination_mac) &&
    holds(hop.sourceMac, offsets.source_mac) &&
    holds(hop.director, offsets.director)
  );
}
