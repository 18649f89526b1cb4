import path from "node:path";

/** The project's folder, there as here: this file is dist/test/kernel/task.js. */
export const project = path.resolve(import.meta.dirname, "../../..");

/** What the guest is to do; it finds it as JSON in the file that guest.ts is given. Paths are the same there as here. */
export type Task = CheckTask | RefusalTask;

/** On a kernel that we support. */
export interface CheckTask {
  readonly kind: "check";
  readonly objects: readonly string[];
  /** An object that the kernel must refuse, and what the verifier must say. */
  readonly refused: { readonly object: string; readonly reason: string };
  /** Compiled test files, relative to the project. */
  readonly tests: readonly string[];
}

/** On a kernel that is too old: the daemon must say that it lacks these, and touch nothing. */
export interface RefusalTask {
  readonly kind: "refusal";
  readonly missing: readonly string[];
  /** An object of one XDP program, for an interface to run before the daemon starts. */
  readonly running: string;
}
