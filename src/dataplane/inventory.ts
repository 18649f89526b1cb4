/**
 * What the maps hold, in a form that can be compared with a desired state, and which elements are free. There is no side
 * file: a restart reads all of it back from the maps, which are the truth.
 *
 * A service or real server that is taken out keeps its element while connections name it, so that they find their
 * counters and come back to life with it when it is added again, as in IPVS. retire.ts frees elements.
 */
import {
  type ServiceKey as ModelServiceKey,
  type RealServer,
  realServerName,
  serviceName,
  type VirtualService,
} from "../model/index.js";
import { ADDRESS_BYTES, type Address, formatAddress, parseAddress } from "./address.js";
import { DataPlaneError } from "./error.js";
import { FreeList } from "./free-list.js";
import {
  NO_RING,
  type Ring,
  readLastWeight,
  readRealServer,
  readService,
  ringChunks,
  type Scheduling,
} from "./record.js";
import { readLocalAddress, readLocalAddressCount } from "./settings.js";
import type { Steps } from "./slices.js";
import { AddressFamily, ForwardingMethod, Protocol, RealServerState, type ServiceKey } from "./sluice.bpf.js";
import type { Tables } from "./tables.js";

/**
 * `active`: part of its service. `superseded`: its address and port belong to the service under another forwarding method now;
 * connections keep the method that they were opened with, so this one takes no new ones. `removed`: out of its service.
 */
export type Standing = "active" | "superseded" | "removed";

