/** What a publisher does, over plain memory and with a clock of the test's; what must hold of the tables; and random desired states. */
import fc from "fast-check";
import { type Address, formatAddress, parseAddress } from "../../src/dataplane/address.js";
import { BUCKETS } from "../../src/dataplane/bucket-table.js";
import { endpointKeys, isEndpoint } from "../../src/dataplane/endpoint.js";
import { type InstalledRealServer, type Inventory, installedKey } from "../../src/dataplane/inventory.js";
import { readLocalAddress } from "../../src/dataplane/local-address.js";
import { readLocalPool } from "../../src/dataplane/local-pool.js";
import { compileMarkRules, markRuleBytes } from "../../src/dataplane/mark-rules.js";
import { persistenceOf } from "../../src/dataplane/persistence.js";
import { type Plan, planPublish } from "../../src/dataplane/plan.js";
import type { Ways } from "../../src/dataplane/plan-pools.js";
import { methodOf } from "../../src/dataplane/plan-real-servers.js";
import { markRulesGraceLeft } from "../../src/dataplane/plan-settings.js";
import { readInventory } from "../../src/dataplane/read-inventory.js";
import { readThresholds } from "../../src/dataplane/real-load.js";
import { readRealServer } from "../../src/dataplane/real-server-record.js";
import { reap } from "../../src/dataplane/retire.js";
import { ringChunks, ringSlots } from "../../src/dataplane/ring-record.js";
import { schedulingOf } from "../../src/dataplane/scheduling.js";
import { isMark } from "../../src/dataplane/service-key.js";
import { readService } from "../../src/dataplane/service-record.js";
import { readMarkRuleRange, readSetting } from "../../src/dataplane/settings.js";
import type { Steps } from "../../src/dataplane/slices.js";
import { ForwardingMethod, RealServerState, Scheduler } from "../../src/dataplane/sluice.bpf.js";
import { compileTimeouts, readTimeouts } from "../../src/dataplane/timeouts.js";
import { apply, type Write } from "../../src/dataplane/write.js";
import {
  type AddressServiceKey,
  DEFAULT_SETTINGS,
  DEFAULT_TIMEOUTS,
  type DesiredState,
  EMPTY_STATE,
  type ForwardingMethod as MethodName,
  REMOVED_CONNECTIONS,
  type RealServer,
  realServerName,
  SCHEDULERS,
  type SchedulerFlag,
  type SchedulerName,
  SETTING_NAMES,
  type ServiceKey,
  type ServiceOptions,
  serviceName,
  type VirtualService,
} from "../../src/model/index.js";
import { type PlainSizes, type PlainTables, plainTables } from "./plain-tables.js";

export const SIZES: PlainSizes = { services: 8, realServers: 32, chunks: 1024 };

export function atOnce<Result>(steps: Steps<Result>): Result {
  for (;;) {
    const step = steps.next();
    if (step.done === true) {
      return step.value;
    }
  }
}

export class Bench {
  readonly tables: PlainTables;
  inventory: Inventory;
  now = 0;
  /** Looks at the tables after each write. */
  watch: (() => void) | undefined;
  /** Interfaces by real server's address. */
  readonly interfaces = new Map<string, number>();
  /** Of interface n: 10.n.0.0/16. */
  readonly ways: Ways = {
    interfaceTo: (address: Address) => this.interfaces.get(formatAddress(address)) ?? 0,
    subnets: (ifindex) => [
      { address: parseAddress(`10.${ifindex}.0.1`).bytes, mask: parseAddress("255.255.0.0").bytes },
    ],
  };

  constructor(sizes: PlainSizes = SIZES) {
    this.tables = plainTables(sizes);
    this.inventory = atOnce(readInventory(this.tables, 0));
  }

  publish(...services: VirtualService[]): Plan {
    return this.publishState({ ...EMPTY_STATE, services });
  }

