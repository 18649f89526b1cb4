import { addon, type MapHandle, type MapInfo } from "./addon.js";
import { Btf } from "./btf.js";
import { type Codec, rawCodec, u32Codec } from "./codec.js";
import {
  BpfError,
  type BpfErrorCode,
  errno,
  kernelError,
  type Reading,
  requireBytes,
  requireInteger,
  requireName,
  shown,
} from "./error.js";
import { BPF_F_MMAPABLE } from "./flags.js";
import {
  holdsObjects,
  isIndexed,
  isMapInMap,
  isPerCpu,
  type MapType,
  mapTypeName,
  mapTypeNumber,
} from "./kernel-types.js";
import { definedTypes, type MapTypes, mapAdvice } from "./map-definition.js";
import { MappedArray } from "./mapped-array.js";
import { openPin, pin, unpin } from "./pin.js";

/** `any`: insert or replace; `new`: insert only (KEY_EXISTS); `existing`: replace only (NO_SUCH_KEY). */
export type UpdateMode = "any" | "new" | "existing";

const updateFlags: Readonly<Record<UpdateMode, number>> = { any: 0, new: 1, existing: 2 };

export interface CreateOptions {
  readonly type: MapType;
  /** At most 15 characters are kept. */
  readonly name?: string;
  /** Bytes. */
  readonly keySize: number;
  readonly valueSize: number;
  /** For a ring buffer: bytes. */
  readonly maxEntries: number;
  /** BPF_F_* */
  readonly flags?: number;
  /** The template of a map in a map. */
  readonly inner?: BpfMap;
}

export interface OpenMapOptions {
  /** For maps of which the kernel keeps no BTF, devmaps for example: types as this BTF's definition of the map `definition` has them. */
  readonly btf: Btf;
  readonly definition: string;
}

/** Keys and values back to back, `count` of each; values of per-CPU maps as in getRaw. Valid until the next batch is asked for. */
export interface RawBatch {
  readonly keys: Uint8Array;
  readonly values: Uint8Array;
  readonly count: number;
}

/** What a batch read into one buffer may take, in bytes. */
const BATCH_BYTES = 1 << 20;

/** An iteration over a map whose batches the kernel does not offer starts again when its position is deleted; this often at most. */
const MAX_RESTARTS = 16;

export function stride(valueSize: number): number {
  return Math.ceil(valueSize / 8) * 8;
}

/** How many values an element of a per-CPU map has: one a possible CPU, whether it is online or not. */
export function possibleCpus(): number {
  const cpus = addon.possibleCpus();
  if (cpus < 0) throw kernelError("cannot tell the number of possible CPUs", "read", cpus);
  return cpus;
}

function requireMode(mode: unknown): asserts mode is UpdateMode {
  if (mode !== "any" && mode !== "new" && mode !== "existing")
    throw new BpfError("INVALID_ARGUMENT", `the update mode is ${shown(mode)}, must be any, new or existing`);
}

const frozen: Reading = { code: "FROZEN", advice: "the map is frozen or read-only for user space" };

/** Undefined: a type without a counterpart in JavaScript, whose bytes can still be used. */
function supportedCodec(btf: Btf, id: number): Codec<unknown> | undefined {
  try {
    return btf.codecOf(id);
  } catch (error) {
    if (error instanceof BpfError && error.code === "UNSUPPORTED_TYPE") return undefined;
    throw error;
  }
}

/** A map's handle, for the other classes of this package. */
export let handleOfMap: (what: string, map: unknown) => MapHandle;
/** Wraps a handle, which it then owns. */
export let wrapMap: (handle: MapHandle, name?: string, btf?: Btf, types?: MapTypes) => BpfMap;

/**
 * A map in the kernel. Keys and values are encoded by BTF where there is some, and are Uint8Arrays of exactly the map's sizes where
 * there is none. Calls are system calls of about a microsecond, made at once; only what waits for RCU returns a promise.
 * The descriptor is this object's: closed by close(), by the garbage collector or with the environment. Work that is under way on
 * the thread pool keeps it open until it is done.
 */
