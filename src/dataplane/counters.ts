/** What the data plane has counted, read back from its maps and summed over processors. */
import type { BpfMap } from "libbpf-ts";
import type { Drops, RealServerCounters, ServiceCounters, TrafficCounters } from "../model/index.js";
import type { InstalledRealServer, InstalledService } from "./inventory.js";
import { localPortCount } from "./local-pool.js";
import { isOverloaded, localPortsInUse, readLoad } from "./real-load.js";
import type { Steps } from "./slices.js";
import { DropReason, layout } from "./sluice.bpf.js";
import type { ArrayMemory } from "./tables.js";

/** The maps that hold counters. */
export interface CounterMaps {
  /** With a value for each processor; so the next. */
  readonly realServers: CounterMap;
  readonly drops: CounterMap;
  readonly retired: ArrayMemory;
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

/** Pauses between real servers. A service's traffic is that of all real servers that it has and had. */
export function* readServiceCounters(maps: CounterMaps, service: InstalledService): Steps<ServiceCounters> {
  const realServers = new Map<string, RealServerCounters>();
  let sum = trafficOf(words64(maps.retired, service.index));
  for (const realServer of service.realServers.values()) {
    const { index, name, standing } = realServer;
    const counted = readTraffic(maps.realServers, index);
    sum = addTraffic(sum, counted);
    if (standing !== "removed") {
      const counters = { ...counted, ...readState(maps.realLoad, realServer) };
      // While one drains whose method was changed, its name stands for two.
      const other = realServers.get(name);
      realServers.set(name, other === undefined ? counters : addUp(counters, other));
    }
    yield;
  }
  return { ...sum, realServers };
}

export function readDrops(map: CounterMap): Drops {
  return Object.fromEntries(
    DROP_NAMES.map((name, reason) => {
      const words = sumOverCpus(map, reason, layout.DropCounter.size);
      return [name, { packets: words[drop.packets / 8]!, bytes: words[drop.bytes / 8]! }];
    }),
  );
}

/** Adds what a real server has counted to what its service keeps of those that it had. */
export function addToRetired(retired: ArrayMemory, service: number, realServers: CounterMap, index: number): void {
  const kept = words64(retired, service);
  const counted = sumOverCpus(realServers, index, layout.Traffic.size);
  for (let at = 0; at < kept.length; at++) {
    kept[at]! += counted[at]!;
  }
}

function words64({ u64, stride }: ArrayMemory, index: number): BigUint64Array {
  const start = (index * stride) / 8;
  return u64.subarray(start, start + layout.Traffic.size / 8);
}

function readTraffic(map: CounterMap, index: number): TrafficCounters {
  return trafficOf(sumOverCpus(map, index, layout.Traffic.size));
}

function trafficOf(words: BigUint64Array): TrafficCounters {
  return {
    connections: words[traffic.connections / 8]!,
    inPackets: words[traffic.in_packets / 8]!,
    inBytes: words[traffic.in_bytes / 8]!,
    outPackets: words[traffic.out_packets / 8]!,
    outBytes: words[traffic.out_bytes / 8]!,
  };
}

type StateCounters = Omit<RealServerCounters, keyof TrafficCounters>;

function readState(realLoad: ArrayMemory, { index, pool, standing }: InstalledRealServer): StateCounters {
  const load = readLoad(realLoad, index);
  const { active, inactive, templates: persistentConnections } = load;
  const overloaded = standing === "active" && isOverloaded(realLoad, index);
  const counters = { active, inactive, persistentConnections, overloaded };
  return pool === undefined
    ? counters
    : { ...counters, localPortsInUse: localPortsInUse(load), localPorts: localPortCount(pool) };
}

function addTraffic(a: TrafficCounters, b: TrafficCounters): TrafficCounters {
  return {
    connections: a.connections + b.connections,
    inPackets: a.inPackets + b.inPackets,
    inBytes: a.inBytes + b.inBytes,
    outPackets: a.outPackets + b.outPackets,
    outBytes: a.outBytes + b.outBytes,
  };
}

function addUp(a: RealServerCounters, b: RealServerCounters): RealServerCounters {
  const ports = [a, b].find(({ localPorts }) => localPorts !== undefined);
  return {
    ...addTraffic(a, b),
    active: a.active + b.active,
    inactive: a.inactive + b.inactive,
    persistentConnections: a.persistentConnections + b.persistentConnections,
    overloaded: a.overloaded || b.overloaded,
    // Of two only one can be fullnat.
    ...(ports?.localPorts === undefined || ports.localPortsInUse === undefined
      ? {}
      : { localPortsInUse: ports.localPortsInUse, localPorts: ports.localPorts }),
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
