import { spawn } from "node:child_process";
import { constants } from "node:fs";
import { type FileHandle, mkdir, open } from "node:fs/promises";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";

export class InstanceLockError extends Error {
  override readonly name = "InstanceLockError";
  readonly code: "INSTANCE_IN_USE" | "LOCK_FAILED";
  /** INSTANCE_IN_USE: the process that has the lock, if it could be told. */
  readonly pid: number | undefined;

  constructor(code: InstanceLockError["code"], message: string, pid?: number, options?: ErrorOptions) {
    super(message, options);
    this.code = code;
    this.pid = pid;
  }
}

/** Exit status of flock(1) where another process has the lock. */
const FLOCK_CONFLICT = 75;
/** A holder writes its pid right after it has the lock. */
const PID_WAIT_MS = 20;
const PID_ATTEMPTS = 50;

/**
 * The right to run an instance: at most one process on the machine has it, whatever its network namespace.
 *
 * It is a flock(2) on RUNTIME_DIRECTORY/INSTANCE.lock. The kernel lets go of it when its holder ends, however it ends, so there is no stale
 * lock to take over and no race in doing so; the file is never removed for the same reason. Node cannot call flock, but the lock
 * belongs to the open file, not to the process that asks for it: flock(1) gets our descriptor, locks it, and ends.
 */
export class InstanceLock {
  readonly #file: FileHandle;

  private constructor(file: FileHandle) {
    this.#file = file;
  }

  /** Throws InstanceLockError; INSTANCE_IN_USE names the pid that has the lock. */
  static async acquire(instance: string, runtimeDirectory: string): Promise<InstanceLock> {
    const path = join(runtimeDirectory, `${instance}.lock`);
    const file = await openLockFile(path, runtimeDirectory);
    try {
      for (let attempt = 0; attempt < PID_ATTEMPTS; attempt++) {
        if (await lock(file, path)) {
          await file.truncate(0);
          await file.write(`${String(process.pid)}\n`, 0);
          return new InstanceLock(file);
        }
        // The pid may be of the holder before, for the moment in which the present one has not written its own.
        const pid = await readPid(file);
        if (pid !== undefined && isAlive(pid)) {
          throw inUse(instance, pid);
        }
        await sleep(PID_WAIT_MS);
      }
      throw inUse(instance, undefined);
    } catch (error) {
      await file.close();
      throw error;
    }
  }

  async release(): Promise<void> {
    await this.#file.close();
  }
}

async function openLockFile(path: string, runtimeDirectory: string): Promise<FileHandle> {
  try {
    await mkdir(runtimeDirectory, { recursive: true, mode: 0o755 });
    // Not truncated: the file may hold the pid of another.
    return await open(path, constants.O_RDWR | constants.O_CREAT | constants.O_NOFOLLOW, 0o644);
  } catch (error) {
    throw new InstanceLockError("LOCK_FAILED", `cannot open ${path}: ${String(error)}`, undefined, { cause: error });
  }
}

function lock(file: FileHandle, path: string): Promise<boolean> {
  return new Promise((resolve, reject) => {
    const failed = (why: string, cause?: unknown): void => {
      reject(new InstanceLockError("LOCK_FAILED", `cannot lock ${path}: ${why}`, undefined, { cause }));
    };
    const args = ["--exclusive", "--nonblock", "--conflict-exit-code", String(FLOCK_CONFLICT), "3"];
    const flock = spawn("flock", args, { stdio: ["ignore", "ignore", "ignore", file.fd] });
    flock.once("error", (error) => {
      failed(`flock (Debian package util-linux) cannot be run: ${error.message}`, error);
    });
    flock.once("exit", (status) => {
      if (status === 0 || status === FLOCK_CONFLICT) {
        resolve(status === 0);
      } else {
        failed(`flock ended with status ${String(status)}`);
      }
    });
  });
}

async function readPid(file: FileHandle): Promise<number | undefined> {
  const { buffer, bytesRead } = await file.read(Buffer.alloc(16), 0, 16, 0);
  const pid = Number(buffer.toString("latin1", 0, bytesRead));
  return Number.isInteger(pid) && pid > 0 ? pid : undefined;
}

function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    // EPERM: there is one, of another user.
    return error instanceof Error && "code" in error && error.code === "EPERM";
  }
}

function inUse(instance: string, pid: number | undefined): InstanceLockError {
  const who = pid === undefined ? "another process" : `process ${String(pid)}`;
  const message = `${who} runs the instance ${instance}; stop it first, or choose another name with --instance`;
  return new InstanceLockError("INSTANCE_IN_USE", message, pid);
}
