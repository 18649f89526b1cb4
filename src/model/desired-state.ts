import { field, readFields, readList, readUnicastAddress } from "./read.js";
import {
  type PlainService,
  plainService,
  type RealServer,
  readService,
  sameService,
  serviceName,
  type VirtualService,
} from "./service.js";
import { at, type Path, Violations } from "./violation.js";

/** FULLNAT's source endpoints (LIP:LPORT). */
export interface FullnatPool {
  /** LIPs, canonical, 1 to 256 of them. */
  readonly localAddresses: readonly string[];
  /** First and last LPORT, both included. */
  readonly localPorts: readonly [number, number];
}

/**
 * Everything the data plane is to do. Immutable; of two successive states, services that did not change are the same objects.
 */
export interface DesiredState {
  readonly services: readonly VirtualService[];
  /** Needed as soon as a real server's method is fullnat. */
  readonly fullnat?: FullnatPool;
}

export const EMPTY_STATE: DesiredState = { services: [] };

/** The data plane's room: MAX_LOCAL_ADDRESSES in bpf/abi.h. */
const MAX_LOCAL_ADDRESSES = 256;
/** Below Linux's net.ipv4.ip_local_port_range (32768 to 60999), so that the director's own connections collide with none. */
const DEFAULT_LOCAL_PORTS: readonly [number, number] = [1024, 32767];

export const DESIRED_STATE_FIELDS = ["fullnat", "services"];

/** Validates a whole desired state in its plain form (see plainDesiredState); throws a ModelError that lists all violations. */
export function validateDesiredState(input: unknown): DesiredState {
  const violations = new Violations();
  const fields = readFields(input, undefined, DESIRED_STATE_FIELDS, violations);
  const desired = fields === undefined ? undefined : readDesiredState(fields, violations);
  violations.throwIfAny();
  return desired ?? EMPTY_STATE;
}

/** Reads `fullnat` and `services` out of a mapping that may have other fields as well. Meaningless once a violation was added. */
export function readDesiredState(fields: Readonly<Record<string, unknown>>, violations: Violations): DesiredState {
  const fullnat = readFullnatPool(field(fields, "fullnat"), at(undefined, "fullnat"), violations);
  const services = readServices(field(fields, "services"), field(fields, "fullnat") !== undefined, violations);
  return fullnat === undefined ? { services } : { services, fullnat };
}

function readServices(input: unknown, hasPool: boolean, violations: Violations): readonly VirtualService[] {
  if (input === undefined) {
    return [];
  }
  const path = at(undefined, "services");
  const services: VirtualService[] = [];
  const seen = new Map<string, number>();
  for (const [index, item] of (readList(input, path, "virtual services", violations) ?? []).entries()) {
    const itemPath = at(path, index);
    const service = readService(item, itemPath, violations);
    if (service === undefined) {
      continue;
    }
    if (!hasPool) {
      checkFullnatPool(service, undefined, itemPath, violations);
    }
    const name = serviceName(service);
    const first = seen.get(name);
    if (first === undefined) {
      seen.set(name, index);
      services.push(service);
    } else {
      const allowed = "a service whose protocol, address and port no other one has";
      violations.add("DUPLICATE_SERVICE", itemPath, name, allowed, `is ${name}, as is services[${String(first)}]`);
    }
  }
  return services;
}

/** Refuses fullnat real servers where there is no address to give their packets. `path` is the service's. */
export function checkFullnatPool(
  service: VirtualService,
  pool: FullnatPool | undefined,
  path: Path | undefined,
  violations: Violations,
): void {
  for (const [index, realServer] of service.realServers.entries()) {
    checkRealServerPool(realServer, pool, at(at(path, "real_servers"), index), violations);
  }
}

/** The same for one real server. `path` is the real server's. */
export function checkRealServerPool(
  realServer: RealServer,
  pool: FullnatPool | undefined,
  path: Path,
  violations: Violations,
): void {
  if (realServer.method === "fullnat" && pool === undefined) {
    const allowed = "fullnat only where fullnat.local_addresses names at least one address";
    const problem = "is fullnat, but fullnat.local_addresses is missing";
    violations.add("FULLNAT_WITHOUT_LOCAL_ADDRESSES", at(path, "method"), "fullnat", allowed, problem);
  }
}

