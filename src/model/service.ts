import { parseAddress } from "./address.js";
import { field, type IntegerRange, readChoice, readFields, readInteger, readList, readUnicastAddress } from "./read.js";
import { at, ModelError, type Path, Violations } from "./violation.js";

export const PROTOCOLS = ["tcp", "udp"] as const;
export type Protocol = (typeof PROTOCOLS)[number];

/** How a packet reaches the real server; see docs/architecture.md. */
export const FORWARDING_METHODS = ["nat", "dr", "tun", "fullnat"] as const;
export type ForwardingMethod = (typeof FORWARDING_METHODS)[number];

/** IPVS's, under their names (ipvsadm(8), --scheduler); the default first. */
export const SCHEDULERS = [
  "mh",
  "rr",
  "wrr",
  "lc",
  "wlc",
  "sh",
  "dh",
  "sed",
  "nq",
  "lblc",
  "lblcr",
  "fo",
  "ovf",
  "twos",
] as const;
export type SchedulerName = (typeof SCHEDULERS)[number];

/** As ipvsadm's --sched-flags. Each is named after the scheduler that has it. */
export const SCHEDULER_FLAGS = ["sh-fallback", "sh-port", "mh-fallback", "mh-port"] as const;
export type SchedulerFlag = (typeof SCHEDULER_FLAGS)[number];

/** What a service has that names no flags: a quiesced real server's clients are served by others. (IPVS's default is none.) */
const DEFAULT_FLAGS: Readonly<Partial<Record<SchedulerName, readonly SchedulerFlag[]>>> = {
  mh: ["mh-fallback"],
  sh: ["sh-fallback"],
};

/** Slots of a Maglev table: the primes that IPVS offers (net/netfilter/ipvs/ip_vs_mh.c, primes[]). */
export const TABLE_SIZES = [251, 509, 1021, 2039, 4093, 8191, 16381, 32749, 65521, 131071] as const;
/** As ipvsadm's -w. */
export const DEFAULT_WEIGHT = 1;
export const MAX_WEIGHT = 65535;

/** Identified within its service by address and port. */
export interface RealServer {
  /** RIP, canonical. */
  readonly address: string;
  /** RPORT; with dr and tun always the service's port. */
  readonly port: number;
  readonly method: ForwardingMethod;
  /** 0..65535; 0 means quiesced: no new connections, those there are stay. */
  readonly weight: number;
}

/**
 * Identified by protocol, address and port. Immutable: a change makes a new object, and what did not change keeps its
 * identity, so readers may compare services by reference first.
 */
export interface VirtualService {
  readonly protocol: Protocol;
  /** VIP, canonical. */
  readonly address: string;
  /** VPORT, 1..65535. */
  readonly port: number;
  readonly scheduler: SchedulerName;
  /** Those of its scheduler that are set, in the order of SCHEDULER_FLAGS; always empty but with mh and sh. */
  readonly schedulerFlags: readonly SchedulerFlag[];
  /** With mh alone; one of TABLE_SIZES. Undefined: the data plane chooses, by how many real servers there are. */
  readonly tableSize?: number;
  /** In the order that schedulers honour: IPVS's list. There, and here through the API, one that is added comes first. */
  readonly realServers: readonly RealServer[];
}

export type ServiceKey = Pick<VirtualService, "protocol" | "address" | "port">;
export type RealServerKey = Pick<RealServer, "address" | "port">;

/** `tcp:10.0.0.100:80`, `udp:[2001:db8::1]:53`. */
export function serviceName(service: ServiceKey): string {
  return `${service.protocol}:${realServerName(service)}`;
}

/** `10.1.0.11:8080`, `[2001:db8::11]:8080`. */
export function realServerName(realServer: RealServerKey): string {
  const { address, port } = realServer;
  return address.includes(":") ? `[${address}]:${String(port)}` : `${address}:${String(port)}`;
}

const ENDPOINT = /^(?:([^[\]:]+)|\[([^[\]]+)\]):([1-9]\d{0,4})$/;

/** The inverse of realServerName; undefined where the text names none. Other spellings of an address become canonical. */
export function parseRealServerName(name: string): RealServerKey | undefined {
  const match = ENDPOINT.exec(name);
  if (match === null) {
    return undefined;
  }
  const parsed = parseAddress(match[1] ?? match[2] ?? "");
  const port = Number(match[3]);
  // Brackets belong to IPv6, and only to it.
  if (parsed === undefined || (parsed.family === "ipv6") !== (match[2] !== undefined) || port > 65535) {
    return undefined;
  }
  return { address: parsed.address, port };
}

/** The inverse of serviceName; undefined where the text names none. */
export function parseServiceName(name: string): ServiceKey | undefined {
  const protocol = PROTOCOLS.find((p) => name.startsWith(`${p}:`));
  const endpoint = protocol === undefined ? undefined : parseRealServerName(name.slice(protocol.length + 1));
  return protocol === undefined || endpoint === undefined ? undefined : { protocol, ...endpoint };
}