  publishState(desired: DesiredState, waysChanged = false): Plan {
    const plan = this.plan(desired, waysChanged);
    for (const write of [...plan.preparations, ...plan.writes]) {
      apply(this.tables, write);
      this.watch?.();
    }
    plan.commit();
    return plan;
  }

  plan(desired: DesiredState, waysChanged = false): Plan {
    this.now += markRulesGraceLeft(this.inventory, this.tables, desired, this.now);
    return atOnce(this.steps(desired, waysChanged));
  }

  steps(desired: DesiredState, waysChanged = false): Steps<Plan> {
    const { inventory, tables, ways, now } = this;
    return planPublish({ inventory, tables, ways, now, waysChanged }, desired);
  }

  restart(): void {
    this.inventory = atOnce(readInventory(this.tables, this.now));
  }

  reap(): void {
    while (reap(this.inventory, this.tables, this.now, () => undefined)) {
      // In several goes.
    }
  }

  realServer(service: string, name: string): { index: number; state: RealServerState; weight: number } {
    const [found, ...more] = [...this.inventory.services.get(service)!.realServers.values()].filter(
      (realServer) => realServer.name === name,
    );
    if (found === undefined || more.length > 0) {
      throw new Error(`${service} has ${name} ${more.length + (found === undefined ? 0 : 1)} times`);
    }
    const { state, weight } = readRealServer(this.tables.realServers, found.index)!;
    return { index: found.index, state, weight };
  }
}

export function kinds(writes: readonly Write[]): string[] {
  return writes.map(({ kind }) => kind);
}

// ------------------------------------------------------------------------------------------------ states of the maps

/** What must hold after each write. */
export function requireValid(tables: PlainTables): void {
  const vips = new Set(
    Array.from(tables.vips.entries(), ([{ address, family }]) => formatAddress({ family, ...address })),
  );
  for (const [key, index] of tables.serviceIndex.entries()) {
    const record = readService(tables.services, index);
    require(record !== undefined, "a service that is indexed is there");
    require(JSON.stringify(record.key) === JSON.stringify(key), "and is the one that was meant");
    const hasVip = vips.has(formatAddress({ family: key.family, bytes: key.vip.bytes }));
    require(isMark(key) || hasVip, "and its address is a VIP");
    const { mask, ticks } = record.persistence;
    require(ticks === 0 || mask.some(Boolean), "and persistence has a mask");
  }
  const chunks = new Set<number>();
  for (let index = 0; index < tables.services.length; index++) {
    const record = readService(tables.services, index);
    if (record === undefined) {
      continue;
    }
    const { ring, scheduling } = record;
    const { scheduler } = scheduling;
    const inTurn = scheduler === Scheduler.SCHEDULER_RR || scheduler === Scheduler.SCHEDULER_WRR;
    const byBucket = scheduler === Scheduler.SCHEDULER_SH || scheduler === Scheduler.SCHEDULER_DH;
    require(!byBucket || ring.length === 0 || ring.length === BUCKETS, "sh and dh have their buckets");
    for (let chunk = ring.chunk; chunk < ring.chunk + ringChunks(ring.length); chunk++) {
      require(!chunks.has(chunk), "no two rings share a chunk");
      chunks.add(chunk);
    }
    for (const slot of ringSlots(tables.rings, ring)) {
      const realServer = readRealServer(tables.realServers, slot);
      require(realServer?.service === index, "a slot names a real server of its service");
      require(realServer.state === RealServerState.REAL_ACTIVE, "that is active");
      require(!inTurn || realServer.weight > 0, "and whose turn it is takes connections");
    }
  }
  for (let index = 0; index < tables.realServers.length; index++) {
    const record = readRealServer(tables.realServers, index);
    if (record !== undefined) {
      requireValidRealServer(tables, index, record.method, record.timeouts, chunks);
    }
  }
  const { first, count } = readMarkRuleRange(tables.settings);
  for (let rule = first; rule < first + count; rule++) {
    require(markRuleBytes(tables.markRules, rule, 1).some(Boolean), "a mark rule that holds is one");
  }
}

