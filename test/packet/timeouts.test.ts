/** Timeouts of a service's own: which set its connections' times are of, at each step of their lives. */
import "./own-namespace.js";
import t from "tap";
import { goes, passesAndSweeps, secondsLeft, templateHas } from "./actions.js";
import { Bed, type Method, type Setup } from "./bed.js";
import type { Frame } from "./frame.js";
import { VIP } from "./network.js";
import { answerSegment, datagram, real, segment } from "./packets.js";
import { type Action, type Row, runRows } from "./row.js";
import { type State, TIMEOUTS } from "./states.js";

/** Each of its own, none of them IPVS's, and all further apart than a test takes. */
const OWN = {
  ...{ ESTABLISHED: 770, SYN_SENT: 130, SYN_RECV: 170, FIN_WAIT: 230, TIME_WAIT: 290, CLOSE: 310, CLOSE_WAIT: 370 },
  ...{ UDP: 410, ONE_PACKET: 430 },
} as const satisfies Partial<Record<State, number>>;

/** Ports 80 with IPVS's times, 81 with its own, 82 with some of its own; TCP and UDP, and UDP by one packet on 83. */
function setup(method: Method, timeouts: Setup["timeouts"] = {}): Setup {
  const realServers = [real(1, method)];
  return {
    services: [
      ...(["tcp", "udp"] as const).flatMap((protocol) => [
        { protocol, vip: VIP, port: 80, realServers },
        { protocol, vip: VIP, port: 81, realServers, timeouts: OWN },
        { protocol, vip: VIP, port: 82, realServers, timeouts: { ESTABLISHED: 55, UDP: 66 } },
      ]),
      { protocol: "udp", vip: VIP, port: 83, onePacket: true, realServers, timeouts: OWN },
    ],
    timeouts,
  };
}

/** The only connection is in a state, and that long from its end. */
function lasts(state: State, seconds: number): Action {
  return (bed, t) => {
    const [connection, ...others] = bed.connections();
    const left = secondsLeft(connection);
    t.equal(connection?.state, state);
    t.ok(left > seconds - 5 && left <= seconds + 0.1, `${state}: ${left.toFixed(2)} seconds, of ${seconds}`);
    t.equal(others.length, 0);
  };
}

const ROUTER = 2; // a reply goes to the router, whose MAC ends so
function life(vport: number, of: (state: keyof typeof OWN) => number): Row {
  const client = (flags: string): Action => goes(1, segment(flags, { vport }));
  const server = (flags: string): Action => goes(ROUTER, answerSegment(1, flags, { rport: vport }), "r0");
  const at = (state: keyof typeof OWN): Action => lasts(state, of(state));
  return {
    name: `nat, port ${vport}: each state of TCP`,
    setup: setup("nat", { CLOSE_WAIT: 51 }),
    steps: [
      ...[client("S"), at("SYN_RECV"), server("SA"), at("SYN_RECV"), client("A"), at("ESTABLISHED")],
      ...[server("FA"), at("FIN_WAIT"), client("FA"), at("TIME_WAIT"), server("S"), at("SYN_SENT")],
      ...[client("R"), at("CLOSE"), client("PA"), at("CLOSE")],
      (bed) => bed.advance(100_000),
      ...[client("S"), client("A"), client("FA"), at("CLOSE_WAIT")],
    ],
  };
}

/** Some time after a packet, another one gives the connection its whole time again. */
function refreshes(frame: Frame, state: State, seconds: number): Action[] {
  return [
    (bed) => bed.advance(seconds - 10),
    goes(1, frame),
    lasts(state, seconds),
    (bed) => bed.advance(seconds + 0.1),
    goes("pass", frame),
  ];
}

const global = { ...TIMEOUTS, CLOSE_WAIT: 51 };
const rows: Row[] = [
  life(80, (state) => global[state]),
  life(81, (state) => OWN[state]),
  life(82, (state) => (state === "ESTABLISHED" ? 55 : global[state])),
  ...(["dr", "nat"] as const).map(
    (method): Row => ({
      name: `${method}: a packet of an established connection`,
      setup: setup(method),
      steps: [
        goes(1, segment("S", { vport: 81 })),
        goes(1, segment("A", { vport: 81 })),
        ...refreshes(segment("A", { vport: 81 }), "ESTABLISHED", 770),
      ],
    }),
  ),
  {
    name: "UDP",
    setup: setup("dr"),
    steps: [
      goes(1, datagram({ vport: 81 })),
      lasts("UDP", 410),
      (bed) => bed.advance(300),
      goes(1, datagram({ vport: 81 })),
      lasts("UDP", 410),
      passesAndSweeps(411),
      goes(1, datagram({ vport: 82 })),
      lasts("UDP", 66),
      passesAndSweeps(67),
      goes(1, datagram({ vport: 80 })),
      lasts("UDP", 300),
    ],
  },
  {
    name: "one packet's translation",
    setup: setup("nat"),
    steps: [goes(1, datagram({ vport: 83 })), lasts("ONE_PACKET", 430)],
  },
  {
    name: "other global timeouts are not theirs, and theirs not the others'",
    setup: setup("nat"),
    steps: [
      (bed) => bed.setTimeouts({ SYN_RECV: 33 }),
      goes(1, segment("S", { vport: 81 })),
      lasts("SYN_RECV", 170),
      passesAndSweeps(171),
      goes(1, segment("S", { vport: 80 })),
      lasts("SYN_RECV", 33),
      passesAndSweeps(34),
      (bed) => bed.setTimeouts({ SYN_RECV: 88 }, 2), // of the second service
      goes(1, segment("S", { vport: 81 })),
      lasts("SYN_RECV", 88),
    ],
  },
  {
    name: "a change is for what comes from then on",
    setup: setup("dr"),
    steps: [
      goes(1, segment("S")),
      (bed) => bed.setTimeouts({ SYN_RECV: 77, ESTABLISHED: 200 }),
      lasts("SYN_RECV", 60),
      goes(1, segment("A")),
      lasts("ESTABLISHED", 200),
      (bed) => bed.setTimeouts({ ESTABLISHED: 300 }),
      lasts("ESTABLISHED", 200),
      goes(1, segment("A")),
      lasts("ESTABLISHED", 300),
    ],
  },
  {
    name: "a template's time is its service's persistence, whatever the timeouts",
    setup: {
      services: [
        {
          ...{ protocol: "tcp", vip: VIP, port: 80, persistence: { seconds: 500 } },
          realServers: [real(1, "dr")],
          timeouts: { SYN_RECV: 33 },
        },
      ],
    },
    steps: [goes(1, segment("S")), templateHas(500), lasts("SYN_RECV", 33)],
  },
];

t.test("timeouts", async (t) => {
  const bed = await Bed.open({ buckets: 16 });
  t.teardown(() => bed.close());
  runRows(t, bed, rows);
});
