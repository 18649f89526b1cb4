import { InstanceLock } from "./instance-lock.js";

export interface Unloaded {
  /** Whether there was anything to unload. */
  readonly loaded: boolean;
  /** Interfaces that it ran on. */
  readonly interfaces: readonly string[];
}

/** The data plane's own way of being taken down; src/dataplane has it. */
export type UnloadDataPlane = (options: { readonly instance: string; readonly bpffs: string }) => Promise<Unloaded>;

export interface UnloadOptions {
  readonly instance: string;
  readonly runtimeDirectory: string;
  readonly bpffs: string;
  readonly unloadDataPlane: UnloadDataPlane;
}

/** Takes an instance's data plane down: traffic stops, connections are forgotten. Refused (INSTANCE_IN_USE) while a daemon runs it. */
export async function unload(options: UnloadOptions): Promise<Unloaded> {
  const { instance, runtimeDirectory, bpffs, unloadDataPlane } = options;
  const lock = await InstanceLock.acquire(instance, runtimeDirectory);
  try {
    return await unloadDataPlane({ instance, bpffs });
  } finally {
    await lock.release();
  }
}
