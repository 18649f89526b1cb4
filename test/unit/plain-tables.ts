/** The data plane's tables as plain memory, with what the data plane would do to them left out. */
import { layout, type ServiceKey, type Vip, type VipKey } from "../../src/dataplane/sluice.bpf.js";
import type { ArrayMemory, HashTable, Tables } from "../../src/dataplane/tables.js";

export interface PlainSizes {
  readonly services: number;
  readonly realServers: number;
  /** Of 16 slots each. */
  readonly chunks: number;
  /** Sets, the global one included. */
  readonly timeouts?: number;
}

export interface PlainTables extends Tables {
  readonly resetServices: number[];
  /** Real servers whose counters were added to their services'. */
  readonly retired: { readonly realServer: number; readonly service: number }[];
  readonly natEndpoints: PlainHash<ServiceKey, number>;
  readonly serviceIndex: PlainHash<ServiceKey, number>;
}

export function plainTables(sizes: PlainSizes): PlainTables {
  const resetServices: number[] = [];
  const turns = new Map<number, bigint>();
  const retired: { realServer: number; service: number }[] = [];
  return {
    services: plainArray(sizes.services, layout.Service.size),
    realServers: plainArray(sizes.realServers, layout.RealServer.size),
    rings: plainArray(sizes.chunks, layout.RingChunk.size),
    realLoad: plainArray(sizes.realServers, layout.RealLoad.size),
    settings: plainArray(1, layout.Settings.size),
    timeouts: plainArray(sizes.timeouts ?? 16, layout.Timeouts.size + 4),
    localAddresses: plainArray(8, layout.Address.size),
    localPools: plainArray(sizes.realServers, layout.LocalPool.size),
    markRules: plainArray(8, layout.MarkRule.size),
    serviceIndex: new PlainHash<ServiceKey, number>(sizes.services),
    vips: new PlainHash<VipKey, Vip>(sizes.services),
    natEndpoints: new PlainHash<ServiceKey, number>(3 * sizes.realServers),
    turns: {
      get: (service) => turns.get(service) ?? 0n,
      set: (service, next) => {
        turns.set(service, next);
      },
    },
    resetService: (index) => {
      resetServices.push(index);
    },
    retireCounters: (realServer, service) => {
      retired.push({ realServer, service });
    },
    resetServices,
    retired,
  };
}

/** Sets fields of an element of real_load; others stay. */
export function setLoad(tables: Tables, index: number, fields: Partial<Record<LoadField, number>>): void {
  const base = (index * tables.realLoad.stride) / 4;
  for (const [name, value] of Object.entries(fields)) {
    tables.realLoad.u32[base + layout.RealLoad.offsets[name as LoadField] / 4] = value;
  }
}

export type LoadField = keyof typeof layout.RealLoad.offsets;

export function loadField(tables: Tables, index: number, field: LoadField): number {
  return tables.realLoad.u32[(index * tables.realLoad.stride + layout.RealLoad.offsets[field]) / 4]!;
}

export function plainArray(length: number, stride: number): ArrayMemory {
  const buffer = new ArrayBuffer(length * stride);
  return {
    length,
    stride,
    bytes: new Uint8Array(buffer),
    u16: new Uint16Array(buffer),
    u32: new Uint32Array(buffer),
    u64: new BigUint64Array(buffer),
  };
}

/** As a BPF hash map: keys are compared by content, and a full one refuses. */
export class PlainHash<Key, Value> implements HashTable<Key, Value> {
  readonly #size: number;
  readonly #entries = new Map<string, [Key, Value]>();

  constructor(size: number) {
    this.#size = size;
  }

  set(key: Key, value: Value): void {
    const text = textOf(key);
    if (!this.#entries.has(text) && this.#entries.size >= this.#size) {
      throw new Error("E2BIG");
    }
    this.#entries.set(text, [structuredClone(key), structuredClone(value)]);
  }

  get(key: Key): Value | undefined {
    return this.#entries.get(textOf(key))?.[1];
  }

  delete(key: Key): boolean {
    return this.#entries.delete(textOf(key));
  }

  entries(): Iterable<[Key, Value]> {
    return this.#entries.values();
  }
}

function textOf(key: unknown): string {
  return JSON.stringify(key, (_, value: unknown) => (value instanceof Uint8Array ? [...value] : value));
}
