/** The part of a plan that is about timeouts: the global ones, and a set for each different choice of services. */
import { type DesiredState, serviceName, type VirtualService } from "../model/index.js";
import { Claims } from "./claims.js";
import { disuseTimeouts, type Inventory, useTimeouts } from "./inventory.js";
import type { Tables } from "./tables.js";
import { compileTimeouts, GLOBAL_TIMEOUTS, readTimeouts, type TimeoutSet } from "./timeouts.js";
import type { PhasedWrites } from "./writes.js";

export class TimeoutPlanner {
  readonly #inventory: Inventory;
  readonly #desired: DesiredState;
  readonly #writes: PhasedWrites;
  readonly #claims: Claims;
  readonly #global: string;
  /** Where each set is, by its text: those that the maps have, and new ones. */
  readonly #places = new Map<string, number>([]);
  /** New and rewritten sets by index. */
  readonly #fresh = new Map<number, TimeoutSet>();
  readonly #used = new Set<number>();
  readonly changed: boolean;

  constructor(inventory: Inventory, tables: Tables, desired: DesiredState, writes: PhasedWrites) {
    this.#inventory = inventory;
    this.#desired = desired;
    this.#writes = writes;
    this.#claims = new Claims(inventory.freeTimeouts);
    const global = compileTimeouts(desired.timeouts);
    this.#global = textOf(global);
    this.changed = this.#global !== textOf(readTimeouts(tables.timeouts, GLOBAL_TIMEOUTS));
    for (const [index, { set }] of inventory.timeouts) {
      this.#places.set(textOf(set), index);
    }
    if (this.changed) {
      writes.change.push({ kind: "timeouts", index: GLOBAL_TIMEOUTS, set: global });
      this.#rewriteInPlace();
    }
  }

  /** The index of the set that a service's real servers are to name. */
  setFor(service: VirtualService): number {
    const set = this.#effective(service);
    const text = set === undefined ? this.#global : textOf(set);
    if (set === undefined || text === this.#global) {
      return GLOBAL_TIMEOUTS;
    }
    let index = this.#places.get(text);
    if (index === undefined) {
      index = this.#claims.claim(1);
      this.#place(index, set, text);
      this.#writes.build.push({ kind: "timeouts", index, set });
    }
    this.#used.add(index);
    return index;
  }

  /** @throws DataPlaneError CAPACITY_EXCEEDED */
  check(): void {
    const drains = "those replaced within the last second and those of removed services";
    this.#claims.checkFixed("timeouts", "different sets of services' own timeouts", 1, drains);
  }

  abandon(): void {
    this.#claims.abandon();
  }

  /** Before the services are. The returned function is for after them. */
  commit(now: number): () => void {
    const { timeouts } = this.#inventory;
    for (const [index, set] of this.#fresh) {
      timeouts.set(index, { set, users: timeouts.get(index)?.users ?? 0 });
    }
    // One service may take up what another one has just let go of.
    for (const index of this.#used) {
      useTimeouts(this.#inventory, index);
    }
    return () => {
      for (const index of this.#used) {
        disuseTimeouts(this.#inventory, index, now);
      }
    };
  }

  /** Undefined: the global ones. */
  #effective({ timeouts }: VirtualService): TimeoutSet | undefined {
    return timeouts === undefined ? undefined : compileTimeouts({ ...this.#desired.timeouts, ...timeouts });
  }

  #place(index: number, set: TimeoutSet, text: string): void {
    this.#places.set(text, index);
    this.#fresh.set(index, set);
  }

  /**
   * The global timeouts change, and with them most sets of services. Where all who name a set go on to the same one, it is rewritten, or there would
   * have to be room for twice as many.
   */
  #rewriteInPlace(): void {
    const { services, timeouts } = this.#inventory;
    const wishes = new Map<number, Map<string, TimeoutSet | undefined>>();
    const wanted = new Set<string>();
    for (const service of this.#desired.services) {
      const set = this.#effective(service);
      const text = set === undefined ? this.#global : textOf(set);
      wanted.add(text);
      for (const { timeouts: index } of services.get(serviceName(service))?.realServers.values() ?? []) {
        const wish = wishes.get(index) ?? new Map<string, TimeoutSet | undefined>();
        wishes.set(index, wish.set(text, set));
      }
    }
    for (const [index, { set: before }] of timeouts) {
      const [[text, set] = [], ...others] = wishes.get(index) ?? [];
      const isFree = text !== undefined && text !== this.#global && !this.#places.has(text);
      if (isFree && set !== undefined && others.length === 0 && !wanted.has(textOf(before))) {
        this.#places.delete(textOf(before));
        this.#place(index, set, text);
        this.#writes.change.push({ kind: "timeouts", index, set });
      }
    }
  }
}

function textOf(set: TimeoutSet): string {
  return set.join();
}
