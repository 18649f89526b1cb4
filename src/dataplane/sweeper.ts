/**
 * Takes expired connections out of the table, slice by slice in the background, and those of real servers that end theirs. Nothing
 * depends on its pace but memory and the counts of connections: the data plane treats what is expired as absent.
 */
import { setTimeout as sleep } from "node:timers/promises";
import type { Logger } from "./log.js";
import { layout } from "./sluice.bpf.js";

/** Milliseconds between two slices. */
const INTERVAL = 100;
/** Milliseconds in which the whole table is passed, where the time of the slices suffices; a table that takes longer is passed more slowly. */
const PASS = 4000;
/** Nanoseconds after which a slice ends before its time; what is left is for the next. A bucket more takes microseconds. */
const LONGEST_SLICE = 1.9e6;

const { size, offsets } = layout.SweepRequest;

/** Runs the program with the request as its packet. */
export type SweepRun = (request: Uint8Array) => Promise<{ data: Uint8Array }>;

export class Sweeper {
  readonly #run: SweepRun;
  readonly #buckets: number;
  readonly #hasResets: () => boolean;
  readonly #log: Logger;
  readonly #stop = new AbortController();
  #sweeping: Promise<void> | undefined;
  #entries = 0;

  /** @param hasResets whether there are real servers that end the connections which name them */
  constructor(run: SweepRun, buckets: number, hasResets: () => boolean, log: Logger) {
    this.#run = run;
    this.#buckets = buckets;
    this.#hasResets = hasResets;
    this.#log = log;
  }

  /** Entries of the connection table in use, as the last whole pass found them. */
  get entries(): number {
    return this.#entries;
  }

  start(): void {
    this.#sweeping ??= this.#sweep();
  }

  async close(): Promise<void> {
    this.#stop.abort();
    await this.#sweeping;
  }

  async #sweep(): Promise<void> {
    const { signal } = this.#stop;
    const usual = Math.ceil((this.#buckets * INTERVAL) / PASS);
    let first = 0;
    let entries = 0;
    let failing = false;
    while (!signal.aborted) {
      try {
        const slice = await this.#slice(first, Math.min(usual, this.#buckets - first));
        failing = false;
        entries += slice.entries;
        first += slice.count;
      } catch (error) {
        if (!failing) {
          this.#log.error({ err: error }, "cannot sweep the connection table");
        }
        failing = true;
      }
      if (first >= this.#buckets) {
        this.#entries = entries;
        first = 0;
        entries = 0;
      }
      await sleep(INTERVAL, undefined, { signal, ref: false }).catch(() => undefined);
    }
  }

  async #slice(first: number, count: number): Promise<{ count: number; entries: number }> {
    const request = new Uint32Array(size / 4);
    request[offsets.first / 4] = first;
    request[offsets.count / 4] = count;
    request[offsets.resets / 4] = Number(this.#hasResets());
    request[offsets.longest / 4] = LONGEST_SLICE;
    const { data } = await this.#run(new Uint8Array(request.buffer));
    const answer = new Uint32Array(data.slice(0, size).buffer);
    const removed = answer[offsets.removed / 4]!;
    const orphans = answer[offsets.orphans / 4]!;
    if (removed > 0 || orphans > 0) {
      this.#log.debug({ removed, orphans }, "swept expired connections");
    }
    return { count: answer[offsets.count / 4]!, entries: answer[offsets.entries / 4]! };
  }
}
