/**
 * The record of what `sluice real-server up` required and changed, below /run: like the changes, it does not survive a
 * reboot. One file an instance, replaced whole by rename, and written before each change is made, so that `down` finds
 * everything even after a crash in between.
 */
import { link, mkdir, readdir, readFile, readlink, rename, rm, unlink, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { setTimeout } from "node:timers/promises";
import { RealServerError } from "./error.js";
import type { Change, Requirement } from "./requirement.js";

const FORMAT = 1;
const PREFIX = "real-server-";

export interface State {
  readonly format: typeof FORMAT;
  readonly instance: string;
  /** Identity of the network namespace that the changes were made in ("net:[4026531840]"). */
  readonly networkNamespace: string;
  readonly requirements: readonly Requirement[];
  /** In the order in which they were made. */
  readonly changes: readonly Change[];
}

export class StateDirectory {
  constructor(private readonly path: string) {}

  /** An instance that has nothing yet, in the network namespace of this process. */
  static async empty(instance: string): Promise<State> {
    return { format: FORMAT, instance, networkNamespace: await networkNamespace(), requirements: [], changes: [] };
  }

  /** The state of an instance, refused if it is of another network namespace than this process's. */
  async load(instance: string): Promise<State | undefined> {
    const state = await this.read(this.file(instance));
    if (state === undefined) return undefined;
    const here = await networkNamespace();
    if (state.networkNamespace !== here) {
      throw new RealServerError(
        "OTHER_NETWORK_NAMESPACE",
        `real server instance "${instance}" was set up in network namespace ${state.networkNamespace}, this is ${here}: ` +
          "run the command there, or use another --instance",
      );
    }
    return state;
  }

  async save(state: State): Promise<void> {
    await mkdir(this.path, { recursive: true, mode: 0o755 });
    const file = this.file(state.instance);
    const next = `${file}.next`;
    await writeFile(next, `${JSON.stringify(state, undefined, 2)}\n`, { mode: 0o600 });
    await rename(next, file);
  }

  async remove(instance: string): Promise<void> {
    await rm(this.file(instance), { force: true });
  }

  /** The other instances of this network namespace: what they require must outlive us. */
  async others(instance: string): Promise<State[]> {
    const here = await networkNamespace();
    const names = (await readdir(this.path)).filter((name) => name.startsWith(PREFIX) && name.endsWith(".json"));
    const states = await Promise.all(names.map((name) => this.read(join(this.path, name))));
    return states.filter(
      (state): state is State => state !== undefined && state.instance !== instance && state.networkNamespace === here,
    );
  }

  /** Runs `work` while no other process changes real servers' state on this machine. */
  async locked<T>(work: () => Promise<T>): Promise<T> {
    await mkdir(this.path, { recursive: true, mode: 0o755 });
    const lock = join(this.path, "real-server.lock");
    await takeLock(lock);
    try {
      return await work();
    } finally {
      await unlink(lock);
    }
  }

  private file(instance: string): string {
    return join(this.path, `${PREFIX}${instance}.json`);
  }

  private async read(file: string): Promise<State | undefined> {
    let text: string;
    try {
      text = await readFile(file, "utf8");
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === "ENOENT") return undefined;
      throw error;
    }
    try {
      const state = JSON.parse(text) as State;
      if ((state.format as number) === FORMAT) return state;
    } catch {
      // Reported below, like a format we do not know.
    }
    throw new RealServerError(
      "BAD_STATE_FILE",
      `${file} is not a state file of format ${String(FORMAT)} of sluice real-server`,
    );
  }
}

async function networkNamespace(): Promise<string> {
  return await readlink("/proc/self/ns/net");
}

/**
 * The lock file holds its owner's process id, from the moment it appears (hence the hard link); one whose owner is dead
 * is taken over.
 */
async function takeLock(path: string): Promise<void> {
  const mine = `${path}.${String(process.pid)}`;
  await writeFile(mine, String(process.pid), { mode: 0o600 });
  try {
    for (let attempt = 0; attempt < 100; attempt++) {
      try {
        await link(mine, path);
        return;
      } catch (error) {
        if ((error as NodeJS.ErrnoException).code !== "EEXIST") throw error;
      }
      if (await ownerIsDead(path)) await rm(path, { force: true });
      else await setTimeout(100);
    }
  } finally {
    await unlink(mine);
  }
  throw new RealServerError("LOCKED", `another sluice real-server command has held ${path} for more than 10 seconds`);
}

async function ownerIsDead(path: string): Promise<boolean> {
  const owner = Number.parseInt(await readFile(path, "utf8").catch(() => ""), 10);
  // Gone in the meantime: the next attempt will tell.
  if (Number.isNaN(owner)) return false;
  try {
    process.kill(owner, 0);
    return false;
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === "ESRCH";
  }
}
