import { formatPortRange, type PortRange, readPortRange } from "./port-range.js";
import { type Fields, field, readFields, readList, readText, readUnicastAddress } from "./read.js";
import { at, type Path, type Violations } from "./violation.js";

/** FULLNAT's source endpoints (LIP:LPORT). */
export interface FullnatPool {
  /** LIPs, canonical, at least one of them. */
  readonly localAddresses: readonly string[];
  /** First and last LPORT, both included. */
  readonly localPorts: PortRange;
}

/** One that services choose by its name. */
export interface NamedFullnatPool extends FullnatPool {
  readonly name: string;
}

/** The data plane's room, for all pools together: MAX_LOCAL_ADDRESSES in bpf/abi.h. */
export const MAX_LOCAL_ADDRESSES = 4096;
/** Below Linux's net.ipv4.ip_local_port_range (32768 to 60999), so that the director's own connections collide with none. */
const DEFAULT_LOCAL_PORTS: PortRange = [1024, 32767];

/** What isPoolName accepts, for messages. */
export const POOL_NAME = "a pool's name of 1 to 63 letters, digits, - and _, a letter or digit first";

export function isPoolName(name: string): boolean {
  return /^[A-Za-z0-9][A-Za-z0-9_-]{0,62}$/.test(name);
}

/** The default pool. */
export function readFullnatPool(input: unknown, path: Path, violations: Violations): FullnatPool | undefined {
  if (input === undefined) {
    return undefined;
  }
  const fields = readFields(input, path, ["local_addresses", "local_ports"], violations);
  return fields === undefined ? undefined : readPool(fields, path, violations);
}

export function readNamedPools(input: unknown, path: Path, violations: Violations): readonly NamedFullnatPool[] {
  if (input === undefined) {
    return [];
  }
  const pools: NamedFullnatPool[] = [];
  const seen = new Map<string, number>();
  for (const [index, item] of (readList(input, path, "fullnat pools", violations) ?? []).entries()) {
    const itemPath = at(path, index);
    const fields = readFields(item, itemPath, ["name", "local_addresses", "local_ports"], violations);
    const name = fields === undefined ? undefined : readName(field(fields, "name"), at(itemPath, "name"), violations);
    if (fields === undefined) {
      continue;
    }
    const pool = readPool(fields, itemPath, violations);
    const first = name === undefined ? undefined : seen.get(name);
    if (name !== undefined && first !== undefined) {
      const allowed = "a name that no other pool has";
      violations.add(
        "DUPLICATE_POOL",
        at(itemPath, "name"),
        name,
        allowed,
        `is ${name}, as is that of ${place(path, first)}`,
      );
    } else if (name !== undefined) {
      seen.set(name, index);
      pools.push({ name, ...pool });
    }
  }
  return pools;
}

function place(path: Path, index: number): string {
  return `${String(path.key)}[${String(index)}]`;
}

function readName(input: unknown, path: Path, violations: Violations): string | undefined {
  const name = readText(input, path, POOL_NAME, violations);
  if (name === undefined || isPoolName(name)) {
    return name;
  }
  violations.add("POOL_NAME_MALFORMED", path, name, POOL_NAME);
  return undefined;
}

function readPool(fields: Fields, path: Path, violations: Violations): FullnatPool {
  const localAddresses = readLocalAddresses(field(fields, "local_addresses"), at(path, "local_addresses"), violations);
  const given = field(fields, "local_ports");
  const localPorts = given === undefined ? undefined : readPortRange(given, at(path, "local_ports"), violations);
  return { localAddresses, localPorts: localPorts ?? DEFAULT_LOCAL_PORTS };
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

/** The plain form: what readFullnatPool reads. */
export interface PlainFullnatPool {
  readonly local_addresses: readonly string[];
  readonly local_ports: string;
}
export interface PlainNamedFullnatPool extends PlainFullnatPool {
  readonly name: string;
}

export function plainFullnatPool(pool: FullnatPool): PlainFullnatPool {
  return { local_addresses: pool.localAddresses, local_ports: formatPortRange(pool.localPorts) };
}

export function plainNamedPool(pool: NamedFullnatPool): PlainNamedFullnatPool {
  return { name: pool.name, ...plainFullnatPool(pool) };
}
