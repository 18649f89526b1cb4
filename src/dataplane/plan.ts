/**
 * From a desired state and what the maps hold to the writes that lead from one to the other, in an order in which the data
 * plane is right after each of them:
 *
 *   build     services without a ring, real servers, the slots of new rings: nothing refers to them yet
 *   weights   those above 0: before a ring that has a real server which was quiesced
 *   switch    one word a service: its ring; its scheduler before or after it, see transition()
 *   quiesce   weights of 0: after a ring that had the real server, since one that is picked all the same is refused
 *   close     services out of service_index
 *   vips      the addresses of services, counted
 *   open      services into service_index
 *   teardown  rings of closed services, real servers that no ring names any more
 *
 * A plan takes the elements that it needs at once, so that nothing is written when one is lacking; abandon() gives them back.
 */
import { type DesiredState, realServerName, serviceName, type VirtualService } from "../model/index.js";
import { formatAddress, parseAddress } from "./address.js";
import { DataPlaneError } from "./error.js";
import type { FreeList } from "./free-list.js";
import {
  type InstalledRealServer,
  type InstalledService,
  type InstalledVip,
  type Inventory,
  installedKey,
  keyOf,
  methodOf,
  setService,
} from "./inventory.js";
import { arrangeLocalAddresses } from "./local-address.js";
import { CHUNK_SLOTS, NO_RING, type Ring, ringChunks, ringSlots } from "./record.js";
import { compileRing } from "./ring.js";
import { schedulingOf, transition } from "./scheduling.js";
import { readLocalAddressCount, readLocalPorts } from "./settings.js";
import type { Steps } from "./slices.js";
import { RealServerState, Scheduler } from "./sluice.bpf.js";
import type { Tables } from "./tables.js";
import type { Write } from "./write.js";

export interface PublishChanges {
  /** Names: `tcp:10.0.0.100:80`. */
  readonly services: { readonly added: string[]; readonly changed: string[]; readonly removed: string[] };
  /** Names: `tcp:10.0.0.100:80 10.1.0.11:8080`. One that changed its method is both removed and added. */
  readonly realServers: { readonly added: string[]; readonly changed: string[]; readonly removed: string[] };
}

export interface Plan {
  /** The writes of `build`. The data plane does not look at what they write before the first of `writes`. */
  readonly preparations: readonly Write[];
  /** All others. */
  readonly writes: readonly Write[];
  readonly changes: PublishChanges;
  /** The services that it changed, as they are afterwards. */
  readonly services: readonly InstalledService[];
  /** After the writes: makes the inventory say what the maps say. */
  commit(): void;
  /** Instead of the writes: gives back what the plan took. */
  abandon(): void;
}

/**
 * Pauses between services; neither inventory nor tables may be changed by others meanwhile.
 *
 * @param now milliseconds of a monotonic clock
 * @throws DataPlaneError CAPACITY_EXCEEDED, TABLE_TOO_SMALL or DUPLICATE_SERVICE, or what is thrown into it; nothing is taken then
 */
export function* planPublish(inventory: Inventory, tables: Tables, desired: DesiredState, now: number): Steps<Plan> {
  const planner = new Planner(inventory, tables, now);
  try {
    return yield* planner.plan(desired);
  } catch (error) {
    planner.abandon();
    throw error;
  }
}

/** Elements taken from a free list on trial. */
class Claims {
  readonly #list: FreeList;
  readonly #taken: [start: number, length: number][] = [];
  /** Elements that were asked for in vain. */
  missing = 0;

  constructor(list: FreeList) {
    this.#list = list;
  }

  /** The first element; a meaningless 0 where there was no room, which checkCapacity() reports. */
  claim(length: number): number {
    const start = this.#list.allocate(length);
    if (start === undefined) {
      this.missing += length;
      return 0;
    }
    this.#taken.push([start, length]);
    return start;
  }

  abandon(): void {
    for (const [start, length] of this.#taken.splice(0)) {
      this.#list.release(start, length);
    }
  }

