/** Looks at the live counts of connections all the while, in the memory that they lie in. */
import type { BpfMap, MappedArray } from "libbpf-ts";
import { layout } from "../../src/dataplane/sluice.bpf.js";

/** Of real_load, those that go up and down. */
const COUNTS = ["active", "inactive", "templates"] as const;

export class Watch {
  readonly #memory: MappedArray;
  readonly #words: Uint32Array;
  readonly #realServers: number;
  #timer: NodeJS.Timeout | undefined;
  /** What was below zero, in words. */
  readonly negative = new Set<string>();
  looks = 0;
  /** The highest value that each count was seen at. */
  readonly highest: Record<(typeof COUNTS)[number], number> = { active: 0, inactive: 0, templates: 0 };

  /** @param realLoad of which the first `realServers` elements are in use */
  constructor(realLoad: BpfMap, realServers: number) {
    this.#memory = realLoad.mmap({ writable: true }); // and not written to: what is mapped for reading is copied by each look
    this.#words = this.#memory.u32;
    this.#realServers = realServers;
  }

  /** A look each millisecond. */
  start(): void {
    this.#timer = setInterval(() => this.#look(), 1);
  }

  #look(): void {
    this.looks++;
    for (let real = 0; real < this.#realServers; real++) {
      for (const count of COUNTS) {
        const value = this.#words[(real * this.#memory.stride + layout.RealLoad.offsets[count]) / 4]! | 0;
        this.highest[count] = Math.max(this.highest[count], value);
        if (value < 0) this.negative.add(`real server ${real}: ${count} was ${value}`);
      }
    }
  }

  close(): void {
    clearInterval(this.#timer);
    this.#memory.close();
  }
}