export interface InstalledRealServer {
  readonly index: number;
  readonly address: Address;
  readonly standing: Standing;
  readonly weight: number;
  /** The last weight above 0 since it was added; 0 where there was none. */
  readonly lastWeight: number;
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

export interface Inventory {
  /** By serviceName(), those that drain included. */
  readonly services: Map<string, InstalledService>;
  /** By canonical address. */
  readonly vips: Map<string, InstalledVip>;
  readonly freeServices: FreeList;
  readonly freeRealServers: FreeList;
  readonly freeChunks: FreeList;
  /** Rings that a packet in flight may still read. */
  retiredRings: RetiredRing[];
  /** Names of services that drain, or of which real servers do. */
  readonly draining: Set<string>;
  /** FULLNAT's local addresses in the order of the map. */
  localAddresses: readonly string[];
  /** The services that were published last; those that are still the same objects need no look. */
  published: readonly VirtualService[];
}

/** By the kernel's numbers (linux/in.h), for which the data plane has not all names yet. */
const PROTOCOLS = { tcp: Protocol.PROTOCOL_TCP, udp: Protocol.PROTOCOL_UDP, sctp: 132 as Protocol } as const;
const PROTOCOL_NAMES = Object.keys(PROTOCOLS) as (keyof typeof PROTOCOLS)[];
const PROTOCOL_IP = 0 as Protocol;
const FAMILIES = { ipv4: AddressFamily.FAMILY_IPV4, ipv6: AddressFamily.FAMILY_IPV6 } as const;
const METHODS = {
  nat: ForwardingMethod.METHOD_NAT,
  dr: ForwardingMethod.METHOD_DR,
  tun: ForwardingMethod.METHOD_TUN,
  fullnat: ForwardingMethod.METHOD_FULLNAT,
} as const;

export function methodOf(realServer: Pick<RealServer, "method">): ForwardingMethod {
  return METHODS[realServer.method];
}

/** A firewall mark stands in the place of the address, in network order. */
export function keyOf(service: ModelServiceKey): ServiceKey {
  if (service.fwmark !== undefined) {
    const bytes = new Uint8Array(ADDRESS_BYTES);
    new DataView(bytes.buffer).setUint32(0, service.fwmark);
    return { vip: { bytes }, port: 0, protocol: PROTOCOL_IP, family: FAMILIES[service.family] };
  }
  const { family, bytes } = parseAddress(service.address);
  return { vip: { bytes }, port: service.port, protocol: PROTOCOLS[service.protocol], family };
}

/** Real servers of one service differ by address and port, and while they drain also by method. */
export function installedKey(name: string, method: ForwardingMethod): string {
  return `${name} ${String(method)}`;
}

function nameOf(key: ServiceKey): string {
  const { bytes } = key.vip;
  if (key.protocol === PROTOCOL_IP) {
    const fwmark = new DataView(bytes.buffer, bytes.byteOffset).getUint32(0);
    return serviceName({ fwmark, family: key.family === AddressFamily.FAMILY_IPV6 ? "ipv6" : "ipv4" });
  }
  const protocol = PROTOCOL_NAMES.find((name) => PROTOCOLS[name] === key.protocol) ?? "tcp";
  return serviceName({
    protocol,
    address: formatAddress({ family: key.family, bytes: key.vip.bytes }),
    port: key.port,
  });
}

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
    freeServices: new FreeList(tables.services.length),
    freeRealServers: new FreeList(tables.realServers.length),
    freeChunks: new FreeList(tables.rings.length),
    retiredRings: [],
    draining: new Set(),
    localAddresses: readLocalAddresses(tables),
    published: [],
  };
  const indexed = new Map<number, string>();
  for (const [key, index] of tables.serviceIndex.entries()) {
    indexed.set(index, nameOf(key));
    yield;
  }
  const realServers = yield* readRealServers(tables, inventory.freeRealServers, now);
  for (let index = 0; index < tables.services.length; index++) {
    yield;
    const record = readService(tables.services, index);
    if (record === undefined) {
      continue;
    }
    const { key, scheduling, ring } = record;
    const name = nameOf(key);
    inventory.freeServices.reserve(index, 1);
    if (ring.length > 0 && !inventory.freeChunks.reserve(ring.chunk, ringChunks(ring.length))) {
      throw damaged(`the ring of ${name} lies outside the map or in another one's place`);
    }
    if (inventory.services.has(name)) {
      throw damaged(`${name} is there twice`);
    }
    const isIndexed = indexed.get(index) === name;
    const service = {
      index,
      name,
      key,
      indexed: isIndexed,
      scheduling,
      ring: ring.length > 0 ? ring : NO_RING,
      realServers: realServers.get(index) ?? new Map<string, InstalledRealServer>(),
      retiredAt: now,
    };
    setService(inventory, service);
    realServers.delete(index);
    indexed.delete(index);
    if (isIndexed) {
      countVip(inventory.vips, key, 1, 0);
    }
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

/** Puts a service in the place of what the inventory had under its name. */
export function setService(inventory: Inventory, service: InstalledService): void {
  inventory.services.set(service.name, service);
  let drains = !service.indexed;
  for (const { standing } of service.realServers.values()) {
    drains ||= standing !== "active";
  }
  if (drains) {
    inventory.draining.add(service.name);
  } else {
    inventory.draining.delete(service.name);
  }
}

function* readRealServers(
  tables: Tables,
  free: FreeList,
  now: number,
): Steps<Map<number, Map<string, InstalledRealServer>>> {
  const byService = new Map<number, Map<string, InstalledRealServer>>();
  for (let index = 0; index < tables.realServers.length; index++) {
    yield;
    const record = readRealServer(tables.realServers, index);
    if (record === undefined) {
      continue;
    }
    free.reserve(index, 1);
    const siblings = byService.get(record.service) ?? new Map<string, InstalledRealServer>();
    byService.set(record.service, siblings);
    const name = realServerName({ address: formatAddress(record.address), port: record.port });
    const key = installedKey(name, record.method);
    if (siblings.has(key)) {
      throw damaged(`real server ${name} is twice in service ${String(record.service)}`);
    }
    const standing = record.state === RealServerState.REAL_REMOVED ? "removed" : "active";
    const { address, weight } = record;
    const lastWeight = readLastWeight(tables.realLoad, index);
    siblings.set(key, { index, address, standing, weight, lastWeight, name, retiredAt: now });
  }
  return byService;
}

function readLocalAddresses(tables: Tables): string[] {
  return Array.from({ length: readLocalAddressCount(tables.settings) }, (_, index) =>
    formatAddress({ family: AddressFamily.FAMILY_IPV4, bytes: readLocalAddress(tables.localAddresses, index) }),
  );
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
