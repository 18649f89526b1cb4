/** The tables of a loaded data plane: array maps as memory of this process, hash maps by system call. */
import { type BpfObject, type MappedArray, possibleCpus } from "libbpf-ts";
import { addToRetired } from "./counters.js";
import type { Cursor, ServiceKey, Traffic, Vip, VipKey } from "./sluice.bpf.js";
import { type ArrayMemory, clear, type Tables } from "./tables.js";

const NO_TRAFFIC: Traffic = { connections: 0n, in_packets: 0n, in_bytes: 0n, out_packets: 0n, out_bytes: 0n };

export interface MappedTables extends Tables {
  /** What services have counted on real servers that are gone. */
  readonly retiredCounters: ArrayMemory;
  close(): void;
}

export function mapTables(object: BpfObject): MappedTables {
  const mapped: MappedArray[] = [];
  const map = (name: string): ArrayMemory => {
    const memory = object.map(name).mmap();
    mapped.push(memory);
    // Each is made once, as making a view costs more than a thousand accesses.
    const { length, stride, bytes, u16, u32, u64 } = memory;
    return { length, stride, bytes, u16, u32, u64 };
  };
  const cursors = object.map<number, Cursor>("cursors");
  const realCounters = object.map<number, Traffic>("real_counters");
  const noTraffic = Array.from({ length: possibleCpus() }, () => NO_TRAFFIC);
  const turns: Tables["turns"] = {
    get: (service) => cursors.get(service)?.next ?? 0n,
    set: (service, next) => {
      cursors.set(service, { next });
    },
  };
  const retiredCounters = map("retired_counters");
  return {
    services: map("services"),
    realServers: map("real_servers"),
    rings: map("rings"),
    realLoad: map("real_load"),
    settings: map("settings"),
    timeouts: map("timeouts"),
    localAddresses: map("local_addresses"),
    localPools: map("local_pools"),
    markRules: map("mark_rules"),
    retiredCounters,
    serviceIndex: object.map<ServiceKey, number>("service_index"),
    vips: object.map<VipKey, Vip>("vips"),
    natEndpoints: object.map<ServiceKey, number>("nat_endpoints"),
    turns,
    resetService: (index) => {
      clear(retiredCounters, index);
      turns.set(index, 0n);
    },
    retireCounters: (index, service) => {
      addToRetired(retiredCounters, service, realCounters, index);
      realCounters.setPerCpu(index, noTraffic);
    },
    close: () => {
      for (const memory of mapped.splice(0)) {
        memory.close();
      }
    },
  };
}
