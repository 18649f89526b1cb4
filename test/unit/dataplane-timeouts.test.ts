/** Timeouts of services: sets that are shared, changed while running, and given back. */
import t from "tap";
import { GRACE } from "../../src/dataplane/retire.js";
import { ConnectionState } from "../../src/dataplane/sluice.bpf.js";
import { readTimeouts } from "../../src/dataplane/timeouts.js";
import {
  DEFAULT_TIMEOUTS,
  type DesiredState,
  EMPTY_STATE,
  type ServiceTimeouts,
  serviceName,
  type VirtualService,
} from "../../src/model/index.js";
import { setLoad } from "./plain-tables.js";
import { Bench, kinds, requireValid, SIZES, server, service } from "./publish-bench.js";

const TICKS_A_SECOND = 1e9 / 2 ** 22;

function own(port: number, timeouts: ServiceTimeouts): VirtualService {
  return { ...service(port, [server(port)]), timeouts };
}

function state(services: readonly VirtualService[], global: ServiceTimeouts = {}): DesiredState {
  return { ...EMPTY_STATE, services, timeouts: { ...DEFAULT_TIMEOUTS, ...global } };
}

/** The sets that the real servers of services name. */
function setsOf(bench: Bench, ...services: VirtualService[]): number[] {
  return services.map((wanted) => {
    const [first] = bench.inventory.services.get(serviceName(wanted))!.realServers.values();
    return first!.timeouts;
  });
}

function seconds(bench: Bench, set: number, connectionState: ConnectionState): number {
  return readTimeouts(bench.tables.timeouts, set)[connectionState]! / TICKS_A_SECOND;
}

t.test("every timeout of the configuration is written for its state, in ticks rounded up", async (t) => {
  const bench = new Bench();
  bench.publish();
  const set = readTimeouts(bench.tables.timeouts, 0);
  const rows: [ConnectionState, number][] = [
    [ConnectionState.TCP_ESTABLISHED, 900],
    [ConnectionState.TCP_CLOSE, 10],
    [ConnectionState.UDP_NORMAL, 300],
    [ConnectionState.SCTP_INIT1, 4],
    [ConnectionState.SCTP_ESTABLISHED, 900],
    [ConnectionState.ONE_PACKET, 30],
  ];
  for (const [connectionState, wanted] of rows) {
    t.equal(set[connectionState], Math.ceil(wanted * TICKS_A_SECOND), String(wanted));
  }
  t.equal(set.filter((ticks) => ticks === 0).length, 2, "templates alone have none: their service says it");
});

t.test("services whose timeouts come to the same share a set", async (t) => {
  const bench = new Bench();
  const [a, b, c] = [own(80, { udp: 5 }), own(81, { udp: 5, tcp_close: 10 }), own(82, { udp: 6 })];
  const same = own(83, { udp: 300 });
  const plain = service(84, [server(84)]);
  bench.publishState(state([a, b, c, same, plain]));
  const [ofA, ofB, ofC, ofSame, ofPlain] = setsOf(bench, a, b, c, same, plain);
  t.equal(ofA, ofB);
  t.not(ofA, ofC);
  t.strictSame([ofSame, ofPlain], [0, 0], "the global ones");
  t.equal(seconds(bench, ofA!, ConnectionState.UDP_NORMAL).toFixed(1), "5.0");
  t.equal(seconds(bench, ofA!, ConnectionState.TCP_ESTABLISHED).toFixed(1), "900.0", "the others are the global ones");
  t.equal(bench.inventory.timeouts.size, 2);
  bench.restart();
  t.strictSame(bench.publishState(state([a, b, c, same, plain])).writes, [], "a restart finds them again");
});