function requireValidRealServer(
  tables: PlainTables,
  index: number,
  method: ForwardingMethod,
  timeouts: number,
  serviceChunks: ReadonlySet<number>,
): void {
  const { upper, lower } = readThresholds(tables.realLoad, index);
  require(lower <= upper, "thresholds are in order");
  const set = readTimeouts(tables.timeouts, timeouts);
  require(timeouts === 0 || set.some(Boolean), "a real server's set of timeouts is one");
  const { ring, ports } = readLocalPool(tables.localPools, index);
  if (method !== ForwardingMethod.METHOD_FULLNAT || ring.length === 0) {
    return;
  }
  require(ports[0] > 0 && ports[0] <= ports[1], "a pool's ports are a range");
  for (let chunk = ring.chunk; chunk < ring.chunk + ringChunks(ring.length); chunk++) {
    require(!serviceChunks.has(chunk), "a pool's ring is no service's");
  }
}

/** That the maps say what is desired and nothing more. */
export function requireDesired(bench: Bench, desired: DesiredState): void {
  const { tables } = bench;
  const inventory = atOnce(readInventory(tables, 0));
  const live = [...inventory.services.values()].filter(({ indexed }) => indexed);
  require(live.length === desired.services.length, "as many services");
  const vips = new Map<string, number>();
  const endpoints = new Map<string, number[]>();
  for (const service of desired.services) {
    if (service.address !== undefined) {
      vips.set(service.address, (vips.get(service.address) ?? 0) + 1);
    }
    const installed = inventory.services.get(serviceName(service));
    require(installed?.indexed === true, "each is there");
    require(same([installed.scheduling], [schedulingOf(service)]), "picking as it should");
    require(same([installed.persistence], [persistenceOf(service)]), "persistent as it should be");
    require(installed.onePacket === service.onePacket, "and one-packet");
    const timeouts = compileTimeouts({ ...desired.timeouts, ...service.timeouts });
    const members: number[] = [];
    for (const realServer of service.realServers) {
      const found = installed.realServers.get(installedKey(realServerName(realServer), methodOf(realServer)));
      require(found?.standing === "active" && found.weight === realServer.weight, "with its real servers");
      require(found.weight === 0 || found.lastWeight === found.weight, "whose last weight is known");
      const { upperThreshold: upper, lowerThreshold: lower } = realServer;
      require(same([found.thresholds], [{ upper, lower }]), "and thresholds");
      require(same([readTimeouts(tables.timeouts, found.timeouts)], [timeouts]), "and timeouts");
      requirePool(bench, desired, service, found);
      if (takesPart(service.scheduler, found)) {
        members.push(found.index);
      }
      if (isEndpoint(found)) {
        for (const key of endpointKeys(installed.key, found)) {
          endpoints.set(JSON.stringify(key), [...(endpoints.get(JSON.stringify(key)) ?? []), found.index]);
        }
      }
    }
    require(same([...new Set(ringSlots(tables.rings, installed.ring))], members), "all that take part in its ring");
    requireRetired(desired, service, [...installed.realServers.values()]);
  }
  const counted = Array.from(tables.vips.entries(), ([{ address, family }, { services }]) => [
    formatAddress({ family, ...address }),
    services,
  ]);
  require(same(counted, [...vips]), "and the VIPs are counted");
  const known = Array.from(tables.natEndpoints.entries());
  require(known.length === endpoints.size, "and the nat endpoints are known");
  for (const [key, index] of known) {
    require(endpoints.get(JSON.stringify(key))?.includes(index) === true, "each by a real server that has it");
  }
  require(same([readTimeouts(tables.timeouts, 0)], [compileTimeouts(desired.timeouts)]), "the global timeouts");
  for (const name of SETTING_NAMES) {
    require(readSetting(tables.settings, name) === desired.settings[name], `the setting ${name}`);
  }
  const { first, count } = readMarkRuleRange(tables.settings);
  require(same([markRuleBytes(tables.markRules, first, count)], [compileMarkRules(desired.marks)]), "the mark rules");
}

