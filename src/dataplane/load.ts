/**
 * Brings a data plane into the kernel, or takes over the one that runs. All or nothing: where a step fails, what was done is
 * undone, and a data plane that ran before runs on as it was.
 *
 * A first start pins everything in a folder of its own and shows that under the instance's name by one rename, so what
 * is pinned under it is always whole. A later one loads the program anew over the pinned maps, which keep every
 * connection, and swaps it in through the pinned links.
 */
import { randomBytes } from "node:crypto";
import { existsSync, rmSync } from "node:fs";
import { fileURLToPath } from "node:url";
import {
  BpfError,
  BpfMap,
  type BpfObject,
  Link,
  type OpenMap,
  type OpenObject,
  openObject,
  Program,
  possibleCpus,
} from "libbpf-ts";
import type { InterfaceSettings, Limits } from "../model/index.js";
import { attachAll, detachUnwanted, findInterface, type Interface } from "./attachment.js";
import { DataPlaneError } from "./error.js";
import type { Inventory } from "./inventory.js";
import { requireKernelFeatures } from "./kernel-features.js";
import type { Logger } from "./log.js";
import { type MappedTables, mapTables } from "./mapped-tables.js";
import { requirePermission } from "./permission.js";
import { type Pins, requireBpffs } from "./pins.js";
import { readInventory } from "./read-inventory.js";
import { limitsDiffer, mapSize, REMEDY } from "./sizes.js";
import { inSlices } from "./slices.js";
import { Abi, type DropCounter, DropReason, type Identity } from "./sluice.bpf.js";
import { allOrNothing, type Undo } from "./undo.js";

export interface LoadOptions {
  readonly interfaces: readonly InterfaceSettings[];
  readonly limits: Limits;
  readonly objectPath?: string | undefined;
  readonly signal?: AbortSignal | undefined;
  readonly log: Logger;
}

export interface Loaded extends Contents {
  readonly object: BpfObject;
  readonly interfaces: readonly Interface[];
  readonly identity: Identity;
  /** Whether a data plane ran before. */
  readonly adopted: boolean;
}

interface Contents {
  readonly tables: MappedTables;
  /** What they hold. */
  readonly inventory: Inventory;
}

/** Where `make build` leaves it; this file is dist/src/dataplane/load.js then. */
const DEFAULT_OBJECT = fileURLToPath(new URL("../../../build/bpf/sluice.bpf.o", import.meta.url));

const MAIN_PROGRAM = "sluice";
const ITERATOR_PROGRAM = "list_connections";
const PINNED_PROGRAMS = [MAIN_PROGRAM, "open_connection", "sweep", "resolve_route"];

/**
 * Where the main program finds the ones that it goes on with. Each load has its own, which leads to its own programs. The kernel
 * empties such a map when nobody has it open or pinned any more, though an attached program uses it; so it is pinned before the program
 * that uses it is attached, and stays so until another one is.
 */
const PROGRAM_TABLE = "ways";
/** What a packet on its way leaves to itself: of no use to another program. */
const SCRATCH = ["openings", "icmp_budget"];

export async function load(pins: Pins, options: LoadOptions): Promise<Loaded> {
  requireBpffs(pins);
  const interfaces = options.interfaces.map(findInterface);
  requirePermission();
  requireKernelFeatures();
  pins.staging.remove();
  return pins.exists
    ? adopt(pins, interfaces, options)
    : allOrNothing(options.log, (undo) => loadFirst(pins, interfaces, options, undo));
}

async function loadFirst(
  pins: Pins,
  interfaces: readonly Interface[],
  { limits, objectPath, signal, log }: LoadOptions,
  undo: Undo,
): Promise<Loaded> {
  using open = openSluice(objectPath);
  const identity = newIdentity(open, limits);
  setSizes(open, limits);
  setRodata(open, identity);
  const object = await loadObject(open);
  undo.add("loading", () => {
    object.close();
  });
  object.map<number, Identity>("identity").set(0, identity);
  nameDrops(object);
  const contents = await readContents(object, undo, signal);

  const { staging } = pins;
  undo.add("pinning", () => {
    staging.remove();
  });
  staging.create();
  for (const [name, map] of keptMaps(object.maps)) {
    map.pin(staging.map(name));
  }
  object.map(PROGRAM_TABLE).pin(staging.map(PROGRAM_TABLE));
  for (const name of PINNED_PROGRAMS) {
    object.program(name).pin(staging.program(name));
  }
  await pinIterator(object, staging);
  staging.moveTo(pins);
  undo.add("pinning", () => {
    pins.remove();
  });
  await attachAll(interfaces, object.program(MAIN_PROGRAM), undefined, pins, undo, log);
  return { object, ...contents, interfaces, identity, adopted: false };
}

