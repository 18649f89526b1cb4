/** What the data plane has counted, read back from its maps and summed over processors. */
import type { BpfMap } from "libbpf-ts";
import type { Drops, RealServerCounters, ServiceCounters, TrafficCounters } from "../model/index.js";
import type { InstalledService } from "./inventory.js";
import { readLoad } from "./record.js";
import type { Steps } from "./slices.js";
import { DropReason, layout } from "./sluice.bpf.js";
import type { ArrayMemory } from "./tables.js";

/** The maps that hold counters; all but `realLoad` have a value for each processor. */
export interface CounterMaps {
  readonly services: CounterMap;
  readonly realServers: CounterMap;
  readonly drops: CounterMap;
  readonly realLoad: ArrayMemory;
}

type CounterMap = Pick<BpfMap, "getRaw">;

const traffic = layout.Traffic.offsets;
const drop = layout.DropCounter.offsets;

/** Names as users see them, by the index of the counter: `next_hop_unresolved`. */
const DROP_NAMES: readonly string[] = Object.entries(DropReason)
  .filter(([, reason]) => reason < DropReason.DROP_REASONS)
  .sort(([, a], [, b]) => a - b)
  .map(([name]) => name.replace(/^DROP_/, "").toLowerCase());

/** Pauses between real servers. */
export function* readServiceCounters(maps: CounterMaps, service: InstalledService): Steps<ServiceCounters> {
  const realServers = new Map<string, RealServerCounters>();
  for (const { index, name, standing } of service.realServers.values()) {
    if (standing !== "removed") {
      const { active, inactive } = readLoad(maps.realLoad, index);
      const load = { active, inactive, persistentConnections: 0, overloaded: false };
      const counters = { ...readTraffic(maps.realServers, index), ...load };
      // While one drains whose method was changed, its name stands for two.
      const other = realServers.get(name);
      realServers.set(name, other === undefined ? counters : addUp(counters, other));
      yield;
    }
  }
  return { ...readTraffic(maps.services, service.index), realServers };
}

export function readDrops(map: CounterMap): Drops {
  return Object.fromEntries(
    DROP_NAMES.map((name, reason) => {
      const words = sumOverCpus(map, reason, layout.DropCounter.size);
      return [name, { packets: words[drop.packets / 8]!, bytes: words[drop.bytes / 8]! }];
    }),
  );
}

function readTraffic(map: CounterMap, index: number): TrafficCounters {
  const words = sumOverCpus(map, index, layout.Traffic.size);
  return {
    connections: words[traffic.connections / 8]!,
    inPackets: words[traffic.in_packets / 8]!,
    inBytes: words[traffic.in_bytes / 8]!,
    outPackets: words[traffic.out_packets / 8]!,
    outBytes: words[traffic.out_bytes / 8]!,
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
    persistentConnections: a.persistentConnections + b.persistentConnections,
    overloaded: a.overloaded || b.overloaded,
  };
}

/** The key of the element that is being read: a long list of real servers needs many. */
const key = new Uint32Array(1);
const keyBytes = new Uint8Array(key.buffer);

/** The 64-bit words of an element, those of the first processor being made the sums. @param size of one processor's value in bytes */
function sumOverCpus(map: CounterMap, index: number, size: number): BigUint64Array {
  key[0] = index;
  const values = map.getRaw(keyBytes);
  if (values === undefined) {
    throw new RangeError(`there is no counter ${String(index)}`);
  }
  const words = new BigUint64Array(values.buffer, values.byteOffset, values.byteLength / 8);
  const perCpu = size / 8;
  for (let at = perCpu; at < words.length; at++) {
    words[at % perCpu]! += words[at]!;
  }
  return words;
}
