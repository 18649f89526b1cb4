/** What the data plane has counted, read back from its maps and summed over processors. */
import type { BpfMap } from "libbpf-ts";
import type { DropCounter, RealServerCounters, ServiceCounters, Statistics, TrafficCounters } from "../model/index.js";
import type { Inventory } from "./inventory.js";
import { readLoad } from "./record.js";
import { DropReason, layout } from "./sluice.bpf.js";
import type { ArrayMemory } from "./tables.js";

/** The maps that hold counters. */
export interface CounterMaps {
  readonly services: BpfMap;
  readonly realServers: BpfMap;
  readonly drops: BpfMap;
}

const traffic = layout.Traffic.offsets;
const drop = layout.DropCounter.offsets;

/** Names as users see them, by the index of the counter: `next_hop_unresolved`. */
const DROP_NAMES: readonly string[] = Object.entries(DropReason)
  .filter(([, reason]) => reason < DropReason.DROP_REASONS)
  .sort(([, a], [, b]) => a - b)
  .map(([name]) => name.replace(/^DROP_/, "").toLowerCase());

/** @param cpus processors that the kernel reckons with: per-CPU values have one part for each */
export function readStatistics(
  maps: CounterMaps,
  inventory: Inventory,
  realLoad: ArrayMemory,
  cpus: number,
): Statistics {
  let serviceEnd = 0;
  let realServerEnd = 0;
  for (const { index, realServers } of inventory.services.values()) {
    serviceEnd = Math.max(serviceEnd, index + 1);
    for (const realServer of realServers.values()) {
      realServerEnd = Math.max(realServerEnd, realServer.index + 1);
    }
  }
  const ofServices = sumOverCpus(maps.services, layout.Traffic.size, serviceEnd, cpus);
  const ofRealServers = sumOverCpus(maps.realServers, layout.Traffic.size, realServerEnd, cpus);

  const services = new Map<string, ServiceCounters>();
  for (const service of inventory.services.values()) {
    if (!service.indexed) {
      continue;
    }
    const realServers = new Map<string, RealServerCounters>();
    for (const { index, name, standing } of service.realServers.values()) {
      if (standing !== "removed") {
        const counters = { ...trafficAt(ofRealServers, index), ...readLoad(realLoad, index) };
        // While one drains whose method was changed, its name stands for two.
        const other = realServers.get(name);
        realServers.set(name, other === undefined ? counters : addUp(counters, other));
      }
    }
    services.set(service.name, { ...trafficAt(ofServices, service.index), realServers });
  }
  return { services, drops: readDrops(maps.drops, cpus) };
}

function readDrops(map: BpfMap, cpus: number): Record<string, DropCounter> {
  const sums = sumOverCpus(map, layout.DropCounter.size, DROP_NAMES.length, cpus);
  return Object.fromEntries(
    DROP_NAMES.map((name, reason) => [
      name,
      { packets: sums.at(reason, drop.packets), bytes: sums.at(reason, drop.bytes) },
    ]),
  );
}

function trafficAt(sums: Sums, index: number): TrafficCounters {
  return {
    connections: sums.at(index, traffic.connections),
    inPackets: sums.at(index, traffic.in_packets),
    inBytes: sums.at(index, traffic.in_bytes),
    outPackets: sums.at(index, traffic.out_packets),
    outBytes: sums.at(index, traffic.out_bytes),
  };
}

function addUp(a: RealServerCounters, b: RealServerCounters): RealServerCounters {
  return {
    connections: a.connections + b.connections,
    inPackets: a.inPackets + b.inPackets,
    inBytes: a.inBytes + b.inBytes,
    outPackets: a.outPackets + b.outPackets,
    outBytes: a.outBytes + b.outBytes,
    active: a.active + b.active,
    inactive: a.inactive + b.inactive,
  };
}

/**
 * 64-bit counters of many elements, each summed over processors. Low and high halves are summed as doubles, which is exact for
 * as many processors as there may be, and several times faster than bigints for a hundred thousand real servers.
 */
class Sums {
  readonly #words: number;
  readonly #low: Float64Array;
  readonly #high: Float64Array;

  /** @param size of an element for one processor in bytes, a multiple of 8 */
  constructor(size: number, length: number) {
    this.#words = size / 8;
    this.#low = new Float64Array(length * this.#words);
    this.#high = new Float64Array(length * this.#words);
  }

  /** @param values `cpus` times all words of the element */
  add(index: number, values: Uint32Array, cpus: number): void {
    const first = index * this.#words;
    for (let at = 0; at < this.#words * cpus; at++) {
      const word = first + (at % this.#words);
      this.#low[word]! += values[2 * at + LOW]!;
      this.#high[word]! += values[2 * at + HIGH]!;
    }
  }

  /** @param offset of the counter in its element, in bytes */
  at(index: number, offset: number): bigint {
    const word = index * this.#words + offset / 8;
    const high = this.#high[word]!;
    const low = this.#low[word]!;
    return high === 0 ? BigInt(low) : (BigInt(high) << 32n) + BigInt(low);
  }
}

/** Which 32-bit half of a 64-bit integer comes first. */
const LOW = new Uint8Array(new Uint16Array([1]).buffer)[0] === 1 ? 0 : 1;
const HIGH = 1 - LOW;

/** Elements from 0 to `end`. */
function sumOverCpus(map: BpfMap, size: number, end: number, cpus: number): Sums {
  const sums = new Sums(size, end);
  if (end === 0) {
    return sums;
  }
  for (const { keys, values, count } of map.batchesRaw()) {
    const indexes = new Uint32Array(keys.buffer, keys.byteOffset, count);
    const words = new Uint32Array(values.buffer, values.byteOffset, (count * size * cpus) / 4);
    const perElement = (size * cpus) / 4;
    for (const [position, index] of indexes.entries()) {
      if (index < end) {
        sums.add(index, words.subarray(position * perElement, (position + 1) * perElement), cpus);
      }
    }
    if (indexes[count - 1]! >= end - 1) {
      // Arrays come in ascending order.
      break;
    }
  }
  return sums;
}