async function adopt(pins: Pins, interfaces: readonly Interface[], options: LoadOptions): Promise<Loaded> {
  const identity = readIdentity(pins);
  using previous = Program.open(pins.program(MAIN_PROGRAM));
  const { programTable, ...replaced } = await allOrNothing(options.log, (undo) =>
    replace(pins, interfaces, identity, previous, options, undo),
  );
  try {
    const detached = await detachUnwanted(interfaces, pins);
    if (detached.length > 0) {
      options.log.info({ interfaces: detached }, "detached from interfaces that are no longer configured");
    }
    // No interface runs a program with an older table now.
    pins.replaceMap(PROGRAM_TABLE, programTable);
  } catch (error) {
    options.log.error(
      { err: error },
      "cannot detach from interfaces that are no longer configured; what they run stays",
    );
  }
  return { ...replaced, interfaces, identity, adopted: true };
}

/**
 * Loads this build's programs over the pinned maps and puts them in the place of those that run, once it is clear that these
 * maps can be gone on with.
 */
async function replace(
  pins: Pins,
  interfaces: readonly Interface[],
  identity: Identity,
  previous: Program,
  { limits, objectPath, signal, log }: LoadOptions,
  undo: Undo,
): Promise<Contents & { readonly object: BpfObject; readonly programTable: string }> {
  using open = openSluice(objectPath);
  setSizes(open, limits);
  setRodata(open, identity);
  const missing = reusePinned(open, pins, limits);
  const object = await loadObject(open);
  undo.add("loading", () => {
    object.close();
  });
  const contents = await readContents(object, undo, signal);
  for (const name of missing) {
    const path = pins.map(name);
    undo.add(`pinning the map ${name}`, () => {
      rmSync(path, { force: true });
    });
    object.map(name).pin(path);
  }
  const programTable = pins.anotherMap(PROGRAM_TABLE);
  undo.add("pinning the program table", () => {
    rmSync(programTable, { force: true });
  });
  object.map(PROGRAM_TABLE).pin(programTable);
  await attachAll(interfaces, object.program(MAIN_PROGRAM), previous, pins, undo, log);
  await pinIterator(object, pins);
  // The main one last: a restart tells by it what the interfaces run. The others are pinned for operators to look at.
  for (const name of PINNED_PROGRAMS.toReversed()) {
    pins.replace(pins.program(name), object.program(name));
  }
  return { object, ...contents, programTable };
}

/** @throws DataPlaneError PINS_DAMAGED */
async function readContents(object: BpfObject, undo: Undo, signal: AbortSignal | undefined): Promise<Contents> {
  const tables = mapTables(object);
  undo.add("mapping", () => {
    tables.close();
  });
  return { tables, inventory: await inSlices(readInventory(tables, performance.now()), signal) };
}

function openSluice(path = DEFAULT_OBJECT): OpenObject {
  if (!existsSync(path)) {
    throw new DataPlaneError("LOAD_FAILED", `there is no compiled data plane at ${path}`, {
      remedy: "run `make build`",
    });
  }
  try {
    return openObject(path, { name: "sluice" });
  } catch (error) {
    throw loadError(error);
  }
}

async function loadObject(open: OpenObject): Promise<BpfObject> {
  try {
    return await open.load();
  } catch (error) {
    throw loadError(error);
  }
}

function loadError(cause: unknown): DataPlaneError {
  const reason = cause instanceof Error ? cause.message : String(cause);
  const advice = cause instanceof BpfError ? cause.advice : undefined;
  const details = advice === undefined ? { cause } : { cause, remedy: advice };
  return new DataPlaneError("LOAD_FAILED", `the data plane does not load: ${reason}`, details);
}

