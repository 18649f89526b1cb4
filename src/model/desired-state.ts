import { isDeepStrictEqual } from "node:util";
import { type MarkRule, type PlainMarkRule, plainMarkRule, readMarkRules } from "./mark-rule.js";
import {
  type FullnatPool,
  MAX_LOCAL_ADDRESSES,
  type NamedFullnatPool,
  type PlainFullnatPool,
  type PlainNamedFullnatPool,
  plainFullnatPool,
  plainNamedPool,
  readFullnatPool,
  readNamedPools,
} from "./pool.js";
import { type Fields, field, readFields, readList } from "./read.js";
import type { RealServer } from "./real-server.js";
import { type PlainService, plainService, readService, sameService, type VirtualService } from "./service.js";
import { serviceName } from "./service-key.js";
import { changedSettings, DEFAULT_SETTINGS, readSettings, type SettingName, type Settings } from "./settings.js";
import {
  changedTimeouts,
  DEFAULT_TIMEOUTS,
  type PlainTimeouts,
  plainTimeouts,
  readTimeouts,
  type Timeouts,
} from "./timeouts.js";
import { at, type Path, Violations } from "./violation.js";

/** What holds for all services. */
export interface DirectorSettings {
  readonly settings: Settings;
  readonly timeouts: Timeouts;
  /** In the order in which they are tried. */
  readonly marks: readonly MarkRule[];
  /** The default pool. A service with fullnat real servers needs it or one of `pools`. */
  readonly fullnat?: FullnatPool;
  /** Those that services choose by name; no two have the same. */
  readonly pools: readonly NamedFullnatPool[];
}

/**
 * Everything the data plane is to do. Immutable; of two successive states, services, settings, rules and pools that did not change are
 * the same objects.
 */
export interface DesiredState extends DirectorSettings {
  /** No two have the same serviceName. */
  readonly services: readonly VirtualService[];
}

export const EMPTY_STATE: DesiredState = {
  settings: DEFAULT_SETTINGS,
  timeouts: DEFAULT_TIMEOUTS,
  marks: [],
  pools: [],
  services: [],
};

export const DIRECTOR_FIELDS = ["settings", "timeouts", "marks", "fullnat", "fullnat_pools"];
export const DESIRED_STATE_FIELDS = [...DIRECTOR_FIELDS, "services"];

/** Validates a whole desired state in its plain form (see plainDesiredState); throws a ModelError that lists all violations. */
export function validateDesiredState(input: unknown): DesiredState {
  const violations = new Violations();
  const fields = readFields(input, undefined, DESIRED_STATE_FIELDS, violations);
  const desired = fields === undefined ? undefined : readDesiredState(fields, violations);
  violations.throwIfAny();
  return desired ?? EMPTY_STATE;
}

/**
 * Reads the DESIRED_STATE_FIELDS out of a mapping that may have other fields as well. Meaningless once a violation was added.
 */
export function readDesiredState(fields: Fields, violations: Violations): DesiredState {
  const director = readDirectorSettings(fields, undefined, violations);
  // A pool that is there but wrong is told of once, not at every real server that needs it.
  const pools = field(fields, "fullnat_pools") === undefined || director.pools.length > 0 ? director.pools : undefined;
  const known: Pools = { hasDefault: field(fields, "fullnat") !== undefined, pools };
  return { ...director, services: readServices(field(fields, "services"), known, violations) };
}

/** Reads the DIRECTOR_FIELDS. Meaningless once a violation was added. */
export function readDirectorSettings(fields: Fields, path: Path | undefined, violations: Violations): DirectorSettings {
  const fullnat = readFullnatPool(field(fields, "fullnat"), at(path, "fullnat"), violations);
  const pools = readNamedPools(field(fields, "fullnat_pools"), at(path, "fullnat_pools"), violations);
  checkLocalAddresses(fullnat, pools, at(path, "fullnat_pools"), violations);
  return {
    settings: readSettings(field(fields, "settings"), at(path, "settings"), violations),
    timeouts: readTimeouts(field(fields, "timeouts"), at(path, "timeouts"), violations),
    marks: readMarkRules(field(fields, "marks"), at(path, "marks"), violations),
    ...(fullnat === undefined ? {} : { fullnat }),
    pools,
  };
}

