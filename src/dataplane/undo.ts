/** Steps that take back what was done, for when a later step fails. */
import type { Logger } from "./log.js";

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