function readFullnatPool(input: unknown, path: Path, violations: Violations): FullnatPool | undefined {
  if (input === undefined) {
    return undefined;
  }
  const fields = readFields(input, path, ["local_addresses", "local_ports"], violations);
  if (fields === undefined) {
    return undefined;
  }
  const localAddresses = readLocalAddresses(field(fields, "local_addresses"), at(path, "local_addresses"), violations);
  const localPorts = readPortRange(field(fields, "local_ports"), at(path, "local_ports"), violations);
  return { localAddresses, localPorts };
}

function readLocalAddresses(input: unknown, path: Path, violations: Violations): readonly string[] {
  const list = readList(input, path, "IPv4 addresses", violations) ?? [];
  const allowed = `1 to ${String(MAX_LOCAL_ADDRESSES)} different addresses`;
  if (list.length > MAX_LOCAL_ADDRESSES) {
    violations.add(
      "CAPACITY_EXCEEDED",
      path,
      list,
      allowed,
      `has ${String(list.length)} addresses; it takes ${allowed}`,
    );
  } else if (list.length === 0 && input !== undefined) {
    violations.add("MISSING_FIELD", path, input, allowed, `is empty; it takes ${allowed}`);
  }
  const addresses = new Set<string>();
  for (const [index, item] of list.entries()) {
    const address = readUnicastAddress(item, at(path, index), violations);
    if (address !== undefined && addresses.has(address)) {
      violations.add("DUPLICATE_LOCAL_ADDRESS", at(path, index), address, allowed, `is ${address} a second time`);
    } else if (address !== undefined) {
      addresses.add(address);
    }
  }
  return [...addresses];
}

/** A range in the spelling of YAML: `1024-32767`. */
function readPortRange(input: unknown, path: Path, violations: Violations): readonly [number, number] {
  if (input === undefined) {
    return DEFAULT_LOCAL_PORTS;
  }
  const match = typeof input === "string" ? /^([1-9]\d{0,4})-([1-9]\d{0,4})$/.exec(input) : null;
  const first = Number(match?.[1]);
  const last = Number(match?.[2]);
  if (match === null || first > last || last > 65535) {
    violations.add(
      "PORT_RANGE_MALFORMED",
      path,
      input,
      "a range of ports FIRST-LAST from 1 to 65535, as in 1024-32767",
    );
    return DEFAULT_LOCAL_PORTS;
  }
  return [first, last];
}

export interface PlainDesiredState {
  readonly fullnat?: { readonly local_addresses: readonly string[]; readonly local_ports: string };
  readonly services: readonly PlainService[];
}

/** The plain form: what YAML and JSON carry, and what validateDesiredState reads. */
export function plainDesiredState(desired: DesiredState): PlainDesiredState {
  const services = desired.services.map(plainService);
  const pool = desired.fullnat;
  return pool === undefined
    ? { services }
    : { fullnat: { local_addresses: pool.localAddresses, local_ports: pool.localPorts.join("-") }, services };
}

/**
 * `next` with every service that is as in `previous` replaced by the object in `previous`, so that identity tells what
 * changed. Takes time in proportion to both.
 */
export function keepIdentity(previous: DesiredState, next: DesiredState): DesiredState {
  const known = new Map(previous.services.map((service) => [serviceName(service), service]));
  const services = next.services.map((service) => {
    const same = known.get(serviceName(service));
    return same !== undefined && sameService(same, service) ? same : service;
  });
  return { ...next, services };
}

/** One step from a desired state to the next, and what a store has to write for it. */
export type Change =
  | { readonly kind: "put"; readonly service: VirtualService }
  | { readonly kind: "remove"; readonly name: string }
  | { readonly kind: "replace"; readonly desired: DesiredState };

/**
 * The state after a change. `existing` is the service of `desired` that a put or remove is about (undefined: a put adds one). Copies
 * the list of references and nothing below it.
 */
export function afterChange(desired: DesiredState, change: Change, existing: VirtualService | undefined): DesiredState {
  switch (change.kind) {
    case "replace":
      return change.desired;
    case "remove":
      return { ...desired, services: desired.services.filter((service) => service !== existing) };
    case "put": {
      const index = existing === undefined ? -1 : desired.services.indexOf(existing);
      const services =
        index === -1 ? [...desired.services, change.service] : desired.services.with(index, change.service);
      return { ...desired, services };
    }
  }
}
