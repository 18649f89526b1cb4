import { constants } from "node:os";
import { addon } from "./addon.js";

/** Every code that a BpfError can have. They are stable: match on them, not on messages. */
export const errorCodes = {
  CLOSED: "the handle was closed, or the open object loaded, before this call",
  INVALID_ARGUMENT: "an argument has the wrong type or is out of range, or the kernel refused the combination",
  WRONG_SIZE: "a key, a value or another buffer has the wrong length",
  INVALID_VALUE: "a value does not fit its BTF type; the message has the path to the field",
  INVALID_OBJECT: "not an ELF object for BPF, or one that libbpf cannot open; the log says why",
  INVALID_BTF: "the BTF is damaged or contradicts itself",
  UNSUPPORTED_TYPE: "a BTF type that has no counterpart in JavaScript",
  UNSUPPORTED: "the running kernel does not offer this",
  NO_SUCH_FILE: "no such file or pin",
  NO_SUCH_MAP: "the object has no map of this name; the message names those it has",
  NO_SUCH_PROGRAM: "the object has no program of this name, or it was not loaded",
  NO_SUCH_VARIABLE: "the object has no variable of this name in the sections concerned",
  NO_SUCH_TYPE: "BTF has no type of this name, or there is no such map, program or helper type",
  NO_SUCH_FIELD: "the type has no such field",
  NO_SUCH_INTERFACE: "no such interface in the current network namespace",
  NO_SUCH_KEY: "an update with mode `existing`, and the key is not there; or a key beyond an array's end",
  KEY_EXISTS: "an update with mode `new`, and the key is there",
  MAP_FULL: "the map has max_entries elements already",
  FROZEN: "the map is frozen or read-only for user space",
  WRONG_MAP_TYPE: "the operation does not exist for maps of this type",
  WRONG_PROGRAM_TYPE: "the operation does not exist for programs of this type",
  WRONG_KIND: "a pin is of another kind: a map where a program was wanted, and so on",
  PIN_EXISTS: "there is something at the path already",
  PIN_DIFFERS: "what is pinned at the path is not the object that was to be unpinned",
  PIN_DOES_NOT_FIT: "a pinned map differs from the object's definition; the message names the parameter",
  NOT_BPFFS: "the path is not on a BPF file system",
  VERIFIER_REJECTED:
    "the verifier refused a program; its last meaningful line is the message, its whole output the log",
  LOAD_FAILED: "loading failed for another reason; the log has libbpf's words",
  INTERFACE_BUSY: "another XDP program or link is attached to the interface",
  LINK_DETACHED: "the link is no longer attached to anything",
  EXPECTED_PROGRAM_DIFFERS: "the link runs another program than the one it was expected to",
  OUTPUT_TOO_SMALL: "a test run's output does not fit the buffer that was asked for",
  OUTPUT_TOO_LARGE: "an iterator's text exceeds the limit",
  INTERRUPTED: "a signal came between two repeats of a test run",
  ITERATION_UNSTABLE: "the map changed so fast that an iteration had to start again too often",
  NAME_CLASH: "the generator would give two types the same name",
  PERMISSION_DENIED: "the process lacks a capability",
  OUT_OF_MEMORY: "the kernel has no memory for this",
  SYSTEM_ERROR: "any other errno",
} as const satisfies Record<string, string>;

export type BpfErrorCode = keyof typeof errorCodes;

export interface BpfErrorDetails {
  readonly errno?: number;
  readonly syscall?: string;
  readonly advice?: string;
  readonly log?: string;
  readonly cause?: unknown;
}

/** The one error class of this package. `errno` is positive; `advice` says what to do and is part of the message, too. */
export class BpfError extends Error {
  readonly code: BpfErrorCode;
  declare readonly errno?: number;
  declare readonly syscall?: string;
  declare readonly advice?: string;
  declare readonly log?: string;

  constructor(code: BpfErrorCode, message: string, details: BpfErrorDetails = {}) {
    super(message, details.cause === undefined ? undefined : { cause: details.cause });
    this.name = "BpfError";
    this.code = code;
    if (details.errno !== undefined) this.errno = details.errno;
    if (details.syscall !== undefined) this.syscall = details.syscall;
    if (details.advice !== undefined) this.advice = details.advice;
    if (details.log !== undefined) this.log = details.log;
  }
}

