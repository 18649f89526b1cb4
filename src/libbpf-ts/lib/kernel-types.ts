// The kernel's map and program types under the names that libbpf and bpftool give them.
import { addon } from "./addon.js";
import { BpfError, shown } from "./error.js";

type KnownMapType =
  | "hash"
  | "array"
  | "prog_array"
  | "perf_event_array"
  | "percpu_hash"
  | "percpu_array"
  | "stack_trace"
  | "cgroup_array"
  | "lru_hash"
  | "lru_percpu_hash"
  | "lpm_trie"
  | "array_of_maps"
  | "hash_of_maps"
  | "devmap"
  | "sockmap"
  | "cpumap"
  | "xskmap"
  | "sockhash"
  | "cgroup_storage"
  | "reuseport_sockarray"
  | "percpu_cgroup_storage"
  | "queue"
  | "stack"
  | "sk_storage"
  | "devmap_hash"
  | "struct_ops"
  | "ringbuf"
  | "inode_storage"
  | "task_storage"
  | "bloom_filter"
  | "user_ringbuf"
  | "cgrp_storage";

type KnownProgramType =
  | "xdp"
  | "sched_cls"
  | "syscall"
  | "tracing"
  | "cgroup_skb"
  | "sock_ops"
  | "sk_lookup"
  | "struct_ops";

// The intersection keeps a plain string allowed without losing the known names for completion.
/** A type that this libbpf does not know is called `type_` and its number. */
export type MapType = KnownMapType | (string & {});
export type ProgramType = KnownProgramType | (string & {});

const mapTypes = addon.mapTypeNames();
const programTypes = addon.programTypeNames();

export function mapTypeName(type: number): MapType {
  return mapTypes[type] ?? `type_${type}`;
}

export function programTypeName(type: number): ProgramType {
  return programTypes[type] ?? `type_${type}`;
}

function numberOf(what: string, names: readonly string[], name: unknown): number {
  const number = typeof name === "string" ? names.indexOf(name) : -1;
  if (number >= 0) return number;
  const match = typeof name === "string" ? /^type_(\d{1,4})$/.exec(name) : null;
  if (match !== null) return Number(match[1]);
  throw new BpfError("NO_SUCH_TYPE", `there is no ${what} type ${shown(name)}; there are ${names.join(", ")}`);
}

export function mapTypeNumber(name: MapType): number {
  return numberOf("map", mapTypes, name);
}

export function programTypeNumber(name: ProgramType): number {
  return numberOf("program", programTypes, name);
}

const perCpu: ReadonlySet<MapType> = new Set([
  "percpu_hash",
  "percpu_array",
  "lru_percpu_hash",
  "percpu_cgroup_storage",
]);
export function isPerCpu(type: MapType): boolean {
  return perCpu.has(type);
}

/** User space writes a descriptor and reads an id. */
const objects: ReadonlySet<MapType> = new Set([
  "prog_array",
  "perf_event_array",
  "cgroup_array",
  "array_of_maps",
  "hash_of_maps",
]);
export function holdsObjects(type: MapType): boolean {
  return objects.has(type);
}

export function isMapInMap(type: MapType): boolean {
  return type === "array_of_maps" || type === "hash_of_maps";
}

/** Keys are indexes below max_entries. */
const indexed: ReadonlySet<MapType> = new Set([
  "array",
  "percpu_array",
  "prog_array",
  "perf_event_array",
  "array_of_maps",
  "devmap",
  "cpumap",
  "xskmap",
  "sockmap",
  "cgroup_array",
  "reuseport_sockarray",
]);
export function isIndexed(type: MapType): boolean {
  return indexed.has(type);
}
