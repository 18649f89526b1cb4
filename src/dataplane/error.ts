/** Why the data plane could not do what it was asked. Callers match on the code, which never changes its meaning. */
export const DATA_PLANE_ERROR_CODES = [
  "ABI_DIFFERS", // what is pinned was made by a build whose maps this one cannot read
  "ATTACH_FAILED", // the kernel refused to attach, for a reason that has no code of its own
  "BPFFS_NOT_MOUNTED",
  "CAPACITY_EXCEEDED", // a limit of the configuration; names it, what was wanted and what is free
  "CLOSED", // this handle was closed
  "DUPLICATE_SERVICE", // two services of a desired state have the same protocol, address and port
  "INTERFACE_BUSY", // another XDP program is attached
  "KERNEL_FEATURE_MISSING",
  "LIMITS_DIFFER", // the running maps have other sizes than the configuration wants
  "LOAD_FAILED", // the object is missing, broken, or refused by the verifier
  "MODE_DIFFERS", // XDP runs on an interface in another mode than the configuration wants
  "PERMISSION_DENIED", // this process lacks a capability
  "PINS_DAMAGED", // what is pinned is incomplete or contradicts itself
  "TABLE_TOO_SMALL", // an mh table with fewer slots than real servers
  "WRITE_FAILED", // the kernel refused a write to a map
  "WRONG_INTERFACE", // there is no such interface in this network namespace
  "XDP_NOT_SUPPORTED", // the driver cannot run XDP in native mode, or not with its present settings
] as const;
export type DataPlaneErrorCode = (typeof DATA_PLANE_ERROR_CODES)[number];

export interface DataPlaneErrorDetails {
  /** What the user can do about it, as a sentence or a command. */
  readonly remedy?: string;
  /** The setting at fault, as the configuration spells it: `limits.services`. */
  readonly field?: string;
  /** What was asked for. */
  readonly wanted?: number | string;
  /** What there is: the running value, or the room that is left. */
  readonly available?: number | string;
  readonly cause?: unknown;
}

export class DataPlaneError extends Error {
  override readonly name = "DataPlaneError";
  readonly code: DataPlaneErrorCode;
  readonly remedy: string | undefined;
  readonly field: string | undefined;
  readonly wanted: number | string | undefined;
  readonly available: number | string | undefined;

  constructor(code: DataPlaneErrorCode, message: string, details: DataPlaneErrorDetails = {}) {
    const { remedy, field, wanted, available, cause } = details;
    super(remedy === undefined ? message : `${message}; ${remedy}`, cause === undefined ? undefined : { cause });
    this.code = code;
    this.remedy = remedy;
    this.field = field;
    this.wanted = wanted;
    this.available = available;
  }
}
