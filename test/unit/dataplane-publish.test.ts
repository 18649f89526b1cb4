import fc from "fast-check";
import t from "tap";
import { formatAddress } from "../../src/dataplane/address.js";
import { BUCKETS } from "../../src/dataplane/bucket-table.js";
import { FreeList } from "../../src/dataplane/free-list.js";
import {
  type InstalledRealServer,
  type Inventory,
  installedKey,
  methodOf,
  readInventory,
} from "../../src/dataplane/inventory.js";
import { arrangeLocalAddresses } from "../../src/dataplane/local-address.js";
import { type Plan, planPublish } from "../../src/dataplane/plan.js";
import { readRealServer, readService, ringChunks, ringSlots } from "../../src/dataplane/record.js";
import { GRACE, graceLeft, reap } from "../../src/dataplane/retire.js";
import { schedulingOf } from "../../src/dataplane/scheduling.js";
import type { Steps } from "../../src/dataplane/slices.js";
import { RealServerState, Scheduler, SchedulerFlag } from "../../src/dataplane/sluice.bpf.js";
import type { Tables } from "../../src/dataplane/tables.js";
import { apply } from "../../src/dataplane/write.js";
import {
  type DesiredState,
  EMPTY_STATE,
  type ForwardingMethod,
  type RealServer,
  realServerName,
  SCHEDULERS,
  type SchedulerFlag as SchedulerFlagName,
  type SchedulerName,
  serviceName,
  type VirtualService,
} from "../../src/model/index.js";
import { type PlainSizes, type PlainTables, plainTables, setLoad } from "./plain-tables.js";

const SIZES: PlainSizes = { services: 8, realServers: 32, chunks: 1024 };

function atOnce<Result>(steps: Steps<Result>): Result {
  for (;;) {
    const step = steps.next();
    if (step.done === true) {
      return step.value;
    }
  }
}

/** What a publisher does, with a clock of the test's. */
class Bench {
  readonly tables: PlainTables;
  inventory: Inventory;
  now = 0;
  /** Looks at the tables after each write. */
  watch: (() => void) | undefined;

  constructor(sizes: PlainSizes = SIZES) {
    this.tables = plainTables(sizes);
    this.inventory = atOnce(readInventory(this.tables, 0));
  }

  publish(...services: VirtualService[]): Plan {
    return this.publishState({ ...EMPTY_STATE, services });
  }

