import { isDeepStrictEqual } from "node:util";
import { type AddressFamily, parseAddress } from "./address.js";
import {
  type Persistence,
  type PlainPersistence,
  plainPersistence,
  readPersistence,
  samePersistence,
} from "./persistence.js";
import { isPoolName, POOL_NAME } from "./pool.js";
import { type Fields, field, readBoolean, readChoice, readFields, readList, readText } from "./read.js";
import {
  type PlainRealServer,
  plainRealServer,
  type RealServer,
  readRealServer,
  realServerName,
  sameRealServer,
} from "./real-server.js";
import {
  hasSchedulerFlags,
  readScheduler,
  readSchedulerFlags,
  readTableSize,
  type SchedulerFlag,
  type SchedulerName,
} from "./scheduler.js";
import { KEY_FIELDS, readServiceKey, type ServiceKey, serviceKey, serviceName } from "./service-key.js";
import {
  type PlainTimeouts,
  plainTimeouts,
  readServiceTimeouts,
  type ServiceTimeouts,
  sameTimeouts,
} from "./timeouts.js";
import { at, ModelError, type Path, Violations } from "./violation.js";

/**
 * What the connections of a real server get that is taken out of its service. `drop`: their packets are dropped until they time out. `keep`: they
 * go on until they close. `reset`: TCP is reset, UDP scheduled afresh.
 */
export const REMOVED_CONNECTIONS = ["drop", "keep", "reset"] as const;
export type RemovedConnections = (typeof REMOVED_CONNECTIONS)[number];

/** What a service says of itself beside what identifies it. */
export interface ServiceOptions {
  readonly scheduler: SchedulerName;
  /** Those of its scheduler that are set, in the order of SCHEDULER_FLAGS; always empty but with mh and sh. */
  readonly schedulerFlags: readonly SchedulerFlag[];
  /** With mh alone; one of TABLE_SIZES. Undefined: the data plane chooses, by how many real servers there are. */
  readonly tableSize?: number;
  readonly persistence?: Persistence;
  /** Whether every UDP packet is scheduled by itself. Never with tcp and sctp; of a mark's packets only those of UDP are. */
  readonly onePacket: boolean;
  /** Those that are not the global ones; undefined, not empty, where all are. */
  readonly timeouts?: ServiceTimeouts;
  /** Undefined: `drop`, or `reset` where the setting expire_nodest_conn is 1. */
  readonly removedConnections?: RemovedConnections;
  /** The pool that its fullnat real servers take local addresses from; undefined: the default one. */
  readonly fullnatPool?: string;
  /** In the order that schedulers honour: IPVS's list. There, and here through the API, one that is added comes first. */
  readonly realServers: readonly RealServer[];
}

/**
 * Immutable: a change makes a new object, and what did not change keeps its identity, so readers may compare services by
 * reference first.
 */
export type VirtualService = ServiceKey & ServiceOptions;

const OPTION_FIELDS = [
  "scheduler",
  "scheduler_flags",
  "table_size",
  "persistence",
  "one_packet",
  "timeouts",
  "removed_connections",
  "fullnat_pool",
  "real_servers",
];
const SERVICE_FIELDS = [...KEY_FIELDS, ...OPTION_FIELDS];

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
  const key = readServiceKey(fields, path, violations);
  const options = readOptions(fields, key, path, violations);
  return violations.list.length > before || key === undefined || options === undefined
    ? undefined
    : { ...key, ...options };
}

function readOptions(
  fields: Fields,
  key: ServiceKey | undefined,
  path: Path | undefined,
  violations: Violations,
): ServiceOptions | undefined {
  const given = (name: string): unknown => field(fields, name);
  const scheduler = readScheduler(given("scheduler"), at(path, "scheduler"), violations);
  const flagsPath = at(path, "scheduler_flags");
  const schedulerFlags = readSchedulerFlags(given("scheduler_flags"), scheduler, flagsPath, violations);
  const tableSize = readTableSize(given("table_size"), scheduler, at(path, "table_size"), violations);
  const family = familyOf(fields, key);
  const persistence = readPersistence(given("persistence"), family, at(path, "persistence"), violations);
  const onePacket = readOnePacket(given("one_packet"), key, at(path, "one_packet"), violations);
  const timeouts = readServiceTimeouts(given("timeouts"), key?.protocol, at(path, "timeouts"), violations);
  const removedPath = at(path, "removed_connections");
  const removedConnections = readRemovedConnections(given("removed_connections"), removedPath, violations);
  const fullnatPool = readPoolReference(given("fullnat_pool"), at(path, "fullnat_pool"), violations);
  const realServers = readRealServers(given("real_servers"), key, at(path, "real_servers"), violations);
  if (tableSize !== undefined && realServers.length > tableSize) {
    const allowed = `at least as many slots as real servers, ${String(realServers.length)}`;
    violations.add("TABLE_TOO_SMALL", at(path, "table_size"), tableSize, allowed);
  }
  if (scheduler === undefined) {
    return undefined;
  }
  return {
    scheduler,
    schedulerFlags,
    ...(tableSize === undefined ? {} : { tableSize }),
    ...(persistence === undefined ? {} : { persistence }),
    onePacket,
    ...(timeouts === undefined ? {} : { timeouts }),
    ...(removedConnections === undefined ? {} : { removedConnections }),
    ...(fullnatPool === undefined ? {} : { fullnatPool }),
    realServers,
  };
}

