/**
 * Makes a host a real server of the dr or tun method, and takes that back.
 *
 * In both methods packets arrive with the VIP as their destination, so the host must own it, yet must not answer ARP for
 * it, or it would draw the clients' traffic past the director: the VIP sits on an interface that does no ARP, and
 * arp_ignore and arp_announce keep it out of ARP on the others (the LVS HOWTO's arp problem).
 */
import { isIPv4 } from "node:net";
import * as decapsulation from "./decapsulation.js";
import { RealServerError } from "./error.js";
import { addHostAddress, defaultRouteInterface, listAddresses, listInterfaces, removeAddress } from "./iproute.js";
import {
  type Change,
  type DecapsulationMode,
  type DecapsulationRequirement,
  describe,
  type Requirement,
  subject,
} from "./requirement.js";
import { type State, StateDirectory } from "./state.js";
import { readSysctl, writeSysctl } from "./sysctl.js";

export interface UpOptions {
  readonly instance: string;
  readonly method: "dr" | "tun";
  readonly virtualAddresses: readonly string[];
  /** Faces the director. Default: that of the default route. */
  readonly interface?: string;
  /** Carries the VIPs. */
  readonly vipInterface: string;
  /** tun: outer destinations to unwrap. Default: the addresses of `interface`. */
  readonly tunnelAddresses?: readonly string[];
  readonly mode: DecapsulationMode;
  /** Where the BPF file system is mounted. */
  readonly bpffs: string;
}

/** One line of what a command did or found. */
export interface Item {
  readonly description: string;
  readonly result:
    | "done"
    | "already so"
    | "undone"
    | "left to another instance"
    | "left as it was changed since"
    | "holds"
    | "missing";
}

export interface Status {
  readonly items: readonly Item[];
  readonly outcomes: readonly decapsulation.OutcomeCount[];
}

/**
 * Meets the requirements that do not hold yet and remembers what was changed. Called again with other options it moves
 * from the old requirements to the new ones. When a step fails, the steps before it are undone.
 */
export async function up(options: UpOptions, runtimeDirectory: string): Promise<Item[]> {
  const directory = new StateDirectory(runtimeDirectory);
  checkOptions(options);
  return await directory.locked(async () => {
    const before = await directory.load(options.instance);
    const old = before ?? (await StateDirectory.empty(options.instance));
    const requirements = await requirementsOf(options);
    await checkFeasible(requirements, old);

    let state: State = old;
    const made: Change[] = [];
    const items: Item[] = [];
    try {
      for (const requirement of requirements) {
        const change = await changeFor(requirement);
        if (change === undefined) {
          items.push({ description: describe(requirement), result: "already so" });
          continue;
        }
        state = withChange(state, change);
        await directory.save(state);
        made.push(change);
        await perform(change);
        items.push({ description: describe(requirement), result: "done" });
      }
    } catch (error) {
      try {
        for (const change of made.reverse()) await revert(change, old);
      } catch (second) {
        // The state file keeps what was changed, so that down can finish the job.
        throw new RealServerError(
          "UNDO_INCOMPLETE",
          `${messageOf(error)}; and undoing the steps before it failed: ${messageOf(second)}: sluice real-server down`,
          { cause: error },
        );
      }
      if (before === undefined) await directory.remove(options.instance);
      else await directory.save(old);
      throw error;
    }

    const needed = new Set(requirements.map(subject));
    state = { ...state, requirements };
    await directory.save(state);
    items.push(...(await giveUp(state, (change) => !needed.has(subject(change)), directory)));
    return items;
  });
}

/** Undoes what `up` changed, except what another instance has come to need: that instance takes the undoing over. */
export async function down(instance: string, runtimeDirectory: string): Promise<Item[]> {
  const directory = new StateDirectory(runtimeDirectory);
  checkInstance(instance);
  return await directory.locked(async () => {
    const state = await directory.load(instance);
    if (state === undefined) return [];
    const items = await giveUp(state, () => true, directory);
    await directory.remove(instance);
    return items;
  });
}

/** Whether each requirement holds, and what the decapsulation program has counted. Undefined: the instance is not up. */
export async function status(instance: string, runtimeDirectory: string): Promise<Status | undefined> {
  const directory = new StateDirectory(runtimeDirectory);
  checkInstance(instance);
  const state = await directory.load(instance);
  if (state === undefined) return undefined;
  const items: Item[] = [];
  let outcomes: decapsulation.OutcomeCount[] = [];
  for (const requirement of state.requirements) {
    const result = (await holds(requirement)) ? "holds" : "missing";
    items.push({ description: describe(requirement), result });
    if (requirement.kind === "decapsulation" && result === "holds") outcomes = decapsulation.readOutcomes(requirement);
  }
  return { items, outcomes };
}