export class BpfMap<K = unknown, V = unknown> {
  static {
    handleOfMap = (what, map) => {
      if (typeof map !== "object" || map === null || !(#handle in map))
        throw new BpfError("INVALID_ARGUMENT", `${what} is ${shown(map)}, must be a BpfMap`);
      return map.#open();
    };
    wrapMap = (handle, name, btf, types) => new BpfMap(handle, name, btf, types);
  }

  readonly name: string;
  readonly type: MapType;
  /** Bytes, as are all sizes. */
  readonly keySize: number;
  readonly valueSize: number;
  readonly maxEntries: number;
  /** BPF_F_* */
  readonly flags: number;
  /** The kernel's, as bpftool shows it. */
  readonly id: number;

  #handle: MapHandle | undefined;
  readonly #perCpu: boolean;
  /** What messages call a key and a value: made once, for checks that every call makes. */
  readonly #keyName: string;
  readonly #valueName: string;
  /** Bytes that a lookup or update moves. */
  readonly #transferSize: number;
  readonly #key: Codec<unknown>;
  readonly #value: Codec<unknown>;

  private constructor(handle: MapHandle, name?: string, btf?: Btf, types?: MapTypes) {
    const info = addon.mapInfo(handle);
    if (typeof info === "number") {
      addon.closeMap(handle);
      throw kernelError("cannot read the map's parameters", "BPF_OBJ_GET_INFO_BY_FD", info);
    }
    this.#handle = handle;
    this.name = name ?? info.name;
    this.type = mapTypeName(info.type);
    this.keySize = info.keySize;
    this.valueSize = info.valueSize;
    this.maxEntries = info.maxEntries;
    this.flags = info.flags;
    this.id = info.id;
    this.#perCpu = isPerCpu(this.type);
    this.#keyName = `map ${this.#label}: the key`;
    this.#valueName = `map ${this.#label}: the value`;
    this.#transferSize = info.transferSize;
    [this.#key, this.#value] = this.#codecs(info, btf, types);
  }

  #codecs(
    info: MapInfo,
    btf: Btf | undefined,
    types: MapTypes | undefined,
  ): [key: Codec<unknown>, value: Codec<unknown>] {
    const table = btf ?? (info.btfId === 0 ? undefined : Btf.fromKernel(info.btfId));
    const ids = types ?? { key: info.keyTypeId, value: info.valueTypeId };
    const codec = (id: number | "index", size: number): Codec<unknown> => {
      if (id === "index") return u32Codec;
      if (table === undefined || id === 0) return rawCodec(size);
      const typed = supportedCodec(table, id);
      // A definition that the kernel's map does not have the sizes of says nothing about it.
      return typed?.size === size ? typed : rawCodec(size);
    };
    return [codec(ids.key, info.keySize), holdsObjects(this.type) ? u32Codec : codec(ids.value, info.valueSize)];
  }

  /** Opens a pinned map. Its BTF comes from the kernel. WRONG_KIND if something else is pinned there. */
  static open<K = unknown, V = unknown>(pinPath: string, options?: OpenMapOptions): BpfMap<K, V> {
    const types = options && definedTypes(options.btf, options.definition);
    return new BpfMap<K, V>(openPin("map", pinPath), options?.definition, options?.btf, types);
  }

  /** Makes a map without BTF: its keys and values are Uint8Arrays. */
  static create<K = Uint8Array, V = Uint8Array>(options: CreateOptions): BpfMap<K, V> {
    const { type, name = "", keySize, valueSize, maxEntries, flags = 0, inner } = options;
    if (name !== "") requireName("the map's name", name);
    requireInteger("keySize", keySize, 0, 0xffffffff);
    requireInteger("valueSize", valueSize, 0, 0xffffffff);
    requireInteger("maxEntries", maxEntries, 0, 0xffffffff);
    requireInteger("flags", flags, 0, 0xffffffff);
    const template = inner === undefined ? undefined : handleOfMap("the option inner", inner);
    const made = addon.createMap(mapTypeNumber(type), name, keySize, valueSize, maxEntries, flags, template);
    if (typeof made === "number") {
      const advice = mapAdvice({ type, keySize, valueSize, maxEntries, flags });
      const refused: Reading = { code: "INVALID_ARGUMENT", ...(advice === undefined ? {} : { advice }) };
      throw kernelError(
        `cannot create a map of type ${type}${name === "" ? "" : ` (${name})`}`,
        "BPF_MAP_CREATE",
        made,
        {
          [errno.EINVAL]: refused,
          // Of a map in a map without a template.
          [errno.EBADF]: refused,
          ...(advice !== undefined && { [errno.ENOTSUPP]: refused }),
          [errno.E2BIG]: { code: "INVALID_ARGUMENT", advice: "the map would be larger than the kernel allows" },
        },
      );
    }
    return new BpfMap<K, V>(made, name === "" ? undefined : name);
  }

  /** For messages. */
  get #label(): string {
    return this.name === "" ? `of type ${this.type}` : this.name;
  }

  #open(): MapHandle {
    if (this.#handle === undefined) throw new BpfError("CLOSED", `map ${this.#label} is closed`);
    return this.#handle;
  }

  #fail(action: string, command: string, error: number, readings: Readonly<Record<number, Reading>> = {}): BpfError {
    return kernelError(`cannot ${action} map ${this.#label}`, command, error, { [errno.EPERM]: frozen, ...readings });
  }

