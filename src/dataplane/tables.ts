/**
 * The seam between what is decided and the kernel: the maps that a desired state is published into. In production they are
 * BPF maps (mapped-tables.ts); tests put plain memory there.
 */
import type { ServiceKey, Vip, VipKey } from "./sluice.bpf.js";

/** An array map as memory. Views are of the same bytes; each element takes `stride` of them. */
export interface ArrayMemory {
  /** Elements. */
  readonly length: number;
  readonly stride: number;
  readonly bytes: Uint8Array;
  readonly u16: Uint16Array;
  readonly u32: Uint32Array;
  readonly u64: BigUint64Array;
}

export interface HashTable<Key, Value> {
  set(key: Key, value: Value): void;
  delete(key: Key): boolean;
  entries(): Iterable<[Key, Value]>;
}

export interface Tables {
  readonly services: ArrayMemory;
  readonly realServers: ArrayMemory;
  /** Elements are chunks of CHUNK_SLOTS slots. */
  readonly rings: ArrayMemory;
  readonly realLoad: ArrayMemory;
  readonly settings: ArrayMemory;
  readonly timeouts: ArrayMemory;
  readonly localAddresses: ArrayMemory;
  /** By real server. */
  readonly localPools: ArrayMemory;
  /** Of both halves. */
  readonly markRules: ArrayMemory;
  readonly serviceIndex: HashTable<ServiceKey, number>;
  readonly vips: HashTable<VipKey, Vip>;
  readonly natEndpoints: HashTable<ServiceKey, number>;
  /** How many turns round robin has given at a service. A new connection may add one between two calls; that turn is given twice then. */
  readonly turns: { get(service: number): bigint; set(service: number, turns: bigint): void };
  /** Sets counters and cursor of a service to zero, for the next one at its index. */
  resetService(index: number): void;
  /** Adds what a real server has counted to its service's counts of those that are gone, and sets its own to zero, for the next one. */
  retireCounters(realServer: number, service: number): void;
}

/** Makes an element all zero, which means free. */
export function clear(memory: ArrayMemory, index: number): void {
  memory.bytes.fill(0, index * memory.stride, (index + 1) * memory.stride);
}
