import { type AddressFamily, parseAddress } from "./address.js";
import { formatDuration, readDuration } from "./duration.js";
import { codeFor, field, readFields } from "./read.js";
import { at, type Path, type Violations } from "./violation.js";

/** A client's connections keep the real server that its first one got. */
export interface Persistence {
  /** Seconds after the last new connection. */
  readonly timeout: number;
  /** Which bits of its address make a client one of its own. IPv4: a dotted mask, of any bits. IPv6: a prefix length, 1..128. */
  readonly netmask: string | number;
}

/** ipvsadm's, where -p has no value. */
const DEFAULT_TIMEOUT = 360;

/** Every address is a client of its own. */
const ALL_BITS: Readonly<Record<AddressFamily, string | number>> = { ipv4: "255.255.255.255", ipv6: 128 };

/** @param family the service's; undefined where it could not be read */
export function readPersistence(
  input: unknown,
  family: AddressFamily | undefined,
  path: Path,
  violations: Violations,
): Persistence | undefined {
  if (input === undefined) {
    return undefined;
  }
  const fields = readFields(input, path, ["timeout", "netmask"], violations);
  if (fields === undefined) {
    return undefined;
  }
  const givenTimeout = field(fields, "timeout");
  const timeout =
    givenTimeout === undefined ? DEFAULT_TIMEOUT : readDuration(givenTimeout, at(path, "timeout"), violations);
  const netmask = readNetmask(field(fields, "netmask"), family, at(path, "netmask"), violations);
  return timeout === undefined || netmask === undefined ? undefined : { timeout, netmask };
}

function readNetmask(
  input: unknown,
  family: AddressFamily | undefined,
  path: Path,
  violations: Violations,
): string | number | undefined {
  if (family === undefined) {
    return undefined;
  }
  if (input === undefined) {
    return ALL_BITS[family];
  }
  if (family === "ipv4") {
    // Any bits, not only leading ones, as ipvsadm's -M.
    if (typeof input === "string" && parseAddress(input)?.family === "ipv4") {
      return input;
    }
    const code = codeFor(input, "string", "NETMASK_MALFORMED");
    violations.add(code, path, input, "an IPv4 mask, as in 255.255.255.0");
    return undefined;
  }
  if (typeof input === "number" && Number.isInteger(input) && input >= 1 && input <= 128) {
    return input;
  }
  const code = codeFor(input, "number", "NETMASK_MALFORMED");
  violations.add(code, path, input, "a prefix length from 1 to 128 for IPv6");
  return undefined;
}

export interface PlainPersistence {
  readonly timeout: string;
  readonly netmask: string | number;
}

export function plainPersistence({ timeout, netmask }: Persistence): PlainPersistence {
  return { timeout: formatDuration(timeout), netmask };
}

export function samePersistence(a: Persistence | undefined, b: Persistence | undefined): boolean {
  return a === b || (a?.timeout === b?.timeout && a?.netmask === b?.netmask);
}
