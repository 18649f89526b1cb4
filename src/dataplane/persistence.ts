/** A service's persistence as its record has it. */
import type { VirtualService } from "../model/index.js";
import { ADDRESS_BYTES, parseAddress, prefixMask } from "./address.js";
import { toTicks } from "./clock.js";
import type { PersistenceRecord } from "./service-record.js";

export const NO_PERSISTENCE: PersistenceRecord = { mask: new Uint8Array(ADDRESS_BYTES), ticks: 0 };

export function persistenceOf({ persistence }: VirtualService): PersistenceRecord {
  if (persistence === undefined) {
    return NO_PERSISTENCE;
  }
  const { netmask, timeout } = persistence;
  const mask = typeof netmask === "string" ? parseAddress(netmask).bytes : prefixMask(netmask);
  return { mask, ticks: toTicks(timeout) };
}

export function samePersistence(a: PersistenceRecord, b: PersistenceRecord): boolean {
  return a.ticks === b.ticks && Buffer.compare(a.mask, b.mask) === 0;
}
