/**
 * Which elements of an array map are free: extents in ascending order that never touch each other. Allocation is
 * first-fit, so what is in use stays together at the beginning of the map.
 */
export class FreeList {
  readonly size: number;
  readonly #starts: number[];
  readonly #lengths: number[];
  #free: number;

  constructor(size: number) {
    this.size = size;
    this.#starts = size > 0 ? [0] : [];
    this.#lengths = size > 0 ? [size] : [];
    this.#free = size;
  }

  /** Elements that are free, in one piece or in many. */
  get free(): number {
    return this.#free;
  }

  /** The longest run of elements that can be allocated. */
  get largest(): number {
    return this.#lengths.reduce((largest, length) => Math.max(largest, length), 0);
  }

  /** The first element of `length` free ones in a row, now in use; undefined where there is no such row. */
  allocate(length: number): number | undefined {
    const at = this.#lengths.findIndex((free) => free >= length);
    if (at < 0) {
      return undefined;
    }
    const start = this.#starts[at]!;
    this.#take(at, start, length);
    return start;
  }

  /** Takes these very elements. False, and nothing changed, where one of them is in use or outside. */
  reserve(start: number, length: number): boolean {
    const at = this.#lastStartingAtOrBefore(start);
    if (at < 0 || start + length > this.#starts[at]! + this.#lengths[at]!) {
      return false;
    }
    this.#take(at, start, length);
    return true;
  }

  /** @throws RangeError where one of the elements is free already or outside: a mistake of the caller */
  release(start: number, length: number): void {
    const before = this.#lastStartingAtOrBefore(start);
    const end = start + length;
    const endBefore = before < 0 ? 0 : this.#starts[before]! + this.#lengths[before]!;
    const startAfter = this.#starts[before + 1] ?? this.size;
    if (start < endBefore || end > startAfter) {
      throw new RangeError(
        `release of ${String(start)}..${String(end)} of ${String(this.size)}, which are not all in use`,
      );
    }
    this.#free += length;
    const joinsBefore = before >= 0 && endBefore === start;
    const joinsAfter = before + 1 < this.#starts.length && startAfter === end;
    if (joinsBefore && joinsAfter) {
      this.#lengths[before]! += length + this.#lengths[before + 1]!;
      this.#starts.splice(before + 1, 1);
      this.#lengths.splice(before + 1, 1);
    } else if (joinsBefore) {
      this.#lengths[before]! += length;
    } else if (joinsAfter) {
      this.#starts[before + 1] = start;
      this.#lengths[before + 1]! += length;
    } else {
      this.#starts.splice(before + 1, 0, start);
      this.#lengths.splice(before + 1, 0, length);
    }
  }

  #take(at: number, start: number, length: number): void {
    const extentStart = this.#starts[at]!;
    const extentEnd = extentStart + this.#lengths[at]!;
    const end = start + length;
    this.#free -= length;
    if (start === extentStart && end === extentEnd) {
      this.#starts.splice(at, 1);
      this.#lengths.splice(at, 1);
    } else if (start === extentStart) {
      this.#starts[at] = end;
      this.#lengths[at] = extentEnd - end;
    } else {
      this.#lengths[at] = start - extentStart;
      if (end < extentEnd) {
        this.#starts.splice(at + 1, 0, end);
        this.#lengths.splice(at + 1, 0, extentEnd - end);
      }
    }
  }

  #lastStartingAtOrBefore(start: number): number {
    let low = 0;
    let high = this.#starts.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (this.#starts[middle]! <= start) {
        low = middle + 1;
      } else {
        high = middle;
      }
    }
    return low - 1;
  }
}
