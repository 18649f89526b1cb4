import { addon, type RingHandle } from "./addon.js";
import { BpfError, errno, kernelError, requireInteger, shown } from "./error.js";
import { type BpfMap, handleOfMap } from "./map.js";

export interface RingBufferOptions {
  /** Records in one call at most, default 1024. */
  readonly maxBatch?: number;
}

/**
 * Reads a ring buffer map on the event loop. Records come in batches, in order, as Uint8Arrays that begin at multiples of 8 in memory of
 * their own. What the callback throws is an uncaught exception. Keeps the process running until closed; needs the map only while it is made.
 * A ring has one consumer: two of these on one map take each other's records.
 */
export class RingBuffer {
  #handle: RingHandle | undefined;

  constructor(map: BpfMap, onBatch: (records: Uint8Array[]) => void, options: RingBufferOptions = {}) {
    const handle = handleOfMap("the map", map);
    const { maxBatch = 1024 } = options;
    if (typeof onBatch !== "function")
      throw new BpfError("INVALID_ARGUMENT", `the callback is ${shown(onBatch)}, must be a function`);
    requireInteger("the option maxBatch", maxBatch, 1, 1 << 20);
    if (map.type !== "ringbuf")
      throw new BpfError("WRONG_MAP_TYPE", `map ${map.name} is of type ${map.type}, must be ringbuf`);
    const opened = addon.openRing(handle, (records, sizes) => onBatch(split(records, sizes)), maxBatch);
    if (typeof opened === "number")
      throw kernelError(`cannot read ring buffer ${map.name}`, "ring_buffer__new", opened, {
        [errno.EPERM]: { code: "FROZEN", advice: "the map is frozen or read-only for user space" },
      });
    this.#handle = opened;
  }

  /** No batch comes after this, also when called from the callback. Records that are in the ring stay there. */
  close(): void {
    if (this.#handle === undefined) return;
    addon.closeRing(this.#handle);
    this.#handle = undefined;
  }

  [Symbol.dispose](): void {
    this.close();
  }
}

function split(records: Uint8Array, sizes: Uint32Array): Uint8Array[] {
  const batch = new Array<Uint8Array>(sizes.length);
  let at = 0;
  for (let i = 0; i < sizes.length; i++) {
    at = Math.ceil(at / 8) * 8;
    const end = at + (sizes[i] ?? 0);
    batch[i] = records.subarray(at, end);
    at = end;
  }
  return batch;
}
