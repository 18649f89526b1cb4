/** The part of a plan that is about the real servers of one service after the other. */
import {
  type RealServer,
  type RemovedConnections,
  realServerName,
  type Settings,
  type VirtualService,
} from "../model/index.js";
import { parseAddress } from "./address.js";
import type { PublishChanges } from "./changes.js";
import type { Claims } from "./claims.js";
import { isEndpoint } from "./endpoint.js";
import { type InstalledRealServer, installedKey } from "./inventory.js";
import { samePool } from "./local-pool.js";
import type { PoolPlanner } from "./plan-pools.js";
import type { EndpointPlanner } from "./plan-shared.js";
import type { TimeoutPlanner } from "./plan-timeouts.js";
import { NO_THRESHOLDS, type Thresholds } from "./real-load.js";
import { removedState } from "./removed-connections.js";
import type { Steps } from "./slices.js";
import { ForwardingMethod, RealServerState, type ServiceKey } from "./sluice.bpf.js";
import { GLOBAL_TIMEOUTS } from "./timeouts.js";
import type { PhasedWrites } from "./writes.js";

const METHODS = {
  nat: ForwardingMethod.METHOD_NAT,
  dr: ForwardingMethod.METHOD_DR,
  tun: ForwardingMethod.METHOD_TUN,
  fullnat: ForwardingMethod.METHOD_FULLNAT,
} as const;

export function methodOf({ method }: Pick<RealServer, "method">): ForwardingMethod {
  return METHODS[method];
}

/** What identifies the service that the real servers belong to. */
export interface Owner {
  readonly index: number;
  readonly name: string;
  readonly key: ServiceKey;
}

export interface RealServerPlannerParts {
  readonly claims: Claims;
  readonly pools: PoolPlanner;
  readonly timeouts: TimeoutPlanner;
  readonly endpoints: EndpointPlanner;
  readonly writes: PhasedWrites;
  readonly changes: PublishChanges["realServers"];
  readonly settings: Settings;
  readonly now: number;
}

export interface PlannedRealServers {
  readonly realServers: Map<string, InstalledRealServer>;
  /** Of the service's real servers in its order. */
  readonly indexes: Uint32Array;
  readonly lastWeights: Uint32Array;
}

export class RealServerPlanner {
  readonly #parts: RealServerPlannerParts;

  constructor(parts: RealServerPlannerParts) {
    this.#parts = parts;
  }

