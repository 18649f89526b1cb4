/** The decapsulation program on an interface: attached, kept and taken away. */
import { access, mkdir, rm, statfs } from "node:fs/promises";
import { isIPv4 } from "node:net";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { BpfError, BpfMap, interfaceIndex, Link, openObject, type Program, type XdpMode } from "libbpf-ts";
import {
  AddressFamily,
  DecapsulationOutcome,
  type HostAddress,
  type Maps,
  type OutcomeCounter,
} from "./decapsulate.bpf.js";
import { RealServerError } from "./error.js";
import type { DecapsulationRequirement } from "./requirement.js";

/** statfs(2)'s BPF_FS_MAGIC (linux/magic.h). */
const BPFFS_MAGIC = 0xcafe4a11;

const OBJECT = fileURLToPath(new URL("../../../build/bpf/decapsulate.bpf.o", import.meta.url));

const MAPS = ["tunnel_addresses", "virtual_addresses", "outcomes"] satisfies (keyof Maps)[];

export interface OutcomeCount {
  /** A name of enum decapsulation_outcome in lower case without the prefix. */
  readonly outcome: string;
  readonly packets: bigint;
  /** Frame lengths as they arrived. */
  readonly bytes: bigint;
}

export function pinFolder(bpffs: string, instance: string): string {
  return join(bpffs, `${instance}-real-server`);
}

/**
 * Makes the program run on the interface with exactly these addresses. An attached one is replaced in place, without
 * losing a packet or a count. On failure what was attached before is still attached, and what was not is not.
 */
export async function attach(requirement: DecapsulationRequirement): Promise<void> {
  const { pins } = requirement;
  await requireBpffs(dirname(pins));
  const linkPin = linkPath(requirement);
  const attached = await linkIsLive(requirement);
  if (!attached) await detach(requirement); // what a vanished interface of the same name may have left
  try {
    await mkdir(join(pins, "maps"), { recursive: true });
    await mkdir(join(pins, "programs"), { recursive: true });
    await mkdir(join(pins, "links"), { recursive: true });
    const open = openObject(OBJECT);
    for (const name of MAPS) open.map(name).setPinPath(mapPath(pins, name));
    using object = await open.load();
    const program = object.program("decapsulate");
    if (!attached) nameOutcomes(object.map("outcomes"));
    setAddresses(object.map("tunnel_addresses"), requirement.tunnelAddresses);
    setAddresses(object.map("virtual_addresses"), requirement.virtualAddresses);
    if (attached) {
      using link = Link.open(linkPin);
      await link.update(program);
    } else {
      using link = await attachXdp(program, requirement);
      link.pin(linkPin);
    }
    const programPin = join(pins, "programs", "decapsulate");
    await rm(programPin, { force: true });
    program.pin(programPin);
  } catch (error) {
    if (!attached) await detach(requirement);
    throw error;
  }
}

/** Detaches the program and removes the pins. What is gone already is no error. */
export async function detach(requirement: DecapsulationRequirement): Promise<void> {
  const linkPin = linkPath(requirement);
  if (await exists(linkPin)) {
    using link = Link.open(linkPin);
    await link.detach();
  }
  await rm(requirement.pins, { recursive: true, force: true });
}

/** Whether the program is attached to the interface and has exactly these addresses. */
export async function isAttached(requirement: DecapsulationRequirement): Promise<boolean> {
  if (!(await linkIsLive(requirement))) return false;
  using tunnel = BpfMap.open<HostAddress, number>(mapPath(requirement.pins, "tunnel_addresses"));
  using virtual = BpfMap.open<HostAddress, number>(mapPath(requirement.pins, "virtual_addresses"));
  return hasExactly(tunnel, requirement.tunnelAddresses) && hasExactly(virtual, requirement.virtualAddresses);
}