function checkLocalAddresses(
  fullnat: FullnatPool | undefined,
  pools: readonly NamedFullnatPool[],
  path: Path,
  violations: Violations,
): void {
  const all = new Set([...(fullnat?.localAddresses ?? []), ...pools.flatMap(({ localAddresses }) => localAddresses)]);
  // Of one pool alone, its own reader tells.
  if (pools.length > 0 && all.size > MAX_LOCAL_ADDRESSES) {
    const allowed = `at most ${String(MAX_LOCAL_ADDRESSES)} different addresses in all pools together`;
    const problem = `has ${String(all.size)} different addresses with those of fullnat; it takes ${allowed}`;
    violations.add("CAPACITY_EXCEEDED", path, all.size, allowed, problem);
  }
}

function readServices(input: unknown, pools: Pools, violations: Violations): readonly VirtualService[] {
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
    checkPools(service, pools, itemPath, violations);
    const name = serviceName(service);
    const first = seen.get(name);
    if (first === undefined) {
      seen.set(name, index);
      services.push(service);
    } else {
      const allowed = "a service whose protocol, address and port, or whose mark, no other one has";
      violations.add("DUPLICATE_SERVICE", itemPath, name, allowed, `is ${name}, as is services[${String(first)}]`);
    }
  }
  return services;
}

/** Where fullnat real servers may take local addresses from. */
export interface Pools {
  readonly hasDefault: boolean;
  /** Undefined: not known. */
  readonly pools: readonly NamedFullnatPool[] | undefined;
}

export function poolsOf({ fullnat, pools }: DirectorSettings): Pools {
  return { hasDefault: fullnat !== undefined, pools };
}

/** Refuses a pool that is not there, and fullnat real servers where there is no address to give their packets. `path` is the service's. */
export function checkPools(
  service: VirtualService,
  pools: Pools,
  path: Path | undefined,
  violations: Violations,
): void {
  const { fullnatPool } = service;
  if (fullnatPool !== undefined && pools.pools?.every(({ name }) => name !== fullnatPool) === true) {
    const names = pools.pools.map(({ name }) => name).join(", ");
    const allowed = names === "" ? "no value: there are no fullnat_pools" : `one of fullnat_pools: ${names}`;
    violations.add("UNKNOWN_POOL", at(path, "fullnat_pool"), fullnatPool, allowed);
  }
  for (const [index, realServer] of service.realServers.entries()) {
    checkRealServerPool(realServer, service, pools, at(at(path, "real_servers"), index), violations);
  }
}

/** The latter for one real server. `path` is the real server's. */
export function checkRealServerPool(
  realServer: RealServer,
  service: VirtualService,
  pools: Pools,
  path: Path,
  violations: Violations,
): void {
  if (realServer.method === "fullnat" && service.fullnatPool === undefined && !pools.hasDefault) {
    const allowed =
      "fullnat only where fullnat.local_addresses names at least one address, or the service a fullnat_pool";
    const problem = "is fullnat, but fullnat.local_addresses is missing and the service has no fullnat_pool";
    violations.add("FULLNAT_WITHOUT_LOCAL_ADDRESSES", at(path, "method"), "fullnat", allowed, problem);
  }
}

/** Refuses settings that lack a pool which a service needs. `path` is theirs. */
export function checkPoolsInUse(
  settings: DirectorSettings,
  services: readonly VirtualService[],
  path: Path | undefined,
  violations: Violations,
): void {
  const names = new Set(settings.pools.map(({ name }) => name));
  const missing = new Map<string | undefined, string>();
  for (const service of services) {
    const { fullnatPool, realServers } = service;
    const lacks =
      fullnatPool === undefined
        ? settings.fullnat === undefined && realServers.some(({ method }) => method === "fullnat")
        : !names.has(fullnatPool);
    if (lacks && !missing.has(fullnatPool)) {
      missing.set(fullnatPool, serviceName(service));
    }
  }
  for (const [pool, service] of missing) {
    const place = at(path, pool === undefined ? "fullnat" : "fullnat_pools");
    const what = pool ?? "the default pool";
    const allowed = "every pool that a service uses";
    violations.add("POOL_IN_USE", place, pool, allowed, `lacks ${what}, which ${service} uses`);
  }
}

