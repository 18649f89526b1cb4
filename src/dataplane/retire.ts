/** Gives elements back that nothing names any more. */
import {
  deleteService,
  type InstalledRealServer,
  type InstalledService,
  type Inventory,
  releaseRing,
  setService,
} from "./inventory.js";
import { isUnnamed, localPortsInUse, readLoad } from "./real-load.js";
import { ForwardingMethod } from "./sluice.bpf.js";
import { clear, type Tables } from "./tables.js";

/**
 * Milliseconds after which no packet in flight can still use what it read before something was retired. A packet's way takes
 * microseconds; programs run inside RCU read-side sections, which end long before.
 */
export const GRACE = 1000;

/** Elements freed in one go at most, so that the event loop is not held up. */
const MOST_AT_ONCE = 2000;

/**
 * Frees what was retired at least GRACE ago: rings and sets of timeouts, and real servers and services that no connection
 * names. Changes the maps so that each state between is valid: real servers go before their service.
 *
 * @param now milliseconds, of the clock of the plans
 * @param onFreed told the index of each real server that is freed
 * @returns whether it stopped early because there was too much to do at once
 */
export function reap(
  inventory: Inventory,
  tables: Tables,
  now: number,
  onFreed: (realServer: number) => void,
): boolean {
  const keeps = ({ retiredAt }: { readonly retiredAt: number }): boolean => now - retiredAt < GRACE;
  inventory.retiredRings = inventory.retiredRings.filter((retired) => {
    if (!keeps(retired)) {
      releaseRing(inventory, retired.ring);
    }
    return keeps(retired);
  });
  inventory.retiredTimeouts = inventory.retiredTimeouts.filter((retired) => {
    if (!keeps(retired)) {
      inventory.freeTimeouts.release(retired.index, 1);
    }
    return keeps(retired);
  });
  let freed = 0;
  for (const name of [...inventory.draining]) {
    const service = inventory.services.get(name)!;
    freed += reapService(inventory, tables, service, now, onFreed);
    if (freed >= MOST_AT_ONCE) {
      return true;
    }
  }
  reapLocalAddresses(inventory, tables, now);
  return false;
}

/** Milliseconds until something more may be freed merely because time has passed; undefined where nothing waits for that. */
export function graceLeft(inventory: Inventory, now: number): number | undefined {
  let latest: number | undefined;
  const consider = ({ retiredAt }: { readonly retiredAt: number }): void => {
    if (now - retiredAt < GRACE) {
      latest = Math.max(latest ?? 0, retiredAt + GRACE - now);
    }
  };
  inventory.retiredRings.forEach(consider);
  inventory.retiredTimeouts.forEach(consider);
  for (const name of inventory.draining) {
    const service = inventory.services.get(name)!;
    consider(service);
    for (const realServer of service.realServers.values()) {
      if (realServer.standing !== "active") {
        consider(realServer);
      }
    }
  }
  for (const { unusedSince } of inventory.localAddresses.values()) {
    if (unusedSince !== undefined) {
      consider({ retiredAt: unusedSince });
    }
  }
  return latest;
}

/** Returns how many elements it freed. */
function reapService(
  inventory: Inventory,
  tables: Tables,
  service: InstalledService,
  now: number,
  onFreed: (realServer: number) => void,
): number {
  const realServers = new Map<string, InstalledRealServer>();
  for (const [key, realServer] of service.realServers) {
    if (isOver(tables, realServer, now)) {
      const { index } = realServer;
      onFreed(index);
      clear(tables.realServers, index);
      clear(tables.realLoad, index);
      clear(tables.localPools, index);
      tables.retireCounters(index, service.index);
      inventory.freeRealServers.release(index, 1);
    } else {
      realServers.set(key, realServer);
    }
  }
  const freed = service.realServers.size - realServers.size;
  if (freed > 0) {
    setService(inventory, { ...service, realServers }, now);
  }
  if (!service.indexed && realServers.size === 0 && now - service.retiredAt >= GRACE) {
    clear(tables.services, service.index);
    tables.resetService(service.index);
    inventory.freeServices.release(service.index, 1);
    deleteService(inventory, inventory.services.get(service.name)!, now);
    return freed + 1;
  }
  return freed;
}

function isOver(tables: Tables, { index, standing, retiredAt }: InstalledRealServer, now: number): boolean {
  return standing !== "active" && now - retiredAt >= GRACE && isUnnamed(readLoad(tables.realLoad, index));
}

/**
 * A connection does not say with its real server which addresses that once had to give, so an address that is in no pool any more keeps
 * its index until there is no fullnat connection at all.
 */
function reapLocalAddresses(inventory: Inventory, tables: Tables, now: number): void {
  const { localAddresses } = inventory;
  const over = Array.from(localAddresses).filter(
    ([, { unusedSince }]) => unusedSince !== undefined && now - unusedSince >= GRACE,
  );
  if (over.length === 0 || hasFullnatConnections(inventory, tables)) {
    return;
  }
  for (const [text, { index }] of over) {
    clear(tables.localAddresses, index);
    inventory.freeLocalAddresses.release(index, 1);
    localAddresses.delete(text);
  }
}

function hasFullnatConnections(inventory: Inventory, tables: Tables): boolean {
  for (const { realServers } of inventory.services.values()) {
    for (const { index, method } of realServers.values()) {
      if (method === ForwardingMethod.METHOD_FULLNAT && localPortsInUse(readLoad(tables.realLoad, index)) > 0) {
        return true;
      }
    }
  }
  return false;
}
