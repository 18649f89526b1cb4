/** The one writer of a data plane's maps: publishes desired states and frees what has drained, one thing after the other. */

import { setTimeout as sleep } from "node:timers/promises";
import type { DesiredState } from "../model/index.js";
import type { PublishChanges } from "./changes.js";
import { DataPlaneError } from "./error.js";
import type { InstalledService, Inventory } from "./inventory.js";
import type { Logger } from "./log.js";
import type { NextHops } from "./next-hops.js";
import { type Plan, planPublish } from "./plan.js";
import type { Ways } from "./plan-pools.js";
import { markRulesGraceLeft } from "./plan-settings.js";
import { PoolWatch } from "./pool-watch.js";
import { readInventory } from "./read-inventory.js";
import { graceLeft, reap } from "./retire.js";
import { eachInSlices, inSlices } from "./slices.js";
import { RealServerState } from "./sluice.bpf.js";
import type { Tables } from "./tables.js";
import { apply } from "./write.js";

export interface PublishReport extends PublishChanges {
  /** Single writes to the maps; 0 when all was so already. */
  readonly writes: number;
  /** Names of real servers of the changed services that have no next hop yet: `tcp:10.0.0.100:80 10.1.0.11:8080`. */
  readonly unresolved: readonly string[];
  readonly milliseconds: number;
}

/** Milliseconds for which the first publish waits for neighbours to answer. */
const FIRST_SETTLE = 1000;
/** Milliseconds between two looks for what has drained. */
const REAP_INTERVAL = 1000;
/** The same while more waits than one look frees. */
const REAP_BACKLOG_INTERVAL = 50;

export interface PublisherParts {
  readonly tables: Tables;
  readonly inventory: Inventory;
  readonly nextHops: NextHops;
  readonly subnets: Ways["subnets"];
  readonly log: Logger;
  /** Ends a publish that has not come to the writes which matter. */
  readonly stop: AbortSignal;
}

export class Publisher {
  readonly #tables: Tables;
  readonly #nextHops: NextHops;
  readonly #ways: Ways;
  readonly #poolWatch: PoolWatch;
  readonly #log: Logger;
  readonly #stop: AbortSignal;
  #inventory: Inventory;
  #queue: Promise<unknown> = Promise.resolve();
  #settled = false;
  #followingWays = false;
  #reaper: NodeJS.Timeout | undefined;
  #closed = false;

  constructor({ tables, inventory, nextHops, subnets, log, stop }: PublisherParts) {
    this.#tables = tables;
    this.#inventory = inventory;
    this.#nextHops = nextHops;
    this.#ways = { interfaceTo: (address) => nextHops.interfaceTo(address), subnets };
    this.#poolWatch = new PoolWatch(tables.realLoad, log);
    this.#log = log;
    this.#stop = stop;
    // What was published before this process is kept resolved until the first publish says what stays.
    void this.#inTurn(() => this.#watch(inventory.services.values())).catch(() => undefined);
  }

  get inventory(): Inventory {
    return this.#inventory;
  }

  /** Whole or not at all; calls take their turns. Rejects with the reason of `stop` once that is aborted. */
  publish(desired: DesiredState): Promise<PublishReport> {
    return this.#inTurn(() => this.#publish(desired));
  }

