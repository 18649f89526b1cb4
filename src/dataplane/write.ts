/** Single writes to the maps, as data, so that a plan can be looked at and tested before anything is written. */
import type { SettingName } from "../model/index.js";
import { writeLocalAddress } from "./local-address.js";
import { type LocalPool, writeLocalPool } from "./local-pool.js";
import { markRuleBytes } from "./mark-rules.js";
import { type Thresholds, writeLastWeight, writeThresholds } from "./real-load.js";
import {
  type RealServerRecord,
  writeRealServer,
  writeState,
  writeTimeoutSet,
  writeWeight,
} from "./real-server-record.js";
import { type Ring, ringSlots } from "./ring-record.js";
import {
  type PersistenceRecord,
  type Scheduling,
  type ServiceRecord,
  writeOnePacket,
  writePersistence,
  writeScheduling,
  writeService,
  writeServiceRing,
} from "./service-record.js";
import { type MarkRuleRange, writeMarkRuleRange, writeSetting } from "./settings.js";
import type { RealServerState, ServiceKey, VipKey } from "./sluice.bpf.js";
import type { Tables } from "./tables.js";
import { type TimeoutSet, writeTimeouts } from "./timeouts.js";
import { continueTurns } from "./turn.js";

export type Write =
  | { readonly kind: "service"; readonly index: number; readonly record: ServiceRecord }
  | { readonly kind: "scheduling"; readonly service: number; readonly scheduling: Scheduling }
  | { readonly kind: "persistence"; readonly service: number; readonly persistence: PersistenceRecord }
  | { readonly kind: "one packet"; readonly service: number; readonly onePacket: boolean }
  | { readonly kind: "real server"; readonly index: number; readonly record: RealServerRecord }
  | { readonly kind: "weight"; readonly realServer: number; readonly weight: number }
  | { readonly kind: "last weight"; readonly realServer: number; readonly weight: number }
  | { readonly kind: "thresholds"; readonly realServer: number; readonly thresholds: Thresholds }
  | { readonly kind: "timeouts of"; readonly realServer: number; readonly set: number }
  | { readonly kind: "local pool"; readonly realServer: number; readonly pool: LocalPool }
  | { readonly kind: "state"; readonly realServer: number; readonly state: RealServerState }
  | { readonly kind: "slots"; readonly ring: Ring; readonly slots: Uint32Array }
  | { readonly kind: "ring"; readonly service: number; readonly ring: Ring }
  | { readonly kind: "turns"; readonly service: number; readonly from: Ring; readonly to: Ring }
  | { readonly kind: "index"; readonly key: ServiceKey; readonly service: number }
  | { readonly kind: "unindex"; readonly key: ServiceKey }
  | { readonly kind: "vip"; readonly key: VipKey; readonly services: number }
  | { readonly kind: "endpoint"; readonly key: ServiceKey; readonly realServer: number | undefined }
  | { readonly kind: "local address"; readonly index: number; readonly bytes: Uint8Array }
  | { readonly kind: "timeouts"; readonly index: number; readonly set: TimeoutSet }
  | { readonly kind: "setting"; readonly name: SettingName; readonly value: number }
  | { readonly kind: "mark rules"; readonly first: number; readonly rules: Uint8Array }
  | { readonly kind: "mark rule range"; readonly range: MarkRuleRange };

export function apply(tables: Tables, write: Write): void {
  switch (write.kind) {
    case "service":
      writeService(tables.services, write.index, write.record);
      break;
    case "scheduling":
      writeScheduling(tables.services, write.service, write.scheduling);
      break;
    case "persistence":
      writePersistence(tables.services, write.service, write.persistence);
      break;
    case "one packet":
      writeOnePacket(tables.services, write.service, write.onePacket);
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
    case "thresholds":
      writeThresholds(tables.realLoad, write.realServer, write.thresholds);
      break;
    case "timeouts of":
      writeTimeoutSet(tables.realServers, write.realServer, write.set);
      break;
    case "local pool":
      writeLocalPool(tables.localPools, write.realServer, write.pool);
      break;
    case "state":
      writeState(tables.realServers, write.realServer, write.state);
      break;
    case "slots":
      ringSlots(tables.rings, write.ring).set(write.slots);
      break;
    case "ring":
      writeServiceRing(tables.services, write.service, write.ring);
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
    case "endpoint":
      if (write.realServer === undefined) {
        tables.natEndpoints.delete(write.key);
      } else {
        tables.natEndpoints.set(write.key, write.realServer);
      }
      break;
    case "local address":
      writeLocalAddress(tables.localAddresses, write.index, write.bytes);
      break;
    case "timeouts":
      writeTimeouts(tables.timeouts, write.index, write.set);
      break;
    case "setting":
      writeSetting(tables.settings, write.name, write.value);
      break;
    case "mark rules":
      markRuleBytes(tables.markRules, write.first, write.rules.length / tables.markRules.stride).set(write.rules);
      break;
    case "mark rule range":
      writeMarkRuleRange(tables.settings, write.range);
      break;
    default:
      write satisfies never;
  }
}
