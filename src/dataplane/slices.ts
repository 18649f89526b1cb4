import { setImmediate as nextTurn } from "node:timers/promises";

/** Milliseconds for which the event loop is held up at a time. */
const SLICE = 5;

/** Does `work` for each item, letting the event loop run in between. */
export async function inSlices<T>(items: Iterable<T>, work: (item: T) => void): Promise<void> {
  let sliceEnds = performance.now() + SLICE;
  for (const item of items) {
    work(item);
    if (performance.now() >= sliceEnds) {
      await nextTurn();
      sliceEnds = performance.now() + SLICE;
    }
  }
}
