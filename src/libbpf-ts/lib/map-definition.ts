// What a map's parameters mean: as the object's BTF defines them, and what is wrong where the kernel refuses them.
import type { Btf } from "./btf.js";
import { BpfError } from "./error.js";
import { BPF_F_NO_PREALLOC } from "./flags.js";
import { isIndexed, isMapInMap, type MapType } from "./kernel-types.js";

export interface MapTypes {
  /** BTF ids; 0: none. "index": a number, though BTF does not say so. */
  readonly key: number | "index";
  readonly value: number;
}

/** Of a map in section .maps: struct { __type(key, ...); __type(value, ...); } name. */
export function definedTypes(btf: Btf, name: string): MapTypes {
  const variables = btf.section(".maps")?.variables ?? [];
  const variable = variables.find(({ type }) => btf.type(type).name === name);
  if (variable === undefined) {
    const names = variables.map(({ type }) => btf.type(type).name);
    throw new BpfError("NO_SUCH_MAP", `BTF defines no map ${name}; it defines ${names.join(", ") || "none"}`);
  }
  const definition = btf.resolve(variable.type);
  const typeOf = (field: string): number => {
    const member =
      definition.kind === "struct" ? definition.members.find((candidate) => candidate.name === field) : undefined;
    const pointer = member && btf.resolve(member.type);
    return pointer?.kind === "pointer" ? pointer.type : 0;
  };
  return { key: typeOf("key"), value: typeOf("value") };
}

export interface MapParameters {
  readonly type: MapType;
  readonly keySize: number;
  readonly valueSize: number;
  readonly maxEntries: number;
  readonly flags: number;
}

const keyless: ReadonlySet<MapType> = new Set(["queue", "stack", "bloom_filter", "ringbuf", "user_ringbuf"]);

const PAGE_SIZE = 4096;

/** Why the kernel answers EINVAL to such a map, as far as its map_alloc_check functions (kernel/bpf/*.c) tell. */
export function mapAdvice({ type, keySize, valueSize, maxEntries, flags }: MapParameters): string | undefined {
  if (type === "ringbuf" || type === "user_ringbuf") {
    if (keySize !== 0 || valueSize !== 0)
      return `a ${type} has no keys and values: key and value size must be 0, are ${keySize} and ${valueSize}`;
    if (maxEntries < PAGE_SIZE || (maxEntries & (maxEntries - 1)) !== 0)
      return `a ring's size (max_entries, in bytes) must be a power-of-two number of pages, is ${maxEntries}`;
  }
  if (maxEntries === 0) return "max_entries must be above 0";
  if ((isIndexed(type) || type === "devmap_hash") && keySize !== 4)
    return `the keys of a ${type} are 4-byte integers: key size must be 4, is ${keySize}`;
  if (keyless.has(type) && keySize !== 0) return `a ${type} has no keys: key size must be 0, is ${keySize}`;
  if (!keyless.has(type) && keySize === 0) return `key size must be above 0 for a ${type}`;
  if (valueSize === 0 && type !== "ringbuf" && type !== "user_ringbuf")
    return `value size must be above 0 for a ${type}`;
  if (type === "lpm_trie" && (flags & BPF_F_NO_PREALLOC) === 0) return "an lpm_trie needs the flag BPF_F_NO_PREALLOC";
  if (type === "lpm_trie" && (keySize < 5 || keySize > 260))
    return `an lpm_trie's key is 4 bytes of prefix length and 1 to 256 of data, has ${keySize}`;
  if (type.startsWith("lru_") && (flags & BPF_F_NO_PREALLOC) !== 0)
    return `a ${type} is always preallocated: leave out BPF_F_NO_PREALLOC`;
  if (isMapInMap(type)) return `a ${type} needs an inner map as a template, which is not a map in a map itself`;
  return undefined;
}
