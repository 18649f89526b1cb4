/**
 * From a desired state and what the maps hold to the writes that lead from one to the other, in an order in which the data
 * plane is right after each of them:
 *
 *   build     services without a ring, real servers with all that belongs to them, the slots of new rings, new sets of timeouts, mark rules
 *             of the half that does not hold: nothing refers to them yet
 *   change    settings, timeouts, thresholds, pools; weights above 0: before a ring that has a real server which was quiesced
 *   switch    of a service one word at a time: its ring; its scheduler before or after it, see transition(); persistence, one-packet
 *   quiesce   weights of 0: after a ring that had the real server, since one that is picked all the same is refused
 *   close     services out of service_index
 *   free      addresses of services and endpoints of real servers that are none any more
 *   take      those that are now
 *   open      services into service_index; which mark rules hold
 *   teardown  rings of closed services, real servers that no ring names any more
 *
 * A plan takes the elements that it needs at once, so that nothing is written when one is lacking; abandon() gives them back.
 */
import { type DesiredState, serviceName, type VirtualService } from "../model/index.js";
import type { PublishChanges } from "./changes.js";
import { Claims } from "./claims.js";
import { DataPlaneError } from "./error.js";
import { type InstalledRealServer, type InstalledService, type Inventory, setService } from "./inventory.js";
import { persistenceOf, samePersistence } from "./persistence.js";
import { PoolPlanner, type Ways } from "./plan-pools.js";
import { RealServerPlanner } from "./plan-real-servers.js";
import { planMarkRules, planSettings } from "./plan-settings.js";
import { EndpointPlanner, VipPlanner } from "./plan-shared.js";
import { TimeoutPlanner } from "./plan-timeouts.js";
import { compileRing } from "./ring.js";
import { CHUNK_SLOTS, NO_RING, type Ring, ringChunks, ringSlots } from "./ring-record.js";
import { schedulingOf, transition } from "./scheduling.js";
import { keyOf } from "./service-key.js";
import type { ServiceRecord } from "./service-record.js";
import type { Steps } from "./slices.js";
import { Scheduler } from "./sluice.bpf.js";
import type { Tables } from "./tables.js";
import type { Write } from "./write.js";
import { PhasedWrites } from "./writes.js";

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

export interface PlanSurroundings {
  readonly inventory: Inventory;
  readonly tables: Tables;
  readonly ways: Ways;
  /** Milliseconds of a monotonic clock. */
  readonly now: number;
  /** Whether ways have changed, so that fullnat's real servers have to be looked at even where nothing is new. */
  readonly waysChanged?: boolean;
}

/**
 * Pauses between services and between real servers; neither inventory nor tables may be changed by others meanwhile. Mark rules need their other half to be free: see
 * markRulesGraceLeft().
 *
 * @throws DataPlaneError CAPACITY_EXCEEDED, TABLE_TOO_SMALL or DUPLICATE_SERVICE, or what is thrown into it; nothing is taken then
 */
export function* planPublish(surroundings: PlanSurroundings, desired: DesiredState): Steps<Plan> {
  const planner = new Planner(surroundings, desired);
  try {
    return yield* planner.plan();
  } catch (error) {
    planner.abandon();
    throw error;
  }
}

class Planner {
  readonly #inventory: Inventory;
  readonly #tables: Tables;
  readonly #now: number;
  readonly #desired: DesiredState;
  readonly #waysChanged: boolean;
  readonly #serviceClaims: Claims;
  readonly #realServerClaims: Claims;
  readonly #chunkClaims: Claims;

  readonly #writes = new PhasedWrites();
  readonly #pools: PoolPlanner;
  readonly #timeouts: TimeoutPlanner;
  readonly #vips: VipPlanner;
  readonly #endpoints: EndpointPlanner;
  readonly #realServers: RealServerPlanner;

