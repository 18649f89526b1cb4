/** Reads back what the maps hold: at a start, and after a write that failed half way. */
import { realServerName } from "../model/index.js";
import { formatAddress } from "./address.js";
import { endpointKeys, endpointText, isEndpoint } from "./endpoint.js";
import { DataPlaneError } from "./error.js";
import { FreeList } from "./free-list.js";
import {
  type InstalledRealServer,
  type InstalledService,
  type InstalledVip,
  type Inventory,
  installedKey,
  setService,
} from "./inventory.js";
import { readLocalAddress } from "./local-address.js";
import { type LocalPool, readLocalPool } from "./local-pool.js";
import { hasRules, otherHalf } from "./mark-rules.js";
import { readLastWeight, readThresholds } from "./real-load.js";
import { type RealServerRecord, readRealServer } from "./real-server-record.js";
import { choiceOf } from "./removed-connections.js";
import { ringChunks, ringSlots } from "./ring-record.js";
import { isMark, nameOf } from "./service-key.js";
import { readService } from "./service-record.js";
import { readMarkRuleRange, readSetting } from "./settings.js";
import type { Steps } from "./slices.js";
import { ForwardingMethod, RealServerState, type ServiceKey } from "./sluice.bpf.js";
import type { Tables } from "./tables.js";
import { GLOBAL_TIMEOUTS, readTimeouts } from "./timeouts.js";

/**
 * Reads the maps, which nobody may write meanwhile. What a process that died left half done looks like something that drains: the next publish takes it up or
 * lets it go.
 *
 * @param now milliseconds of a monotonic clock
 * @throws DataPlaneError PINS_DAMAGED where the maps contradict themselves
 */
export function* readInventory(tables: Tables, now: number): Steps<Inventory> {
  const inventory: Inventory = {
    services: new Map(),
    vips: new Map(),
    endpoints: new Map(),
    localAddresses: new Map(),
    poolRings: new Map(),
    timeouts: new Map(),
    freeServices: new FreeList(tables.services.length),
    freeRealServers: new FreeList(tables.realServers.length),
    freeChunks: new FreeList(tables.rings.length),
    freeLocalAddresses: new FreeList(tables.localAddresses.length),
    freeTimeouts: new FreeList(tables.timeouts.length),
    retiredRings: [],
    retiredTimeouts: [],
    markRulesRetiredAt: wasOtherHalfUsed(tables) ? now : Number.NEGATIVE_INFINITY,
    resetting: 0,
    draining: new Set(),
    published: undefined,
  };
  inventory.freeTimeouts.reserve(GLOBAL_TIMEOUTS, 1);
  readLocalAddresses(tables, inventory, now);
  const indexed = new Map<number, string>();
  for (const [key, index] of tables.serviceIndex.entries()) {
    indexed.set(index, nameOf(key));
    yield;
  }
  for (const [key, stored] of tables.natEndpoints.entries()) {
    inventory.endpoints.set(endpointText(key), { key, realServers: [], stored });
    yield;
  }
  const realServers = yield* readRealServers(tables, inventory, now);
  for (let index = 0; index < tables.services.length; index++) {
    yield;
    readServiceAt(tables, inventory, index, indexed, realServers, now);
  }
  for (const name of indexed.values()) {
    throw damaged(`service_index has ${name}, services does not`);
  }
  for (const [service] of realServers) {
    throw damaged(`real servers belong to service ${String(service)}, which is free`);
  }
  for (const [{ address, family }, { services }] of tables.vips.entries()) {
    countVip(inventory.vips, { vip: address, family }, 0, services);
  }
  return inventory;
}

/** Takes what it finds out of `indexed` and `realServers`. */
function readServiceAt(
  tables: Tables,
  inventory: Inventory,
  index: number,
  indexed: Map<number, string>,
  realServers: Map<number, Map<string, InstalledRealServer>>,
  now: number,
): void {
  const record = readService(tables.services, index);
  if (record === undefined) {
    return;
  }
  const { key, ring } = record;
  const name = nameOf(key);
  inventory.freeServices.reserve(index, 1);
  if (ring.length > 0 && !inventory.freeChunks.reserve(ring.chunk, ringChunks(ring.length))) {
    throw damaged(`the ring of ${name} lies outside the map or in another one's place`);
  }
  if (inventory.services.has(name)) {
    throw damaged(`${name} is there twice`);
  }
  const isIndexed = indexed.get(index) === name;
  const own = realServers.get(index) ?? new Map<string, InstalledRealServer>();
  const service: InstalledService = {
    ...record,
    index,
    name,
    indexed: isIndexed,
    removedConnections: choiceOf([...own.values()], readSetting(tables.settings, "expire_nodest_conn")),
    realServers: own,
    retiredAt: now,
  };
  setService(inventory, service, now);
  addEndpoints(inventory, service);
  realServers.delete(index);
  indexed.delete(index);
  if (isIndexed && !isMark(key)) {
    countVip(inventory.vips, key, 1, 0);
  }
}

