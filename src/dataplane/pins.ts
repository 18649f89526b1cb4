/** Where an instance is pinned: /sys/fs/bpf/NAME, with programs/, maps/, links/ and the iterator `connections`. */
import { randomUUID } from "node:crypto";
import { existsSync, mkdirSync, readdirSync, renameSync, rmSync, statfsSync } from "node:fs";
import { dirname, join } from "node:path";
import { DataPlaneError } from "./error.js";

export const DEFAULT_BPFFS = "/sys/fs/bpf";
/** include/uapi/linux/magic.h */
const BPF_FS_MAGIC = 0xcafe4a11;

export interface Pinnable {
  pin(path: string): void;
}

export class Pins {
  readonly root: string;

  constructor(root: string) {
    this.root = root;
  }

  static of(instance: string, bpffs = DEFAULT_BPFFS): Pins {
    return new Pins(join(bpffs, instance));
  }

  /** Where a first start pins everything before it shows it in one step. The BPF file system allows no dot in a name. */
  get staging(): Pins {
    return new Pins(`${this.root}~starting`);
  }

  get exists(): boolean {
    return existsSync(this.root);
  }

  get connections(): string {
    return join(this.root, "connections");
  }

  program(name: string): string {
    return join(this.root, "programs", name);
  }

  map(name: string): string {
    return join(this.root, "maps", name);
  }

  /** A place for another map of that name, beside the one that is pinned: no pin is ever there yet. */
  anotherMap(name: string): string {
    return `${this.map(name)}~${randomUUID()}`;
  }

  /** Puts what is pinned at anotherMap() in the place of the map, and removes all others of its name, such as a process left that died. */
  replaceMap(name: string, other: string): void {
    renameSync(other, this.map(name));
    const folder = dirname(other);
    for (const found of readdirSync(folder)) {
      if (found.startsWith(`${name}~`)) {
        rmSync(join(folder, found));
      }
    }
  }

  /** VLAN interfaces have dots in their names, which a pin cannot have; no interface has a colon. */
  link(interfaceName: string): string {
    return join(this.root, "links", interfaceName.replaceAll(".", ":"));
  }

  /** Names of the interfaces that links are pinned for. */
  get interfaces(): string[] {
    const folder = join(this.root, "links");
    return existsSync(folder) ? readdirSync(folder).map((name) => name.replaceAll(":", ".")) : [];
  }

  create(): void {
    for (const folder of ["programs", "maps", "links"]) {
      mkdirSync(join(this.root, folder), { recursive: true });
    }
  }

  /** Pins in the place of what is pinned there, if anything: at every moment one of the two is. */
  replace(path: string, object: Pinnable): void {
    const fresh = `${path}~new`;
    rmSync(fresh, { force: true });
    object.pin(fresh);
    renameSync(fresh, path);
  }

  moveTo(target: Pins): void {
    renameSync(this.root, target.root);
  }

  remove(): void {
    rmSync(this.root, { recursive: true, force: true });
  }
}

/** @throws DataPlaneError BPFFS_NOT_MOUNTED */
export function requireBpffs(pins: Pins): void {
  const bpffs = dirname(pins.root);
  if (!existsSync(bpffs) || statfsSync(bpffs).type !== BPF_FS_MAGIC) {
    throw new DataPlaneError("BPFFS_NOT_MOUNTED", `no BPF file system is mounted at ${bpffs}`, {
      remedy: `run \`mount -t bpf bpf ${bpffs}\``,
    });
  }
}
