import path from "node:path";

/** The project's folder, there as here: this file is dist/test/kernel/task.js. */
export const project = path.resolve(import.meta.dirname, "../../..");

/** What the guest is to do; it finds it as JSON in the file that guest.ts is given. Paths are the same there as here. */
export interface Task {
  readonly objects: readonly string[];
  /** An object that the kernel must refuse, and what the verifier must say. */
  readonly refused: { readonly object: string; readonly reason: string };
  /** Compiled test files, relative to the project. */
  readonly tests: readonly string[];
}