export const PORT: IntegerRange = { min: 1, max: 65535, code: "PORT_OUT_OF_RANGE", noun: "a port" };
const WEIGHT: IntegerRange = { min: 0, max: MAX_WEIGHT, code: "WEIGHT_OUT_OF_RANGE", noun: "a weight" };

const SERVICE_FIELDS = ["protocol", "address", "port", "scheduler", "scheduler_flags", "table_size", "real_servers"];
const REAL_SERVER_FIELDS = ["address", "port", "method", "weight"];

/**
 * Reads a virtual service from its plain form (that of YAML and JSON, see plainService). Returns undefined, and adds violations,
 * where it is not one.
 */
export function readService(
  input: unknown,
  path: Path | undefined,
  violations: Violations,
): VirtualService | undefined {
  const before = violations.list.length;
  const fields = readFields(input, path, SERVICE_FIELDS, violations);
  if (fields === undefined) {
    return undefined;
  }
  const protocol = readChoice(
    field(fields, "protocol"),
    at(path, "protocol"),
    PROTOCOLS,
    "UNKNOWN_PROTOCOL",
    violations,
  );
  const address = readUnicastAddress(field(fields, "address"), at(path, "address"), violations);
  const port = readInteger(field(fields, "port"), at(path, "port"), PORT, violations);
  const scheduler = readScheduler(field(fields, "scheduler"), at(path, "scheduler"), violations);
  const flagsPath = at(path, "scheduler_flags");
  const schedulerFlags = readSchedulerFlags(field(fields, "scheduler_flags"), scheduler, flagsPath, violations);
  const tableSize = readTableSize(field(fields, "table_size"), scheduler, at(path, "table_size"), violations);
  const realServers = readRealServers(field(fields, "real_servers"), port, at(path, "real_servers"), violations);
  if (tableSize !== undefined && realServers.length > tableSize) {
    const allowed = `at least as many slots as real servers, ${String(realServers.length)}`;
    violations.add("TABLE_TOO_SMALL", at(path, "table_size"), tableSize, allowed);
  }
  if (
    violations.list.length > before ||
    protocol === undefined ||
    address === undefined ||
    port === undefined ||
    scheduler === undefined
  ) {
    return undefined;
  }
  const service = { protocol, address, port, scheduler, schedulerFlags, realServers };
  return tableSize === undefined ? service : { ...service, tableSize };
}

function readScheduler(input: unknown, path: Path, violations: Violations): SchedulerName | undefined {
  if (input === undefined) {
    return "mh";
  }
  return readChoice(input, path, SCHEDULERS, "UNKNOWN_SCHEDULER", violations);
}

function readSchedulerFlags(
  input: unknown,
  scheduler: SchedulerName | undefined,
  path: Path,
  violations: Violations,
): readonly SchedulerFlag[] {
  if (input === undefined) {
    return scheduler === undefined ? [] : (DEFAULT_FLAGS[scheduler] ?? []);
  }
  const flags = new Set<SchedulerFlag>();
  for (const [index, item] of (readList(input, path, "scheduler flags", violations) ?? []).entries()) {
    const flag = readChoice(item, at(path, index), SCHEDULER_FLAGS, "UNKNOWN_SCHEDULER_FLAG", violations);
    if (flag === undefined) {
      continue;
    }
    flags.add(flag);
    const owner = flag.startsWith("mh") ? "mh" : "sh";
    if (scheduler !== undefined && owner !== scheduler) {
      const own = SCHEDULER_FLAGS.filter((name) => name.startsWith(`${scheduler}-`));
      const allowed = own.length > 0 ? `some of ${own.join(", ")} with ${scheduler}` : `no flags with ${scheduler}`;
      const problem = `is ${flag}, which belongs to the scheduler ${owner}, not to ${scheduler}; it takes ${allowed}`;
      violations.add("SCHEDULER_FLAG_NOT_APPLICABLE", at(path, index), flag, allowed, problem);
    }
  }
  return SCHEDULER_FLAGS.filter((flag) => flags.has(flag));
}

function readTableSize(
  input: unknown,
  scheduler: SchedulerName | undefined,
  path: Path,
  violations: Violations,
): number | undefined {
  if (input === undefined) {
    return undefined;
  }
  if (scheduler !== undefined && scheduler !== "mh") {
    const allowed = "no value unless the scheduler is mh";
    violations.add(
      "TABLE_SIZE_NOT_APPLICABLE",
      path,
      input,
      allowed,
      `belongs to the scheduler mh, not to ${scheduler}`,
    );
    return undefined;
  }
  const size = TABLE_SIZES.find((s) => s === input);
  if (size === undefined) {
    const code = typeof input === "number" ? "TABLE_SIZE_UNKNOWN" : "WRONG_TYPE";
    violations.add(code, path, input, `one of ${TABLE_SIZES.join(", ")}`);
  }
  return size;
}

