/** Rings: the sequences, tables and lists that services pick from, and the sets of local addresses of fullnat's pools. */
import { layout } from "./sluice.bpf.js";
import type { ArrayMemory } from "./tables.js";

/** Slots in one element of the rings map. */
export const CHUNK_SLOTS = layout.RingChunk.size / Uint32Array.BYTES_PER_ELEMENT;

/** Slots of a ring and where they are. A ring of length 0 is nowhere. */
export interface Ring {
  readonly chunk: number;
  readonly length: number;
}

export const NO_RING: Ring = { chunk: 0, length: 0 };

export function ringChunks(length: number): number {
  return Math.ceil(length / CHUNK_SLOTS);
}

const offsets = layout.Ring.offsets;

// Chunk and length side by side, to be stored as the one word that the data plane reads.
const word = new BigUint64Array(1);
const fields = new Uint32Array(word.buffer);

/** @param at the byte of `memory` that the ring lies at, a multiple of 8 */
export function readRing(memory: ArrayMemory, at: number): Ring {
  const length = memory.u32[(at + offsets.length) / 4]!;
  return length === 0 ? NO_RING : { chunk: memory.u32[(at + offsets.chunk) / 4]!, length };
}

/** Publishes a ring by one aligned 64-bit store. */
export function writeRing(memory: ArrayMemory, at: number, { chunk, length }: Ring): void {
  fields[offsets.chunk / 4] = chunk;
  fields[offsets.length / 4] = length;
  Atomics.store(memory.u64, at / 8, word[0]!);
}

export function ringSlots(rings: ArrayMemory, { chunk, length }: Ring): Uint32Array {
  const start = chunk * CHUNK_SLOTS;
  return rings.u32.subarray(start, start + length);
}