  /** @param unit what the configuration counts in, for each element of the map */
  check(field: string, unit: number, drains: string): void {
    if (this.missing === 0) {
      return;
    }
    const limit = this.#list.size * unit;
    const wanted = limit + (this.missing - this.#list.free) * unit;
    const room = this.#list.free * unit;
    const short =
      wanted > limit
        ? `${String(wanted)} are wanted`
        : `no run of free ones is long enough, though ${String(room)} are free`;
    throw new DataPlaneError("CAPACITY_EXCEEDED", `${field} is ${String(limit)}, and ${short}, ${drains} included`, {
      field,
      wanted,
      available: limit,
      remedy: `raise ${field}, which takes \`sluice unload\` and a start, or wait until those are free`,
    });
  }
}

class Planner {
  readonly #inventory: Inventory;
  readonly #tables: Tables;
  readonly #now: number;
  readonly #serviceClaims: Claims;
  readonly #realServerClaims: Claims;
  readonly #chunkClaims: Claims;

  readonly #build: Write[] = [];
  readonly #weights: Write[] = [];
  readonly #switch: Write[] = [];
  readonly #quiesce: Write[] = [];
  readonly #close: Write[] = [];
  readonly #open: Write[] = [];
  readonly #teardown: Write[] = [];

  readonly #changes: PublishChanges = {
    services: { added: [], changed: [], removed: [] },
    realServers: { added: [], changed: [], removed: [] },
  };
  readonly #services: InstalledService[] = [];
  readonly #vips = new Map<string, InstalledVip>();
  readonly #replacedRings: Ring[] = [];

  constructor(inventory: Inventory, tables: Tables, now: number) {
    this.#inventory = inventory;
    this.#tables = tables;
    this.#now = now;
    this.#serviceClaims = new Claims(inventory.freeServices);
    this.#realServerClaims = new Claims(inventory.freeRealServers);
    this.#chunkClaims = new Claims(inventory.freeChunks);
  }

  *plan(desired: DesiredState): Steps<Plan> {
    const { wanted, unwanted } = this.#touched(desired.services);
    for (const installed of unwanted) {
      this.#removeService(installed);
      yield;
    }
    for (const [name, service] of wanted) {
      this.#installService(name, service);
      yield;
    }
    this.#serviceClaims.check("limits.services", 1, "services whose connections have not ended");
    this.#realServerClaims.check("limits.real_servers", 1, "real servers whose connections have not ended");
    this.#chunkClaims.check("limits.ring_slots", CHUNK_SLOTS, "rings replaced within the last second");

    const localAddresses = this.#arrangeFullnat(desired);
    const writes = [
      ...this.#weights,
      ...this.#switch,
      ...this.#quiesce,
      ...this.#close,
      ...this.#vipWrites(),
      ...this.#open,
      ...this.#teardown,
    ];
    return {
      preparations: this.#build,
      writes,
      changes: this.#changes,
      services: this.#services,
      commit: () => {
        this.#commit(desired.services, localAddresses);
      },
      abandon: () => {
        this.abandon();
      },
    };
  }

  abandon(): void {
    this.#serviceClaims.abandon();
    this.#realServerClaims.abandon();
    this.#chunkClaims.abandon();
  }

