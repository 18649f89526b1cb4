/**
 * Network namespaces for tests and the demo, with everything in them: removed when the owner says so, when the process
 * exits or is interrupted, and, if it was killed outright, by the next run.
 *
 * Programs enter by nsenter, not by `ip netns exec`: that one mounts a fresh /sys, in which /sys/fs/bpf is empty.
 */
import { spawnSync } from "node:child_process";
import { mkdtempSync, readdirSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { attempt, BackgroundProgram, type Outcome, type RunOptions, run } from "./program.js";

/** Every name that leaves a namespace (namespaces, instances, folders) begins with sluice-PURPOSE-PID-NUMBER. */
type Purpose = "test" | "demo";
const OWNED = /^(?:real-server-)?sluice-(?:test|demo)-(\d+)-/;
/** Where owned things appear, apart from /run/netns. */
const FOLDERS = ["/sys/fs/bpf", "/run/sluice", tmpdir()];

const PASS_OBJECT = fileURLToPath(new URL("../../../build/test/network/pass.bpf.o", import.meta.url));

let laboratories = 0;
const open = new Set<Laboratory>();
let exitHandlersInstalled = false;

/** Owns namespaces, the programs in them, and a scratch folder. */
export class Laboratory {
  /** Unique on this machine; fit for a Sluice instance's name. */
  readonly name: string;
  /** Scratch folder. */
  readonly folder: string;
  private readonly namespaces: Namespace[] = [];
  private readonly programs: BackgroundProgram[] = [];

  constructor(purpose: Purpose) {
    this.name = `sluice-${purpose}-${process.pid}-${++laboratories}`;
    if (process.getuid?.() !== 0) throw new Error("network namespaces need root");
    installExitHandlers();
    removeStale();
    open.add(this);
    this.folder = mkdtempSync(join(tmpdir(), `${this.name}-`));
  }

  /** A fresh namespace with lo up and no IPv6 (whose own chatter would be in the way). */
  async namespace(role: string): Promise<Namespace> {
    const namespace = new Namespace(this, role, `${this.name}-${role}`);
    this.namespaces.push(namespace);
    await run(["ip", "netns", "add", namespace.name]);
    await namespace.run(["sysctl", "-qw", "net.ipv6.conf.all.disable_ipv6=1", "net.ipv6.conf.default.disable_ipv6=1"]);
    await namespace.ip("link set lo up");
    return namespace;
  }

  /** An instance name of Sluice whose pins and sockets go with this laboratory. */
  instance(role: string): string {
    return `${this.name}-${role}`;
  }

  adopt(program: BackgroundProgram): BackgroundProgram {
    this.programs.push(program);
    return program;
  }

  /** The output of all programs that still run, for a failure's report. */
  logs(): string {
    return this.programs
      .filter(({ output }) => output !== "")
      .map(({ command, output }) => `--- ${command.join(" ")}\n${output}`)
      .join("\n");
  }

  /** Removes everything. Synchronous, because it also runs while the process exits. */
  remove(): void {
    for (const program of this.programs) program.kill("SIGKILL");
    for (const { name } of this.namespaces) removeNamespace(name);
    removeFolders((name) => name.startsWith(`${this.name}-`) || name.startsWith(`real-server-${this.name}-`));
    open.delete(this);
  }

  [Symbol.dispose](): void {
    this.remove();
  }
}

/** One host of the laboratory. */
export class Namespace {
  constructor(
    private readonly laboratory: Laboratory,
    readonly role: string,
    readonly name: string,
  ) {}

  /** The command that runs `command` in here. */
  inside(command: readonly string[]): string[] {
    return ["nsenter", `--net=/run/netns/${this.name}`, "--", ...command];
  }

  /** Runs a program in here that must succeed; returns its standard output. */
  async run(command: readonly string[], options?: RunOptions): Promise<string> {
    return await run(this.inside(command), options);
  }

  /** Runs a program in here to its end, whatever that is. */
  async attempt(command: readonly string[], options?: RunOptions): Promise<Outcome> {
    return await attempt(this.inside(command), options);
  }

  /** Starts a program in here that is killed with the laboratory at the latest. */
  start(command: readonly string[], options?: RunOptions): BackgroundProgram {
    return this.laboratory.adopt(new BackgroundProgram(this.inside(command), options));
  }

  /** iproute2 commands without the leading `ip`, in one go: all of them work or this fails. */
  async ip(...commands: readonly string[]): Promise<void> {
    await run(["ip", "-netns", this.name, "-batch", "-"], { input: `${commands.join("\n")}\n` });
  }

  async ipJson(command: string): Promise<unknown> {
    return JSON.parse(await run(["ip", "-netns", this.name, "-json", ...command.split(" ")]));
  }

  async sysctl(settings: Readonly<Record<string, number>>): Promise<void> {
    await this.run(["sysctl", "-qw", ...Object.entries(settings).map(([name, value]) => `${name}=${value}`)]);
  }

  async macOf(interfaceName: string): Promise<string> {
    const [link] = (await this.ipJson(`link show ${interfaceName}`)) as { address: string }[];
    if (link === undefined) throw new Error(`${this.role} has no ${interfaceName}`);
    return link.address;
  }
}

export interface CableEnd {
  readonly host: Namespace;
  readonly interface: string;
}

/**
 * Joins two namespaces by a veth pair, up, without the offloads that leave work undone: a checksum that the local stack
 * left to the card (CHECKSUM_PARTIAL) would reach an XDP program unfinished. GRO makes an end poll, without which a frame
 * that is redirected to it from the other end vanishes; it counts only if it is switched on while the end is up
 * (drivers/net/veth.c, veth_set_features), else redirecting fails with EOPNOTSUPP. See also takeTransmitted.
 */
export async function cable(left: CableEnd, right: CableEnd, mtu = 1500): Promise<void> {
  const [a, b] = [left, right].map((end) => `${end.interface} mtu ${mtu} netns ${end.host.name}`);
  await run(words(`ip link add ${a} type veth peer ${b}`));
  for (const { host, interface: name } of [left, right]) {
    await host.ip(`link set ${name} up`);
    await host.run(words(`ethtool -K ${name} tx off tso off gso off gro on`));
  }
}

/** Makes an end take what a program on the other end sends with XDP_TX; see pass.bpf.c. */
export async function takeTransmitted({ host, interface: name }: CableEnd): Promise<void> {
  // The attachment keeps the program; the pin only hands it over. (iproute2 could do both, but leaves folders in the bpffs.)
  const pin = `/sys/fs/bpf/${host.name}-${name}`;
  await host.run(["bpftool", "prog", "load", PASS_OBJECT, pin]);
  await host.run(words(`bpftool net attach xdpdrv pinned ${pin} dev ${name}`));
  rmSync(pin);
}

function words(command: string): string[] {
  return command.split(" ");
}

function removeNamespace(name: string): void {
  const inside = spawnSync("ip", ["netns", "pids", name], { encoding: "utf8" }).stdout;
  for (const pid of inside.split("\n").filter((line) => line !== "")) {
    try {
      process.kill(Number(pid), "SIGKILL");
    } catch {
      // Ended by itself in the meantime.
    }
  }
  spawnSync("ip", ["netns", "delete", name]);
}

/** What runs that were killed outright have left: owned by a process id that is not alive. */
function removeStale(): void {
  const stale = (name: string): boolean => {
    const owner = OWNED.exec(name)?.[1];
    return owner !== undefined && !isAlive(Number(owner));
  };
  for (const name of entries("/run/netns").filter(stale)) removeNamespace(name);
  removeFolders(stale);
}

function removeFolders(picks: (name: string) => boolean): void {
  for (const folder of FOLDERS) {
    for (const name of entries(folder).filter(picks)) rmSync(join(folder, name), { recursive: true, force: true });
  }
}

function entries(folder: string): string[] {
  try {
    return readdirSync(folder);
  } catch {
    return [];
  }
}

function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch {
    return false;
  }
}

function installExitHandlers(): void {
  if (exitHandlersInstalled) return;
  exitHandlersInstalled = true;
  const removeAll = (): void => {
    for (const laboratory of [...open]) laboratory.remove();
  };
  process.on("exit", removeAll);
  for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"] as const) {
    process.on(signal, () => {
      removeAll();
      // A second time without us: the parent sees what ended us.
      process.removeAllListeners(signal);
      process.kill(process.pid, signal);
    });
  }
}
