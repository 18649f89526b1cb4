/** Gives elements back that nothing names any more. */
import { type InstalledRealServer, type InstalledService, type Inventory, setService } from "./inventory.js";
import { clear, readLoad, ringChunks } from "./record.js";
import type { Tables } from "./tables.js";

/**
 * Milliseconds after which no packet in flight can still use what it read before something was retired. A packet's way takes
 * microseconds; programs run inside RCU read-side sections, which end long before.
 */
export const GRACE = 1000;

/** Elements freed in one go at most, so that the event loop is not held up. */
const MOST_AT_ONCE = 2000;

/**
 * Frees rings, real servers and services that were retired at least GRACE ago and, of the latter two, that no connection
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
  inventory.retiredRings = inventory.retiredRings.filter(({ ring, retiredAt }) => {
    const keeps = now - retiredAt < GRACE;
    if (!keeps) {
      inventory.freeChunks.release(ring.chunk, ringChunks(ring.length));
    }
    return keeps;
  });
  let freed = 0;
  for (const name of [...inventory.draining]) {
    const service = inventory.services.get(name)!;
    freed += reapService(inventory, tables, service, now, onFreed);
    if (freed >= MOST_AT_ONCE) {
      return true;
    }
  }
  return false;
}

/** Milliseconds until something more may be freed merely because time has passed; undefined where nothing waits for that. */
export function graceLeft(inventory: Inventory, now: number): number | undefined {
  let latest: number | undefined;
  const consider = (retiredAt: number): void => {
    if (now - retiredAt < GRACE) {
      latest = Math.max(latest ?? 0, retiredAt + GRACE - now);
    }
  };
  for (const { retiredAt } of inventory.retiredRings) {
    consider(retiredAt);
  }
  for (const name of inventory.draining) {
    const service = inventory.services.get(name)!;
    consider(service.retiredAt);
    for (const { standing, retiredAt } of service.realServers.values()) {
      if (standing !== "active") {
        consider(retiredAt);
      }
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
      onFreed(realServer.index);
      clear(tables.realServers, realServer.index);
      tables.resetRealServer(realServer.index);
      inventory.freeRealServers.release(realServer.index, 1);
    } else {
      realServers.set(key, realServer);
    }
  }
  const freed = service.realServers.size - realServers.size;
  if (!service.indexed && realServers.size === 0 && now - service.retiredAt >= GRACE) {
    clear(tables.services, service.index);
    tables.resetService(service.index);
    inventory.freeServices.release(service.index, 1);
    inventory.services.delete(service.name);
    inventory.draining.delete(service.name);
    return freed + 1;
  }
  if (freed > 0) {
    setService(inventory, { ...service, realServers });
  }
  return freed;
}

function isOver(tables: Tables, { index, standing, retiredAt }: InstalledRealServer, now: number): boolean {
  if (standing === "active" || now - retiredAt < GRACE) {
    return false;
  }
  const { active, inactive } = readLoad(tables.realLoad, index);
  return active === 0 && inactive === 0;
}