/** What became of the packets so far, over all CPUs. */
export function readOutcomes(requirement: DecapsulationRequirement): OutcomeCount[] {
  using counters = BpfMap.open<number, OutcomeCounter>(mapPath(requirement.pins, "outcomes"));
  return outcomeNames().map(([outcome, index]) => {
    const perCpu = counters.getPerCpu(index) ?? [];
    return {
      outcome,
      packets: perCpu.reduce((sum, { packets }) => sum + packets, 0n),
      bytes: perCpu.reduce((sum, { bytes }) => sum + bytes, 0n),
    };
  });
}

async function attachXdp(program: Program, { interface: name, mode }: DecapsulationRequirement): Promise<Link> {
  const index = interfaceIndex(name);
  const modes: XdpMode[] = mode === "auto" ? ["native", "generic"] : [mode];
  const refusals: BpfError[] = [];
  for (const candidate of modes) {
    try {
      return await Link.attachXdp(program, index, { mode: candidate });
    } catch (error) {
      if (!(error instanceof BpfError)) throw error;
      if (error.code === "INTERFACE_BUSY") {
        throw new RealServerError("INTERFACE_BUSY", `another XDP program is attached to ${name}: detach it first`, {
          cause: error,
        });
      }
      refusals.push(error);
    }
  }
  throw new RealServerError(
    "ATTACH_REFUSED",
    `${name} does not take the decapsulation program in mode ${modes.join(" nor ")}: ` +
      refusals.map(({ message }) => message).join("; "),
    { cause: refusals.at(-1) },
  );
}

function setAddresses(map: BpfMap<HostAddress, number>, addresses: readonly string[]): void {
  const wanted = new Map(addresses.map((address) => [address, hostAddress(address)]));
  const present = [...map.keys()];
  for (const key of wanted.values()) map.set(key, 1);
  for (const key of present) if (!wanted.has(addressText(key))) map.delete(key);
}

function hasExactly(map: BpfMap<HostAddress, number>, addresses: readonly string[]): boolean {
  const present = [...map.keys()].map(addressText).sort();
  return present.length === addresses.length && [...addresses].sort().every((address, i) => address === present[i]);
}

function nameOutcomes(counters: BpfMap<number, OutcomeCounter>): void {
  for (const [, index] of outcomeNames()) {
    const perCpu = counters.getPerCpu(index) ?? [];
    counters.setPerCpu(
      index,
      perCpu.map((counter) => ({ ...counter, outcome: index })),
    );
  }
}

function outcomeNames(): [name: string, index: DecapsulationOutcome][] {
  const prefix = "DECAPSULATION_";
  return Object.entries(DecapsulationOutcome)
    .filter(([name]) => name !== "DECAPSULATION_OUTCOMES")
    .map(([name, index]) => [name.slice(prefix.length).toLowerCase(), index]);
}

function hostAddress(address: string): HostAddress {
  if (!isIPv4(address)) throw new TypeError(`not an IPv4 address: ${address}`);
  const bytes = new Uint8Array(16);
  bytes.set(address.split(".").map(Number));
  return { address: { bytes }, family: AddressFamily.FAMILY_IPV4 };
}

function addressText({ address }: HostAddress): string {
  return address.bytes.subarray(0, 4).join(".");
}

/** A link outlives its interface, and says so by the index 0. */
async function linkIsLive(requirement: DecapsulationRequirement): Promise<boolean> {
  const linkPin = linkPath(requirement);
  if (!(await exists(linkPin))) return false;
  using link = Link.open(linkPin);
  return link.info().ifindex === interfaceIndex(requirement.interface);
}

function linkPath({ pins, interface: name }: DecapsulationRequirement): string {
  return join(pins, "links", name);
}

function mapPath(pins: string, name: string): string {
  return join(pins, "maps", name);
}

async function requireBpffs(path: string): Promise<void> {
  const type = await statfs(path).then(
    (found) => found.type,
    () => undefined,
  );
  if (type !== BPFFS_MAGIC) {
    throw new RealServerError("BPFFS_MISSING", `no BPF file system at ${path}: mount -t bpf bpf ${path}`);
  }
}

async function exists(path: string): Promise<boolean> {
  return await access(path).then(
    () => true,
    () => false,
  );
}