  /** Pauses between real servers. */
  *install(
    owner: Owner,
    service: VirtualService,
    before: ReadonlyMap<string, InstalledRealServer> | undefined,
  ): Steps<PlannedRealServers> {
    const realServers = new Map(before);
    const indexes = new Uint32Array(service.realServers.length);
    const lastWeights = new Uint32Array(service.realServers.length);
    const lastByName = lastWeightsInService(realServers.values());
    const hasAny = service.realServers.length + realServers.size > 0;
    const timeouts = hasAny ? this.#parts.timeouts.setFor(service) : GLOBAL_TIMEOUTS;
    const keys = new Set<string>();
    const names = new Set<string>();
    for (const [position, realServer] of service.realServers.entries()) {
      yield;
      const name = realServerName(realServer);
      const method = methodOf(realServer);
      const key = installedKey(name, method);
      const installed = realServers.get(key);
      // One that comes anew brings no last weight along; one that is quiesced while its method changes does.
      const lastWeight = realServer.weight > 0 ? realServer.weight : (lastByName.get(name) ?? 0);
      const address = installed?.address ?? parseAddress(realServer.address);
      const planned: InstalledRealServer = {
        index: installed?.index ?? this.#parts.claims.claim(1),
        address,
        port: realServer.port,
        method,
        standing: "active",
        state: RealServerState.REAL_ACTIVE,
        weight: realServer.weight,
        lastWeight,
        thresholds: thresholdsOf(realServer),
        timeouts,
        pool: method === ForwardingMethod.METHOD_FULLNAT ? this.#parts.pools.poolFor(service, address) : undefined,
        name,
        retiredAt: this.#parts.now,
      };
      indexes[position] = planned.index;
      lastWeights[position] = lastWeight;
      keys.add(key);
      names.add(name);
      if (installed === undefined) {
        this.#add(owner, planned);
        realServers.set(key, planned);
      } else if (this.#update(owner, installed, planned)) {
        realServers.set(key, planned);
      }
    }
    for (const [key, installed] of realServers) {
      if (!keys.has(key)) {
        const isSuperseded = names.has(installed.name);
        const retired = this.retire(owner, installed, isSuperseded, service.removedConnections);
        realServers.set(key, this.#keepTimeouts(retired, timeouts));
      }
    }
    return { realServers, indexes, lastWeights };
  }

  /**
   * Takes a real server out of its service, or says anew what its connections get.
   *
   * @param isSuperseded its address and port stay, with another method
   * @param choice what its service says of its connections
   */
  retire(
    owner: Owner,
    installed: InstalledRealServer,
    isSuperseded: boolean,
    choice: RemovedConnections | undefined,
  ): InstalledRealServer {
    const standing = isSuperseded ? "superseded" : "removed";
    const state = isSuperseded
      ? RealServerState.REAL_DRAINING
      : removedState(choice, this.#parts.settings.expire_nodest_conn);
    if (installed.standing === standing && installed.state === state) {
      return installed;
    }
    const { teardown } = this.#parts.writes;
    const { index } = installed;
    if (installed.standing === "active") {
      this.#parts.changes.removed.push(`${owner.name} ${installed.name}`);
    }
    if (installed.weight !== 0) {
      teardown.push({ kind: "weight", realServer: index, weight: 0 });
    }
    if (installed.state !== state) {
      teardown.push({ kind: "state", realServer: index, state });
    }
    // Should it come back, then as one that is added anew.
    if (installed.lastWeight !== 0) {
      teardown.push({ kind: "last weight", realServer: index, weight: 0 });
    }
    if (isEndpoint(installed)) {
      this.#parts.endpoints.remove(owner.key, installed);
    }
    const retiredAt = installed.standing === "active" ? this.#parts.now : installed.retiredAt;
    return { ...installed, standing, state, weight: 0, lastWeight: 0, retiredAt };
  }

  #add(owner: Owner, planned: InstalledRealServer): void {
    const { writes, changes, endpoints } = this.#parts;
    const { index, address, port, method, state, timeouts, weight } = planned;
    // All that the next writes say is in place before the element is in use.
    writes.build.push({ kind: "last weight", realServer: index, weight: planned.lastWeight });
    writes.build.push({ kind: "thresholds", realServer: index, thresholds: planned.thresholds });
    if (planned.pool !== undefined) {
      writes.build.push({ kind: "local pool", realServer: index, pool: planned.pool });
    }
    const record = { address, port, method, state, timeouts, service: owner.index, weight };
    writes.build.push({ kind: "real server", index, record });
    if (isEndpoint(planned)) {
      endpoints.add(owner.key, planned);
    }
    changes.added.push(`${owner.name} ${planned.name}`);
  }

  /** Returns whether anything is new. */
  #update(owner: Owner, installed: InstalledRealServer, planned: InstalledRealServer): boolean {
    const { writes, changes, endpoints } = this.#parts;
    const { index: realServer, weight, lastWeight, thresholds, pool, timeouts } = planned;
    const isBack = installed.standing !== "active";
    // One that is out of its service is prepared like a new one; what packets meet changes with everything else.
    const change = isBack ? writes.build : writes.change;
    const before = writes.count;
    if (installed.lastWeight !== lastWeight) {
      writes.build.push({ kind: "last weight", realServer, weight: lastWeight });
    }
    if (installed.thresholds.upper !== thresholds.upper || installed.thresholds.lower !== thresholds.lower) {
      change.push({ kind: "thresholds", realServer, thresholds });
    }
    if (pool !== undefined && !samePool(installed.pool, pool)) {
      change.push({ kind: "local pool", realServer, pool });
    }
    if (installed.timeouts !== timeouts) {
      writes.change.push({ kind: "timeouts of", realServer, set: timeouts });
    }
    if (installed.weight !== weight) {
      (weight > 0 ? writes.change : writes.quiesce).push({ kind: "weight", realServer, weight });
    }
    if (isBack) {
      writes.build.push({ kind: "state", realServer, state: planned.state });
      if (isEndpoint(planned)) {
        endpoints.add(owner.key, planned);
      }
      changes.added.push(`${owner.name} ${planned.name}`);
    } else if (writes.count > before) {
      changes.changed.push(`${owner.name} ${planned.name}`);
    }
    return isBack || writes.count > before;
  }

  /** Connections of one that is out of its service live as long as the service's others. */
  #keepTimeouts(retired: InstalledRealServer, timeouts: number): InstalledRealServer {
    if (retired.timeouts === timeouts) {
      return retired;
    }
    this.#parts.writes.change.push({ kind: "timeouts of", realServer: retired.index, set: timeouts });
    return { ...retired, timeouts };
  }
}

/** Most have none, and share that. */
function thresholdsOf({ upperThreshold: upper, lowerThreshold: lower }: RealServer): Thresholds {
  return upper === 0 ? NO_THRESHOLDS : { upper, lower };
}

function lastWeightsInService(realServers: Iterable<InstalledRealServer>): ReadonlyMap<string, number> {
  const weights = new Map<string, number>();
  for (const { name, standing, lastWeight } of realServers) {
    if (standing === "active") {
      weights.set(name, Math.max(lastWeight, weights.get(name) ?? 0));
    }
  }
  return weights;
}
