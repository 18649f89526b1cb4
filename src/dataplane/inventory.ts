/**
 * What the maps hold, in a form that can be compared with a desired state, and which elements are free. There is no side
 * file: a restart reads all of it back from the maps, which are the truth (read-inventory.ts).
 *
 * A service or real server that is taken out keeps its element while connections name it, so that they find their
 * counters and come back to life with it when it is added again, as in IPVS. retire.ts frees elements.
 */
import type { DesiredState, RemovedConnections } from "../model/index.js";
import type { Address } from "./address.js";
import type { FreeList } from "./free-list.js";
import type { LocalPool } from "./local-pool.js";
import type { Thresholds } from "./real-load.js";
import { type Ring, ringChunks } from "./ring-record.js";
import type { PersistenceRecord, Scheduling } from "./service-record.js";
import { type AddressFamily, type ForwardingMethod, RealServerState, type ServiceKey } from "./sluice.bpf.js";
import { GLOBAL_TIMEOUTS, type TimeoutSet } from "./timeouts.js";

/**
 * `active`: part of its service. `superseded`: its address and port belong to the service under another forwarding method now;
 * connections keep the method that they were opened with, so this one takes no new ones. `removed`: out of its service.
 */
export type Standing = "active" | "superseded" | "removed";

export interface InstalledRealServer {
  readonly index: number;
  readonly address: Address;
  readonly port: number;
  readonly method: ForwardingMethod;
  readonly standing: Standing;
  readonly state: RealServerState;
  readonly weight: number;
  /** The last weight above 0 since it was added; 0 where there was none. */
  readonly lastWeight: number;
  readonly thresholds: Thresholds;
  /** Index of its set. */
  readonly timeouts: number;
  /** Where its fullnat connections come from; undefined with other methods. */
  readonly pool: LocalPool | undefined;
  /** realServerName() of it. */
  readonly name: string;
  readonly retiredAt: number;
}

export interface InstalledService {
  readonly index: number;
  readonly name: string;
  readonly key: ServiceKey;
  /** In service_index, so packets find it. */
  readonly indexed: boolean;
  readonly scheduling: Scheduling;
  readonly persistence: PersistenceRecord;
  readonly onePacket: boolean;
  /** What it said last of its removed real servers' connections; undefined: what the settings say. */
  readonly removedConnections: RemovedConnections | undefined;
  readonly ring: Ring;
  /** By installedKey(). */
  readonly realServers: ReadonlyMap<string, InstalledRealServer>;
  readonly retiredAt: number;
}

export interface RetiredRing {
  readonly ring: Ring;
  readonly retiredAt: number;
}

export interface InstalledVip {
  readonly family: AddressFamily;
  readonly bytes: Uint8Array;
  /** Services in service_index that have it. */
  readonly services: number;
  /** What the map says; differs only where a process died between two writes. */
  readonly stored: number;
}

/** An address and port that nat real servers in service have. */
export interface InstalledEndpoint {
  readonly key: ServiceKey;
  /** Their indexes. */
  readonly realServers: readonly number[];
  /** The one that the map names, if it has the endpoint; differs from all of them only where a process died between two writes. */
  readonly stored: number | undefined;
}

/** A set of timeouts that real servers name, other than the global one. */
export interface InstalledTimeouts {
  readonly set: TimeoutSet;
  users: number;
}

/** A ring of local addresses, shared by the real servers whose connections come from the same ones. */
export interface InstalledPoolRing {
  readonly ring: Ring;
  readonly slots: Uint32Array;
  users: number;
}

export interface InstalledLocalAddress {
  readonly index: number;
  /** Since when no pool of the desired state has it; undefined: one has. */
  readonly unusedSince: number | undefined;
}