  /** Only services that are not the objects published last time, and installed ones that none of `services` stands for. */
  #touched(services: readonly VirtualService[]): {
    wanted: Map<string, VirtualService>;
    unwanted: InstalledService[];
  } {
    const { published, services: installed } = this.#inventory;
    const gone = new Set(published);
    const wanted = new Map<string, VirtualService>();
    for (const service of services) {
      if (!gone.delete(service)) {
        const name = serviceName(service);
        if (wanted.has(name)) {
          throw duplicate(name);
        }
        wanted.set(name, service);
      }
    }
    const unwanted: InstalledService[] = [];
    // What a former process published has no objects here: all that is installed may be unwanted.
    const candidates = published.length > 0 ? Array.from(gone, serviceName) : installed.keys();
    for (const name of candidates) {
      const service = installed.get(name);
      if (service !== undefined && !wanted.has(name)) {
        unwanted.push(service);
      }
    }
    if (published.length > 0) {
      this.#refuseTwins(wanted, gone, services.length - wanted.size);
    }
    return { wanted, unwanted };
  }

  /** A wanted service replaces one that is gone, or has a name that is not in service. */
  #refuseTwins(wanted: ReadonlyMap<string, VirtualService>, gone: ReadonlySet<VirtualService>, kept: number): void {
    if (kept === 0) {
      return;
    }
    const goneNames = new Set(Array.from(gone, serviceName));
    for (const name of wanted.keys()) {
      if (!goneNames.has(name) && this.#inventory.services.get(name)?.indexed === true) {
        throw duplicate(name);
      }
    }
  }

  #installService(name: string, service: VirtualService): void {
    const installed = this.#inventory.services.get(name);
    const key = installed?.key ?? keyOf(service);
    const scheduling = schedulingOf(service);
    const index = installed?.index ?? this.#serviceClaims.claim(1);
    const writesBefore = this.#writesSoFar();
    if (installed === undefined) {
      this.#build.push({ kind: "service", index, key, scheduling });
    }
    const realServers = new Map(installed?.realServers);
    const { indexes, lastWeights } = this.#installRealServers(name, service, index, realServers);

    // Only a Maglev table says how many slots it wants to keep.
    const isTable = installed?.scheduling.scheduler === Scheduler.SCHEDULER_MH;
    const slots = compileRing(service, indexes, lastWeights, isTable ? installed.ring.length : 0);
    const { before, after } = transition(installed?.scheduling ?? scheduling, scheduling);
    if (before !== undefined) {
      this.#switch.push({ kind: "scheduling", service: index, scheduling: before });
    }
    const ring = this.#installRing(index, installed?.ring ?? NO_RING, slots);
    if (after !== undefined) {
      this.#switch.push({ kind: "scheduling", service: index, scheduling: after });
    }
    if (installed !== undefined && ring !== installed.ring && scheduling.scheduler === Scheduler.SCHEDULER_RR) {
      const isSequel = installed.scheduling.scheduler === Scheduler.SCHEDULER_RR;
      this.#switch.push({ kind: "turns", service: index, from: isSequel ? installed.ring : NO_RING, to: ring });
    }
    if (installed?.indexed !== true) {
      this.#open.push({ kind: "index", key, service: index });
      this.#countVip(key.family, key.vip.bytes, 1);
      this.#changes.services.added.push(name);
    } else if (this.#writesSoFar() > writesBefore) {
      this.#changes.services.changed.push(name);
    }
    this.#services.push({ index, name, key, indexed: true, scheduling, ring, realServers, retiredAt: this.#now });
  }

  #writesSoFar(): number {
    const parts = [this.#build, this.#weights, this.#switch, this.#quiesce, this.#teardown];
    return parts.reduce((sum, { length }) => sum + length, 0);
  }

  /** Brings `realServers` up to date; returns the indexes and last weights of the service's real servers in its order. */
  #installRealServers(
    serviceName: string,
    service: VirtualService,
    serviceIndex: number,
    realServers: Map<string, InstalledRealServer>,
  ): { indexes: Uint32Array; lastWeights: Uint32Array } {
    const indexes = new Uint32Array(service.realServers.length);
    const lastWeights = new Uint32Array(service.realServers.length);
    const lastByName = lastWeightsInService(realServers.values());
    const keys = new Set<string>();
    const names = new Set<string>();
    for (const [position, realServer] of service.realServers.entries()) {
      const name = realServerName(realServer);
      const method = methodOf(realServer);
      const key = installedKey(name, method);
      const { weight } = realServer;
      const installed = realServers.get(key);
      const index = installed?.index ?? this.#realServerClaims.claim(1);
      const address = installed?.address ?? parseAddress(realServer.address);
      // One that comes anew brings no last weight along; one that is quiesced while its method changes does.
      const lastWeight = weight > 0 ? weight : (lastByName.get(name) ?? 0);
      indexes[position] = index;
      lastWeights[position] = lastWeight;
      if ((installed?.lastWeight ?? -1) !== lastWeight) {
        this.#build.push({ kind: "last weight", realServer: index, weight: lastWeight });
      }
      keys.add(key);
      names.add(name);
      if (installed === undefined) {
        const record = {
          address,
          port: realServer.port,
          method,
          state: RealServerState.REAL_ACTIVE,
          service: serviceIndex,
          weight,
        };
        this.#build.push({ kind: "real server", index, record });
      } else {
        if (installed.weight !== weight) {
          (weight > 0 ? this.#weights : this.#quiesce).push({ kind: "weight", realServer: index, weight });
        }
        if (installed.standing === "removed") {
          this.#build.push({ kind: "state", realServer: index, state: RealServerState.REAL_ACTIVE });
        }
      }
      if (installed?.standing !== "active") {
        this.#changes.realServers.added.push(`${serviceName} ${name}`);
      } else if (installed.weight !== weight) {
        this.#changes.realServers.changed.push(`${serviceName} ${name}`);
      }
      if (installed?.standing !== "active" || installed.weight !== weight || installed.lastWeight !== lastWeight) {
        realServers.set(key, { index, address, standing: "active", weight, lastWeight, name, retiredAt: this.#now });
      }
    }
    for (const [key, installed] of realServers) {
      if (!keys.has(key)) {
        realServers.set(key, this.#retire(serviceName, installed, names.has(installed.name)));
      }
    }
    return { indexes, lastWeights };
  }

  /** Takes a real server out of its service. @param superseded its address and port stay, with another method */
  #retire(serviceName: string, installed: InstalledRealServer, superseded: boolean): InstalledRealServer {
    const standing = superseded ? "superseded" : "removed";
    if (installed.standing === standing) {
      return installed;
    }
    const { index } = installed;
    // One that drains looks active and quiesced after a restart: it is not removed a second time.
    if (installed.standing === "active" && (installed.weight !== 0 || !superseded)) {
      this.#changes.realServers.removed.push(`${serviceName} ${installed.name}`);
    }
    if (installed.weight !== 0) {
      this.#teardown.push({ kind: "weight", realServer: index, weight: 0 });
    }
    if (!superseded) {
      this.#teardown.push({ kind: "state", realServer: index, state: RealServerState.REAL_REMOVED });
    } else if (installed.standing === "removed") {
      this.#teardown.push({ kind: "state", realServer: index, state: RealServerState.REAL_ACTIVE });
    }
    // Should it come back, then as one that is added anew.
    if (installed.lastWeight !== 0) {
      this.#teardown.push({ kind: "last weight", realServer: index, weight: 0 });
    }
    return { ...installed, standing, weight: 0, lastWeight: 0, retiredAt: this.#now };
  }

  #installRing(service: number, current: Ring, slots: Uint32Array): Ring {
    const { length } = slots;
    if (length === current.length && equal(slots, ringSlots(this.#tables.rings, current))) {
      return current;
    }
    let ring = NO_RING;
    if (length > 0) {
      ring = { chunk: this.#chunkClaims.claim(ringChunks(length)), length };
      this.#build.push({ kind: "slots", ring, slots });
    }
    this.#switch.push({ kind: "ring", service, ring });
    if (current.length > 0) {
      this.#replacedRings.push(current);
    }
    return ring;
  }

  #removeService(installed: InstalledService): void {
    const { index, name, key, indexed, ring } = installed;
    if (indexed) {
      this.#close.push({ kind: "unindex", key });
      this.#countVip(key.family, key.vip.bytes, -1);
      this.#changes.services.removed.push(name);
    }
    if (ring.length > 0) {
      this.#teardown.push({ kind: "ring", service: index, ring: NO_RING });
      this.#replacedRings.push(ring);
    }
    const realServers = new Map<string, InstalledRealServer>();
    for (const [realServerKey, realServer] of installed.realServers) {
      realServers.set(realServerKey, this.#retire(name, realServer, false));
    }
    this.#services.push({ ...installed, indexed: false, ring: NO_RING, realServers, retiredAt: this.#now });
  }

  #countVip(family: InstalledVip["family"], bytes: Uint8Array, change: 1 | -1): void {
    const text = formatAddress({ family, bytes });
    const known = this.#vips.get(text) ?? this.#inventory.vips.get(text) ?? { family, bytes, services: 0, stored: 0 };
    this.#vips.set(text, { ...known, services: known.services + change });
  }

  /** Addresses that go make room for those that come. */
  #vipWrites(): Write[] {
    const going: Write[] = [];
    const coming: Write[] = [];
    // Right after a start, counts that a former process left wrong are put right.
    const candidates =
      this.#inventory.published.length > 0 ? this.#vips : new Map([...this.#inventory.vips, ...this.#vips]);
    for (const [text, vip] of candidates) {
      const { family, bytes, services, stored } = vip;
      if (services !== stored) {
        const write: Write = { kind: "vip", key: { address: { bytes }, family }, services };
        (services < stored ? going : coming).push(write);
        this.#vips.set(text, { ...vip, stored: services });
      }
    }
    return [...going, ...coming];
  }

  /** FULLNAT's addresses and ports; returns the addresses in the order of the map. */
  #arrangeFullnat({ fullnat }: DesiredState): readonly string[] {
    const current = this.#inventory.localAddresses;
    const arranged = arrangeLocalAddresses(current, fullnat?.localAddresses ?? []);
    const room = this.#tables.localAddresses.length;
    if (arranged.length > room) {
      const wanted = arranged.length;
      const message = `fullnat.local_addresses has ${String(wanted)} addresses, there is room for ${String(room)}`;
      throw new DataPlaneError("CAPACITY_EXCEEDED", message, {
        field: "fullnat.local_addresses",
        wanted,
        available: room,
      });
    }
    for (const [index, address] of arranged.entries()) {
      if (address !== current[index]) {
        this.#build.push({ kind: "local address", index, bytes: parseAddress(address).bytes });
      }
    }
    if (arranged.length !== readLocalAddressCount(this.#tables.settings)) {
      this.#build.push({ kind: "local addresses", count: arranged.length });
    }
    if (fullnat !== undefined) {
      const [first, last] = readLocalPorts(this.#tables.settings);
      if (fullnat.localPorts[0] !== first || fullnat.localPorts[1] !== last) {
        this.#build.push({ kind: "local ports", range: fullnat.localPorts });
      }
    }
    return arranged;
  }

  #commit(published: readonly VirtualService[], localAddresses: readonly string[]): void {
    const inventory = this.#inventory;
    for (const service of this.#services) {
      setService(inventory, service);
    }
    for (const [text, vip] of this.#vips) {
      if (vip.services > 0) {
        inventory.vips.set(text, vip);
      } else {
        inventory.vips.delete(text);
      }
    }
    for (const ring of this.#replacedRings) {
      inventory.retiredRings.push({ ring, retiredAt: this.#now });
    }
    inventory.localAddresses = localAddresses;
    inventory.published = published;
  }
}

function lastWeightsInService(realServers: Iterable<InstalledRealServer>): ReadonlyMap<string, number> {
  const weights = new Map<string, number>();
  for (const { name, standing, lastWeight } of realServers) {
    if (standing === "active") {
      // After a restart one that is superseded looks active as well; its last weight is 0.
      weights.set(name, Math.max(lastWeight, weights.get(name) ?? 0));
    }
  }
  return weights;
}

function equal(a: Uint32Array, b: Uint32Array): boolean {
  return a.every((value, index) => value === b[index]);
}

function duplicate(name: string): DataPlaneError {
  return new DataPlaneError("DUPLICATE_SERVICE", `${name} is there twice`);
}