t.test(
  "a service's timeouts change under its connections, and its former set is given back after the grace",
  async (t) => {
    const bench = new Bench({ ...SIZES, timeouts: 3 });
    const name = "tcp:10.0.0.100:80";
    bench.publishState(state([{ ...own(80, { udp: 5 }), realServers: [server(1), server(2)] }]));
    const { index } = bench.realServer(name, "10.1.0.2:8080");
    setLoad(bench.tables, index, { active: 1 });
    bench.publishState(state([{ ...own(80, { udp: 5 }), realServers: [server(1)] }]));
    const plan = bench.publishState(state([{ ...own(80, { udp: 6 }), realServers: [server(1)] }]));
    t.strictSame(kinds(plan.preparations), ["timeouts"]);
    t.strictSame(kinds(plan.writes), ["timeouts of", "timeouts of"], "of the one that drains too");
    t.strictSame(plan.changes.services.changed, [name]);
    t.throws(() => bench.publishState(state([own(80, { udp: 7 })])), {
      code: "CAPACITY_EXCEEDED",
      field: "timeouts",
      wanted: 3,
      available: 2,
    });
    bench.now += GRACE;
    bench.reap();
    bench.publishState(state([own(80, { udp: 7 })]));
  },
);

t.test("sets stay as long as connections of removed services live by them", async (t) => {
  const bench = new Bench();
  const a = own(80, { udp: 5 });
  bench.publishState(state([a]));
  const [set] = setsOf(bench, a);
  setLoad(bench.tables, 0, { inactive: 1 });
  bench.publishState(state([]));
  bench.now += 2 * GRACE;
  bench.reap();
  bench.restart();
  bench.publishState(state([own(81, { udp: 6 })]));
  t.equal(seconds(bench, set!, ConnectionState.UDP_NORMAL).toFixed(1), "5.0");
  setLoad(bench.tables, 0, { inactive: 0 });
  bench.now += GRACE;
  bench.reap();
  bench.now += GRACE;
  bench.reap();
  t.equal(bench.inventory.freeTimeouts.free, 14);
});

t.test("all sets can be in use, and the global timeouts change all the same", async (t) => {
  const bench = new Bench({ ...SIZES, services: 16, timeouts: 4 });
  bench.watch = () => {
    requireValid(bench.tables);
  };
  const services = [own(80, { udp: 5 }), own(81, { udp: 6 }), own(82, { tcp_close: 7 })];
  bench.publishState(state(services));
  const before = setsOf(bench, ...services);
  const plan = bench.publishState(state(services, { tcp_established: 60 }));
  t.strictSame(setsOf(bench, ...services), before, "rewritten where they are");
  t.strictSame(kinds(plan.writes), ["timeouts", "timeouts", "timeouts", "timeouts"]);
  for (const set of [0, ...before]) {
    t.equal(seconds(bench, set, ConnectionState.TCP_ESTABLISHED).toFixed(1), "60.0");
  }
  t.throws(() => bench.publishState(state([...services, own(83, { udp: 8 })], { tcp_established: 60 })), {
    code: "CAPACITY_EXCEEDED",
    field: "timeouts",
    wanted: 4,
    available: 3,
  });
  t.strictSame(bench.publishState(state(services, { tcp_established: 60 })).writes, [], "nothing was changed");
});

t.test("services that shared a set part when the global timeouts make a difference between them", async (t) => {
  const bench = new Bench();
  const [a, b] = [own(80, { udp: 5 }), own(81, { udp: 5, tcp_close: 10 })];
  bench.publishState(state([a, b]));
  bench.publishState(state([a, b], { tcp_close: 20 }));
  const [ofA, ofB] = setsOf(bench, a, b);
  t.not(ofA, ofB);
  t.equal(seconds(bench, ofA!, ConnectionState.TCP_CLOSE).toFixed(1), "20.0");
  t.equal(seconds(bench, ofB!, ConnectionState.TCP_CLOSE).toFixed(1), "10.0");
  bench.publishState(state([a, b], { udp: 5, tcp_close: 10 }));
  t.strictSame(setsOf(bench, a, b), [0, 0], "the global ones say all that they say");
});
