/**
 * Every reason for which input is refused. Callers match on these; they never change their meaning.
 * docs/reference.md lists them for users.
 */
export const VIOLATION_CODES = [
  "ADDRESS_MALFORMED", // neither an IPv4 nor an IPv6 address
  "ADDRESS_NOT_UNICAST", // unspecified, loopback, link-local, multicast or broadcast
  "CAPACITY_EXCEEDED", // more services, real servers or local addresses than there is room for
  "DUPLICATE_INTERFACE",
  "DUPLICATE_LOCAL_ADDRESS",
  "DUPLICATE_POOL",
  "DUPLICATE_REAL_SERVER", // same address and port twice in one service
  "DUPLICATE_SERVICE", // same protocol, address and port, or same mark, twice
  "DURATION_MALFORMED",
  "DURATION_OUT_OF_RANGE",
  "ENDPOINT_MALFORMED", // no address, with a port or without
  "FAMILY_MISMATCH", // IPv4 and IPv6 in one mark rule
  "FAMILY_NOT_APPLICABLE", // only a firewall mark needs to be told its family
  "FULLNAT_WITHOUT_LOCAL_ADDRESSES", // a fullnat real server, but neither fullnat.local_addresses nor a pool
  "FWMARK_NOT_ALONE", // a firewall mark and an address: a service has either
  "FWMARK_OUT_OF_RANGE",
  "IMMUTABLE_FIELD", // part of a name: delete and create instead
  "INTERFACE_NAME_MALFORMED",
  "LIMIT_OUT_OF_RANGE",
  "LISTING_LIMIT_NEGATIVE",
  "LOWER_THRESHOLD_TOO_HIGH", // above the upper threshold, or without one
  "MISSING_FIELD",
  "NAME_MALFORMED", // a service's or real server's name, not its fields
  "NETMASK_MALFORMED",
  "NETWORK_MALFORMED", // no network, or one with bits behind its prefix
  "ONE_PACKET_NOT_APPLICABLE", // only UDP packets are scheduled one by one
  "PAGE_SIZE_NEGATIVE",
  "PAGE_TOKEN_MALFORMED",
  "POOL_IN_USE", // a fullnat pool that a service needs
  "POOL_NAME_MALFORMED",
  "PORTS_WITHOUT_PROTOCOL", // a mark rule of any protocol has no ports
  "PORT_MAPPING_IMPOSSIBLE", // dr, tun and a service of every port leave the packet's port as it is
  "PORT_OUT_OF_RANGE",
  "PORT_RANGE_MALFORMED",
  "PROTOCOL_CONTRADICTED", // a filter with a protocol and a service of another
  "RESTART_REQUIRED", // a setting that is fixed while the daemon runs
  "SCHEDULER_FLAG_NOT_APPLICABLE", // mh and sh have flags, each its own
  "SETTING_OUT_OF_RANGE",
  "SOCKET_PATH_INVALID",
  "TABLE_SIZE_NOT_APPLICABLE", // only mh has a table
  "TABLE_SIZE_UNKNOWN",
  "TABLE_TOO_SMALL", // fewer slots than real servers
  "THRESHOLD_OUT_OF_RANGE",
  "TIMEOUT_NOT_APPLICABLE", // of another protocol than the service's
  "UNKNOWN_FAMILY",
  "UNKNOWN_FIELD",
  "UNKNOWN_LOG_LEVEL",
  "UNKNOWN_METHOD",
  "UNKNOWN_MODE",
  "UNKNOWN_POOL", // no fullnat pool has that name
  "UNKNOWN_PROTOCOL",
  "UNKNOWN_REMOVED_CONNECTIONS",
  "UNKNOWN_SCHEDULER",
  "UNKNOWN_SCHEDULER_FLAG",
  "UNKNOWN_STATE",
  "UNKNOWN_TEMPLATE_SELECTION",
  "UNSUPPORTED_ADDRESS_FAMILY", // IPv6, which is not forwarded yet
  "WEIGHT_OUT_OF_RANGE",
  "WRONG_TYPE",
] as const;
export type ViolationCode = (typeof VIOLATION_CODES)[number];

export interface Violation {
  readonly code: ViolationCode;
  /** Where, as the user spelt it: `services[3].real_servers[0].port`. Empty for the whole input. */
  readonly field: string;
  /** The same as steps from the root. */
  readonly path: readonly (string | number)[];
  /** What stood there; undefined where nothing did. */
  readonly value: unknown;
  /** What may stand there, as a phrase. */
  readonly allowed: string;
  /** One sentence that says all of it. */
  readonly message: string;
}

/** A place in the input. A list from leaf to root, so that descending costs one small object and no copy. */
export interface Path {
  readonly parent: Path | undefined;
  readonly key: string | number;
}

export function at(parent: Path | undefined, key: string | number): Path {
  return { parent, key };
}

export function pathSteps(path: Path | undefined): (string | number)[] {
  const steps: (string | number)[] = [];
  for (let step = path; step !== undefined; step = step.parent) {
    steps.push(step.key);
  }
  return steps.reverse();
}

export function fieldName(steps: readonly (string | number)[]): string {
  let name = "";
  for (const step of steps) {
    name += typeof step === "number" ? `[${String(step)}]` : name === "" ? step : `.${step}`;
  }
  return name;
}

const SHOWN_LENGTH = 60;

/** A value as a short piece of a sentence. */
export function shown(value: unknown): string {
  if (value === null || value === undefined) {
    return "empty";
  }
  if (typeof value === "object") {
    return Array.isArray(value) ? "a list" : "a mapping";
  }
  // JSON has no NaN, Infinity or bigint.
  const text = typeof value === "number" || typeof value === "bigint" ? String(value) : JSON.stringify(value);
  return text.length > SHOWN_LENGTH ? `${text.slice(0, SHOWN_LENGTH)}…` : text;
}

/** Gathers what is wrong with an input, so that the user sees all of it at once. */
export class Violations {
  readonly list: Violation[] = [];

  /** `problem` is the sentence's predicate (default: "is VALUE; it takes ALLOWED"). */
  add(code: ViolationCode, path: Path | undefined, value: unknown, allowed: string, problem?: string): void {
    const steps = pathSteps(path);
    const field = fieldName(steps);
    const subject = field === "" ? "the input" : field;
    const predicate = problem ?? `is ${value === undefined ? "missing" : shown(value)}; it takes ${allowed}`;
    this.list.push({ code, field, path: steps, value, allowed, message: `${subject} ${predicate}` });
  }

  /** Throws what was gathered, if anything was. */
  throwIfAny(): void {
    if (this.list.length > 0) {
      throw new ModelError(this.list);
    }
  }
}

/** Input that was refused, with everything that is wrong with it. `code` is the first violation's. */
export class ModelError extends Error {
  override readonly name = "ModelError";
  readonly code: ViolationCode;
  readonly violations: readonly Violation[];

  constructor(violations: readonly Violation[]) {
    const first = violations[0];
    if (first === undefined) {
      throw new RangeError("a ModelError takes at least one violation");
    }
    super(violations.length === 1 ? first.message : `${first.message} (and ${String(violations.length - 1)} more)`);
    this.code = first.code;
    this.violations = violations;
  }
}