function readRealServers(
  input: unknown,
  servicePort: number | undefined,
  path: Path,
  violations: Violations,
): readonly RealServer[] {
  if (input === undefined) {
    return [];
  }
  const realServers: RealServer[] = [];
  const seen = new Map<string, number>();
  for (const [index, item] of (readList(input, path, "real servers", violations) ?? []).entries()) {
    const realServer = readRealServer(item, servicePort, at(path, index), violations);
    if (realServer === undefined) {
      continue;
    }
    const name = realServerName(realServer);
    const first = seen.get(name);
    if (first === undefined) {
      seen.set(name, index);
      realServers.push(realServer);
    } else {
      const allowed = "a real server whose address and port no other one in this service has";
      violations.add(
        "DUPLICATE_REAL_SERVER",
        at(path, index),
        name,
        allowed,
        `is ${name}, as is real_servers[${String(first)}]`,
      );
    }
  }
  return realServers;
}

/** Reads a real server from its plain form. `servicePort` is what an omitted port stands for, and all that dr and tun can have. */
export function readRealServer(
  input: unknown,
  servicePort: number | undefined,
  path: Path | undefined,
  violations: Violations,
): RealServer | undefined {
  const fields = readFields(input, path, REAL_SERVER_FIELDS, violations);
  if (fields === undefined) {
    return undefined;
  }
  const address = readUnicastAddress(field(fields, "address"), at(path, "address"), violations);
  const method = readChoice(
    field(fields, "method"),
    at(path, "method"),
    FORWARDING_METHODS,
    "UNKNOWN_METHOD",
    violations,
  );
  const givenPort = field(fields, "port");
  const port = givenPort === undefined ? servicePort : readInteger(givenPort, at(path, "port"), PORT, violations);
  const givenWeight = field(fields, "weight");
  const weight =
    givenWeight === undefined ? DEFAULT_WEIGHT : readInteger(givenWeight, at(path, "weight"), WEIGHT, violations);
  if (address === undefined || method === undefined || port === undefined || weight === undefined) {
    return undefined;
  }
  if ((method === "dr" || method === "tun") && servicePort !== undefined && port !== servicePort) {
    const allowed = `the service's port ${String(servicePort)}, or nothing, with ${method}`;
    const problem = `is ${String(port)}; ${method} cannot map ports, it takes the service's port ${String(servicePort)} or nothing`;
    violations.add("PORT_MAPPING_IMPOSSIBLE", at(path, "port"), port, allowed, problem);
    return undefined;
  }
  return { address, port, method, weight };
}

/** Validates a service by itself; throws a ModelError that lists all violations. */
export function validateService(input: unknown): VirtualService {
  const violations = new Violations();
  const service = readService(input, undefined, violations);
  if (service === undefined) {
    throw new ModelError(violations.list);
  }
  return service;
}

/** The plain form: what YAML and JSON carry, and what validateService reads. */
export interface PlainRealServer {
  readonly address: string;
  readonly port: number;
  readonly method: ForwardingMethod;
  readonly weight: number;
}
export interface PlainService {
  readonly protocol: Protocol;
  readonly address: string;
  readonly port: number;
  readonly scheduler: SchedulerName;
  /** Only with schedulers that have flags, and then also where none is set. */
  readonly scheduler_flags?: readonly SchedulerFlag[];
  readonly table_size?: number;
  readonly real_servers: readonly PlainRealServer[];
}

export function plainService(service: VirtualService): PlainService {
  const { schedulerFlags, tableSize, realServers, ...same } = service;
  return {
    ...same,
    ...(hasSchedulerFlags(service.scheduler) ? { scheduler_flags: schedulerFlags } : {}),
    ...(tableSize === undefined ? {} : { table_size: tableSize }),
    real_servers: realServers,
  };
}

/** Whether there are flags for it at all. */
export function hasSchedulerFlags(scheduler: SchedulerName): boolean {
  return DEFAULT_FLAGS[scheduler] !== undefined;
}

export function sameRealServer(a: RealServer, b: RealServer): boolean {
  return a === b || (a.address === b.address && a.port === b.port && a.method === b.method && a.weight === b.weight);
}

/** Whether two services are alike in all they say, the order of their real servers included. */
export function sameService(a: VirtualService, b: VirtualService): boolean {
  return (
    a === b ||
    (a.protocol === b.protocol &&
      a.address === b.address &&
      a.port === b.port &&
      a.scheduler === b.scheduler &&
      a.schedulerFlags.length === b.schedulerFlags.length &&
      a.schedulerFlags.every((flag, i) => flag === b.schedulerFlags[i]) &&
      a.tableSize === b.tableSize &&
      a.realServers.length === b.realServers.length &&
      a.realServers.every((realServer, i) => {
        const other = b.realServers[i];
        return other !== undefined && sameRealServer(realServer, other);
      }))
  );
}
