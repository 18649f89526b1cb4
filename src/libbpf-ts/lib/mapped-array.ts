import { addon } from "./addon.js";
import { BpfError } from "./error.js";

/**
 * The memory of an array map, shared with the kernel: what a program writes is seen here, and the other way round, without a system
 * call. Element i begins at byte i * stride. Aligned stores of 1, 2, 4 and 8 bytes are single stores.
 *
 * With `writable: false` every access to a view copies the present content: JavaScript has no read-only typed arrays, and a
 * store to read-only memory would end the process.
 */
export class MappedArray {
  #memory: ArrayBuffer | undefined;
  readonly #writable: boolean;
  readonly #views = new Map<ViewConstructor, View>();
  /** Elements. */
  readonly length: number;
  /** Bytes from one element to the next: the value size, rounded up to 8. */
  readonly stride: number;

  /** Made by BpfMap.mmap. */
  constructor(memory: ArrayBuffer, length: number, stride: number, writable: boolean) {
    this.#memory = memory;
    this.length = length;
    this.stride = stride;
    this.#writable = writable;
  }

  get bytes(): Uint8Array {
    return this.#view(Uint8Array) as Uint8Array;
  }

  get u16(): Uint16Array {
    return this.#view(Uint16Array) as Uint16Array;
  }

  get u32(): Uint32Array {
    return this.#view(Uint32Array) as Uint32Array;
  }

  get u64(): BigUint64Array {
    return this.#view(BigUint64Array) as BigUint64Array;
  }

  #view(constructor: ViewConstructor): View {
    if (this.#memory === undefined) throw new BpfError("CLOSED", "the mapped array is closed");
    if (!this.#writable) return new constructor(this.#memory.slice(0));
    let view = this.#views.get(constructor);
    if (view === undefined) {
      view = new constructor(this.#memory);
      this.#views.set(constructor, view);
    }
    return view;
  }

  /** Unmaps. All views that were handed out have length 0 from here on, so that nothing can touch memory that is gone. */
  close(): void {
    if (this.#memory === undefined) return;
    addon.detach(this.#memory);
    this.#memory = undefined;
    this.#views.clear();
  }

  [Symbol.dispose](): void {
    this.close();
  }
}

type ViewConstructor = typeof Uint8Array | typeof Uint16Array | typeof Uint32Array | typeof BigUint64Array;
type View = Uint8Array | Uint16Array | Uint32Array | BigUint64Array;
