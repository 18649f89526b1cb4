/** Integer sysctls of this network namespace, by path below /proc/sys ("net/ipv4/conf/all/arp_ignore"). */
import { readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";

/** Undefined where there is no such sysctl, as when its interface has gone. */
export async function readSysctl(path: string): Promise<number | undefined> {
  try {
    return Number.parseInt(await readFile(join("/proc/sys", path), "utf8"), 10);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ENOENT") return undefined;
    throw error;
  }
}

export async function writeSysctl(path: string, value: number): Promise<void> {
  await writeFile(join("/proc/sys", path), `${String(value)}\n`);
}