/** ARP is quietened before the VIP appears. The program comes last: nothing can then fail after it. */
async function requirementsOf(options: UpOptions): Promise<Requirement[]> {
  const interfaces = await listInterfaces();
  const facing = options.interface ?? (await defaultRouteInterface());
  for (const name of [facing, options.vipInterface]) {
    if (!interfaces.includes(name)) {
      throw new RealServerError("NO_SUCH_INTERFACE", `no interface ${name}: there are ${interfaces.join(", ")}`);
    }
  }
  const requirements: Requirement[] = ["all", facing].flatMap((scope) => [
    { kind: "sysctl", path: `net/ipv4/conf/${scope}/arp_ignore`, minimum: 1 },
    { kind: "sysctl", path: `net/ipv4/conf/${scope}/arp_announce`, minimum: 2 },
  ]);
  for (const address of options.virtualAddresses) {
    requirements.push({ kind: "address", interface: options.vipInterface, address });
  }
  if (options.method === "tun") requirements.push(await decapsulationOf(options, facing));
  return requirements;
}

async function decapsulationOf(options: UpOptions, facing: string): Promise<DecapsulationRequirement> {
  const tunnelAddresses =
    options.tunnelAddresses ??
    (await listAddresses())
      .filter((held) => held.interface === facing && !options.virtualAddresses.includes(held.address))
      .map(({ address }) => address);
  if (tunnelAddresses.length === 0) {
    throw new RealServerError(
      "NO_TUNNEL_ADDRESS",
      `${facing} has no IPv4 address for directors to tunnel to: give it one or name it with --tunnel-address`,
    );
  }
  return {
    kind: "decapsulation",
    interface: facing,
    mode: options.mode,
    pins: decapsulation.pinFolder(options.bpffs, options.instance),
    tunnelAddresses,
    virtualAddresses: options.virtualAddresses,
  };
}

/** What can be known to fail before anything is changed. */
async function checkFeasible(requirements: readonly Requirement[], old: State): Promise<void> {
  const held = await listAddresses();
  for (const requirement of requirements) {
    if (requirement.kind === "address") {
      const elsewhere = held.find(
        ({ address, interface: name }) => address === requirement.address && name !== requirement.interface,
      );
      if (elsewhere !== undefined) {
        throw new RealServerError(
          "VIP_ON_OTHER_INTERFACE",
          `${requirement.address} is on ${elsewhere.interface} already, where it answers ARP: remove it there, or ` +
            `name that interface with --vip-interface if it does no ARP`,
        );
      }
    }
    if (requirement.kind === "decapsulation") {
      const attached = old.changes.find((change) => change.kind === "decapsulation");
      const same = attached?.interface === requirement.interface && attached.mode === requirement.mode;
      if (attached !== undefined && !same) {
        throw new RealServerError(
          "MODE_DIFFERS",
          `the program is attached to ${attached.interface} in mode ${attached.mode}: sluice real-server down first`,
        );
      }
    }
  }
}

async function holds(requirement: Requirement): Promise<boolean> {
  switch (requirement.kind) {
    case "sysctl":
      return ((await readSysctl(requirement.path)) ?? -1) >= requirement.minimum;
    case "address":
      return (await listAddresses()).some(
        (held) =>
          held.interface === requirement.interface && held.address === requirement.address && held.prefixLength === 32,
      );
    case "decapsulation":
      return await decapsulation.isAttached(requirement);
  }
}

/** The change that meets a requirement; undefined if it is met. The program is always renewed: it may be an older build's. */
async function changeFor(requirement: Requirement): Promise<Change | undefined> {
  switch (requirement.kind) {
    case "sysctl": {
      const before = await readSysctl(requirement.path);
      if (before === undefined) {
        throw new RealServerError("NO_SUCH_INTERFACE", `no sysctl ${requirement.path}: has its interface gone?`);
      }
      if (before >= requirement.minimum) return undefined;
      return { kind: "sysctl", path: requirement.path, before, after: requirement.minimum };
    }
    case "address":
      return (await holds(requirement)) ? undefined : requirement;
    case "decapsulation":
      return requirement;
  }
}