  #refuse(code: BpfErrorCode, why: string): BpfError {
    return new BpfError(code, `map ${this.#label} ${why}`);
  }

  #requireSingle(instead: string): void {
    if (this.#perCpu) throw this.#refuse("WRONG_MAP_TYPE", `has a value for every CPU: use ${instead}`);
  }

  #requirePerCpu(instead: string): void {
    if (!this.#perCpu) throw this.#refuse("WRONG_MAP_TYPE", `has one value, not one for every CPU: use ${instead}`);
  }

  /** Borrowed: valid while this object is open, and never to be closed by anyone else. */
  get fd(): number {
    return addon.descriptor(this.#open());
  }

  encodeKey(key: K): Uint8Array {
    return this.#key.encode(key);
  }

  /** Of exactly keySize bytes. */
  decodeKey(bytes: Uint8Array): K {
    requireBytes(this.#keyName, bytes, this.keySize);
    return this.#key.decode(bytes) as K;
  }

  encodeValue(value: V): Uint8Array {
    return this.#value.encode(value);
  }

  decodeValue(bytes: Uint8Array): V {
    requireBytes(this.#valueName, bytes, this.#value.size);
    return this.#value.decode(bytes) as V;
  }

  /** Undefined: not there, or beyond an array's end. Not for per-CPU maps. Of maps that hold maps or programs: their id. */
  get(key: K): V | undefined {
    this.#requireSingle("getPerCpu");
    const value = this.getRaw(this.#key.encode(key));
    return value && (this.#value.decode(value) as V);
  }

  /** Not for per-CPU maps, nor for those that hold maps or programs. */
  set(key: K, value: V, mode: UpdateMode = "any"): void {
    this.#requireSingle("setPerCpu");
    if (holdsObjects(this.type))
      throw this.#refuse("WRONG_MAP_TYPE", `holds kernel objects: use ${isMapInMap(this.type) ? "setInner" : "setFd"}`);
    this.setRaw(this.#key.encode(key), this.#value.encode(value), mode);
  }

  /** Deletes an element; false: it was not there. An array's elements cannot be deleted (WRONG_MAP_TYPE). */
  delete(key: K): boolean {
    const encoded = this.#key.encode(key);
    const error = addon.remove(this.#open(), encoded);
    if (error === -errno.ENOENT) return false;
    if (error < 0) throw this.#fail("delete from", "BPF_MAP_DELETE_ELEM", error, this.#deleteReadings);
    return true;
  }

  get #deleteReadings(): Readonly<Record<number, Reading>> {
    return {
      [errno.EINVAL]: { code: "WRONG_MAP_TYPE", advice: `elements of a map of type ${this.type} cannot be deleted` },
    };
  }

  /** One value a possible CPU. Undefined: not there. */
  getPerCpu(key: K): V[] | undefined {
    this.#requirePerCpu("get");
    const values = this.getRaw(this.#key.encode(key));
    return values && this.#splitPerCpu(values, 0);
  }

  #splitPerCpu(values: Uint8Array, offset: number): V[] {
    const step = stride(this.valueSize);
    return Array.from(
      { length: this.#transferSize / step },
      (_, cpu) => this.#value.decode(values, offset + cpu * step) as V,
    );
  }

  /** Of exactly as many values as there are possible CPUs. */
  setPerCpu(key: K, values: V[]): void {
    this.#requirePerCpu("set");
    const step = stride(this.valueSize);
    const cpus = this.#transferSize / step;
    if (!Array.isArray(values) || values.length !== cpus)
      throw new BpfError(
        "WRONG_SIZE",
        `map ${this.#label}: the values are ${shown(values)}, must be an array of ${cpus}, one a possible CPU`,
      );
    const bytes = new Uint8Array(this.#transferSize);
    for (const [cpu, value] of values.entries()) this.#value.encodeInto(value, bytes, cpu * step);
    this.setRaw(this.#key.encode(key), bytes);
  }

  /** Bytes for bytes. Per-CPU maps: the values of all possible CPUs back to back, each at a multiple of 8. */
  getRaw(key: Uint8Array): Uint8Array | undefined {
    requireBytes(this.#keyName, key, this.keySize);
    const value = new Uint8Array(this.#transferSize);
    const error = addon.lookup(this.#open(), key, value);
    if (error === -errno.ENOENT) return undefined;
    if (error < 0)
      throw this.#fail("look up in", "BPF_MAP_LOOKUP_ELEM", error, {
        [errno.EOPNOTSUPP]: { code: "WRONG_MAP_TYPE", advice: `a ${this.type} has no lookup` },
        [errno.ENOTSUPP]: { code: "WRONG_MAP_TYPE", advice: `a ${this.type} has no lookup` },
      });
    return value;
  }

  setRaw(key: Uint8Array, value: Uint8Array, mode: UpdateMode = "any"): void {
    requireMode(mode);
    requireBytes(this.#keyName, key, this.keySize);
    requireBytes(this.#valueName, value, this.#transferSize);
    const error = addon.update(this.#open(), key, value, updateFlags[mode]);
    if (error < 0) throw this.#fail("update", "BPF_MAP_UPDATE_ELEM", error, this.#updateReadings);
  }

  get #updateReadings(): Readonly<Record<number, Reading>> {
    // The kernel gives an array's missing element the errno of a full hash map.
    return {
      [errno.E2BIG]: isIndexed(this.type)
        ? { code: "NO_SUCH_KEY", advice: `the index is beyond the map's ${this.maxEntries} elements` }
        : { code: "MAP_FULL", advice: `the map has its ${this.maxEntries} elements` },
      [errno.ENOSPC]: { code: "MAP_FULL", advice: `the map has its ${this.maxEntries} elements` },
      [errno.EEXIST]: { code: "KEY_EXISTS", advice: "the key is there already" },
      [errno.ENOENT]: { code: "NO_SUCH_KEY", advice: "the key is not there" },
    };
  }

  /** All keys; see entries(). */
  *keys(): IterableIterator<K> {
    for (const { keys, count } of this.batchesRaw())
      for (let i = 0; i < count; i++) yield this.#key.decode(keys, i * this.keySize) as K;
  }

  /**
   * All elements, while others may insert and delete. An element that is there from beginning to end comes once; one that comes or
   * goes meanwhile may come or not. Hash maps are walked by bucket, which deletion does not disturb. Where the kernel offers only a walk
   * from key to key (lpm_trie, hash_of_maps of old kernels), deleting the position starts it again, so that elements come twice, and after 16 times
   * ends in ITERATION_UNSTABLE. The caller may delete elements in the loop.
   */
  *entries(): IterableIterator<[K, V]> {
    for (const batch of this.entriesBatch()) yield* batch;
  }

  /** As entries(), in arrays of at most `batchSize`, or of a whole bucket where that is more. */
  *entriesBatch(options: { readonly batchSize?: number } = {}): IterableIterator<[K, V][]> {
    this.#requireSingle("entriesPerCpu");
    for (const { keys, values, count } of this.batchesRaw(options))
      yield Array.from({ length: count }, (_, i): [K, V] => [
        this.#key.decode(keys, i * this.keySize) as K,
        this.#value.decode(values, i * this.#transferSize) as V,
      ]);
  }

  /** As entries(), with one value a possible CPU. */
  *entriesPerCpu(): IterableIterator<[K, V[]]> {
    this.#requirePerCpu("entries");
    for (const { keys, values, count } of this.batchesRaw())
      for (let i = 0; i < count; i++)
        yield [this.#key.decode(keys, i * this.keySize) as K, this.#splitPerCpu(values, i * this.#transferSize)];
  }

  /** As entriesBatch(), undecoded: for reading large maps fast. */
  *batchesRaw(options: { readonly batchSize?: number } = {}): IterableIterator<RawBatch> {
    const fitting = Math.floor(BATCH_BYTES / (this.keySize + this.#transferSize));
    const { batchSize = Math.min(Math.max(fitting, 16), this.maxEntries) } = options;
    requireInteger("the option batchSize", batchSize, 1, 1 << 20);
    if (this.keySize === 0) throw this.#refuse("WRONG_MAP_TYPE", "has no keys to go through");
    let capacity = batchSize;
    const positionSize = Math.max(this.keySize, 4);
    let position: Uint8Array | undefined;
    let keys = new Uint8Array(capacity * this.keySize);
    let values = new Uint8Array(capacity * this.#transferSize);
    for (;;) {
      const next = new Uint8Array(positionSize);
      const [error, count] = addon.lookupBatch(this.#open(), position, next, keys, values, capacity);
      if (error === -errno.ENOTSUPP && position === undefined) {
        yield* this.#walk();
        return;
      }
      if (error === -errno.ENOSPC) {
        // A bucket has more elements than there is room for.
        capacity *= 2;
        keys = new Uint8Array(capacity * this.keySize);
        values = new Uint8Array(capacity * this.#transferSize);
        continue;
      }
      if (error < 0 && error !== -errno.ENOENT) throw this.#fail("go through", "BPF_MAP_LOOKUP_BATCH", error);
      if (count > 0) yield { keys, values, count };
      if (error === -errno.ENOENT) return;
      position = next;
    }
  }

  *#walk(): IterableIterator<RawBatch> {
    let restarts = 0;
    let current = this.#nextKey(undefined);
    while (current !== undefined) {
      const value = this.getRaw(current);
      // The next key is taken before the caller may delete this one.
      const next = this.#nextKey(current);
      if (value !== undefined) yield { keys: current, values: value, count: 1 };
      // A key that is gone when its next is asked for: the kernel answered the first key.
      else if (++restarts > MAX_RESTARTS)
        throw this.#refuse(
          "ITERATION_UNSTABLE",
          `lost the position of an iteration ${MAX_RESTARTS} times to deletions`,
        );
      current = next;
    }
  }

  #nextKey(key: Uint8Array | undefined): Uint8Array | undefined {
    const next = new Uint8Array(this.keySize);
    const error = addon.nextKey(this.#open(), key, next);
    if (error === -errno.ENOENT) return undefined;
    if (error < 0) throw this.#fail("go through", "BPF_MAP_GET_NEXT_KEY", error);
    return next;
  }

  /**
   * Writes many elements with one system call. If one is refused, those before it are written. Encodes all before it writes any.
   * With another mode than `any`, which the kernel's batches do not know, and for types without batches: one call an element.
   */
  setBatch(entries: Iterable<readonly [K, V]>, mode: UpdateMode = "any"): void {
    requireMode(mode);
    this.#requireSingle("setBatchRaw");
    if (holdsObjects(this.type)) throw this.#refuse("WRONG_MAP_TYPE", "holds kernel objects, which are set one by one");
    const list = [...entries];
    const keys = new Uint8Array(list.length * this.keySize);
    const values = new Uint8Array(list.length * this.valueSize);
    for (const [i, [key, value]] of list.entries()) {
      this.#key.encodeInto(key, keys, i * this.keySize);
      this.#value.encodeInto(value, values, i * this.valueSize);
    }
    if (mode === "any") this.setBatchRaw(keys, values, list.length);
    else this.#setEach(keys, values, list.length, mode);
  }

  /** Keys back to back, and values back to back as setRaw takes them, `count` of each. */
  setBatchRaw(keys: Uint8Array, values: Uint8Array, count: number): void {
    requireInteger("the count", count, 0, 0xffffffff);
    requireBytes(`map ${this.#label}: ${count} keys`, keys, count * this.keySize);
    requireBytes(`map ${this.#label}: ${count} values`, values, count * this.#transferSize);
    const handle = this.#open();
    if (count === 0) return;
    const [error, done] = addon.updateBatch(handle, keys, values, count);
    if (error === -errno.ENOTSUPP) this.#setEach(keys, values, count, "any");
    else if (error < 0)
      throw this.#fail(`update element ${done} of ${count} in`, "BPF_MAP_UPDATE_BATCH", error, this.#updateReadings);
  }

  #setEach(keys: Uint8Array, values: Uint8Array, count: number, mode: UpdateMode): void {
    for (let i = 0; i < count; i++) {
      const key = keys.subarray(i * this.keySize, (i + 1) * this.keySize);
      const value = values.subarray(i * this.#transferSize, (i + 1) * this.#transferSize);
      const error = addon.update(this.#open(), key, value, updateFlags[mode]);
      if (error < 0)
        throw this.#fail(`update element ${i} of ${count} in`, "BPF_MAP_UPDATE_ELEM", error, this.#updateReadings);
    }
  }

  /** Deletes many elements and returns how many were there. */
  deleteBatch(keys: Iterable<K>): number {
    const list = [...keys];
    const bytes = new Uint8Array(list.length * this.keySize);
    for (const [i, key] of list.entries()) this.#key.encodeInto(key, bytes, i * this.keySize);
    let deleted = 0;
    let at = 0;
    while (at < list.length) {
      const rest = bytes.subarray(at * this.keySize);
      const [error, done] = addon.removeBatch(this.#open(), rest, list.length - at);
      if (error === -errno.ENOTSUPP) return deleted + this.#deleteEach(rest, list.length - at);
      if (error < 0 && error !== -errno.ENOENT)
        throw this.#fail("delete from", "BPF_MAP_DELETE_BATCH", error, this.#deleteReadings);
      deleted += done;
      // The kernel stops at a key that is not there.
      at += error < 0 ? done + 1 : list.length - at;
    }
    return deleted;
  }

  #deleteEach(keys: Uint8Array, count: number): number {
    let deleted = 0;
    for (let i = 0; i < count; i++) {
      const error = addon.remove(this.#open(), keys.subarray(i * this.keySize, (i + 1) * this.keySize));
      if (error === 0) deleted++;
      else if (error !== -errno.ENOENT)
        throw this.#fail("delete from", "BPF_MAP_DELETE_ELEM", error, this.#deleteReadings);
    }
    return deleted;
  }

  /** Of a map in a map. The kernel waits for RCU (milliseconds), so this runs on the thread pool. `inner` stays the caller's. */
  async setInner(key: K, inner: BpfMap): Promise<void> {
    if (!isMapInMap(this.type)) throw this.#refuse("WRONG_MAP_TYPE", "holds no maps");
    const template = handleOfMap("the inner map", inner);
    const error = await addon.setInner(this.#open(), this.#key.encode(key), template);
    if (error < 0)
      throw this.#fail(`put map ${inner.#label} into`, "BPF_MAP_UPDATE_ELEM", error, {
        ...this.#updateReadings,
        [errno.EINVAL]: {
          code: "INVALID_ARGUMENT",
          advice:
            "an inner map must have the template's type, key size, value size and flags, and an array its max_entries unless both have BPF_F_INNER_MAP",
        },
      });
  }

  /** Stores a program, map or socket in a prog_array, xskmap and the like. The kernel takes a reference of its own. */
  setFd(key: K, object: { readonly fd: number }): void {
    if (isMapInMap(this.type)) throw this.#refuse("WRONG_MAP_TYPE", "waits for RCU on an update: use setInner");
    requireInteger("the object's fd", object.fd, 0, 0x7fffffff);
    if (this.#transferSize !== 4 && this.#transferSize !== 8)
      throw this.#refuse("WRONG_MAP_TYPE", "holds no descriptors");
    const value = new Uint8Array(this.#transferSize);
    new DataView(value.buffer).setUint32(0, object.fd, true);
    const error = addon.update(this.#open(), this.#key.encode(key), value, updateFlags.any);
    if (error < 0)
      throw this.#fail("put a descriptor into", "BPF_MAP_UPDATE_ELEM", error, {
        ...this.#updateReadings,
        [errno.EINVAL]: {
          code: "INVALID_ARGUMENT",
          advice:
            "what the descriptor stands for does not fit the map; programs of a prog_array are of one type, and all with or all without fragment support",
        },
        [errno.EBADF]: { code: "INVALID_ARGUMENT", advice: "there is no such descriptor" },
      });
  }

  /** The memory of an array with BPF_F_MMAPABLE. Writable unless said otherwise. Outlives this object; to be closed by itself. */
  mmap(options: { readonly writable?: boolean } = {}): MappedArray {
    const { writable = true } = options;
    if (this.type !== "array" || (this.flags & BPF_F_MMAPABLE) === 0)
      throw this.#refuse("WRONG_MAP_TYPE", "cannot be mapped: that takes an array with the flag BPF_F_MMAPABLE");
    const memory = addon.mmap(this.#open(), writable);
    if (typeof memory === "number")
      throw this.#fail("map the memory of", "mmap", memory, {
        [errno.EOPNOTSUPP]: { code: "UNSUPPORTED", advice: "this build of Node takes no external memory" },
        [errno.ENOTSUPP]: { code: "UNSUPPORTED", advice: "values with locks or timers in them cannot be mapped" },
      });
    return new MappedArray(memory, this.maxEntries, stride(this.valueSize), writable);
  }

  /** No system call may change the map any more; programs still may. */
  freeze(): void {
    const error = addon.freeze(this.#open());
    if (error < 0)
      throw this.#fail("freeze", "BPF_MAP_FREEZE", error, {
        [errno.EBUSY]: { code: "INVALID_ARGUMENT", advice: "it is mapped writable" },
      });
  }

  /** Gives the map a name on a BPF file system, which keeps it alive after this process. */
  pin(path: string): void {
    pin(`map ${this.#label}`, this.#open(), path);
  }

  /** PIN_DIFFERS if something else is pinned there. */
  unpin(path: string): void {
    this.#open();
    unpin(`map ${this.#label}`, "map", this.id, path);
  }

  /** Closing twice is harmless. */
  close(): void {
    if (this.#handle === undefined) return;
    addon.closeMap(this.#handle);
    this.#handle = undefined;
  }

  [Symbol.dispose](): void {
    this.close();
  }
}