  publishState(desired: DesiredState): Plan {
    const plan = atOnce(planPublish(this.inventory, this.tables, desired, this.now));
    for (const write of [...plan.preparations, ...plan.writes]) {
      apply(this.tables, write);
      this.watch?.();
    }
    plan.commit();
    return plan;
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

t.test("free lists never give one element twice, and join what is given back", async () => {
  const step = fc.record({ length: fc.integer({ min: 1, max: 20 }), release: fc.boolean(), pick: fc.nat() });
  fc.assert(
    fc.property(fc.integer({ min: 1, max: 200 }), fc.array(step, { maxLength: 100 }), (size, steps) => {
      const list = new FreeList(size);
      const owner = new Array<boolean>(size).fill(false);
      const taken: [start: number, length: number][] = [];
      for (const { length, release, pick } of steps) {
        if (release && taken.length > 0) {
          const [[start, held]] = taken.splice(pick % taken.length, 1) as [[number, number]];
          list.release(start, held);
          owner.fill(false, start, start + held);
        } else {
          const start = pick % 2 === 0 ? list.allocate(length) : reserve(list, pick % size, length);
          const fits = longestRun(owner) >= length;
          if (start === undefined) {
            if (pick % 2 === 0 && fits) {
              return false;
            }
            continue;
          }
          if (start + length > size || owner.slice(start, start + length).some(Boolean)) {
            return false;
          }
          owner.fill(true, start, start + length);
          taken.push([start, length]);
        }
        if (list.free !== owner.filter((used) => !used).length || list.largest !== longestRun(owner)) {
          return false;
        }
      }
      return true;
    }),
  );
});

t.test("a free list refuses to take back what is free", async (t) => {
  const list = new FreeList(10);
  t.equal(list.allocate(4), 0);
  for (const [start, length] of [
    [3, 2],
    [4, 1],
    [9, 2],
  ] as const) {
    t.throws(() => list.release(start, length), RangeError, `${start}, ${length}`);
  }
  t.equal(list.free, 6);
});

t.test("every state between two writes is right, and the last one is the desired one", async () => {
  fc.assert(
    fc.property(
      fc.array(desiredState(), { minLength: 1, maxLength: 6 }),
      fc.array(fc.boolean()),
      (states, restarts) => {
        const bench = new Bench();
        bench.watch = () => {
          requireValid(bench.tables);
        };
        for (const [position, desired] of states.entries()) {
          bench.publishState(desired);
          requireDesired(bench.tables, desired);
          if (restarts[position] === true) {
            bench.restart();
            const again = bench.publishState(desired);
            if (again.preparations.length + again.writes.length > 0) {
              throw new Error(`a restart writes ${JSON.stringify([...again.preparations, ...again.writes])}`);
            }
          }
          bench.now += GRACE;
          bench.reap();
          requireValid(bench.tables);
          requireDesired(bench.tables, desired);
        }
        bench.publishState(EMPTY_STATE);
        bench.now += GRACE;
        bench.reap();
        if (bench.tables.services.bytes.some(Boolean) || bench.tables.realServers.bytes.some(Boolean)) {
          throw new Error("something is left");
        }
        return bench.inventory.freeChunks.free === SIZES.chunks && bench.inventory.services.size === 0;
      },
    ),
    { numRuns: 300 },
  );
});

t.test("a process that dies between any two writes leaves what the next one can put right", async () => {
  fc.assert(
    fc.property(desiredState(), desiredState(), desiredState(), fc.nat(), (first, second, third, moment) => {
      const bench = new Bench();
      bench.publishState(first);
      const plan = atOnce(planPublish(bench.inventory, bench.tables, second, bench.now));
      const writes = [...plan.preparations, ...plan.writes];
      for (const write of writes.slice(0, moment % (writes.length + 1))) {
        apply(bench.tables, write);
      }
      bench.restart();
      bench.watch = () => {
        requireValid(bench.tables);
      };
      bench.publishState(third);
      requireDesired(bench.tables, third);
    }),
    { numRuns: 300 },
  );
});

t.test("a plan that is given up where it pauses takes nothing", async (t) => {
  const bench = new Bench();
  bench.publish(service(80, [server(1)]));
  const { freeServices, freeRealServers, freeChunks } = bench.inventory;
  const free = (): number[] => [freeServices.free, freeRealServers.free, freeChunks.free];
  const before = free();
  const steps = planPublish(bench.inventory, bench.tables, { ...EMPTY_STATE, services: [service(81, [server(2)])] }, 0);
  steps.next();
  steps.next();
  t.not(freeServices.free, before[0], "taken so far");
  t.throws(() => steps.throw(new Error("stopping")), { message: "stopping" });
  t.strictSame(free(), before);
});

t.test("services that are the same objects are not looked at", async (t) => {
  const bench = new Bench();
  const [a, b] = [service(80, [server(1)]), service(81, [server(2)])];
  bench.publish(a, b);
  const plan = bench.publish(a, { ...b, realServers: [server(2, { weight: 5 })] });
  t.strictSame(plan.changes, {
    services: { added: [], changed: ["tcp:10.0.0.100:81"], removed: [] },
    realServers: { added: [], changed: ["tcp:10.0.0.100:81 10.1.0.2:8080"], removed: [] },
  });
  t.equal(bench.publish(b, a).services.length, 1, "b is the former object again; order means nothing");
  t.strictSame(bench.publish(b, a).writes, [], "nothing new");
  t.strictSame(bench.publish({ ...b }, { ...a }).writes, [], "other objects of the same content");
});

t.test("a removed real server keeps its element while connections name it", async (t) => {
  const bench = new Bench();
  const name = "tcp:10.0.0.100:80";
  bench.publish(service(80, [server(1), server(2)]));
  const { index } = bench.realServer(name, "10.1.0.1:8080");
  setLoad(bench.tables, index, 1, 2);

  const plan = bench.publish(service(80, [server(2)]));
  t.strictSame(plan.changes.realServers.removed, [`${name} 10.1.0.1:8080`]);
  t.strictSame(bench.realServer(name, "10.1.0.1:8080"), { index, state: RealServerState.REAL_REMOVED, weight: 0 });
  bench.now += 10 * GRACE;
  bench.reap();
  t.equal(bench.realServer(name, "10.1.0.1:8080").index, index, "not freed");

  bench.restart();
  bench.publish(service(80, [server(2), server(1, { weight: 7 })]));
  t.strictSame(
    bench.realServer(name, "10.1.0.1:8080"),
    { index, state: RealServerState.REAL_ACTIVE, weight: 7 },
    "revived with its connections, also after a restart",
  );

  bench.publish(service(80, [server(2)]));
  setLoad(bench.tables, index, 0, 0);
  bench.now += GRACE - 1;
  bench.reap();
  t.equal(bench.inventory.services.get(name)!.realServers.size, 2, "not before the grace is over");
  bench.now += 1;
  bench.reap();
  t.equal(bench.inventory.services.get(name)!.realServers.size, 1);
  t.strictSame(bench.tables.resetRealServers, [index], "its counters start anew");
  t.equal(readRealServer(bench.tables.realServers, index), undefined);
  bench.publish(service(80, [server(2), server(3)]));
  t.equal(bench.realServer(name, "10.1.0.3:8080").index, index, "another one gets the element");
});

t.test("a removed service keeps its element while one of its real servers has connections", async (t) => {
  const bench = new Bench();
  const a = service(80, [server(1)]);
  bench.publish(a);
  const { index } = bench.realServer("tcp:10.0.0.100:80", "10.1.0.1:8080");
  setLoad(bench.tables, index, 0, 1);
  bench.publish();
  bench.now += GRACE;
  bench.reap();
  t.equal(bench.inventory.services.get("tcp:10.0.0.100:80")?.indexed, false);
  t.strictSame([...bench.tables.vips.entries()], []);
  bench.publish(service(81, [server(1)]), a);
  t.equal(bench.inventory.services.get("tcp:10.0.0.100:80")?.index, 0, "revived");
  t.equal(bench.inventory.services.get("tcp:10.0.0.100:81")?.index, 1);
  t.equal(bench.realServer("tcp:10.0.0.100:80", "10.1.0.1:8080").index, index);
});

t.test("another method gets another element; the former drains as it was", async (t) => {
  const bench = new Bench();
  bench.publish(service(80, [server(1, { method: "nat" })]));
  const name = "tcp:10.0.0.100:80";
  const { index } = bench.realServer(name, "10.1.0.1:8080");
  setLoad(bench.tables, index, 1, 0);
  bench.publish(service(80, [server(1, { method: "fullnat" })]));
  const elements = [...bench.inventory.services.get(name)!.realServers.values()];
  t.strictSame(
    elements.map(({ standing }) => standing),
    ["superseded", "active"],
  );
  t.match(readRealServer(bench.tables.realServers, index), { state: RealServerState.REAL_ACTIVE, weight: 0 });
  bench.publish(service(80, []));
  t.match(readRealServer(bench.tables.realServers, index), { state: RealServerState.REAL_REMOVED });
  setLoad(bench.tables, index, 0, 0);
  bench.now += GRACE;
  bench.reap();
  t.equal(bench.inventory.freeRealServers.free, SIZES.realServers);
});

t.test("an mh table keeps its size while real servers come and go", async (t) => {
  const bench = new Bench();
  const length = (): number => bench.inventory.services.get("tcp:10.0.0.100:80")!.ring.length;
  const servers = Array.from({ length: 12 }, (_, index) => server(index + 1));
  bench.publish(service(80, servers.slice(0, 10), "mh"));
  t.equal(length(), 1021);
  bench.publish(service(80, servers, "mh"));
  t.equal(length(), 1021);
  bench.restart();
  bench.publish(service(80, servers.slice(0, 11), "mh"));
  t.equal(length(), 1021, "also after a restart");
  bench.publish(service(80, servers, "rr"));
  t.equal(length(), 12);
});

t.test("a weight that changes under a live scheduler writes no ring", async (t) => {
  for (const scheduler of ["lc", "wlc", "sed", "nq", "lblc", "lblcr", "fo", "ovf", "twos"] as const) {
    const bench = new Bench();
    bench.publish(service(80, [server(1), server(2), server(3, { weight: 0 })], scheduler));
    t.equal(bench.inventory.services.get("tcp:10.0.0.100:80")?.ring.length, 3, "one slot a real server");
    const plan = bench.publish(service(80, [server(1, { weight: 0 }), server(2, { weight: 4 }), server(3)], scheduler));
    const kinds = plan.writes.map(({ kind }) => kind);
    t.strictSame(kinds, ["weight", "weight", "weight"], scheduler);
    t.strictSame(
      plan.preparations.map(({ kind }) => kind),
      ["last weight", "last weight"],
      "for mh, should it come",
    );
  }
});

t.test("mh keeps the slots of a real server that is quiesced, over a restart and a change of method too", async (t) => {
  const name = "tcp:10.0.0.100:80";
  const bench = new Bench();
  const slots = (): number[] => {
    const { ring, realServers } = bench.inventory.services.get(name)!;
    const byIndex = new Map(Array.from(realServers.values(), (realServer) => [realServer.index, realServer.name]));
    return Array.from(ringSlots(bench.tables.rings, ring), (slot) => Number(byIndex.get(slot)?.split(/[.:]/)[3]));
  };
  const list = (weight: number, more: Partial<RealServer> = {}): RealServer[] => [
    server(1),
    server(2, { weight, ...more }),
    server(3),
  ];
  bench.publish(service(80, list(3), "mh"));
  const before = slots();
  const plan = bench.publish(service(80, list(0), "mh"));
  t.strictSame(
    plan.writes.map(({ kind }) => kind),
    ["weight"],
    "no ring is written",
  );
  bench.restart();
  t.strictSame(bench.publish(service(80, list(0), "mh")).writes, []);
  bench.publish(service(80, list(0, { method: "fullnat" }), "mh"));
  t.strictSame(slots(), before, "under another method");
  bench.publish(service(80, list(5), "mh"));
  t.not(slots().filter((n) => n === 2).length, before.filter((n) => n === 2).length, "another weight, other slots");
  bench.publish(service(80, [server(1), server(3)], "mh"));
  bench.publish(service(80, list(0), "mh"));
  t.notOk(slots().includes(2), "added anew with weight 0 it has none");
});

t.test("flags and schedulers change in an order in which each ring is read by who can", async (t) => {
  const row = (from: SchedulerName, to: SchedulerName): string[] => {
    const bench = new Bench();
    bench.publish(service(80, [server(1), server(2, { weight: 0 })], from));
    const { writes } = bench.publish(service(80, [server(1), server(2, { weight: 0 })], to));
    return writes.map((write) => (write.kind === "scheduling" ? String(write.scheduling.scheduler) : write.kind));
  };
  const number = (name: "WLC" | "SH" | "MH" | "RR"): string => String(Scheduler[`SCHEDULER_${name}`]);
  t.strictSame(row("rr", "wlc"), [number("WLC"), "ring"]);
  t.strictSame(row("wlc", "rr"), ["ring", number("RR"), "turns"]);
  t.strictSame(row("rr", "mh"), [number("MH"), "ring"]);
  t.strictSame(row("mh", "sh"), ["ring", number("SH")]);
  t.strictSame(row("rr", "sh"), [number("WLC"), "ring", number("SH")], "neither reads the other's");
  t.strictSame(row("sh", "rr"), [number("WLC"), "ring", number("RR"), "turns"]);
  const bench = new Bench();
  const mh = service(80, [server(1)], "mh");
  bench.publish(mh);
  const { writes, changes } = bench.publish({ ...mh, schedulerFlags: ["mh-fallback", "mh-port"] });
  t.match(writes, [{ kind: "scheduling", scheduling: { flags: SchedulerFlag.SCHEDULER_FALLBACK_AND_PORT } }]);
  t.strictSame(changes.services.changed, ["tcp:10.0.0.100:80"]);
});

t.test("what does not fit is refused whole", async (t) => {
  const rows = [
    {
      why: "services",
      sizes: { ...SIZES, services: 1 },
      services: [service(80, [server(1)]), service(81, [])],
      expected: { field: "limits.services", wanted: 2, available: 1 },
    },
    {
      why: "real servers",
      sizes: { ...SIZES, realServers: 2 },
      services: [service(80, [server(1), server(2), server(3), server(4)])],
      expected: { field: "limits.real_servers", wanted: 4, available: 2 },
    },
    {
      why: "slots",
      sizes: { ...SIZES, chunks: 65 },
      services: [service(80, [server(1)], "mh"), service(81, [server(1)], "mh")],
      expected: { field: "limits.ring_slots", wanted: 2048, available: 1040 },
    },
    {
      why: "local addresses",
      sizes: SIZES,
      services: [],
      fullnat: {
        localAddresses: Array.from({ length: 9 }, (_, n) => `10.9.0.${n}`),
        localPorts: [1024, 2000] as const,
      },
      expected: { field: "fullnat.local_addresses", wanted: 9, available: 8 },
    },
  ];
  for (const { why, sizes, services, fullnat, expected } of rows) {
    const bench = new Bench(sizes);
    const desired = { ...EMPTY_STATE, services, ...(fullnat === undefined ? {} : { fullnat }) };
    t.throws(() => bench.publishState(desired), { code: "CAPACITY_EXCEEDED", ...expected }, why);
    t.notOk(bench.tables.services.bytes.some(Boolean), "nothing is written");
    t.strictSame(
      [bench.inventory.freeServices.free, bench.inventory.freeRealServers.free, bench.inventory.freeChunks.free],
      [sizes.services, sizes.realServers, sizes.chunks],
      "nothing is taken",
    );
    bench.publish();
  }
});

t.test("a replaced ring is given back after the grace", async (t) => {
  const bench = new Bench({ ...SIZES, chunks: 2 });
  const weighted = (weight: number): VirtualService => service(80, [server(1), server(2, { weight })], "wrr");
  bench.publish(weighted(2));
  bench.publish(weighted(3));
  t.throws(() => bench.publish(weighted(4)), { code: "CAPACITY_EXCEEDED" });
  t.equal(graceLeft(bench.inventory, bench.now), GRACE);
  bench.now += GRACE;
  bench.reap();
  t.equal(graceLeft(bench.inventory, bench.now), undefined);
  bench.publish(weighted(4));
});

t.test("two services of the same name are refused", async (t) => {
  const bench = new Bench();
  const [a, b] = [service(80, [server(1)]), service(81, [server(2)])];
  t.throws(() => bench.publish(a, { ...a }), { code: "DUPLICATE_SERVICE" });
  bench.publish(a, b);
  t.throws(() => bench.publish(a, b, { ...a }), { code: "DUPLICATE_SERVICE" });
  t.throws(() => bench.publish(a, b, a), { code: "DUPLICATE_SERVICE" });
  t.strictSame(bench.publish(a, b).writes, []);
});

t.test("maps that contradict themselves are refused", async (t) => {
  const bench = new Bench();
  bench.publish(service(80, [server(1)]), service(81, [server(2)]));
  const { key, ring } = readService(bench.tables.services, 0)!;
  apply(bench.tables, { kind: "ring", service: 1, ring });
  t.throws(() => bench.restart(), { code: "PINS_DAMAGED" }, "two rings in one place");
  apply(bench.tables, { kind: "ring", service: 1, ring: { chunk: SIZES.chunks, length: 1 } });
  t.throws(() => bench.restart(), { code: "PINS_DAMAGED" }, "a ring outside the map");
  const lost = new Bench();
  lost.tables.serviceIndex.set(key, 3);
  t.throws(() => lost.restart(), { code: "PINS_DAMAGED" }, "an index of no service");
});

t.test("fullnat's addresses and ports", async (t) => {
  const bench = new Bench();
  const state = (localAddresses: string[], localPorts: [number, number]): DesiredState => ({
    ...EMPTY_STATE,
    fullnat: { localAddresses, localPorts },
  });
  bench.publishState(state(["10.1.0.1", "10.1.0.2"], [1024, 2000]));
  bench.restart();
  t.strictSame(bench.inventory.localAddresses, ["10.1.0.1", "10.1.0.2"]);
  t.strictSame(bench.publishState(state(["10.1.0.1", "10.1.0.2"], [1024, 2000])).preparations, []);
  bench.publishState(state(["10.1.0.2"], [3000, 4000]));
  t.strictSame(bench.inventory.localAddresses, ["10.1.0.2", "10.1.0.2"], "the one that stays keeps its index");
  bench.publishState(EMPTY_STATE);
  t.strictSame(bench.inventory.localAddresses, []);
});

t.test("local addresses that stay keep their index", async () => {
  const addresses = fc.uniqueArray(
    fc.integer({ min: 1, max: 9 }).map((n) => `10.1.0.${n}`),
    { maxLength: 9 },
  );
  fc.assert(
    fc.property(fc.array(addresses, { maxLength: 8 }), (sequence) => {
      let current: string[] = [];
      for (const wanted of sequence) {
        const next = arrangeLocalAddresses(current, wanted);
        const stays = wanted.every(
          (address) => !current.includes(address) || next[current.indexOf(address)] === address,
        );
        const same = new Set(next).size === wanted.length && wanted.every((address) => next.includes(address));
        if (!stays || !same || next.length > 9) {
          return false;
        }
        current = next;
      }
      return true;
    }),
  );
});

// ------------------------------------------------------------------------------------------------ states of the maps

/** What must hold after each write. */
function requireValid(tables: Tables): void {
  const vips = new Set(
    Array.from(tables.vips.entries(), ([{ address, family }]) => formatAddress({ family, ...address })),
  );
  for (const [key, index] of tables.serviceIndex.entries()) {
    const record = readService(tables.services, index);
    require(record !== undefined, "a service that is indexed is there");
    require(JSON.stringify(record.key) === JSON.stringify(key), "and is the one that was meant");
    require(vips.has(formatAddress({ family: key.family, bytes: key.vip.bytes })), "and its address is a VIP");
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
}

/** That the maps say what is desired and nothing more. */
function requireDesired(tables: Tables, desired: DesiredState): void {
  const inventory = atOnce(readInventory(tables, 0));
  const live = [...inventory.services.values()].filter(({ indexed }) => indexed);
  require(live.length === desired.services.length, "as many services");
  const vips = new Map<string, number>();
  for (const service of desired.services) {
    const { address = "" } = service;
    vips.set(address, (vips.get(address) ?? 0) + 1);
    const installed = inventory.services.get(serviceName(service));
    require(installed?.indexed === true, "each is there");
    require(same([installed.scheduling], [schedulingOf(service)]), "picking as it should");
    const members: number[] = [];
    for (const realServer of service.realServers) {
      const found = installed.realServers.get(installedKey(realServerName(realServer), methodOf(realServer)));
      require(found?.standing === "active" && found.weight === realServer.weight, "with its real servers");
      require(found.weight === 0 || found.lastWeight === found.weight, "whose last weight is known");
      if (takesPart(service.scheduler, found)) {
        members.push(found.index);
      }
    }
    require(same([...new Set(ringSlots(tables.rings, installed.ring))], members), "all that take part in its ring");
  }
  const counted = Array.from(tables.vips.entries(), ([{ address, family }, { services }]) => [
    formatAddress({ family, ...address }),
    services,
  ]);
  require(same(counted, [...vips]), "and the VIPs are counted");
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

function same(a: readonly unknown[], b: readonly unknown[]): boolean {
  const sorted = (list: readonly unknown[]): string => JSON.stringify(list.map((item) => JSON.stringify(item)).sort());
  return sorted(a) === sorted(b);
}

// --------------------------------------------------------------------------------------------------- desired states

function server(number: number, more: Partial<RealServer> = {}): RealServer {
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

function service(port: number, realServers: readonly RealServer[], scheduler: SchedulerName = "rr"): VirtualService {
  return { protocol: "tcp", address: "10.0.0.100", port, scheduler, schedulerFlags: [], onePacket: false, realServers };
}

function desiredState(): fc.Arbitrary<DesiredState> {
  const realServer = fc.record({
    address: fc.integer({ min: 1, max: 5 }).map((n) => `10.1.0.${n}`),
    port: fc.constant(8080),
    method: fc.constantFrom<ForwardingMethod>("nat", "fullnat"),
    weight: fc.integer({ min: 0, max: 3 }),
    upperThreshold: fc.constant(0),
    lowerThreshold: fc.constant(0),
  });
  const virtualService = fc.record({
    protocol: fc.constantFrom("tcp" as const, "udp" as const),
    address: fc.constantFrom("10.0.0.100", "10.0.0.101", "2001:db8::1"),
    port: fc.integer({ min: 80, max: 81 }),
    scheduler: fc.constantFrom(...SCHEDULERS),
    fallback: fc.boolean(),
    realServers: fc.uniqueArray(realServer, { selector: realServerName, maxLength: 3 }),
  });
  const withFlags = virtualService.map(({ fallback, ...rest }): VirtualService => {
    const { scheduler } = rest;
    const flag: SchedulerFlagName[] = scheduler === "mh" || scheduler === "sh" ? [`${scheduler}-fallback`] : [];
    return { ...rest, schedulerFlags: fallback ? flag : [], onePacket: false };
  });
  const services = fc.uniqueArray(withFlags, { selector: serviceName, maxLength: 2 });
  return services.map((list) => ({ ...EMPTY_STATE, services: list }));
}

function reserve(list: FreeList, start: number, length: number): number | undefined {
  return list.reserve(start, length) ? start : undefined;
}

function longestRun(used: readonly boolean[]): number {
  let longest = 0;
  let run = 0;
  for (const taken of used) {
    run = taken ? 0 : run + 1;
    longest = Math.max(longest, run);
  }
  return longest;
}
