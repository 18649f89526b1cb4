import {
  addon,
  type Loaded,
  type LoadFailure,
  type MapDescription,
  type ObjectHandle,
  type ProgramDescription,
} from "./addon.js";
import { Btf } from "./btf.js";
import type { Section } from "./btf-types.js";
import { BpfError, errno, kernelError, requireInteger } from "./error.js";
import { type MapType, mapTypeName, type ProgramType, programTypeName } from "./kernel-types.js";
import { explainLoadFailure } from "./load-failure.js";
import { type BpfMap, handleOfMap, wrapMap } from "./map.js";
import type { MapTypes } from "./map-definition.js";
import { requirePinPath } from "./pin.js";
import { type Program, wrapProgram } from "./program.js";
import { openSource } from "./source.js";

export interface OpenOptions {
  /** Of the object; begins the kernel's names of its data sections. Default: the file's name. */
  readonly name?: string;
  /** Where maps with __uint(pinning, LIBBPF_PIN_BY_NAME) are pinned. Default: /sys/fs/bpf. */
  readonly pinRootPath?: string;
}

/** A map of an open object, as OpenObject keeps it. */
interface MapPlan {
  readonly index: number;
  readonly name: string;
  readonly description: MapDescription;
  pinPath: string | undefined;
  reused: boolean;
}

/** Phase one of an object: parsed, nothing in the kernel yet, everything about its maps and programs still open. */
export function openObject(source: string | Uint8Array, options: OpenOptions = {}): OpenObject {
  const { handle, name } = openSource(source, options);
  const raw = addon.objectBtf(handle);
  if (raw === undefined) {
    addon.closeObject(handle);
    throw new BpfError("INVALID_OBJECT", `${name} has no BTF: compile it with -g`);
  }
  try {
    return new OpenObject(handle, name, new Btf(raw));
  } catch (error) {
    addon.closeObject(handle);
    throw error;
  }
}

/** An object that is open and not loaded. Closing is needed only where it is not loaded. */
export class OpenObject {
  readonly name: string;
  readonly btf: Btf;
  /** Data sections are maps too: ".rodata", ".data", ".bss". */
  readonly maps: ReadonlyMap<string, OpenMap>;
  readonly programs: ReadonlyMap<string, OpenProgram>;
  readonly #plans: readonly MapPlan[];
  readonly #programNames: readonly string[];
  #handle: ObjectHandle | undefined;

