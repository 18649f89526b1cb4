import { readFileSync, writeFileSync } from "node:fs";
import path from "node:path";

/** The project's folder: this file is dist/test/kernel/task.js. */
export const project = path.resolve(import.meta.dirname, "../../..");

/** Where the unpacked kernel, the guest's first file system and its task are. */
export const workFolder = path.join(project, "build/test-kernel");

const taskFile = path.join(workFolder, "task.json");

/** What the guest is to do; paths are the same there as here. */
export interface Task {
  readonly objects: readonly string[];
  /** An object that the kernel must refuse, and what the verifier must say. */
  readonly refused: { readonly object: string; readonly reason: string };
  /** Compiled test files, relative to the project. */
  readonly tests: readonly string[];
}

export function writeTask(task: Task): void {
  writeFileSync(taskFile, JSON.stringify(task));
}

export function readTask(): Task {
  return JSON.parse(readFileSync(taskFile, "utf8")) as Task;
}