function requireRetired(
  { settings }: DesiredState,
  { removedConnections }: VirtualService,
  installed: readonly InstalledRealServer[],
): void {
  const byDefault = settings.expire_nodest_conn === 1 ? "reset" : "drop";
  const state = {
    drop: RealServerState.REAL_REMOVED,
    keep: RealServerState.REAL_DRAINING,
    reset: RealServerState.REAL_RESET,
  }[removedConnections ?? byDefault];
  for (const realServer of installed) {
    const isSuperseded = installed.some(({ name, standing }) => standing === "active" && name === realServer.name);
    if (realServer.standing !== "active") {
      const expected = isSuperseded ? RealServerState.REAL_DRAINING : state;
      require(realServer.state === expected, "those that are out of service get what the service says");
    }
  }
}

function requirePool(
  bench: Bench,
  desired: DesiredState,
  { fullnatPool }: VirtualService,
  { pool, method, address }: InstalledRealServer,
): void {
  require((pool !== undefined) === (method === ForwardingMethod.METHOD_FULLNAT), "fullnat has a pool");
  if (pool === undefined) {
    return;
  }
  const wanted = fullnatPool === undefined ? desired.fullnat : desired.pools.find(({ name }) => name === fullnatPool);
  const addresses = wanted?.localAddresses ?? [];
  const near = addresses.filter((text) => text.startsWith(`10.${bench.ways.interfaceTo(address)}.`));
  const held = Array.from(ringSlots(bench.tables.rings, pool.ring), (index) =>
    formatAddress(readLocalAddress(bench.tables.localAddresses, index)!),
  );
  require(same(held, near.length > 0 ? near : addresses), "of the addresses that it should");
  require(wanted === undefined || same(pool.ports, wanted.localPorts), "and the ports");
}

function takesPart(scheduler: SchedulerName, { weight, lastWeight }: InstalledRealServer): boolean {
  switch (scheduler) {
    case "rr":
    case "wrr":
      return weight > 0;
    case "mh":
      return lastWeight > 0;
    default:
      return true;
  }
}

function require(condition: boolean, what: string): asserts condition {
  if (!condition) {
    throw new Error(`not so: ${what}`);
  }
}

export function same(a: readonly unknown[], b: readonly unknown[]): boolean {
  const sorted = (list: readonly unknown[]): string => JSON.stringify(list.map((item) => JSON.stringify(item)).sort());
  return sorted(a) === sorted(b);
}

// --------------------------------------------------------------------------------------------------- desired states

export function server(number: number, more: Partial<RealServer> = {}): RealServer {
  return {
    address: `10.1.0.${number}`,
    port: 8080,
    method: "nat",
    weight: 1,
    upperThreshold: 0,
    lowerThreshold: 0,
    ...more,
  };
}

export function service(
  port: number,
  realServers: readonly RealServer[],
  scheduler: SchedulerName = "rr",
): AddressServiceKey & ServiceOptions {
  return { protocol: "tcp", address: "10.0.0.100", port, scheduler, schedulerFlags: [], onePacket: false, realServers };
}

