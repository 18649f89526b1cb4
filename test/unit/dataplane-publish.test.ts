import fc from "fast-check";
import t from "tap";
import { FreeList } from "../../src/dataplane/free-list.js";
import { readRealServer } from "../../src/dataplane/real-server-record.js";
import { GRACE, graceLeft } from "../../src/dataplane/retire.js";
import { ringSlots } from "../../src/dataplane/ring-record.js";
import { readService } from "../../src/dataplane/service-record.js";
import { RealServerState, Scheduler, SchedulerFlag } from "../../src/dataplane/sluice.bpf.js";
import { apply } from "../../src/dataplane/write.js";
import { EMPTY_STATE, type RealServer, type SchedulerName, type VirtualService } from "../../src/model/index.js";
import { setLoad } from "./plain-tables.js";
import { Bench, desiredState, requireDesired, requireValid, SIZES, server, service } from "./publish-bench.js";

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
          requireDesired(bench, desired);
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
          requireDesired(bench, desired);
        }
        bench.publishState(EMPTY_STATE);
        for (let time = 0; time < 2; time++) {
          // The rings of local addresses go after the real servers.
          bench.now += GRACE;
          bench.reap();
        }
        const { services, realServers, realLoad, localAddresses, localPools } = bench.tables;
        if ([services, realServers, realLoad, localAddresses, localPools].some(({ bytes }) => bytes.some(Boolean))) {
          throw new Error("something is left");
        }
        const { freeChunks, freeTimeouts, services: installed } = bench.inventory;
        return freeChunks.free === SIZES.chunks && freeTimeouts.free === 15 && installed.size === 0;
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
      const plan = bench.plan(second);
      const writes = [...plan.preparations, ...plan.writes];
      for (const write of writes.slice(0, moment % (writes.length + 1))) {
        apply(bench.tables, write);
      }
      bench.restart();
      bench.watch = () => {
        requireValid(bench.tables);
      };
      bench.publishState(third);
      requireDesired(bench, third);
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
  const steps = bench.steps({ ...EMPTY_STATE, services: [service(81, [server(2)])] });
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
  setLoad(bench.tables, index, { active: 1, inactive: 2 });

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
  setLoad(bench.tables, index, { active: 0, inactive: 0 });
  bench.now += GRACE - 1;
  bench.reap();
  t.equal(bench.inventory.services.get(name)!.realServers.size, 2, "not before the grace is over");
  bench.now += 1;
  bench.reap();
  t.equal(bench.inventory.services.get(name)!.realServers.size, 1);
  t.strictSame(bench.tables.retired, [{ realServer: index, service: 0 }], "its counters go to the service");
  t.equal(readRealServer(bench.tables.realServers, index), undefined);
  bench.publish(service(80, [server(2), server(3)]));
  t.equal(bench.realServer(name, "10.1.0.3:8080").index, index, "another one gets the element");
});

t.test("a removed service keeps its element while one of its real servers has connections", async (t) => {
  const bench = new Bench();
  const a = service(80, [server(1)]);
  bench.publish(a);
  const { index } = bench.realServer("tcp:10.0.0.100:80", "10.1.0.1:8080");
  setLoad(bench.tables, index, { active: 0, inactive: 1 });
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
  setLoad(bench.tables, index, { active: 1, inactive: 0 });
  bench.publish(service(80, [server(1, { method: "fullnat" })]));
  const elements = [...bench.inventory.services.get(name)!.realServers.values()];
  t.strictSame(
    elements.map(({ standing }) => standing),
    ["superseded", "active"],
  );
  t.match(readRealServer(bench.tables.realServers, index), { state: RealServerState.REAL_DRAINING, weight: 0 });
  bench.publish(service(80, []));
  t.match(readRealServer(bench.tables.realServers, index), { state: RealServerState.REAL_REMOVED });
  setLoad(bench.tables, index, { active: 0, inactive: 0 });
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