async function perform(change: Change): Promise<void> {
  switch (change.kind) {
    case "sysctl":
      await writeSysctl(change.path, change.after);
      return;
    case "address":
      await addHostAddress(change.interface, change.address);
      return;
    case "decapsulation":
      await decapsulation.attach(change);
      return;
  }
}

/** Undoes a change. What someone else has changed since stays as they left it. */
async function undo(change: Change): Promise<Item["result"]> {
  switch (change.kind) {
    case "sysctl":
      if ((await readSysctl(change.path)) !== change.after) return "left as it was changed since";
      await writeSysctl(change.path, change.before);
      return "undone";
    case "address":
      if (!(await holds(change))) return "left as it was changed since";
      await removeAddress(change.interface, change.address);
      return "undone";
    case "decapsulation":
      await decapsulation.detach(change);
      return "undone";
  }
}

/** Back to what an instance had before this run: its own earlier change, or none. */
async function revert(change: Change, old: State): Promise<void> {
  const earlier = old.changes.find((candidate) => subject(candidate) === subject(change));
  if (earlier?.kind === "decapsulation") await perform(earlier);
  else await undo(change);
}

/** Undoes those changes of an instance that `obsolete` picks, last first, and takes each out of the state as it goes. */
async function giveUp(state: State, obsolete: (change: Change) => boolean, directory: StateDirectory): Promise<Item[]> {
  const items: Item[] = [];
  const failures: unknown[] = [];
  let rest = state;
  for (const change of state.changes.filter(obsolete).reverse()) {
    try {
      const heir = await heirOf(change, state.instance, directory);
      if (heir === undefined) {
        items.push({ description: subject(change), result: await undo(change) });
      } else {
        await directory.save(withChange(heir, change));
        items.push({ description: subject(change), result: "left to another instance" });
      }
      rest = { ...rest, changes: rest.changes.filter((kept) => kept !== change) };
      await directory.save(rest);
    } catch (error) {
      failures.push(error);
    }
  }
  if (failures.length > 0) {
    throw new RealServerError(
      "UNDO_INCOMPLETE",
      `not everything could be undone, down may be tried again: ${failures.map(messageOf).join("; ")}`,
      { cause: failures[0] },
    );
  }
  return items;
}

async function heirOf(change: Change, instance: string, directory: StateDirectory): Promise<State | undefined> {
  const others = await directory.others(instance);
  return others.find(({ requirements }) =>
    requirements.some((requirement) => subject(requirement) === subject(change)),
  );
}

/** The first change of a subject knows what was there before us; a later one to the same subject only replaces the program's addresses. */
function withChange(state: State, change: Change): State {
  const index = state.changes.findIndex((candidate) => subject(candidate) === subject(change));
  if (index === -1) return { ...state, changes: [...state.changes, change] };
  return { ...state, changes: change.kind === "decapsulation" ? state.changes.with(index, change) : state.changes };
}

function checkOptions(options: UpOptions): void {
  checkInstance(options.instance);
  checkAddresses("--vip", options.virtualAddresses);
  if (options.tunnelAddresses === undefined) return;
  if (options.method === "dr") {
    throw new RealServerError("BAD_OPTION", "--tunnel-address belongs to --method tun: with dr nothing is unwrapped");
  }
  checkAddresses("--tunnel-address", options.tunnelAddresses);
  const both = options.tunnelAddresses.find((address) => options.virtualAddresses.includes(address));
  if (both !== undefined) {
    throw new RealServerError(
      "BAD_OPTION",
      `${both} is given as --vip and as --tunnel-address: a tunnel must end at an address of this host alone`,
    );
  }
}

function checkInstance(instance: string): void {
  if (!/^[A-Za-z0-9][A-Za-z0-9_-]{0,62}$/.test(instance)) {
    throw new RealServerError(
      "BAD_OPTION",
      `--instance "${instance}": allowed are 1 to 63 letters, digits, "-" and "_"`,
    );
  }
}

function checkAddresses(option: string, addresses: readonly string[]): void {
  if (addresses.length === 0) throw new RealServerError("BAD_OPTION", `${option} needs at least one IPv4 address`);
  for (const [index, address] of addresses.entries()) {
    const first = Number(address.split(".")[0]);
    if (!isIPv4(address) || first === 0 || first === 127 || first >= 224) {
      throw new RealServerError("BAD_OPTION", `${option} "${address}": allowed are IPv4 unicast addresses`);
    }
    if (addresses.indexOf(address) !== index) throw new RealServerError("BAD_OPTION", `${option}: ${address} twice`);
  }
}

function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
