/** `sluice run` as a process of its own, for what is measured from outside of it. */
import { type ChildProcess, execFileSync, spawn } from "node:child_process";
import { once } from "node:events";
import { closeSync, openSync, readFileSync, writeFileSync } from "node:fs";
import { setTimeout as sleep } from "node:timers/promises";
import { ApiClient } from "../../src/api/client.js";

const START_TIMEOUT_MS = 120_000;

export class Daemon {
  readonly #process: ChildProcess;
  readonly #log: string;

  private constructor(process: ChildProcess, log: string) {
    this.#process = process;
    this.#log = log;
  }

  static start(main: string, config: string, instance: string, log: string): Daemon {
    const output = openSync(log, "a");
    const child = spawn(process.execPath, [main, "run", "--config", config, "--instance", instance], {
      stdio: ["ignore", output, output],
    });
    closeSync(output);
    return new Daemon(child, log);
  }

  /** Throws with what it logged if it has ended. */
  requireRunning(): void {
    if (this.#process.exitCode !== null) {
      const tail = readFileSync(this.#log, "utf8").slice(-2000);
      throw new Error(`sluice run ended with ${this.#process.exitCode}:\n${tail}`);
    }
  }

  /** Mebibytes, by the kernel's count. */
  memory(): { resident: number; peak: number } {
    const status = readFileSync(`/proc/${this.#process.pid ?? 0}/status`, "utf8");
    const field = (name: string): number => Number(new RegExp(`^${name}:\\s+(\\d+) kB$`, "m").exec(status)?.[1]) / 1024;
    return { resident: field("VmRSS"), peak: field("VmHWM") };
  }

  /** Milliseconds that all its threads have run so far (proc(5): utime and stime, in hundredths of a second). */
  cpuMs(): number {
    const stat = readFileSync(`/proc/${this.#process.pid ?? 0}/stat`, "utf8");
    const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
    return 10 * (Number(fields[11]) + Number(fields[12]));
  }

  async stop(): Promise<void> {
    if (this.#process.exitCode !== null || this.#process.signalCode !== null) return;
    const ended = once(this.#process, "exit");
    this.#process.kill("SIGTERM");
    await ended;
  }
}

/** Resolves with a client once the daemon's API answers what `ask` asks for. */
export async function connected(
  daemon: Daemon,
  socket: string,
  ask: (client: ApiClient) => Promise<unknown>,
): Promise<ApiClient> {
  const deadline = Date.now() + START_TIMEOUT_MS;
  while (true) {
    const client = new ApiClient(socket); // a new one each time: gRPC waits a second before it tries again
    try {
      await ask(client);
      return client;
    } catch (error) {
      client.close();
      daemon.requireRunning();
      if (Date.now() > deadline) throw error;
      await sleep(20);
    }
  }
}

/** The interface of the daemon's director, in this namespace; `more` are further commands of ip. */
export function addInterface(more: readonly string[]): void {
  writeFileSync("/proc/sys/net/ipv4/ip_forward", "1\n");
  const commands = [
    "link add bench0 type veth peer name bench1",
    "link set bench0 up",
    "link set bench1 up",
    "address add 10.255.0.1/24 dev bench0",
    ...more,
  ];
  execFileSync("ip", ["-batch", "-"], { input: commands.map((command) => `${command}\n`).join("") });
}

export function deleteInterface(): void {
  execFileSync("ip", ["link", "delete", "bench0"]);
}
