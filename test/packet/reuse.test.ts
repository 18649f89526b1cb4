/**
 * A SYN on a connection that is known: where it is scheduled afresh, and where it goes on with the old real server
 * (ip_vs_in_hook() and is_new_conn_expected() in net/netfilter/ipvs/ip_vs_core.c). And sloppy_tcp, what opens a connection
 * without a SYN (tcp_conn_schedule() in ip_vs_proto_tcp.c).
 */
import "./own-namespace.js";
import t, { type Test } from "tap";
import { counts, goes } from "./actions.js";
import { Bed, type Method, type Setup } from "./bed.js";
import { build, type Frame } from "./frame.js";
import { VIP } from "./network.js";
import { answerSegment, datagram, pick, real, segment } from "./packets.js";
import { passes, type Row, runRows } from "./row.js";
import { isActive, type State, TIMEOUTS, timeoutOf } from "./states.js";

const LOCAL = "10.1.0.1";
const NAME = `tcp:${VIP}:80`;

function setup(method: Method, settings: Setup["settings"] = {}): Setup {
  return {
    services: (["tcp", "udp"] as const).map((protocol) => ({
      ...{ protocol, vip: VIP, port: 80 },
      realServers: [1, 2].map((n) => real(n, method)),
    })),
    localAddresses: [LOCAL],
    localPorts: [20000, 60000],
    settings,
  };
}

/** Who sends (c: client, r: real server) and what; after the first SYN. */
const BOTH_SIDES = {
  SYN_RECV: [],
  ESTABLISHED: ["c:A"],
  FIN_WAIT: ["c:A", "r:FA"],
  CLOSE_WAIT: ["c:A", "c:FA"],
  TIME_WAIT: ["c:A", "c:FA", "r:FA"],
  CLOSE: ["c:A", "c:R"],
  SYN_SENT: ["c:A", "c:R", "r:S"],
} as const;
const CLIENT_ALONE = {
  SYN_RECV: [],
  ESTABLISHED: ["c:A"],
  FIN_WAIT: ["c:A", "c:FA"],
  TIME_WAIT: ["c:FA"],
  CLOSE: ["c:A", "c:R"],
} as const;

type Path = readonly [State, readonly string[]];
function pathsOf(method: Method): Path[] {
  const paths = method === "nat" || method === "fullnat" ? BOTH_SIDES : CLIENT_ALONE;
  return Object.entries(paths).map(([state, path]) => [state as State, path]);
}

/** Opens a connection to the first of two real servers and takes it into a state. */
function bring(t: Test, bed: Bed, method: Method, [state, path]: Path): void {
  bed.run(build(segment("S")));
  for (const event of path) {
    const flags = event.slice(2);
    const local = method === "fullnat" ? { to: LOCAL, port: bed.connections()[0]?.local.port ?? 0 } : {};
    if (event.startsWith("c")) bed.run(build(segment(flags)));
    else bed.run(build(answerSegment(1, flags, local)), "r0");
  }
  const states = bed.connections().map((connection) => connection.state);
  if (states.join() !== state) t.fail(`the connection should be in ${state}, not in ${states.join()}`);
}

/** Sends a SYN: to the second real server and counted as a connection, where it is scheduled afresh. */
function judge(t: Test, bed: Bed, state: State, fresh: boolean): void {
  const { verdict, frame, counted } = bed.run(build(segment("S")));
  const active = { active: 1, inactive: 0 };
  const none = { active: 0, inactive: 0 };
  // SYN_SENT is left for ESTABLISHED (tcp_states, side of the client); anything else but ESTABLISHED for SYN_RECV.
  const goesOn = state === "ESTABLISHED" || state === "SYN_SENT" ? "ESTABLISHED" : "SYN_RECV";
  t.strictSame(
    {
      to: verdict === "redirect" ? frame[5] : verdict,
      connections: counted.services[NAME]?.connections,
      loads: [bed.load(0), bed.load(1)],
      states: bed.connections().map((connection) => connection.state),
    },
    {
      to: fresh ? 2 : 1,
      connections: fresh ? 1 : undefined,
      loads: fresh ? [none, active] : [active, none],
      states: [fresh ? "SYN_RECV" : goesOn],
    },
    `${state}: ${fresh ? "scheduled afresh" : "goes on"}`,
  );
  t.same(bed.violations(), []);
}