function addEndpoints(inventory: Inventory, service: InstalledService): void {
  for (const realServer of service.realServers.values()) {
    if (!isEndpoint(realServer)) {
      continue;
    }
    for (const key of endpointKeys(service.key, realServer)) {
      const text = endpointText(key);
      const known = inventory.endpoints.get(text) ?? { key, realServers: [], stored: undefined };
      inventory.endpoints.set(text, { ...known, realServers: [...known.realServers, realServer.index] });
    }
  }
}

function* readRealServers(
  tables: Tables,
  inventory: Inventory,
  now: number,
): Steps<Map<number, Map<string, InstalledRealServer>>> {
  const byService = new Map<number, Map<string, InstalledRealServer>>();
  for (let index = 0; index < tables.realServers.length; index++) {
    yield;
    const record = readRealServer(tables.realServers, index);
    if (record === undefined) {
      continue;
    }
    inventory.freeRealServers.reserve(index, 1);
    const siblings = byService.get(record.service) ?? new Map<string, InstalledRealServer>();
    byService.set(record.service, siblings);
    const { address, port, method, state, weight, timeouts } = record;
    const name = realServerName({ address: formatAddress(address), port });
    const key = installedKey(name, method);
    if (siblings.has(key)) {
      throw damaged(`real server ${name} is twice in service ${String(record.service)}`);
    }
    readTimeoutSet(tables, inventory, timeouts);
    siblings.set(key, {
      index,
      address,
      port,
      method,
      standing: state === RealServerState.REAL_ACTIVE ? "active" : "removed",
      state,
      weight,
      lastWeight: readLastWeight(tables.realLoad, index),
      thresholds: readThresholds(tables.realLoad, index),
      timeouts,
      pool: readPool(tables, inventory, index, record),
      name,
      retiredAt: now,
    });
  }
  return byService;
}

function readTimeoutSet(tables: Tables, inventory: Inventory, index: number): void {
  if (inventory.freeTimeouts.reserve(index, 1)) {
    inventory.timeouts.set(index, { set: readTimeouts(tables.timeouts, index), users: 0 });
  }
}

function readPool(
  tables: Tables,
  inventory: Inventory,
  index: number,
  { method }: RealServerRecord,
): LocalPool | undefined {
  if (method !== ForwardingMethod.METHOD_FULLNAT) {
    return undefined;
  }
  const pool = readLocalPool(tables.localPools, index);
  const { ring } = pool;
  const known = inventory.poolRings.get(ring.chunk);
  if (ring.length > 0 && known?.ring.length !== ring.length) {
    if (known !== undefined || !inventory.freeChunks.reserve(ring.chunk, ringChunks(ring.length))) {
      throw damaged(
        `the local addresses of real server ${String(index)} lie outside the map or in another ring's place`,
      );
    }
    inventory.poolRings.set(ring.chunk, { ring, slots: ringSlots(tables.rings, ring).slice(), users: 0 });
  }
  return pool;
}

function readLocalAddresses(tables: Tables, inventory: Inventory, now: number): void {
  for (let index = 0; index < tables.localAddresses.length; index++) {
    const address = readLocalAddress(tables.localAddresses, index);
    if (address !== undefined) {
      inventory.freeLocalAddresses.reserve(index, 1);
      inventory.localAddresses.set(formatAddress(address), { index, unusedSince: now });
    }
  }
}

function wasOtherHalfUsed({ markRules, settings }: Tables): boolean {
  return hasRules(markRules, otherHalf(markRules, readMarkRuleRange(settings)));
}

function countVip(
  vips: Map<string, InstalledVip>,
  { vip, family }: Pick<ServiceKey, "vip" | "family">,
  services: number,
  stored: number,
): void {
  const text = formatAddress({ family, bytes: vip.bytes });
  const known = vips.get(text);
  vips.set(text, {
    family,
    bytes: vip.bytes,
    services: (known?.services ?? 0) + services,
    stored: (known?.stored ?? 0) + stored,
  });
}

function damaged(problem: string): DataPlaneError {
  return new DataPlaneError("PINS_DAMAGED", `the pinned maps contradict themselves: ${problem}`, {
    remedy: "remove them with `sluice unload`, which interrupts traffic, and start again",
  });
}
