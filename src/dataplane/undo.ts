/** Steps that take back what was done, for when a later step fails. */
import type { Logger } from "./log.js";

/** Does `work`; where it fails, takes back what it added to its Undo, and fails with the same error. */
export async function allOrNothing<T>(log: Logger, work: (undo: Undo) => Promise<T>): Promise<T> {
  const undo = new Undo(log);
  try {
    return await work(undo);
  } catch (error) {
    await undo.run();
    throw error;
  }
}

export class Undo {
  readonly #log: Logger;
  readonly #steps: { readonly what: string; readonly step: () => unknown }[] = [];

  constructor(log: Logger) {
    this.#log = log;
  }

  /** @param what for the log, where taking back fails */
  add(what: string, step: () => unknown): void {
    this.#steps.push({ what, step });
  }

  /** Takes back, last first; a failure does not keep the other steps from being taken back. */
  async run(): Promise<void> {
    for (const { what, step } of this.#steps.splice(0).reverse()) {
      try {
        await step();
      } catch (error) {
        this.#log.error({ err: error }, `cannot undo: ${what}`);
      }
    }
  }
}