const bed = await Bed.open({ buckets: 16 });
t.teardown(() => bed.close());

const METHODS = ["nat", "fullnat", "dr", "tun"] as const;

t.test("conn_reuse_mode", async (t) => {
  for (const method of METHODS) {
    for (const connReuseMode of [0, 1, 2, 3]) {
      t.test(`${connReuseMode}, ${method}`, async (t) => {
        const isAlone = method === "dr" || method === "tun";
        for (const path of pathsOf(method)) {
          const [state] = path;
          const isClosed = state === "TIME_WAIT" || state === "CLOSE";
          bed.configure(setup(method, { connReuseMode }));
          bring(t, bed, method, path);
          const isFinWait = state === "FIN_WAIT" && isAlone && (connReuseMode & 2) !== 0;
          judge(t, bed, state, connReuseMode !== 0 && (isClosed || isFinWait));
        }
      });
    }
  }
});

t.test("expire_nodest_conn, and a quiesced real server", async (t) => {
  for (const method of METHODS) {
    for (const { expireNodestConn, connReuseMode, all } of [
      // Whatever the mode: the kernel looks at the weight first.
      { expireNodestConn: true, connReuseMode: 0, all: true },
      { expireNodestConn: true, connReuseMode: 1, all: true },
      { expireNodestConn: false, connReuseMode: 0, all: false },
    ]) {
      t.test(`${expireNodestConn ? 1 : 0}, conn_reuse_mode ${connReuseMode}, ${method}`, async (t) => {
        for (const path of pathsOf(method)) {
          bed.configure(setup(method, { connReuseMode, expireNodestConn }));
          bring(t, bed, method, path);
          bed.changeRealServer(0, 0, { weight: 0 });
          judge(t, bed, path[0], all);
        }
      });
    }
  }

  runRows(t, bed, [
    {
      name: "1: without a SYN, its connections go on",
      setup: setup("nat", { expireNodestConn: true }),
      steps: [
        goes(1, segment("S")),
        goes(1, datagram()),
        (bed) => {
          bed.changeRealServer(0, 0, { weight: 0 });
          bed.changeRealServer(1, 0, { weight: 0 });
        },
        ...["A", "PA", "FA"].map((flags) => goes(1, segment(flags))),
        goes(1, datagram()),
        goes(2, answerSegment(1, "A"), "r0"), // to the router
        goes(1, segment("R")),
        counts(0, { active: 0, inactive: 1 }),
      ],
    },
    {
      name: "1: where no other real server is, a SYN has none, and its connection is over",
      setup: setup("nat", { expireNodestConn: true }),
      steps: [
        goes(1, segment("S")),
        goes(1, segment("A")),
        (bed) => {
          for (const place of [0, 1]) bed.changeRealServer(0, place, { weight: 0 });
        },
        goes("drop no_real_server", segment("S")),
        goes("pass", segment("A")),
        counts(0, { active: 0, inactive: 0 }),
      ],
    },
    {
      name: "1: while it has a weight, a SYN goes on",
      setup: setup("dr", { expireNodestConn: true }),
      steps: [goes(1, segment("S")), goes(1, segment("A")), goes(1, segment("S")), goes(1, segment("S"))],
    },
    {
      // cp->control or not: the weight is looked at before.
      name: "1: what persistence led is scheduled afresh, and led there again unless expire_quiescent_template",
      setup: {
        ...setup("dr", { expireNodestConn: true, expireQuiescentTemplate: true }),
        services: [
          {
            ...{ protocol: "tcp", vip: VIP, port: 80, persistence: { seconds: 300 } },
            realServers: [real(1, "dr"), real(2, "dr")],
          },
        ],
      },
      steps: [
        goes(1, segment("S")),
        goes(1, segment("A")),
        (bed) => bed.changeRealServer(0, 0, { weight: 0 }),
        goes(2, segment("S")),
        counts(0, { active: 0, templates: 0 }),
        counts(1, { active: 1, templates: 1 }),
        (bed) => {
          bed.setSettings({ expireNodestConn: true });
          bed.changeRealServer(0, 1, { weight: 0 });
        },
        (bed, t) => {
          const { counted } = bed.run(build(segment("S")));
          t.strictSame(counted.realServers[`${NAME} 10.1.0.12:80`], { connections: 1, in_packets: 1, in_bytes: 40 });
        },
        counts(1, { active: 1, templates: 1 }),
      ],
    },
  ]);
});