export interface Inventory {
  /** By serviceName(), those that drain included. */
  readonly services: Map<string, InstalledService>;
  /** By canonical address. */
  readonly vips: Map<string, InstalledVip>;
  /** By endpointText(). */
  readonly endpoints: Map<string, InstalledEndpoint>;
  /** By canonical address. */
  readonly localAddresses: Map<string, InstalledLocalAddress>;
  /** By the chunk that the ring begins at. */
  readonly poolRings: Map<number, InstalledPoolRing>;
  /** By index. */
  readonly timeouts: Map<number, InstalledTimeouts>;
  readonly freeServices: FreeList;
  readonly freeRealServers: FreeList;
  readonly freeChunks: FreeList;
  readonly freeLocalAddresses: FreeList;
  readonly freeTimeouts: FreeList;
  /** Rings that a packet in flight may still read. */
  retiredRings: RetiredRing[];
  /** Sets of timeouts that one may. */
  retiredTimeouts: { readonly index: number; readonly retiredAt: number }[];
  /** Since when the half of mark_rules that does not hold is not used any more. */
  markRulesRetiredAt: number;
  /** How many real servers end the connections that name them. */
  resetting: number;
  /** Names of services that drain, or of which real servers do. */
  readonly draining: Set<string>;
  /** The state that was published last; services that are still the same objects need no look. Undefined: none since the start. */
  published: DesiredState | undefined;
}

/** Real servers of one service differ by address and port, and while they drain also by method. */
export function installedKey(name: string, method: ForwardingMethod): string {
  return `${name} ${String(method)}`;
}

/** Puts a service in the place of what the inventory had under its name. */
export function setService(inventory: Inventory, service: InstalledService, now: number): void {
  const { services, draining } = inventory;
  const before = services.get(service.name);
  services.set(service.name, service);
  use(inventory, service);
  if (before !== undefined) {
    disuse(inventory, before, now);
  }
  let drains = !service.indexed;
  for (const { standing } of service.realServers.values()) {
    drains ||= standing !== "active";
  }
  if (drains) {
    draining.add(service.name);
  } else {
    draining.delete(service.name);
  }
}

export function deleteService(inventory: Inventory, service: InstalledService, now: number): void {
  disuse(inventory, service, now);
  inventory.services.delete(service.name);
  inventory.draining.delete(service.name);
}

/** Counts a service's real servers, and what they share with others. */
function use(inventory: Inventory, { realServers }: InstalledService): void {
  for (const { pool, timeouts, state } of realServers.values()) {
    usePool(inventory, pool);
    useTimeouts(inventory, timeouts);
    inventory.resetting += state === RealServerState.REAL_RESET ? 1 : 0;
  }
}

function disuse(inventory: Inventory, { realServers }: InstalledService, now: number): void {
  for (const { pool, timeouts, state } of realServers.values()) {
    disusePool(inventory, pool, now);
    disuseTimeouts(inventory, timeouts, now);
    inventory.resetting -= state === RealServerState.REAL_RESET ? 1 : 0;
  }
}

export function usePool({ poolRings }: Inventory, pool: LocalPool | undefined): void {
  if (pool !== undefined && pool.ring.length > 0) {
    poolRings.get(pool.ring.chunk)!.users++;
  }
}

export function disusePool({ poolRings, retiredRings }: Inventory, pool: LocalPool | undefined, now: number): void {
  if (pool !== undefined && pool.ring.length > 0) {
    const { chunk } = pool.ring;
    const shared = poolRings.get(chunk)!;
    if (--shared.users === 0) {
      poolRings.delete(chunk);
      retiredRings.push({ ring: shared.ring, retiredAt: now });
    }
  }
}

export function useTimeouts({ timeouts }: Inventory, index: number): void {
  if (index !== GLOBAL_TIMEOUTS) {
    timeouts.get(index)!.users++;
  }
}

export function disuseTimeouts({ timeouts, retiredTimeouts }: Inventory, index: number, now: number): void {
  if (index !== GLOBAL_TIMEOUTS && --timeouts.get(index)!.users === 0) {
    timeouts.delete(index);
    retiredTimeouts.push({ index, retiredAt: now });
  }
}

export function releaseRing({ freeChunks }: Inventory, { chunk, length }: Ring): void {
  freeChunks.release(chunk, ringChunks(length));
}
