/** Elements of the local_pools map: which local addresses and ports a fullnat real server's connections come from. */
import type { PortRange } from "../model/index.js";
import { type Ring, readRing, writeRing } from "./ring-record.js";
import { layout } from "./sluice.bpf.js";
import type { ArrayMemory } from "./tables.js";

export interface LocalPool {
  /** Its slots are indexes into local_addresses. */
  readonly ring: Ring;
  readonly ports: PortRange;
}

const offsets = layout.LocalPool.offsets;

export function readLocalPool(localPools: ArrayMemory, index: number): LocalPool {
  const base = index * localPools.stride;
  const port = (offset: number): number => localPools.u16[(base + offset) / 2]!;
  return {
    ring: readRing(localPools, base + offsets.ring),
    ports: [port(offsets.first_port), port(offsets.last_port)],
  };
}

// Both ports side by side, to be stored as one word, so that no range is seen that is neither the old nor the new one.
const word = new Uint32Array(1);
const ports = new Uint16Array(word.buffer);

/** The ports first: they are of use only with a ring. */
export function writeLocalPool(localPools: ArrayMemory, index: number, pool: LocalPool): void {
  const base = index * localPools.stride;
  ports.set(pool.ports);
  Atomics.store(localPools.u32, (base + offsets.first_port) / 4, word[0]!);
  writeRing(localPools, base + offsets.ring, pool.ring);
}

/** Pairs of a local address and a local port. */
export function localPortCount({ ring, ports: [first, last] }: LocalPool): number {
  return ring.length * (last - first + 1);
}

export function samePool(a: LocalPool | undefined, b: LocalPool | undefined): boolean {
  return (
    a === b ||
    (a?.ring.chunk === b?.ring.chunk &&
      a?.ring.length === b?.ring.length &&
      a?.ports[0] === b?.ports[0] &&
      a?.ports[1] === b?.ports[1])
  );
}
