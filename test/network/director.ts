/** A Sluice daemon in a namespace, and the command line that talks to it. */
import { writeFile } from "node:fs/promises";
import { connect } from "node:net";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import type { Laboratory, Namespace } from "./namespace.js";
import { type BackgroundProgram, eventually, type Outcome, ProgramError } from "./program.js";

const MAIN = fileURLToPath(new URL("../../src/cli/main.js", import.meta.url));

/** The command that runs `sluice`, as installed from this build. */
export function sluice(...args: readonly string[]): string[] {
  return [process.execPath, MAIN, ...args];
}

export class Director {
  readonly instance: string;
  readonly pins: string;
  private daemon: BackgroundProgram | undefined;

  constructor(
    private readonly laboratory: Laboratory,
    readonly host: Namespace,
    role = "director",
  ) {
    this.instance = laboratory.instance(role);
    this.pins = join("/sys/fs/bpf", this.instance);
  }

  /** Starts the daemon on a configuration file, and returns once its API answers: then the data plane forwards. */
  async start(configuration: string): Promise<void> {
    const daemon = this.host.start(sluice("run", "--config", configuration, "--instance", this.instance));
    this.daemon = daemon;
    const state = await eventually(
      "the daemon's API accepts connections",
      async () => (daemon.running ? await accepts(`/run/sluice/${this.instance}.sock`) : "ended"),
      30_000,
    );
    if (state === "ended") throw new ProgramError(daemon.command, await daemon.ended);
  }

  /** As `start`, with YAML text, which is kept in a file of that name. */
  async startWith(yaml: string, name = `${this.instance}.yaml`): Promise<void> {
    await this.start(await this.configuration(yaml, name));
  }

  async configuration(yaml: string, name: string): Promise<string> {
    const file = join(this.laboratory.folder, name);
    await writeFile(file, yaml);
    return file;
  }

  /** SIGHUP: the daemon reads its configuration again. Returns when its log matches. */
  async reload(logs: RegExp): Promise<void> {
    this.daemon?.kill("SIGHUP");
    await this.daemon?.waitForOutput(logs);
  }

  get pid(): number | undefined {
    return this.daemon?.pid;
  }

  /** Over gRPC, by the command line. */
  async setWeight(service: string, realServer: string, weight: number): Promise<void> {
    await this.sluice("real", "update", service, realServer, "--weight", String(weight));
  }

  /** kill -9: no chance to tidy up. */
  async kill(): Promise<void> {
    this.daemon?.kill("SIGKILL");
    await this.daemon?.ended;
  }

  /** SIGTERM, as systemd stops it; the data plane stays. */
  async stop(): Promise<Outcome | undefined> {
    return await this.daemon?.stop();
  }

  /** A `sluice` command for this instance that must succeed; returns its standard output. */
  async sluice(...args: readonly string[]): Promise<string> {
    return await this.host.run(sluice(...args), { environment: { SLUICE_INSTANCE: this.instance } });
  }

  /** A `sluice` command for this instance, however it ends. */
  async attempt(...args: readonly string[]): Promise<Outcome> {
    return await this.host.attempt(sluice(...args), { environment: { SLUICE_INSTANCE: this.instance } });
  }
}

async function accepts(socketPath: string): Promise<"accepts"> {
  return await new Promise((resolve, reject) => {
    const socket = connect(socketPath);
    socket.on("error", reject);
    socket.on("connect", () => {
      socket.destroy();
      resolve("accepts");
    });
  });
}