// Errors of the kernel that Node's table does not have.
const kernelOnly = { ENOTSUPP: 524, EMEDIUMTYPE: 124 } as const;

export const errno = { ...constants.errno, ...kernelOnly };

const namesByNumber = new Map<number, string>(Object.entries(errno).map(([name, number]) => [number, name]));

export interface Reading {
  readonly code: BpfErrorCode;
  readonly advice?: string;
}

const generalReadings = new Map<number, Reading>([
  [errno.EPERM, { code: "PERMISSION_DENIED", advice: "it takes root, or CAP_BPF, and CAP_NET_ADMIN for XDP" }],
  [errno.EACCES, { code: "PERMISSION_DENIED" }],
  [errno.ENOMEM, { code: "OUT_OF_MEMORY" }],
  [errno.ENOENT, { code: "NO_SUCH_FILE" }],
  [errno.EINVAL, { code: "INVALID_ARGUMENT" }],
  [errno.EOPNOTSUPP, { code: "UNSUPPORTED", advice: "the running kernel does not offer this" }],
  [errno.ENOTSUPP, { code: "UNSUPPORTED", advice: "the running kernel does not offer this" }],
]);

/**
 * An errno in the caller's terms. `action` is what could not be done ("cannot pin map flows at /sys/fs/bpf/flows"); `readings`
 * say what an errno means for this very call and come before the general ones.
 */
export function kernelError(
  action: string,
  syscall: string,
  number: number,
  readings: Readonly<Record<number, Reading>> = {},
  log?: string,
): BpfError {
  const positive = Math.abs(number);
  const reading = readings[positive] ?? generalReadings.get(positive);
  const name = namesByNumber.get(positive) ?? `errno ${positive}`;
  const text = reading?.advice ?? addon.errorText(positive);
  return new BpfError(reading?.code ?? "SYSTEM_ERROR", `${action}: ${text} (${name})`, {
    errno: positive,
    syscall,
    ...(reading?.advice === undefined ? {} : { advice: reading.advice }),
    ...(log === undefined ? {} : { log }),
  });
}

/** How a refused value is shown in a message: short, and never by calling into it. */
export function shown(value: unknown): string {
  switch (typeof value) {
    case "string":
      return value.length > 40 ? `${JSON.stringify(value.slice(0, 40))}...` : JSON.stringify(value);
    case "bigint":
      return `${value.toString()}n`;
    case "number":
    case "boolean":
      return String(value);
    case "undefined":
      return "nothing";
    case "object":
      if (value === null) return "null";
      if (value instanceof Uint8Array) return `Uint8Array(${value.length})`;
      return Array.isArray(value) ? `an array of ${value.length}` : "an object";
    case "function":
    case "symbol":
      return `a ${typeof value}`;
  }
}

/** Refuses what is not a whole number within both bounds. */
export function requireInteger(what: string, value: unknown, least: number, most: number): asserts value is number {
  if (typeof value !== "number" || !Number.isInteger(value) || value < least || value > most)
    throw new BpfError(
      "INVALID_ARGUMENT",
      `${what} is ${shown(value)}, must be a whole number from ${least} to ${most}`,
    );
}

export function requireBytes(what: string, value: unknown, size?: number): asserts value is Uint8Array {
  if (!(value instanceof Uint8Array))
    throw new BpfError("INVALID_ARGUMENT", `${what} is ${shown(value)}, must be a Uint8Array`);
  if (size !== undefined && value.byteLength !== size)
    throw new BpfError("WRONG_SIZE", `${what} has ${value.byteLength} bytes, must have ${size}`);
}

/** A path or name goes to C, where it ends at the first zero byte: one inside would name something else. */
export function requireName(what: string, value: unknown): asserts value is string {
  if (typeof value !== "string" || value.length === 0 || value.includes("\0"))
    throw new BpfError(
      "INVALID_ARGUMENT",
      `${what} is ${shown(value)}, must be a string that is not empty and has no zero byte`,
    );
}
