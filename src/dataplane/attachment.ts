/** The XDP program on the interfaces: attaching, and swapping in place through the pinned links. */
import { execFile } from "node:child_process";
import { rmSync } from "node:fs";
import { promisify } from "node:util";
import { BpfError, interfaceIndex, Link, type Program } from "libbpf-ts";
import type { AttachMode, InterfaceSettings } from "../model/index.js";
import { DataPlaneError } from "./error.js";
import type { Logger } from "./log.js";
import type { Pins } from "./pins.js";
import type { Undo } from "./undo.js";

export interface Interface extends InterfaceSettings {
  readonly ifindex: number;
}

/** @throws DataPlaneError WRONG_INTERFACE */
export function findInterface(settings: InterfaceSettings): Interface {
  try {
    return { ...settings, ifindex: interfaceIndex(settings.name) };
  } catch (cause) {
    throw new DataPlaneError("WRONG_INTERFACE", `there is no interface ${settings.name} in this network namespace`, {
      field: "interfaces",
      wanted: settings.name,
      cause,
      remedy: "`ip link` lists those there are",
    });
  }
}

/**
 * Makes `program` run on the interfaces, by the links that are pinned where they fit. What it does is added to `undo`; only
 * detachUnwanted() cannot be undone, so that comes last.
 */
export async function attachAll(
  interfaces: readonly Interface[],
  program: Program,
  previous: Program | undefined,
  pins: Pins,
  undo: Undo,
  log: Logger,
): Promise<void> {
  const pinned = new Set(pins.interfaces);
  for (const wanted of interfaces) {
    if (previous === undefined || !pinned.has(wanted.name)) {
      await attach(wanted, program, pins, undo);
      continue;
    }
    using link = Link.open(pins.link(wanted.name));
    if (link.info().ifindex === wanted.ifindex) {
      await requireMode(wanted, log);
      await swap(wanted, link, program, previous, pins, undo);
    } else {
      // The interface was deleted, and this is another one of the same name.
      rmSync(pins.link(wanted.name));
      await attach(wanted, program, pins, undo);
    }
  }
}

async function attach(wanted: Interface, program: Program, pins: Pins, undo: Undo): Promise<void> {
  const path = pins.link(wanted.name);
  using link = await attachLink(wanted, program);
  try {
    link.pin(path);
  } catch (error) {
    await link.detach();
    throw error;
  }
  undo.add(`attaching to ${wanted.name}`, () => detach(path));
}

async function attachLink(wanted: Interface, program: Program): Promise<Link> {
  try {
    return await Link.attachXdp(program, wanted.ifindex, { mode: wanted.mode });
  } catch (error) {
    throw attachError(wanted, error);
  }
}

/** Replaces the program without a moment in between, so no packet is lost. */
async function swap(
  wanted: Interface,
  link: Link,
  program: Program,
  previous: Program,
  pins: Pins,
  undo: Undo,
): Promise<void> {
  // Another program than the pinned one runs where a process died between swapping and pinning; any is to be replaced then.
  const expected = link.info().programId === previous.id ? { expected: previous } : {};
  await link.update(program, expected);
  undo.add(`replacing the program on ${wanted.name}`, async () => {
    using again = Link.open(pins.link(wanted.name));
    await again.update(previous, { expected: program });
  });
}

/** Detaches from interfaces that the configuration no longer has; returns their names. */
export async function detachUnwanted(interfaces: readonly Interface[], pins: Pins): Promise<string[]> {
  const wanted = new Set(interfaces.map(({ name }) => name));
  const unwanted = pins.interfaces.filter((name) => !wanted.has(name));
  for (const name of unwanted) {
    await detach(pins.link(name));
  }
  return unwanted;
}

/** Removing the pin alone would leave the program on while someone else holds the link open. */
export async function detach(linkPin: string): Promise<void> {
  using link = Link.open(linkPin);
  if (link.info().ifindex !== 0) {
    await link.detach();
  }
  rmSync(linkPin);
}

const EINVAL = 22;
const EBUSY = 16;
const EEXIST = 17;
const ERANGE = 34;
const EOPNOTSUPP = 95;

function attachError({ name, mode }: Interface, cause: unknown): DataPlaneError {
  const errno = cause instanceof BpfError ? cause.errno : undefined;
  if (errno === EBUSY || errno === EEXIST) {
    return new DataPlaneError("INTERFACE_BUSY", `another XDP program is attached to ${name}`, {
      field: "interfaces",
      wanted: name,
      cause,
      remedy: `\`bpftool net show dev ${name}\` shows it; \`ip link set dev ${name} xdp off\` may detach it`,
    });
  }
  if (errno === EOPNOTSUPP || errno === EINVAL || errno === ERANGE) {
    const remedy =
      mode === "native"
        ? `set \`mode: generic\` for it, or lower its MTU and switch off LRO (\`ethtool -K ${name} lro off\`), which many drivers want`
        : "use an interface whose driver can";
    return new DataPlaneError("XDP_NOT_SUPPORTED", `${name} cannot run XDP in ${mode} mode`, {
      field: "interfaces",
      wanted: name,
      cause,
      remedy,
    });
  }
  const reason = cause instanceof Error ? cause.message : String(cause);
  return new DataPlaneError("ATTACH_FAILED", `cannot attach to ${name}: ${reason}`, {
    field: "interfaces",
    wanted: name,
    cause,
  });
}

/** XDP_ATTACHED_* of include/uapi/linux/if_link.h, as `ip -json link` prints it. */
const ATTACHED_MODES: Readonly<Record<number, AttachMode>> = { 1: "native", 2: "generic" };

/** A link's mode cannot be changed in place, nor does the kernel tell it with the link. */
async function requireMode({ name, mode }: Interface, log: Logger): Promise<void> {
  const running = await runningMode(name).catch((error: unknown) => {
    log.warn({ err: error, interface: name }, "cannot ask iproute2 for the mode that XDP runs in; it stays as it is");
    return undefined;
  });
  if (running !== undefined && running !== mode) {
    throw new DataPlaneError("MODE_DIFFERS", `${name} runs XDP in ${running} mode, not in ${mode} mode`, {
      field: "interfaces",
      wanted: mode,
      available: running,
      remedy: `set \`mode: ${running}\`, or run \`sluice unload\`, which interrupts traffic, and start again`,
    });
  }
}

async function runningMode(name: string): Promise<AttachMode | undefined> {
  const { stdout } = await promisify(execFile)("ip", ["-json", "link", "show", "dev", name]);
  const [shown] = JSON.parse(stdout) as { xdp?: { mode?: number } }[];
  return ATTACHED_MODES[shown?.xdp?.mode ?? 0];
}
