/**
 * Takes expired connections out of the table, slice by slice in the background, and those of real servers that end theirs. Nothing
 * depends on its pace but memory and the counts of connections: the data plane treats what is expired as absent.
 */
import { setTimeout as sleep } from "node:timers/promises";
import type { Logger } from "./log.js";
import { layout } from "./sluice.bpf.js";

/** Milliseconds between two slices. */
const INTERVAL = 100;
/** Milliseconds in which the whole table is passed, where the slices for that are short enough. */
const PASS = 4000;
/** Nanoseconds that one slice may take; a very large table is passed more slowly instead. */
const LONGEST_SLICE = 2e6;
const FIRST_SLICE = 64;

const { size, offsets } = layout.SweepRequest;

/** Runs the program with the request as its packet. */
export type SweepRun = (request: Uint8Array) => Promise<{ data: Uint8Array; durationNs: number }>;

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
    let count = Math.min(usual, FIRST_SLICE);
    let first = 0;
    let entries = 0;
    let failing = false;
    while (!signal.aborted) {
      try {
        const slice = await this.#slice(first, Math.min(count, this.#buckets - first));
        failing = false;
        entries += slice.entries;
        first += slice.count;
        const affordable = Math.floor((LONGEST_SLICE * slice.count) / Math.max(slice.durationNs, 1));
        // Half of what is affordable: other slices may hold more connections.
        count = Math.max(1, Math.min(usual, affordable >> 1));
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

  async #slice(first: number, count: number): Promise<{ count: number; entries: number; durationNs: number }> {
    const request = new Uint32Array(size / 4);
    request[offsets.first / 4] = first;
    request[offsets.count / 4] = count;
    request[offsets.resets / 4] = Number(this.#hasResets());
    const { data, durationNs } = await this.#run(new Uint8Array(request.buffer));
    const answer = new Uint32Array(data.slice(0, size).buffer);
    const removed = answer[offsets.removed / 4]!;
    const orphans = answer[offsets.orphans / 4]!;
    if (removed > 0 || orphans > 0) {
      this.#log.debug({ removed, orphans }, "swept expired connections");
    }
    return { count, entries: answer[offsets.entries / 4]!, durationNs };
  }
}
