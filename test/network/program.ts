/** Programs run by the tests and the demo: to their end, or in the background with their output kept. */
import { type ChildProcess, spawn } from "node:child_process";
import { setTimeout } from "node:timers/promises";

export interface Outcome {
  /** Exit status; 128 + signal number would be a shell's invention, so a signal is told apart. */
  readonly status: number | undefined;
  readonly signal: NodeJS.Signals | undefined;
  readonly stdout: string;
  readonly stderr: string;
}

export class ProgramError extends Error {
  override readonly name = "ProgramError";

  constructor(
    readonly command: readonly string[],
    readonly outcome: Outcome,
  ) {
    const how = outcome.signal ?? `status ${outcome.status ?? "unknown"}`;
    super(`${command.join(" ")}\nended with ${how}\n${outcome.stdout}${outcome.stderr}`.trimEnd());
  }
}

export interface RunOptions {
  readonly input?: string;
  readonly environment?: Readonly<Record<string, string>>;
  /** Milliseconds; then SIGKILL. Default: 60 000. */
  readonly timeout?: number;
}

/** Runs a program to its end, whatever that is. */
export async function attempt(command: readonly string[], options: RunOptions = {}): Promise<Outcome> {
  const program = new BackgroundProgram(command, options);
  if (options.input !== undefined) program.write(options.input);
  const late = new AbortController();
  const timeout = setTimeout(options.timeout ?? 60_000, undefined, { signal: late.signal, ref: false }).then(
    () => program.kill("SIGKILL"),
    () => undefined,
  );
  try {
    return await program.ended;
  } finally {
    late.abort();
    await timeout;
  }
}

/** Runs a program that must succeed, and returns its standard output. */
export async function run(command: readonly string[], options: RunOptions = {}): Promise<string> {
  const outcome = await attempt(command, options);
  if (outcome.status !== 0) throw new ProgramError(command, outcome);
  return outcome.stdout;
}

/** A program that goes on while others run. Whoever starts one ends it with `stop` or `kill`. */
export class BackgroundProgram {
  readonly ended: Promise<Outcome>;
  private readonly child: ChildProcess;
  private readonly watchers = new Set<() => void>();
  private stdout = "";
  private stderr = "";
  private hasEnded = false;

  constructor(
    readonly command: readonly string[],
    options: RunOptions = {},
  ) {
    const [file, ...args] = command;
    if (file === undefined) throw new TypeError("an empty command");
    // In a process group of its own, so that a terminal's Ctrl-C reaches us alone and we end it in our order.
    this.child = spawn(file, args, {
      detached: true,
      stdio: ["pipe", "pipe", "pipe"],
      env: { ...process.env, ...options.environment },
    });
    // A program that ends without reading its input is no matter of ours.
    this.child.stdin?.on("error", () => undefined);
    if (options.input === undefined) this.child.stdin?.end();
    this.child.stdout?.setEncoding("utf8").on("data", (text: string) => {
      this.stdout += text;
      this.notify();
    });
    this.child.stderr?.setEncoding("utf8").on("data", (text: string) => {
      this.stderr += text;
      this.notify();
    });
    this.ended = new Promise((resolve, reject) => {
      this.child.on("error", (error) => {
        this.hasEnded = true;
        reject(error);
        this.notify();
      });
      this.child.on("close", (status, signal) => {
        this.hasEnded = true;
        resolve({ status: status ?? undefined, signal: signal ?? undefined, stdout: this.stdout, stderr: this.stderr });
        this.notify();
      });
    });
    // Whoever awaits it hears of the failure; nobody has to.
    this.ended.catch(() => undefined);
  }

  get pid(): number | undefined {
    return this.child.pid;
  }

  get running(): boolean {
    return !this.hasEnded;
  }

  /** All output so far. */
  get output(): string {
    return this.stdout + this.stderr;
  }

  write(input: string): void {
    this.child.stdin?.end(input);
  }

  kill(signal: NodeJS.Signals): void {
    if (this.running) this.child.kill(signal);
  }

  /** Ends it: SIGTERM, and SIGKILL after five seconds. */
  async stop(): Promise<Outcome> {
    this.kill("SIGTERM");
    const late = new AbortController();
    void setTimeout(5_000, undefined, { signal: late.signal, ref: false }).then(
      () => this.kill("SIGKILL"),
      () => undefined,
    );
    const outcome = await this.ended;
    late.abort();
    return outcome;
  }

  /** Resolves when the output matches; fails with all of it if the program ends or `timeout` milliseconds pass before. */
  async waitForOutput(pattern: RegExp, timeout = 15_000): Promise<void> {
    const deadline = Date.now() + timeout;
    while (!pattern.test(this.output)) {
      if (!this.running)
        throw new Error(`${this.command.join(" ")} ended before it printed ${pattern}:\n${this.output}`);
      const left = deadline - Date.now();
      if (left <= 0) throw new Error(`${this.command.join(" ")} has not printed ${pattern} in time:\n${this.output}`);
      await this.change(left);
    }
  }

  private async change(timeout: number): Promise<void> {
    const late = new AbortController();
    await new Promise<void>((resolve) => {
      this.watchers.add(resolve);
      setTimeout(timeout, undefined, { signal: late.signal }).then(resolve, () => undefined);
    });
    this.watchers.clear();
    late.abort();
  }

  private notify(): void {
    for (const watcher of [...this.watchers]) watcher();
  }
}

/** Tries until `probe` returns a value or `timeout` milliseconds pass; then fails, with the last failure's message. */
export async function eventually<T>(what: string, probe: () => Promise<T | undefined>, timeout = 10_000): Promise<T> {
  const deadline = Date.now() + timeout;
  let last = "";
  for (;;) {
    try {
      const value = await probe();
      if (value !== undefined) return value;
    } catch (error) {
      last = error instanceof Error ? error.message : String(error);
    }
    if (Date.now() > deadline) throw new Error(`not in ${timeout} ms: ${what}${last === "" ? "" : `: ${last}`}`);
    await setTimeout(50);
  }
}
