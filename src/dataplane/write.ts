/** Single writes to the maps, as data, so that a plan can be looked at and tested before anything is written. */
import {
  type RealServerRecord,
  type Ring,
  ringSlots,
  type Scheduling,
  writeLastWeight,
  writeRealServer,
  writeRing,
  writeScheduling,
  writeService,
  writeState,
  writeWeight,
} from "./record.js";
import { writeLocalAddress, writeLocalAddressCount, writeLocalPorts } from "./settings.js";
import type { RealServerState, ServiceKey, VipKey } from "./sluice.bpf.js";
import type { Tables } from "./tables.js";
import { continueTurns } from "./turn.js";

export type Write =
  | { readonly kind: "service"; readonly index: number; readonly key: ServiceKey; readonly scheduling: Scheduling }
  | { readonly kind: "scheduling"; readonly service: number; readonly scheduling: Scheduling }
  | { readonly kind: "real server"; readonly index: number; readonly record: RealServerRecord }
  | { readonly kind: "weight"; readonly realServer: number; readonly weight: number }
  | { readonly kind: "last weight"; readonly realServer: number; readonly weight: number }
  | { readonly kind: "state"; readonly realServer: number; readonly state: RealServerState }
  | { readonly kind: "slots"; readonly ring: Ring; readonly slots: Uint32Array }
  | { readonly kind: "ring"; readonly service: number; readonly ring: Ring }
  | { readonly kind: "turns"; readonly service: number; readonly from: Ring; readonly to: Ring }
  | { readonly kind: "index"; readonly key: ServiceKey; readonly service: number }
  | { readonly kind: "unindex"; readonly key: ServiceKey }
  | { readonly kind: "vip"; readonly key: VipKey; readonly services: number }
  | { readonly kind: "local address"; readonly index: number; readonly bytes: Uint8Array }
  | { readonly kind: "local addresses"; readonly count: number }
  | { readonly kind: "local ports"; readonly range: readonly [number, number] };

export function apply(tables: Tables, write: Write): void {
  switch (write.kind) {
    case "service":
      writeService(tables.services, write.index, write.key, write.scheduling);
      break;
    case "scheduling":
      writeScheduling(tables.services, write.service, write.scheduling);
      break;
    case "real server":
      writeRealServer(tables.realServers, write.index, write.record);
      break;
    case "weight":
      writeWeight(tables.realServers, write.realServer, write.weight);
      break;
    case "last weight":
      writeLastWeight(tables.realLoad, write.realServer, write.weight);
      break;
    case "state":
      writeState(tables.realServers, write.realServer, write.state);
      break;
    case "slots":
      ringSlots(tables.rings, write.ring).set(write.slots);
      break;
    case "ring":
      writeRing(tables.services, write.service, write.ring);
      break;
    case "turns": {
      const { turns, rings } = tables;
      const before = ringSlots(rings, write.from);
      turns.set(write.service, continueTurns(turns.get(write.service), before, ringSlots(rings, write.to)));
      break;
    }
    case "index":
      tables.serviceIndex.set(write.key, write.service);
      break;
    case "unindex":
      tables.serviceIndex.delete(write.key);
      break;
    case "vip":
      if (write.services > 0) {
        tables.vips.set(write.key, { services: write.services });
      } else {
        tables.vips.delete(write.key);
      }
      break;
    case "local address":
      writeLocalAddress(tables.localAddresses, write.index, write.bytes);
      break;
    case "local addresses":
      writeLocalAddressCount(tables.settings, write.count);
      break;
    case "local ports":
      writeLocalPorts(tables.settings, write.range);
      break;
    default:
      write satisfies never;
  }
}