/** What all services may say beside who they are. */
function options(): fc.Arbitrary<Omit<VirtualService, keyof ServiceKey | "realServers">> {
  const optional = <T>(value: fc.Arbitrary<T>): fc.Arbitrary<T | undefined> => fc.option(value, { nil: undefined });
  const persistence = fc.record({
    timeout: fc.constantFrom(60, 360),
    netmask: fc.constantFrom("255.255.255.255", "255.255.255.0"),
  });
  return fc
    .record({
      scheduler: fc.constantFrom(...SCHEDULERS),
      fallback: fc.boolean(),
      onePacket: fc.boolean(),
      persistence: optional(persistence),
      timeouts: optional(fc.record({ udp: fc.constantFrom(5, 6) })),
      removedConnections: optional(fc.constantFrom(...REMOVED_CONNECTIONS)),
      fullnatPool: optional(fc.constantFrom("a", "b")),
    })
    .map(({ scheduler, fallback, ...rest }) => {
      const { persistence: persistent, timeouts, removedConnections, fullnatPool } = rest;
      const flag: SchedulerFlag[] = scheduler === "mh" || scheduler === "sh" ? [`${scheduler}-fallback`] : [];
      return {
        scheduler,
        schedulerFlags: fallback ? flag : [],
        onePacket: rest.onePacket,
        ...(persistent === undefined ? {} : { persistence: persistent }),
        ...(timeouts === undefined ? {} : { timeouts }),
        ...(removedConnections === undefined ? {} : { removedConnections }),
        ...(fullnatPool === undefined ? {} : { fullnatPool }),
      };
    });
}

function virtualService(): fc.Arbitrary<VirtualService> {
  const key = fc.oneof(
    fc.record({
      protocol: fc.constantFrom("tcp" as const, "udp" as const, "sctp" as const),
      address: fc.constantFrom("10.0.0.100", "10.0.0.101", "2001:db8::1"),
      port: fc.constantFrom(0, 80, 81),
    }),
    fc.record({ fwmark: fc.constantFrom(1, 0xffffffff), family: fc.constantFrom("ipv4" as const, "ipv6" as const) }),
  );
  const thresholds = fc.constantFrom([0, 0], [8, 0], [8, 4], [3, 2]);
  const realServer = fc
    .record({
      address: fc.integer({ min: 1, max: 5 }).map((n) => `10.1.0.${n}`),
      port: fc.constantFrom(0, 8080),
      method: fc.constantFrom<MethodName>("nat", "fullnat"),
      weight: fc.integer({ min: 0, max: 3 }),
      thresholds,
    })
    .map(({ thresholds: [upperThreshold = 0, lowerThreshold = 0], ...rest }): RealServer => {
      return { ...rest, upperThreshold, lowerThreshold };
    });
  const realServers = fc.uniqueArray(realServer, { selector: realServerName, maxLength: 3 });
  return fc
    .tuple(key, options(), realServers)
    .map(([identity, said, members]) => ({ ...identity, ...said, realServers: members }));
}

const POOLS = [
  { localAddresses: ["10.1.1.1", "10.2.1.1"], localPorts: [1024, 2000] },
  { localAddresses: ["10.2.1.1"], localPorts: [3000, 3000] },
  { localAddresses: ["10.1.1.2", "10.1.1.3", "10.2.1.2"], localPorts: [1, 65535] },
] as const;

export function desiredState(): fc.Arbitrary<DesiredState> {
  const pool = fc.constantFrom(...POOLS);
  const rule = fc.record({
    mark: fc.constantFrom(1, 2),
    family: fc.constant("ipv4" as const),
    destination: fc.constant({ family: "ipv4" as const, address: "10.0.0.0", prefixLength: 8 }),
  });
  return fc.record({
    services: fc.uniqueArray(virtualService(), { selector: serviceName, maxLength: 2 }),
    settings: fc
      .record({ expire_nodest_conn: fc.constantFrom(0, 1), icmp_rate: fc.constantFrom(1000, 100_000) })
      .map((some) => ({ ...DEFAULT_SETTINGS, ...some })),
    timeouts: fc.constantFrom(5, 300).map((udp) => ({ ...DEFAULT_TIMEOUTS, udp })),
    marks: fc.array(rule, { maxLength: 3 }),
    fullnat: pool,
    pools: fc.tuple(pool, pool).map(([a, b]) => [
      { name: "a", ...a },
      { name: "b", ...b },
    ]),
  });
}