function setSizes(open: OpenObject, limits: Limits): void {
  for (const [name, map] of open.maps) {
    const size = mapSize(name, limits);
    if (size !== undefined) {
      map.setMaxEntries(size);
    }
  }
}

function setRodata(open: OpenObject, { buckets, hash_seed }: Identity): void {
  open.setRodata({ connection_buckets: buckets, hash_seed });
}

function newIdentity(open: OpenObject, limits: Limits): Identity {
  const words = open.btf.codec<Identity>("identity").size;
  const random = new BigUint64Array(new Uint8Array(randomBytes(words)).buffer.slice(0, words & ~7));
  const { hash_seed } = open.btf.codec<Identity>("identity").decode(new Uint8Array(words));
  return {
    abi_version: Abi.ABI_VERSION,
    buckets: mapSize("connection_table", limits)!,
    hash_seed: hash_seed.map((_, index) => random[index]!),
  };
}

/** @throws DataPlaneError PINS_DAMAGED, ABI_DIFFERS */
function readIdentity(pins: Pins): Identity {
  let identity: Identity | undefined;
  try {
    using map = BpfMap.open<number, Identity>(pins.map("identity"));
    identity = map.get(0);
  } catch (cause) {
    throw new DataPlaneError("PINS_DAMAGED", `what is pinned at ${pins.root} is no data plane`, {
      cause,
      remedy: REMEDY,
    });
  }
  const running = identity?.abi_version ?? 0;
  if (identity === undefined || running !== Abi.ABI_VERSION) {
    const message = `the running data plane has ABI version ${String(running)}, this build has ${String(Abi.ABI_VERSION)}`;
    throw new DataPlaneError("ABI_DIFFERS", message, {
      wanted: Abi.ABI_VERSION,
      available: running,
      remedy: REMEDY,
    });
  }
  return identity;
}

/** Makes the object use the pinned maps; returns the names of those that are not pinned. */
function reusePinned(open: OpenObject, pins: Pins, limits: Limits): string[] {
  const missing: string[] = [];
  for (const [name, wanted] of keptMaps(open.maps)) {
    const path = pins.map(name);
    if (!existsSync(path)) {
      missing.push(name);
      continue;
    }
    using running = BpfMap.open(path);
    requireSame(name, wanted, running, limits);
    wanted.reuse(running);
  }
  return missing;
}

function requireSame(name: string, wanted: OpenMap, running: BpfMap, limits: Limits): void {
  const { type, keySize, valueSize } = wanted;
  if (running.type !== type || running.keySize !== keySize || running.valueSize !== valueSize) {
    const shape = (map: OpenMap | BpfMap): string =>
      `${map.type} with ${String(map.keySize)}-byte keys and ${String(map.valueSize)}-byte values`;
    throw new DataPlaneError(
      "ABI_DIFFERS",
      `the running map ${name} is a ${shape(running)}, this build's a ${shape(wanted)}`,
      {
        wanted: shape(wanted),
        available: shape(running),
        remedy: REMEDY,
      },
    );
  }
  if (running.maxEntries !== wanted.maxEntries) {
    throw limitsDiffer(name, running.maxEntries, limits);
  }
}

/** Those that outlive the program: not the program table and scratch, nor what libbpf makes of global variables. */
function* keptMaps<T>(maps: Iterable<[string, T]>): Iterable<[string, T]> {
  for (const [name, map] of maps) {
    if (!name.includes(".") && name !== PROGRAM_TABLE && !SCRATCH.includes(name)) {
      yield [name, map];
    }
  }
}

async function pinIterator(object: BpfObject, pins: Pins): Promise<void> {
  using link = await Link.attachIterator(object.program(ITERATOR_PROGRAM), { map: object.map("connection_table") });
  pins.replace(pins.connections, link);
}

/** So that a dump of the map says which drops an element counts. */
function nameDrops(object: BpfObject): void {
  const drops = object.map<number, DropCounter>("drops");
  const cpus = possibleCpus();
  for (const reason of Object.values(DropReason)) {
    if (reason < DropReason.DROP_REASONS) {
      drops.setPerCpu(
        reason,
        Array.from({ length: cpus }, () => ({ reason, packets: 0n, bytes: 0n })),
      );
    }
  }
}
