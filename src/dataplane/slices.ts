/** Long work in short slices, between which the event loop runs: signals, API calls and timers wait for one slice at most. */
import { setImmediate as nextTurn } from "node:timers/promises";

/** Milliseconds for which the event loop is held up at a time. */
const SLICE = 5;

/** Work that may pause wherever it yields. */
export type Steps<Result> = Generator<undefined, Result, undefined>;

/**
 * Does `work` for each item.
 *
 * @throws the signal's reason, once it is aborted: the items that are left are not worked on
 */
export async function eachInSlices<T>(
  items: Iterable<T>,
  work: (item: T) => void,
  signal?: AbortSignal,
): Promise<void> {
  signal?.throwIfAborted();
  let sliceEnds = performance.now() + SLICE;
  for (const item of items) {
    work(item);
    if (performance.now() >= sliceEnds) {
      await nextTurn();
      signal?.throwIfAborted();
      sliceEnds = performance.now() + SLICE;
    }
  }
}

/** Takes all steps. The reason of an aborted signal is thrown into them, where they pause, so that they can put things right. */
export async function inSlices<Result>(steps: Steps<Result>, signal?: AbortSignal): Promise<Result> {
  let sliceEnds = performance.now() + SLICE;
  for (;;) {
    const step = signal?.aborted === true ? steps.throw(signal.reason) : steps.next();
    if (step.done === true) {
      return step.value;
    }
    if (performance.now() >= sliceEnds) {
      await nextTurn();
      sliceEnds = performance.now() + SLICE;
    }
  }
}