  /** Real servers are reached by other interfaces than before: what depends on that is brought up to date. */
  followWays(): void {
    if (this.#followingWays) {
      return;
    }
    this.#followingWays = true;
    void this.#inTurn(async () => {
      this.#followingWays = false;
      const { published } = this.#inventory;
      if (published !== undefined && !this.#closed) {
        await this.#carryOut(await this.#plan(published, true));
      }
    }).catch((error: unknown) => {
      if (!this.#stop.aborted) {
        this.#log.warn({ err: error }, "cannot choose fullnat's local addresses by the new ways to real servers");
      }
    });
  }

  /** Starts to free what has drained. */
  start(): void {
    this.#reapAfter(REAP_INTERVAL);
  }

  /** Waits for what is under way. */
  async close(): Promise<void> {
    this.#closed = true;
    clearTimeout(this.#reaper);
    await this.#queue;
  }

  #inTurn<T>(work: () => T | Promise<T>): Promise<T> {
    const result = this.#queue.then(work);
    this.#queue = result.catch(() => undefined);
    return result;
  }

  async #publish(desired: DesiredState): Promise<PublishReport> {
    const started = performance.now();
    const plan = await this.#plan(desired);
    await this.#carryOut(plan);
    const report = {
      ...plan.changes,
      writes: plan.preparations.length + plan.writes.length,
      unresolved: this.#unresolved(plan.services),
      milliseconds: performance.now() - started,
    };
    this.#log.debug({ writes: report.writes, milliseconds: report.milliseconds }, "published");
    return report;
  }

  /** Where room is lacking that becomes free within moments, waits for it once. */
  async #plan(desired: DesiredState, waysChanged = false): Promise<Plan> {
    this.#reap();
    const rulesLeft = markRulesGraceLeft(this.#inventory, this.#tables, desired, performance.now());
    if (rulesLeft > 0) {
      await sleep(rulesLeft + 1);
    }
    const plan = (): Promise<Plan> => {
      const [inventory, tables, ways, now] = [this.#inventory, this.#tables, this.#ways, performance.now()];
      return inSlices(planPublish({ inventory, tables, ways, now, waysChanged }, desired), this.#stop);
    };
    try {
      return await plan();
    } catch (error) {
      const left = graceLeft(this.#inventory, performance.now());
      if (!(error instanceof DataPlaneError) || error.code !== "CAPACITY_EXCEEDED" || left === undefined) {
        throw error;
      }
      await sleep(left + 1);
      while (this.#reap()) {
        // Frees a bounded number each time.
      }
      return plan();
    }
  }

  async #carryOut(plan: Plan): Promise<void> {
    try {
      await this.#write(plan);
    } catch (error) {
      throw this.#stop.aborted ? error : await this.#recover(error);
    }
  }

  /**
   * Stopping before the last step leaves elements behind that nothing refers to, as the end of the process would; the next start
   * frees them. The last step is not stopped: it takes a tenth of a second for ten thousand services, and makes them change together.
   */
  async #write(plan: Plan): Promise<void> {
    await eachInSlices(
      plan.preparations,
      (write) => {
        apply(this.#tables, write);
      },
      this.#stop,
    );
    await this.#watch(plan.services);
    await this.#nextHops.resolveNew(this.#stop);
    if (!this.#settled) {
      this.#settled = true;
      await this.#nextHops.settle(FIRST_SETTLE, this.#stop);
    }
    this.#stop.throwIfAborted();
    await eachInSlices(plan.writes, (write) => {
      apply(this.#tables, write);
    });
    plan.commit();
  }

  /** A write failed half way. All that was written is valid, so the maps are read again and the next publish goes on from there. */
  async #recover(cause: unknown): Promise<DataPlaneError> {
    this.#inventory = await inSlices(readInventory(this.#tables, performance.now()), this.#stop);
    const reason = cause instanceof Error ? cause.message : String(cause);
    return new DataPlaneError("WRITE_FAILED", `the kernel refused a write to a map: ${reason}`, {
      cause,
      remedy: "publish again once the cause is gone; what was not written is as before",
    });
  }

  /** One that was removed gets packets only as long as its connections may go on. */
  async #watch(services: Iterable<InstalledService>): Promise<void> {
    await eachInSlices(
      services,
      ({ realServers }) => {
        for (const realServer of realServers.values()) {
          if (realServer.state === RealServerState.REAL_ACTIVE || realServer.state === RealServerState.REAL_DRAINING) {
            this.#nextHops.watch(realServer);
          } else {
            this.#nextHops.unwatch(realServer.index);
          }
        }
      },
      this.#stop,
    );
  }

  #unresolved(services: readonly InstalledService[]): string[] {
    const unresolved: string[] = [];
    for (const service of services) {
      for (const { index, name, standing } of service.realServers.values()) {
        if (standing === "active" && !this.#nextHops.isResolved(index)) {
          unresolved.push(`${service.name} ${name}`);
        }
      }
    }
    return unresolved;
  }

  #reap(): boolean {
    return reap(this.#inventory, this.#tables, performance.now(), (index) => {
      this.#nextHops.unwatch(index);
    });
  }

  #reapAfter(milliseconds: number): void {
    this.#reaper = setTimeout(() => {
      void this.#inTurn(() => {
        if (!this.#closed) {
          this.#reapAfter(this.#reap() ? REAP_BACKLOG_INTERVAL : REAP_INTERVAL);
          this.#poolWatch.look(this.#inventory);
        }
      }).catch((error: unknown) => {
        this.#log.error({ err: error }, "cannot free what has drained");
        this.#reapAfter(REAP_INTERVAL);
      });
    }, milliseconds).unref();
  }
}
