/** What becomes of the connections of real servers that are taken out of their services. */
import t from "tap";
import { GRACE } from "../../src/dataplane/retire.js";
import { RealServerState } from "../../src/dataplane/sluice.bpf.js";
import {
  DEFAULT_SETTINGS,
  type DesiredState,
  EMPTY_STATE,
  type RealServer,
  type RemovedConnections,
  type VirtualService,
} from "../../src/model/index.js";
import { setLoad } from "./plain-tables.js";
import { Bench, kinds, server, service } from "./publish-bench.js";

const { REAL_ACTIVE, REAL_DRAINING, REAL_REMOVED, REAL_RESET } = RealServerState;
const NAME = "tcp:10.0.0.100:80";
const REAL = "10.1.0.1:8080";

function choosing(choice: RemovedConnections | undefined, ...realServers: RealServer[]): VirtualService {
  return { ...service(80, realServers), ...(choice === undefined ? {} : { removedConnections: choice }) };
}

function state(expire: 0 | 1, ...services: VirtualService[]): DesiredState {
  return { ...EMPTY_STATE, services, settings: { ...DEFAULT_SETTINGS, expire_nodest_conn: expire } };
}

/** A service of two real servers, of which the first has a connection. */
function bed(choice: RemovedConnections | undefined, expire: 0 | 1): Bench {
  const bench = new Bench();
  bench.publishState(state(expire, choosing(choice, server(1), server(2))));
  setLoad(bench.tables, bench.realServer(NAME, REAL).index, { active: 1 });
  return bench;
}

const CHOICES: [choice: RemovedConnections | undefined, expire: 0 | 1, state: RealServerState][] = [
  [undefined, 0, REAL_REMOVED],
  [undefined, 1, REAL_RESET],
  ["drop", 1, REAL_REMOVED],
  ["keep", 0, REAL_DRAINING],
  ["keep", 1, REAL_DRAINING],
  ["reset", 0, REAL_RESET],
];

t.test("a removed real server gets what its service says, or else the setting", async (t) => {
  for (const [choice, expire, expected] of CHOICES) {
    const bench = bed(choice, expire);
    bench.publishState(state(expire, choosing(choice, server(2))));
    t.equal(bench.realServer(NAME, REAL).state, expected, `${String(choice)} ${expire}`);
    t.equal(bench.inventory.resetting, Number(expected === REAL_RESET));
    bench.restart();
    t.strictSame(bench.publishState(state(expire, choosing(choice, server(2)))).writes, [], "so after a restart");
    t.equal(bench.inventory.resetting, Number(expected === REAL_RESET));
    bench.publishState(state(expire, choosing(choice, server(2), server(1))));
    t.equal(bench.realServer(NAME, REAL).state, REAL_ACTIVE, "and back");
    t.equal(bench.inventory.resetting, 0);
  }
});

t.test("another choice reaches those that are removed already", async (t) => {
  const bench = bed("drop", 0);
  bench.publishState(state(0, choosing("drop", server(2))));
  bench.now += 10 * GRACE;
  for (const [choice, expire, expected] of [...CHOICES, ...CHOICES.toReversed()]) {
    const plan = bench.publishState(state(expire, choosing(choice, server(2))));
    t.equal(bench.realServer(NAME, REAL).state, expected, `${String(choice)} ${expire}`);
    t.strictSame(plan.changes.realServers, { added: [], changed: [], removed: [] });
  }
});

t.test(
  "the setting reaches services that did not change themselves, but not those that say it themselves",
  async (t) => {
    for (const [choice, expected] of [
      [undefined, REAL_RESET],
      ["drop", REAL_REMOVED],
    ] as const) {
      const bench = bed(choice, 0);
      const after = choosing(choice, server(2));
      bench.publishState(state(0, after));
      bench.publishState(state(1, after));
      t.equal(bench.realServer(NAME, REAL).state, expected);
    }
  },
);

t.test("the connections of a removed service get what it said last", async (t) => {
  for (const [choice, expire, expected] of CHOICES) {
    const bench = bed(choice, expire);
    const plan = bench.publishState(state(expire));
    t.strictSame(plan.changes.services.removed, [NAME]);
    t.equal(bench.realServer(NAME, REAL).state, expected, `${String(choice)} ${expire}`);
    bench.restart();
    t.strictSame(bench.publishState(state(expire)).writes, [], "a restart lets it be");
    t.equal(bench.realServer(NAME, REAL).state, expected);
    const other = expire === 0 ? 1 : 0;
    bench.publishState(state(other));
    const byOther = choice === undefined ? (other === 1 ? REAL_RESET : REAL_REMOVED) : expected;
    t.equal(bench.realServer(NAME, REAL).state, byOther, "and follows the setting where it left it to that");
    setLoad(bench.tables, bench.realServer(NAME, REAL).index, { active: 0 });
    bench.now += GRACE;
    bench.reap();
    t.equal(bench.inventory.services.size, 0);
  }
});

t.test(
  "connections of a former forwarding method go on whatever the choice, until the real server itself goes",
  async (t) => {
    const bench = bed("reset", 1);
    const { index } = bench.realServer(NAME, REAL);
    const other = server(1, { method: "dr", port: 8080 });
    bench.publishState(state(1, choosing("reset", other)));
    const standings = (): [string, RealServerState][] =>
      Array.from(bench.inventory.services.get(NAME)!.realServers.values())
        .filter((realServer) => realServer.index === index)
        .map((realServer) => [realServer.standing, realServer.state]);
    t.strictSame(standings(), [["superseded", REAL_DRAINING]]);
    bench.restart();
    t.strictSame(bench.publishState(state(1, choosing("reset", other))).writes, []);
    t.strictSame(standings(), [["superseded", REAL_DRAINING]]);
    bench.publishState(state(1, choosing("reset")));
    t.strictSame(standings(), [["removed", REAL_RESET]]);
  },
);

t.test("an element is free when neither connections, templates nor translations name it", async (t) => {
  for (const field of ["active", "inactive", "templates", "one_packet"] as const) {
    const bench = bed("keep", 0);
    const { index } = bench.realServer(NAME, REAL);
    setLoad(bench.tables, index, { active: 0, [field]: 1 });
    bench.publishState(state(0, choosing("keep", server(2))));
    bench.now += GRACE;
    bench.reap();
    t.equal(bench.inventory.services.get(NAME)?.realServers.size, 2, field);
    setLoad(bench.tables, index, { [field]: 0, last_weight: 7, overloaded: 1 });
    bench.reap();
    t.equal(bench.inventory.services.get(NAME)?.realServers.size, 1, field);
    t.notOk(bench.tables.realLoad.bytes.subarray(index * 64, index * 64 + 64).some(Boolean), "and is empty then");
    t.strictSame(kinds(bench.publishState(state(0, choosing("keep", server(2)))).writes), []);
  }
});