  readonly #changes: PublishChanges = {
    services: { added: [], changed: [], removed: [] },
    realServers: { added: [], changed: [], removed: [] },
  };
  readonly #services: InstalledService[] = [];
  readonly #replacedRings: Ring[] = [];

  constructor({ inventory, tables, ways, now, waysChanged }: PlanSurroundings, desired: DesiredState) {
    this.#inventory = inventory;
    this.#tables = tables;
    this.#now = now;
    this.#desired = desired;
    this.#waysChanged = waysChanged ?? false;
    this.#serviceClaims = new Claims(inventory.freeServices);
    this.#realServerClaims = new Claims(inventory.freeRealServers);
    this.#chunkClaims = new Claims(inventory.freeChunks);
    const writes = this.#writes;
    this.#pools = new PoolPlanner(inventory, desired, ways, this.#chunkClaims, writes);
    this.#timeouts = new TimeoutPlanner(inventory, tables, desired, writes);
    this.#vips = new VipPlanner(inventory);
    this.#endpoints = new EndpointPlanner(inventory);
    this.#realServers = new RealServerPlanner({
      claims: this.#realServerClaims,
      pools: this.#pools,
      timeouts: this.#timeouts,
      endpoints: this.#endpoints,
      writes,
      changes: this.#changes.realServers,
      settings: desired.settings,
      now,
    });
  }

  *plan(): Steps<Plan> {
    const { wanted, unwanted } = this.#touched();
    planSettings(this.#tables, this.#desired, this.#writes);
    const newMarkRules = planMarkRules(this.#inventory, this.#tables, this.#desired, this.#writes);
    for (const installed of unwanted) {
      this.#removeService(installed);
      yield;
    }
    for (const [name, service] of wanted) {
      yield* this.#installService(name, service);
      yield;
    }
    this.#serviceClaims.check("limits.services", 1, "services whose connections have not ended");
    this.#realServerClaims.check("limits.real_servers", 1, "real servers whose connections have not ended");
    this.#pools.check();
    this.#timeouts.check();
    this.#chunkClaims.check("limits.ring_slots", CHUNK_SLOTS, "rings replaced within the last second");
    this.#vips.addTo(this.#writes);
    this.#endpoints.addTo(this.#writes);
    return {
      preparations: this.#writes.build,
      writes: this.#writes.afterBuild().flat(),
      changes: this.#changes,
      services: this.#services,
      commit: () => {
        this.#commit(newMarkRules);
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
    this.#pools.abandon();
    this.#timeouts.abandon();
  }

  /** Only services that there is something to do for, and installed ones that none of those that are desired stands for. */
  #touched(): { wanted: Map<string, VirtualService>; unwanted: InstalledService[] } {
    const { services: installed, draining, published } = this.#inventory;
    const { services } = this.#desired;
    const gone = new Set(published?.services);
    const wanted = new Map<string, VirtualService>();
    const fresh: string[] = [];
    for (const service of services) {
      const isSame = gone.delete(service);
      if (!isSame || this.#concerns(service)) {
        const name = serviceName(service);
        if (wanted.has(name)) {
          throw duplicate(name);
        }
        wanted.set(name, service);
        if (!isSame) {
          fresh.push(name);
        }
      }
    }
    // What a former process published has no objects here: all that is installed may be unwanted. So may what drains, where what
    // becomes of its connections has changed.
    const goneNames = new Set(Array.from(gone, serviceName));
    const candidates = new Set(published === undefined ? installed.keys() : goneNames);
    if (this.#settingsConcernRemoved()) {
      for (const name of draining) {
        candidates.add(name);
      }
    }
    const unwanted: InstalledService[] = [];
    for (const name of candidates) {
      const service = installed.get(name);
      if (
        service !== undefined &&
        !wanted.has(name) &&
        (goneNames.has(name) || !service.indexed || published === undefined)
      ) {
        unwanted.push(service);
      }
    }
    if (published !== undefined) {
      this.#refuseTwins(fresh, goneNames);
    }
    return { wanted, unwanted };
  }

  /** Whether something has changed for a service although itself has not. */
  #concerns(service: VirtualService): boolean {
    return (
      (this.#timeouts.changed && service.timeouts !== undefined) ||
      ((this.#pools.changed || this.#waysChanged) && service.realServers.some(({ method }) => method === "fullnat")) ||
      (this.#settingsConcernRemoved() && this.#inventory.draining.has(serviceName(service)))
    );
  }

  #settingsConcernRemoved(): boolean {
    const { published } = this.#inventory;
    return published?.settings.expire_nodest_conn !== this.#desired.settings.expire_nodest_conn;
  }

  /** A service that is not as before replaces one that is gone, or has a name that is not in service. */
  #refuseTwins(fresh: readonly string[], goneNames: ReadonlySet<string>): void {
    for (const name of fresh) {
      if (!goneNames.has(name) && this.#inventory.services.get(name)?.indexed === true) {
        throw duplicate(name);
      }
    }
  }

  *#installService(name: string, service: VirtualService): Steps<void> {
    const installed = this.#inventory.services.get(name);
    const key = installed?.key ?? keyOf(service);
    const scheduling = schedulingOf(service);
    const index = installed?.index ?? this.#serviceClaims.claim(1);
    const writes = this.#writes;
    const writesBefore = writes.count;
    const options = { scheduling, persistence: persistenceOf(service), onePacket: service.onePacket };
    if (installed === undefined) {
      writes.build.push({ kind: "service", index, record: { key, ...options, ring: NO_RING } });
    }
    const owner = { index, name, key };
    const planned = yield* this.#realServers.install(owner, service, installed?.realServers);
    const { realServers, indexes, lastWeights } = planned;

    // Only a Maglev table says how many slots it wants to keep.
    const isTable = installed?.scheduling.scheduler === Scheduler.SCHEDULER_MH;
    const slots = compileRing(service, indexes, lastWeights, isTable ? installed.ring.length : 0);
    const { before, after } = transition(installed?.scheduling ?? scheduling, scheduling);
    if (before !== undefined) {
      writes.switch.push({ kind: "scheduling", service: index, scheduling: before });
    }
    const ring = this.#installRing(index, installed?.ring ?? NO_RING, slots);
    if (after !== undefined) {
      writes.switch.push({ kind: "scheduling", service: index, scheduling: after });
    }
    if (installed !== undefined) {
      this.#changeOptions(installed, { ...options, ring });
    }
    if (installed?.indexed !== true) {
      writes.open.push({ kind: "index", key, service: index });
      this.#vips.count(key, 1);
      this.#changes.services.added.push(name);
    } else if (writes.count > writesBefore) {
      this.#changes.services.changed.push(name);
    }
    const { removedConnections } = service;
    const standing = { indexed: true, removedConnections, retiredAt: this.#now };
    this.#services.push({ ...owner, ...options, ...standing, ring, realServers });
  }

  #changeOptions(
    installed: InstalledService,
    { scheduling, persistence, onePacket, ring }: Omit<ServiceRecord, "key">,
  ): void {
    const { index: service } = installed;
    const writes = this.#writes;
    if (ring !== installed.ring && scheduling.scheduler === Scheduler.SCHEDULER_RR) {
      const isSequel = installed.scheduling.scheduler === Scheduler.SCHEDULER_RR;
      writes.switch.push({ kind: "turns", service, from: isSequel ? installed.ring : NO_RING, to: ring });
    }
    if (!samePersistence(installed.persistence, persistence)) {
      writes.switch.push({ kind: "persistence", service, persistence });
    }
    if (installed.onePacket !== onePacket) {
      writes.switch.push({ kind: "one packet", service, onePacket });
    }
  }

  #installRing(service: number, current: Ring, slots: Uint32Array): Ring {
    const { length } = slots;
    if (length === current.length && equal(slots, ringSlots(this.#tables.rings, current))) {
      return current;
    }
    let ring = NO_RING;
    if (length > 0) {
      ring = { chunk: this.#chunkClaims.claim(ringChunks(length)), length };
      this.#writes.build.push({ kind: "slots", ring, slots });
    }
    this.#writes.switch.push({ kind: "ring", service, ring });
    if (current.length > 0) {
      this.#replacedRings.push(current);
    }
    return ring;
  }

  #removeService(installed: InstalledService): void {
    const { index, name, key, indexed, ring, removedConnections } = installed;
    if (indexed) {
      this.#writes.close.push({ kind: "unindex", key });
      this.#vips.count(key, -1);
      this.#changes.services.removed.push(name);
    }
    if (ring.length > 0) {
      this.#writes.teardown.push({ kind: "ring", service: index, ring: NO_RING });
      this.#replacedRings.push(ring);
    }
    const realServers = new Map<string, InstalledRealServer>();
    for (const [realServerKey, realServer] of installed.realServers) {
      realServers.set(realServerKey, this.#realServers.retire(installed, realServer, false, removedConnections));
    }
    const retiredAt = indexed ? this.#now : installed.retiredAt;
    this.#services.push({ ...installed, indexed: false, ring: NO_RING, realServers, retiredAt });
  }

  #commit(newMarkRules: boolean): void {
    const inventory = this.#inventory;
    const now = this.#now;
    const settlePools = this.#pools.commit(now);
    const settleTimeouts = this.#timeouts.commit(now);
    for (const service of this.#services) {
      setService(inventory, service, now);
    }
    settlePools();
    settleTimeouts();
    this.#vips.commit();
    this.#endpoints.commit();
    for (const ring of this.#replacedRings) {
      inventory.retiredRings.push({ ring, retiredAt: now });
    }
    if (newMarkRules) {
      inventory.markRulesRetiredAt = now;
    }
    inventory.published = this.#desired;
  }
}

function equal(a: Uint32Array, b: Uint32Array): boolean {
  return a.every((value, index) => value === b[index]);
}

function duplicate(name: string): DataPlaneError {
  return new DataPlaneError("DUPLICATE_SERVICE", `${name} is there twice`);
}
