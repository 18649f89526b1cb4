// The objects that test/Makefile compiles, and a folder for pins.
import { execFileSync } from "node:child_process";
import { mkdirSync, readdirSync, rmdirSync, unlinkSync } from "node:fs";
import type { Test } from "tap";
import { type BpfObject, type OpenObject, openObject } from "../lib/index.js";

export function fixturePath(name: string): string {
  return new URL(`fixtures/${name}.bpf.o`, import.meta.url).pathname;
}

/** Loads fixtures/machine.bpf.c. The test closes it. */
export async function loadMachine(prepare: (object: OpenObject) => void = () => undefined): Promise<BpfObject> {
  const object = openObject(fixturePath("machine"));
  unpinned(object);
  prepare(object);
  return object.load();
}

/** The map that pins itself by name would do so in the real /sys/fs/bpf. */
export function unpinned(object: OpenObject): void {
  object.map("shared").setPinPath(undefined);
}

const BPFFS = "/sys/fs/bpf";
let folders = 0;

function mountBpffs(): void {
  try {
    execFileSync("mountpoint", ["-q", BPFFS]);
  } catch {
    execFileSync("mount", ["-t", "bpf", "bpf", BPFFS]);
  }
}

/** A folder on a BPF file system that goes with the test, whatever is in it. */
export function pinFolder(t: Test): string {
  mountBpffs();
  const folder = `${BPFFS}/libbpf-ts-test-${process.pid}-${folders++}`;
  mkdirSync(folder);
  t.teardown(() => {
    for (const name of readdirSync(folder)) unlinkSync(`${folder}/${name}`);
    rmdirSync(folder);
  });
  return folder;
}

/** Loads fixtures/types.bpf.c. The test closes it. */
export function loadTypes(): Promise<BpfObject> {
  return openObject(fixturePath("types")).load();
}