t.test("a SYN that resets opens nothing, and ends what it would have replaced", async (t) => {
  // is_new_conn() looks at SYN alone, tcp_conn_schedule() at RST too.
  bed.configure(setup("dr"));
  bring(t, bed, "dr", ["CLOSE", CLIENT_ALONE.CLOSE]);
  t.equal(pick(bed, segment("SR")), "pass");
  t.strictSame(bed.connections(), []);
  t.same(bed.violations(), []);
});

interface Sloppy {
  readonly flags: string;
  readonly state: State | "pass";
}
/** What the first segment of a connection makes of it; the same for all methods (tcp_states, from NONE). */
const FIRST_SEGMENTS: readonly Sloppy[] = [
  { flags: "S", state: "SYN_RECV" },
  { flags: "SA", state: "SYN_RECV" },
  { flags: "A", state: "ESTABLISHED" },
  { flags: "PA", state: "ESTABLISHED" },
  { flags: "FA", state: "CLOSE" },
  { flags: "F", state: "CLOSE" },
  { flags: "P", state: "CLOSE" },
  { flags: "", state: "CLOSE" },
  { flags: "R", state: "pass" },
  { flags: "RA", state: "pass" },
  { flags: "SR", state: "pass" },
];

t.test("sloppy_tcp", async (t) => {
  for (const method of METHODS) {
    for (const sloppyTcp of [false, true]) {
      t.test(`${sloppyTcp ? 1 : 0}, ${method}`, async (t) => {
        for (const { flags, state } of FIRST_SEGMENTS) {
          bed.configure(setup(method, { sloppyTcp }));
          const expected = sloppyTcp || flags === "S" || flags === "SA" ? state : "pass";
          const { verdict, counted } = bed.run(build(segment(flags)));
          const [connection] = bed.connections();
          t.strictSame(
            {
              verdict,
              connections: counted.services[NAME]?.connections,
              state: connection?.state,
              timeout: timeoutOf(connection?.expires ?? 0),
              load: bed.load(0),
            },
            {
              verdict: expected === "pass" ? "pass" : "redirect",
              connections: expected === "pass" ? undefined : 1,
              state: expected === "pass" ? undefined : expected,
              timeout: expected === "pass" ? timeoutOf(0) : TIMEOUTS[expected],
              load: {
                active: expected !== "pass" && isActive(expected) ? 1 : 0,
                inactive: expected !== "pass" && !isActive(expected) ? 1 : 0,
              },
            },
            flags,
          );
          t.same(bed.violations(), []);
        }
      });
    }
  }

  const strangers: Row[] = [
    {
      name: "1: what no service is for is the host's all the same",
      setup: setup("dr", { sloppyTcp: true }),
      steps: ["A", "FA", "R", ""].map((flags) => passes(segment(flags, { vport: 81 }) satisfies Frame)),
    },
  ];
  runRows(t, bed, strangers);
});
