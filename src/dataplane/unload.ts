/** Takes a data plane out of the kernel: the only thing that interrupts traffic. */
import { detach } from "./attachment.js";
import { Pins, requireBpffs } from "./pins.js";

export interface UnloadOptions {
  readonly instance: string;
  readonly bpffs?: string | undefined;
}

export interface UnloadReport {
  /** Whether there was anything to unload. */
  readonly loaded: boolean;
  /** Interfaces that it ran on. */
  readonly interfaces: readonly string[];
}

/** @throws DataPlaneError BPFFS_NOT_MOUNTED */
export async function unload({ instance, bpffs }: UnloadOptions): Promise<UnloadReport> {
  const pins = Pins.of(instance, bpffs);
  requireBpffs(pins);
  const { exists: loaded, interfaces } = pins;
  for (const name of interfaces) {
    await detach(pins.link(name));
  }
  pins.remove();
  pins.staging.remove();
  return { loaded, interfaces };
}
