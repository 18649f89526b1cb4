import { InstanceLock } from "./instance-lock.js";

/** The data plane's own way of being taken down; src/dataplane has it. */
export type UnloadDataPlane = (options: { readonly instance: string; readonly bpffs: string }) => Promise<unknown>;

export interface UnloadOptions {
  readonly instance: string;
  readonly runtimeDirectory: string;
  readonly bpffs: string;
  readonly unloadDataPlane: UnloadDataPlane;
}

/** Takes an instance's data plane down: traffic stops, connections are forgotten. Refused (INSTANCE_IN_USE) while a daemon runs it. */
export async function unload(options: UnloadOptions): Promise<void> {
  const { instance, runtimeDirectory, bpffs, unloadDataPlane } = options;
  const lock = await InstanceLock.acquire(instance, runtimeDirectory);
  try {
    await unloadDataPlane({ instance, bpffs });
  } finally {
    await lock.release();
  }
}