export interface PlainDirectorSettings {
  /** What differs from the defaults; so the next. */
  readonly settings?: Readonly<Partial<Record<SettingName, number>>>;
  readonly timeouts?: PlainTimeouts;
  /** Only where there are any; so the next ones. */
  readonly marks?: readonly PlainMarkRule[];
  readonly fullnat?: PlainFullnatPool;
  readonly fullnat_pools?: readonly PlainNamedFullnatPool[];
}

export interface PlainDesiredState extends PlainDirectorSettings {
  readonly services: readonly PlainService[];
}

/** The plain form: what YAML and JSON carry, and what validateDesiredState reads. */
export function plainDesiredState(desired: DesiredState): PlainDesiredState {
  return { ...plainDirectorSettings(desired), services: desired.services.map(plainService) };
}

/** The plain form without the services. */
export function plainDirectorSettings({
  settings,
  timeouts,
  marks,
  fullnat,
  pools,
}: DirectorSettings): PlainDirectorSettings {
  const changed = { settings: changedSettings(settings), timeouts: changedTimeouts(timeouts) };
  return {
    ...(Object.keys(changed.settings).length === 0 ? {} : { settings: changed.settings }),
    ...(Object.keys(changed.timeouts).length === 0 ? {} : { timeouts: plainTimeouts(changed.timeouts) }),
    ...(marks.length === 0 ? {} : { marks: marks.map(plainMarkRule) }),
    ...(fullnat === undefined ? {} : { fullnat: plainFullnatPool(fullnat) }),
    ...(pools.length === 0 ? {} : { fullnat_pools: pools.map(plainNamedPool) }),
  };
}

/**
 * `next` with everything that is as in `previous` replaced by the object in `previous`, so that identity tells what changed. Takes
 * time in proportion to both.
 */
export function keepIdentity(previous: DesiredState, next: DesiredState): DesiredState {
  const known = new Map(previous.services.map((service) => [serviceName(service), service]));
  const services = next.services.map((service) => {
    const same = known.get(serviceName(service));
    return same !== undefined && sameService(same, service) ? same : service;
  });
  return { ...keepSettings(previous, next), services };
}

/** The same for what is not services. */
export function keepSettings(previous: DirectorSettings, next: DirectorSettings): DirectorSettings {
  const kept = <T>(before: T, after: T): T => (isDeepStrictEqual(before, after) ? before : after);
  const fullnat = kept(previous.fullnat, next.fullnat);
  return {
    settings: kept(previous.settings, next.settings),
    timeouts: kept(previous.timeouts, next.timeouts),
    marks: kept(previous.marks, next.marks),
    ...(fullnat === undefined ? {} : { fullnat }),
    pools: kept(previous.pools, next.pools),
  };
}

export function sameSettings(a: DirectorSettings, b: DirectorSettings): boolean {
  return (
    isDeepStrictEqual(a.settings, b.settings) &&
    isDeepStrictEqual(a.timeouts, b.timeouts) &&
    isDeepStrictEqual(a.marks, b.marks) &&
    isDeepStrictEqual(a.fullnat, b.fullnat) &&
    isDeepStrictEqual(a.pools, b.pools)
  );
}

/** One step from a desired state to the next, and what a store has to write for it. */
export type Change =
  | { readonly kind: "put"; readonly service: VirtualService }
  | { readonly kind: "remove"; readonly name: string }
  | { readonly kind: "configure"; readonly settings: DirectorSettings }
  | { readonly kind: "replace"; readonly desired: DesiredState };

/**
 * The state after a change. `existing` is the service of `desired` that a put or remove is about (undefined: a put adds one). Copies
 * the list of references and nothing below it.
 */
export function afterChange(desired: DesiredState, change: Change, existing: VirtualService | undefined): DesiredState {
  switch (change.kind) {
    case "replace":
      return change.desired;
    case "configure":
      return { ...change.settings, services: desired.services };
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
