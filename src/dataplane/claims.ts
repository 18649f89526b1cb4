/** Elements taken from a free list on trial: kept when the plan that took them is carried out, else given back. */
import { DataPlaneError } from "./error.js";
import type { FreeList } from "./free-list.js";

export class Claims {
  readonly #list: FreeList;
  readonly #taken: [start: number, length: number][] = [];
  /** Elements that were asked for in vain. */
  #missing = 0;

  constructor(list: FreeList) {
    this.#list = list;
  }

  /** The first element; a meaningless 0 where there was no room, which check() reports. */
  claim(length: number): number {
    const start = this.#list.allocate(length);
    if (start === undefined) {
      this.#missing += length;
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

  /**
   * @param unit what the configuration counts in, for each element of the map
   * @throws DataPlaneError CAPACITY_EXCEEDED
   */
  check(field: string, unit: number, drains: string): void {
    if (this.#missing === 0) {
      return;
    }
    const limit = this.#list.size * unit;
    const wanted = this.#wanted(unit);
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

  /**
   * The same where the room is not the configuration's to choose.
   *
   * @param what has no room: `local addresses`
   * @throws DataPlaneError CAPACITY_EXCEEDED
   */
  checkFixed(field: string, what: string, reserved: number, drains: string): void {
    if (this.#missing === 0) {
      return;
    }
    const wanted = this.#wanted(1) - reserved;
    const available = this.#list.size - reserved;
    const message = `there is room for ${String(available)} ${what}, and ${String(wanted)} are wanted, ${drains} included`;
    throw new DataPlaneError("CAPACITY_EXCEEDED", message, { field, wanted, available });
  }

  #wanted(unit: number): number {
    return (this.#list.size + this.#missing - this.#list.free) * unit;
  }
}
