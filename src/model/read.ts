import { ADDRESS_FAMILIES, type AddressFamily, parseAddress } from "./address.js";
import { nearest } from "./nearest.js";
import { at, type Path, shown, type ViolationCode, type Violations } from "./violation.js";

/*
 * Readers of untrusted plain values. Each returns the value it read, or undefined after adding a violation. A reader does not stop
 * at the first violation of its parts.
 */

export type Fields = Readonly<Record<string, unknown>>;

/** A mapping with no fields but the known ones. */
export function readFields(
  input: unknown,
  path: Path | undefined,
  known: readonly string[],
  violations: Violations,
): Fields | undefined {
  if (typeof input !== "object" || input === null || Array.isArray(input)) {
    const allowed = `a mapping with ${known.join(", ")}`;
    violations.add(input === undefined ? "MISSING_FIELD" : "WRONG_TYPE", path, input, allowed);
    return undefined;
  }
  for (const key of Object.keys(input)) {
    if (!known.includes(key)) {
      const meant = nearest(key, known);
      const allowed = `the fields ${known.join(", ")}`;
      const advice = meant === undefined ? `there are ${known.join(", ")}` : `did you mean ${meant}?`;
      violations.add(
        "UNKNOWN_FIELD",
        at(path, key),
        (input as Fields)[key],
        allowed,
        `is not a known field; ${advice}`,
      );
    }
  }
  return input as Fields;
}

/** An own field: what the prototype has (`constructor`, …) was not written by the user. */
export function field(fields: Fields, name: string): unknown {
  return Object.hasOwn(fields, name) ? fields[name] : undefined;
}

/** A list; a field left empty is the empty list, as YAML's `services:` with nothing below. */
export function readList(
  input: unknown,
  path: Path,
  of: string,
  violations: Violations,
): readonly unknown[] | undefined {
  if (input === null) {
    return [];
  }
  if (Array.isArray(input)) {
    return input as readonly unknown[];
  }
  violations.add(input === undefined ? "MISSING_FIELD" : "WRONG_TYPE", path, input, `a list of ${of}`);
  return undefined;
}

export interface IntegerRange {
  readonly min: number;
  readonly max: number;
  readonly code: ViolationCode;
  /** What it is, for the message: "a port". */
  readonly noun: string;
}

export function readInteger(
  input: unknown,
  path: Path,
  range: IntegerRange,
  violations: Violations,
): number | undefined {
  if (typeof input === "number" && Number.isInteger(input) && input >= range.min && input <= range.max) {
    return input;
  }
  const allowed = `${range.noun} from ${String(range.min)} to ${String(range.max)}`;
  violations.add(codeFor(input, "number", range.code), path, input, allowed);
  return undefined;
}

export function readBoolean(input: unknown, path: Path, violations: Violations): boolean | undefined {
  if (typeof input === "boolean") {
    return input;
  }
  violations.add(codeFor(input, "boolean", "WRONG_TYPE"), path, input, "true or false");
  return undefined;
}

/** One of a few words. */
export function readChoice<T extends string>(
  input: unknown,
  path: Path,
  choices: readonly T[],
  code: ViolationCode,
  violations: Violations,
): T | undefined {
  const choice = choices.find((c) => c === input);
  if (choice !== undefined) {
    return choice;
  }
  const allowed = choices.length === 1 ? String(choices[0]) : `one of ${choices.join(", ")}`;
  violations.add(codeFor(input, "string", code), path, input, allowed);
  return undefined;
}

export function readText(input: unknown, path: Path, noun: string, violations: Violations): string | undefined {
  if (typeof input === "string" && input !== "") {
    return input;
  }
  violations.add(codeFor(input, "string", "MISSING_FIELD"), path, input, noun);
  return undefined;
}

/** The families that the data plane forwards. Everything above it is laid out for both. */
const FORWARDED: readonly AddressFamily[] = ["ipv4"];
/** What a message says of them. */
export const FAMILIES = FORWARDED.join(" or ");

/** Adds a violation where packets of the family would not be forwarded; tells whether they are. */
export function requireForwarded(
  family: AddressFamily,
  input: unknown,
  path: Path,
  allowed: string,
  violations: Violations,
): boolean {
  if (FORWARDED.includes(family)) {
    return true;
  }
  const problem = `is ${shown(input)}; IPv6 is not forwarded yet, it takes ${allowed}`;
  violations.add("UNSUPPORTED_ADDRESS_FAMILY", path, input, allowed, problem);
  return false;
}

/** One that is not forwarded is a violation, but returned. */
export function readFamily(input: unknown, path: Path, violations: Violations): AddressFamily | undefined {
  const family = readChoice(input, path, ADDRESS_FAMILIES, "UNKNOWN_FAMILY", violations);
  if (family !== undefined) {
    requireForwarded(family, input, path, FAMILIES, violations);
  }
  return family;
}

export function readUnicastAddress(input: unknown, path: Path, violations: Violations): string | undefined {
  const allowed = "a unicast IPv4 address";
  const parsed = typeof input === "string" ? parseAddress(input) : undefined;
  if (parsed === undefined) {
    violations.add(codeFor(input, "string", "ADDRESS_MALFORMED"), path, input, allowed);
    return undefined;
  }
  if (!requireForwarded(parsed.family, input, path, allowed, violations)) {
    return undefined;
  }
  if (!parsed.unicast) {
    violations.add("ADDRESS_NOT_UNICAST", path, input, allowed);
    return undefined;
  }
  return parsed.address;
}

/** The code for what is no valid value: whether it is missing, of another type than `type`, or `otherwise`. */
export function codeFor(
  input: unknown,
  type: "boolean" | "number" | "string",
  otherwise: ViolationCode,
): ViolationCode {
  if (input === undefined || input === null) {
    return "MISSING_FIELD";
  }
  return typeof input === type ? otherwise : "WRONG_TYPE";
}
