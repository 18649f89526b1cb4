import { field, type IntegerRange, readChoice, readFields, readInteger, readList } from "./read.js";
import { at, type Path, type Violations } from "./violation.js";

/** Where the XDP program runs: in the driver, or (slower, but with any driver) in the generic receive path. */
export const ATTACH_MODES = ["native", "generic"] as const;
export type AttachMode = (typeof ATTACH_MODES)[number];

export interface InterfaceSettings {
  readonly name: string;
  readonly mode: AttachMode;
}

/** Sizes of the data plane's tables. They are fixed from load to unload, since the kernel cannot resize a map. */
export interface Limits {
  /** Entries of the connection table. A nat or fullnat connection takes two, a dr or tun connection one. */
  readonly connections: number;
  readonly services: number;
  /** Real servers of all services together. */
  readonly realServers: number;
  /** Slots of all services' scheduling rings together; an mh service takes table_size of them. */
  readonly ringSlots: number;
}

export const DEFAULT_LIMITS: Limits = {
  connections: 1_048_576,
  services: 4096,
  realServers: 65_536,
  ringSlots: 4_194_304,
};

/** Instance names become file names: a pin folder, a socket, a lock. */
const INSTANCE_NAME = /^[A-Za-z0-9][A-Za-z0-9_-]{0,62}$/;
export const DEFAULT_INSTANCE = "sluice";

export function isInstanceName(name: string): boolean {
  return INSTANCE_NAME.test(name);
}

/** The kernel's rule (net/core/dev.c, dev_valid_name), but for non-ASCII, which no tool prints well. */
function isInterfaceName(name: string): boolean {
  return /^[!-.0-9;-~]{1,15}$/.test(name) && name !== "." && name !== "..";
}

export function readInterfaces(input: unknown, path: Path, violations: Violations): readonly InterfaceSettings[] {
  const list = readList(input, path, "interface names", violations);
  const interfaces = new Map<string, InterfaceSettings>();
  for (const [index, item] of (list ?? []).entries()) {
    const settings = readInterface(item, at(path, index), violations);
    if (settings === undefined) {
      continue;
    }
    if (interfaces.has(settings.name)) {
      const allowed = "each interface once";
      const problem = `is ${settings.name} a second time; it takes ${allowed}`;
      violations.add("DUPLICATE_INTERFACE", at(path, index), settings.name, allowed, problem);
    }
    interfaces.set(settings.name, settings);
  }
  if (list?.length === 0) {
    violations.add("MISSING_FIELD", path, input, "at least one interface", "is empty; it takes at least one interface");
  }
  return [...interfaces.values()];
}

/** `c0`, or `{name: c0, mode: generic}`. */
function readInterface(input: unknown, path: Path, violations: Violations): InterfaceSettings | undefined {
  if (typeof input !== "object" || input === null) {
    const name = readInterfaceName(input, path, violations);
    return name === undefined ? undefined : { name, mode: "native" };
  }
  const fields = readFields(input, path, ["name", "mode"], violations);
  if (fields === undefined) {
    return undefined;
  }
  const name = readInterfaceName(field(fields, "name"), at(path, "name"), violations);
  const givenMode = field(fields, "mode");
  const mode =
    givenMode === undefined
      ? "native"
      : readChoice(givenMode, at(path, "mode"), ATTACH_MODES, "UNKNOWN_MODE", violations);
  return name === undefined || mode === undefined ? undefined : { name, mode };
}

function readInterfaceName(input: unknown, path: Path, violations: Violations): string | undefined {
  if (typeof input === "string" && isInterfaceName(input)) {
    return input;
  }
  const code =
    typeof input === "string"
      ? "INTERFACE_NAME_MALFORMED"
      : input === undefined || input === null
        ? "MISSING_FIELD"
        : "WRONG_TYPE";
  violations.add(code, path, input, "an interface's name of 1 to 15 characters");
  return undefined;
}

function entries(min: number, max: number): IntegerRange {
  return { min, max, code: "LIMIT_OUT_OF_RANGE", noun: "a whole number" };
}

export function readLimits(input: unknown, path: Path, violations: Violations): Limits {
  const known = ["connections", "services", "real_servers", "ring_slots"];
  const fields = input === undefined ? {} : (readFields(input, path, known, violations) ?? {});
  const read = (name: string, range: IntegerRange, otherwise: number): number => {
    const given = field(fields, name);
    return given === undefined ? otherwise : (readInteger(given, at(path, name), range, violations) ?? otherwise);
  };
  return {
    connections: read("connections", entries(1024, 2 ** 26), DEFAULT_LIMITS.connections),
    services: read("services", entries(1, 2 ** 20), DEFAULT_LIMITS.services),
    realServers: read("real_servers", entries(1, 2 ** 22), DEFAULT_LIMITS.realServers),
    ringSlots: read("ring_slots", entries(1024, 2 ** 28), DEFAULT_LIMITS.ringSlots),
  };
}