/** The clients' family, also where the service was refused for it. */
function familyOf(fields: Fields, key: ServiceKey | undefined): AddressFamily | undefined {
  const address = field(fields, "address");
  return key?.family ?? (typeof address === "string" ? parseAddress(address)?.family : undefined);
}

function readOnePacket(input: unknown, key: ServiceKey | undefined, path: Path, violations: Violations): boolean {
  const onePacket = input === undefined ? false : readBoolean(input, path, violations);
  const protocol = key?.protocol;
  if (onePacket === true && protocol !== undefined && protocol !== "udp") {
    const allowed = "false unless the service is of udp or a mark";
    const problem = `is true; packets are scheduled one by one with udp only, not with ${protocol}`;
    violations.add("ONE_PACKET_NOT_APPLICABLE", path, input, allowed, problem);
  }
  return onePacket ?? false;
}

function readRemovedConnections(input: unknown, path: Path, violations: Violations): RemovedConnections | undefined {
  return input === undefined
    ? undefined
    : readChoice(input, path, REMOVED_CONNECTIONS, "UNKNOWN_REMOVED_CONNECTIONS", violations);
}

/** Whether there is a pool of that name is checked where the pools are known. */
function readPoolReference(input: unknown, path: Path, violations: Violations): string | undefined {
  if (input === undefined) {
    return undefined;
  }
  const name = readText(input, path, POOL_NAME, violations);
  if (name !== undefined && !isPoolName(name)) {
    violations.add("POOL_NAME_MALFORMED", path, name, POOL_NAME);
  }
  return name;
}

function readRealServers(
  input: unknown,
  service: ServiceKey | undefined,
  path: Path,
  violations: Violations,
): readonly RealServer[] {
  if (input === undefined) {
    return [];
  }
  const realServers: RealServer[] = [];
  const seen = new Map<string, number>();
  for (const [index, item] of (readList(input, path, "real servers", violations) ?? []).entries()) {
    const realServer = readRealServer(item, service, at(path, index), violations);
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
export type PlainService = ServiceKey & PlainServiceOptions;
interface PlainServiceOptions {
  readonly scheduler: SchedulerName;
  /** Only with schedulers that have flags, and then also where none is set. */
  readonly scheduler_flags?: readonly SchedulerFlag[];
  readonly table_size?: number;
  readonly persistence?: PlainPersistence;
  /** Only where it is true. */
  readonly one_packet?: boolean;
  readonly timeouts?: PlainTimeouts;
  readonly removed_connections?: RemovedConnections;
  readonly fullnat_pool?: string;
  readonly real_servers: readonly PlainRealServer[];
}

export function plainService(service: VirtualService): PlainService {
  const { scheduler, schedulerFlags, tableSize, persistence, onePacket, timeouts } = service;
  const { removedConnections, fullnatPool, realServers } = service;
  return {
    ...serviceKey(service),
    scheduler,
    ...(hasSchedulerFlags(scheduler) ? { scheduler_flags: schedulerFlags } : {}),
    ...(tableSize === undefined ? {} : { table_size: tableSize }),
    ...(persistence === undefined ? {} : { persistence: plainPersistence(persistence) }),
    ...(onePacket ? { one_packet: true } : {}),
    ...(timeouts === undefined ? {} : { timeouts: plainTimeouts(timeouts) }),
    ...(removedConnections === undefined ? {} : { removed_connections: removedConnections }),
    ...(fullnatPool === undefined ? {} : { fullnat_pool: fullnatPool }),
    real_servers: realServers.map(plainRealServer),
  };
}

/** Whether two services are alike in all they say, the order of their real servers included. */
export function sameService(a: VirtualService, b: VirtualService): boolean {
  return (
    a === b ||
    (serviceName(a) === serviceName(b) &&
      a.scheduler === b.scheduler &&
      isDeepStrictEqual(a.schedulerFlags, b.schedulerFlags) &&
      a.tableSize === b.tableSize &&
      samePersistence(a.persistence, b.persistence) &&
      a.onePacket === b.onePacket &&
      sameTimeouts(a.timeouts ?? {}, b.timeouts ?? {}) &&
      a.removedConnections === b.removedConnections &&
      a.fullnatPool === b.fullnatPool &&
      a.realServers.length === b.realServers.length &&
      a.realServers.every((realServer, i) => {
        const other = b.realServers[i];
        return other !== undefined && sameRealServer(realServer, other);
      }))
  );
}