  /** Made by openObject. */
  constructor(handle: ObjectHandle, name: string, btf: Btf) {
    this.#handle = handle;
    this.name = name;
    this.btf = btf;
    const opened = (): ObjectHandle => this.#open();
    const sections = sectionNames(btf, handle);
    this.#plans = addon.objectMaps(handle).map((description, index) => ({
      index,
      name: sections.get(index) ?? description.name,
      description,
      pinPath: description.pinPath,
      reused: false,
    }));
    this.maps = new Map(this.#plans.map((plan) => [plan.name, new OpenMap(opened, plan)]));
    const programs = addon.objectPrograms(handle);
    this.#programNames = programs.map((description) => description.name);
    this.programs = new Map(
      programs.map((description, index) => [description.name, new OpenProgram(opened, index, description)]),
    );
  }

  #open(): ObjectHandle {
    if (this.#handle === undefined) throw new BpfError("CLOSED", `object ${this.name} is closed or loaded`);
    return this.#handle;
  }

  map(name: string): OpenMap {
    return named(this.maps, "NO_SUCH_MAP", `object ${this.name} has no map ${name}`, name);
  }

  program(name: string): OpenProgram {
    return named(this.programs, "NO_SUCH_PROGRAM", `object ${this.name} has no program ${name}`, name);
  }

  /** Constants (`const volatile` variables) by name. The verifier and the JIT see their values. All are encoded before any is set. */
  setRodata(values: Readonly<Record<string, unknown>>): void {
    this.#setVariables(values, [".rodata"]);
  }

  /** What global variables begin with, by name. */
  setData(values: Readonly<Record<string, unknown>>): void {
    this.#setVariables(values, [".data", ".bss"]);
  }

  #setVariables(values: Readonly<Record<string, unknown>>, prefixes: readonly string[]): void {
    const handle = this.#open();
    const plans = this.#plans.filter(
      ({ name, description }) => description.internal && prefixes.some((prefix) => name.startsWith(prefix)),
    );
    const sections = plans.flatMap(({ index, name }) => {
      const section = this.btf.section(name);
      const bytes = addon.initialValue(handle, index);
      return section === undefined || bytes === undefined ? [] : [{ index, section, bytes, changed: false }];
    });
    for (const [name, value] of Object.entries(values)) {
      const found = sections.flatMap((data) =>
        this.#variables(data.section, name).map((variable) => ({ data, variable })),
      );
      const [only] = found;
      if (only === undefined || found.length > 1) {
        const known = sections.flatMap(({ section }) => section.variables.map(({ type }) => this.btf.type(type).name));
        const why = only === undefined ? "has no variable" : "has more than one variable";
        throw new BpfError(
          "NO_SUCH_VARIABLE",
          `object ${this.name} ${why} ${name} in ${prefixes.join(" and ")}; it has ${known.join(", ") || "none"}`,
        );
      }
      const codec = this.btf.codecOf(only.variable.type);
      codec.encodeInto(value, only.data.bytes, only.variable.offset);
      only.data.changed = true;
    }
    for (const { index, bytes, changed } of sections) {
      if (!changed) continue;
      const error = addon.setInitialValue(handle, index, bytes);
      if (error < 0)
        throw kernelError(`cannot set variables of ${this.name}`, "bpf_map__set_initial_value", error, {
          [errno.EBUSY]: {
            code: "INVALID_ARGUMENT",
            advice: "the section's map is a reused one, which has its values",
          },
        });
    }
  }

  #variables(section: Section, name: string): Section["variables"] {
    return section.variables.filter(({ type }) => this.btf.type(type).name === name);
  }

  /**
   * Makes the maps and loads the programs, on the thread pool. Consumes this object, also when it fails. Pins that were made are
   * taken away again when a later one fails. VERIFIER_REJECTED has the verifier's whole output as its log.
   */
  async load(): Promise<BpfObject> {
    const handle = this.#open();
    this.#handle = undefined;
    const pins = this.#plans.map((plan) => plan.pinPath);
    const reused = this.#plans.map((plan) => plan.reused);
    const loaded = await addon.loadObject(handle, pins, reused);
    if ("errno" in loaded) throw this.#explain(loaded);
    return new BpfObject(this.name, this.btf, this.#wrapMaps(loaded.maps), this.#wrapPrograms(loaded.programs));
  }

  #explain(failure: LoadFailure): BpfError {
    const plan = this.#plans[failure.map];
    return explainLoadFailure(
      this.name,
      failure,
      plan && { name: plan.name, pinPath: plan.pinPath },
      this.#plans.map(({ description }) => description),
    );
  }

  #wrapMaps(handles: Loaded["maps"]): Map<string, BpfMap> {
    const maps = new Map<string, BpfMap>();
    for (const { index, name, description } of this.#plans) {
      const handle = handles[index];
      if (handle !== undefined) maps.set(name, wrapMap(handle, name, this.btf, this.#types(name, description)));
    }
    return maps;
  }

  /** As the object defines them, also where the kernel keeps no BTF with the map. */
  #types(name: string, description: MapDescription): MapTypes {
    if (!description.internal) return { key: description.keyTypeId, value: description.valueTypeId };
    const section = this.btf.types.findIndex((type) => type.kind === "section" && type.name === name);
    return { key: "index", value: Math.max(section, 0) };
  }

  #wrapPrograms(handles: Loaded["programs"]): Map<string, Program> {
    const programs = new Map<string, Program>();
    for (const [index, name] of this.#programNames.entries()) {
      const handle = handles[index];
      if (handle !== undefined) programs.set(name, wrapProgram(handle, name));
    }
    return programs;
  }

  close(): void {
    if (this.#handle === undefined) return;
    addon.closeObject(this.#handle);
    this.#handle = undefined;
  }

  [Symbol.dispose](): void {
    this.close();
  }
}

/** Data sections by their maps' indexes: libbpf's own names of these maps begin with the object's and are cut short. */
function sectionNames(btf: Btf, handle: ObjectHandle): Map<number, string> {
  const names = new Map<number, string>();
  for (const type of btf.types) {
    if (type.kind !== "section" || !type.name.startsWith(".") || type.name === ".maps") continue;
    const index = addon.findSection(handle, type.name);
    if (index >= 0) names.set(index, type.name);
  }
  return names;
}

function named<T>(
  all: ReadonlyMap<string, T>,
  code: "NO_SUCH_MAP" | "NO_SUCH_PROGRAM",
  problem: string,
  name: string,
): T {
  const found = all.get(name);
  if (found === undefined) throw new BpfError(code, `${problem}; there are ${[...all.keys()].join(", ") || "none"}`);
  return found;
}

/** A map before it is made. */
export class OpenMap {
  readonly name: string;
  readonly type: MapType;
  /** Bytes. */
  readonly keySize: number;
  readonly valueSize: number;
  readonly flags: number;
  readonly #opened: () => ObjectHandle;
  readonly #plan: MapPlan;

  /** Made by OpenObject. */
  constructor(opened: () => ObjectHandle, plan: MapPlan) {
    this.#opened = opened;
    this.#plan = plan;
    this.name = plan.name;
    this.type = mapTypeName(plan.description.type);
    this.keySize = plan.description.keySize;
    this.valueSize = plan.description.valueSize;
    this.flags = plan.description.flags;
  }

  #check(error: number, action: string): void {
    if (error < 0) throw kernelError(`cannot ${action} map ${this.name}`, "libbpf", error);
  }

  get maxEntries(): number {
    return addon.maxEntries(this.#opened(), this.#plan.index);
  }

  set maxEntries(count: number) {
    this.setMaxEntries(count);
  }

  /** A ring buffer's size in bytes is rounded up to a power-of-two number of pages. */
  setMaxEntries(count: number): void {
    const handle = this.#opened();
    requireInteger(`map ${this.name}: maxEntries`, count, 1, 0xffffffff);
    if (this.#plan.description.internal)
      throw new BpfError("WRONG_MAP_TYPE", `${this.name} is a data section: it has one element`);
    if (this.#plan.reused)
      throw new BpfError("INVALID_ARGUMENT", `map ${this.name} is a reused one, which has its size already`);
    this.#check(addon.setMaxEntries(handle, this.#plan.index, count), "set the size of");
  }

  /** load() uses the map that is pinned there, if it fits (PIN_DOES_NOT_FIT), and pins a new one there otherwise. Undefined: no pin. */
  setPinPath(path: string | undefined): void {
    this.#opened();
    if (path !== undefined) requirePinPath(path);
    this.#plan.pinPath = path;
  }

  get pinPath(): string | undefined {
    return this.#plan.pinPath;
  }

  /** Uses this kernel map instead of making one. It stays the caller's, who may close it at once. */
  reuse(map: BpfMap): void {
    const handle = this.#opened();
    const existing = handleOfMap("the map to reuse", map);
    for (const parameter of ["type", "keySize", "valueSize"] as const) {
      if (map[parameter] !== this[parameter])
        throw new BpfError(
          "INVALID_ARGUMENT",
          `map ${this.name} cannot be map ${map.name}: its ${parameter} is ${map[parameter]}, must be ${this[parameter]}`,
        );
    }
    this.#check(addon.reuse(handle, this.#plan.index, existing), "reuse a map for");
    this.#plan.reused = true;
  }

  /** False: the map is not made; programs that use it must not be loaded either. */
  setAutocreate(on: boolean): void {
    this.#check(addon.setAutocreate(this.#opened(), this.#plan.index, on), "set autocreate of");
  }

  /** What the maps in this map are like. Stays the caller's. Not needed where the object defines it (__array(values, ...)). */
  setInnerTemplate(map: BpfMap): void {
    const handle = this.#opened();
    const inner = handleOfMap("the inner template", map);
    const error = addon.setInnerTemplate(handle, this.#plan.index, inner);
    if (error === -errno.EINVAL)
      throw new BpfError(
        "INVALID_ARGUMENT",
        `map ${this.name} (${this.type}) takes no template: it is no map of maps, or has one`,
      );
    this.#check(error, "set the template of");
  }
}

/** A program before it is loaded. */
export class OpenProgram {
  readonly name: string;
  readonly type: ProgramType;
  /** The ELF section, without a "?" at its beginning: "xdp", "syscall", "iter/bpf_map_elem". */
  readonly section: string;
  readonly #opened: () => ObjectHandle;
  readonly #index: number;
  #autoload: boolean;

  /** Made by OpenObject. */
  constructor(opened: () => ObjectHandle, index: number, description: ProgramDescription) {
    this.#opened = opened;
    this.#index = index;
    this.name = description.name;
    this.type = programTypeName(description.type);
    this.section = description.section;
    this.#autoload = description.autoload;
  }

  get autoload(): boolean {
    return this.#autoload;
  }

  set autoload(on: boolean) {
    this.setAutoload(on);
  }

  /** Whether load() loads it. Sections whose name begins with "?" say no from the start. */
  setAutoload(on: boolean): void {
    const error = addon.setAutoload(this.#opened(), this.#index, on);
    if (error < 0) throw kernelError(`cannot set autoload of program ${this.name}`, "libbpf", error);
    this.#autoload = on;
  }
}

/** A loaded object: its maps and programs, which it owns. */
export class BpfObject {
  readonly name: string;
  readonly btf: Btf;
  readonly maps: ReadonlyMap<string, BpfMap>;
  readonly programs: ReadonlyMap<string, Program>;

  /** Made by OpenObject.load. */
  constructor(name: string, btf: Btf, maps: ReadonlyMap<string, BpfMap>, programs: ReadonlyMap<string, Program>) {
    this.name = name;
    this.btf = btf;
    this.maps = maps;
    this.programs = programs;
  }

  /** Closed with the object. The type parameters are the caller's word, best taken from the generated `Maps`. */
  map<K = unknown, V = unknown>(name: string): BpfMap<K, V> {
    return named(this.maps, "NO_SUCH_MAP", `object ${this.name} made no map ${name}`, name) as BpfMap<K, V>;
  }

  /** Closed with the object. */
  program(name: string): Program {
    return named(this.programs, "NO_SUCH_PROGRAM", `object ${this.name} loaded no program ${name}`, name);
  }

  /** Closes all maps and programs. What is pinned or attached lives on. */
  close(): void {
    for (const map of this.maps.values()) map.close();
    for (const program of this.programs.values()) program.close();
  }

  [Symbol.dispose](): void {
    this.close();
  }
}
