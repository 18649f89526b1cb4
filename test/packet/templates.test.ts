/**
 * The life of persistence templates: their time, their state, what they count, and what becomes of one whose connection
 * does not open after all.
 */
import "./own-namespace.js";
import t from "tap";
import { counts, goes, passes, passesAndSweeps, sweeps, templateHas, templates } from "./actions.js";
import { Bed, type RealServerSetup, type ServiceSetup, type Setup } from "./bed.js";
import type { Frame } from "./frame.js";
import { VIP } from "./network.js";
import { answerDatagram, answerSegment, datagram, real, segment } from "./packets.js";
import { type Action, type Row, runRows } from "./row.js";

const LOCAL = "10.1.0.1";
const [A, B] = ["198.18.0.1", "198.18.0.2"] as const;

function persistent(realServers: readonly RealServerSetup[], more: Partial<ServiceSetup> = {}): ServiceSetup {
  return { protocol: "tcp", vip: VIP, port: 80, persistence: { seconds: 300 }, realServers, ...more };
}

function setup(...services: ServiceSetup[]): Setup {
  return { services, localAddresses: [LOCAL], localPorts: [20000, 20000] };
}

const two = [1, 2].map((n) => real(n, "dr"));
const syn = (client: string, port: number): Frame => segment("S", { client, port });
const line = (client: string, n: number, rest: string): string => `tcp ${client}:0 ${VIP}:80 10.1.0.${10 + n} ${rest}`;

/** A connection that opens, is established, and ends: its entry is gone 10 seconds later. */
const comesAndGoes = (to: number, client: string, port: number): Action[] => [
  goes(to, syn(client, port)),
  goes(to, segment("A", { client, port })),
  goes(to, segment("R", { client, port })),
  passesAndSweeps(10.1),
];

const time: Row[] = [
  {
    name: "lasts the service's time after the last connection that it led was opened",
    setup: setup(persistent(two)),
    steps: [
      ...comesAndGoes(1, A, 1000),
      templates(line(A, 1, "ASSURED leads 0")),
      templateHas(289.9),
      counts(0, { active: 0, inactive: 0, templates: 1 }),
      passes(280),
      goes(1, syn(A, 1001)),
      templateHas(300),
    ],
  },
  {
    name: "is over when its time is, though the sweeper has not come",
    setup: setup(persistent(two)),
    steps: [...comesAndGoes(1, A, 1000), passes(290), goes(2, syn(A, 1001)), templates(line(A, 2, "NONE leads 1"))],
  },
  {
    name: "goes when the sweeper comes, and leaves its real server's count",
    setup: setup(persistent(two)),
    steps: [
      ...comesAndGoes(1, A, 1000),
      passesAndSweeps(280),
      templates(line(A, 1, "ASSURED leads 0")),
      passesAndSweeps(10),
      templates(),
      counts(0, { active: 0, inactive: 0, templates: 0 }),
      goes(2, syn(A, 1001)),
    ],
  },
  {
    name: "is not lengthened by packets of the connections that it led",
    setup: setup(persistent(two)),
    steps: [goes(1, syn(A, 1000)), passes(50), goes(1, segment("A", { client: A })), templateHas(250)],
  },
  {
    // ip_vs_conn_expire() in ip_vs_conn.c: "do I control anybody?"
    name: "stays while a connection that it led lives, a minute at a time, and not longer",
    setup: setup(persistent(two)),
    steps: [
      goes(1, syn(A, 1000)),
      goes(1, segment("A", { client: A })),
      passes(301),
      templates(line(A, 1, "ASSURED leads 1")),
      sweeps(),
      templateHas(60),
      passesAndSweeps(50),
      templateHas(10),
      passesAndSweeps(11),
      templateHas(60),
      goes(1, segment("R", { client: A })),
      passesAndSweeps(11),
      templates(line(A, 1, "ASSURED leads 0")),
      templateHas(49),
      passesAndSweeps(50),
      templates(),
      counts(0, { active: 0, inactive: 0, templates: 0 }),
    ],
  },
  {
    name: "leads new connections in that time too, which give it the service's whole time again",
    setup: setup(persistent(two)),
    steps: [
      goes(1, syn(A, 1000)),
      goes(1, segment("A", { client: A })),
      passes(301),
      goes(1, syn(A, 1001)), // the sweeper has not come
      templateHas(300),
      passesAndSweeps(301),
      templateHas(60),
      goes(1, syn(A, 1002)),
      templateHas(300),
      templates(line(A, 1, "ASSURED leads 2")), // the SYN_RECV one is gone after 60 seconds
    ],
  },
];

const states: Row[] = [
  {
    name: "a TCP connection that is established assures it",
    setup: setup(persistent(two)),
    steps: [
      goes(1, syn(A, 1000)),
      goes(2, syn(B, 1000)),
      templates(line(A, 1, "NONE leads 1"), line(B, 2, "NONE leads 1")),
      goes(1, segment("A", { client: A })),
      templates(line(A, 1, "ASSURED leads 1"), line(B, 2, "NONE leads 1")),
      goes(1, segment("R", { client: A })),
      goes(1, syn(A, 1001)),
      templates(line(A, 1, "ASSURED leads 2"), line(B, 2, "NONE leads 1")),
    ],
  },
  {
    name: "one that is reset before does not",
    setup: setup(persistent(two)),
    steps: [goes(1, syn(A, 1000)), goes(1, segment("FA", { client: A })), templates(line(A, 1, "NONE leads 1"))],
  },
  {
    name: "by nat, the real server's segments count as well",
    setup: setup(persistent([real(1, "nat")])),
    steps: [
      goes(1, syn(A, 1000)),
      goes(2, answerSegment(1, "SA", { to: A }), "r0"), // to the router, whose MAC ends so
      templates(line(A, 1, "NONE leads 1")),
      goes(2, answerSegment(1, "A", { to: A }), "r0"),
      templates(line(A, 1, "ASSURED leads 1")),
    ],
  },
  {
    name: "with sloppy_tcp, the very first segment may",
    setup: { ...setup(persistent(two)), settings: { sloppyTcp: true } },
    steps: [goes(1, segment("A", { client: A })), templates(line(A, 1, "ASSURED leads 1"))],
  },
  {
    // udp_state_transition() in ip_vs_proto_udp.c
    name: "of UDP, the first reply does",
    setup: setup(persistent([real(1, "nat")], { protocol: "udp" })),
    steps: [
      goes(1, datagram({ client: A })),
      goes(1, datagram({ client: A })),
      templates(`udp ${A}:0 ${VIP}:80 10.1.0.11 NONE leads 1`),
      goes(2, answerDatagram(1, { to: A }), "r0"),
      templates(`udp ${A}:0 ${VIP}:80 10.1.0.11 ASSURED leads 1`),
    ],
  },
];

const fails: Row[] = [
  {
    name: "nat: another VIP's connection has the reply flow",
    setup: setup(persistent([real(1, "nat")]), persistent([real(1, "nat")], { vip: "10.0.0.101" })),
    steps: [
      goes(1, syn(A, 1000)),
      goes("drop reply_flow_taken", segment("S", { client: A, vip: "10.0.0.101" })),
      templates(line(A, 1, "NONE leads 1"), `tcp ${A}:0 10.0.0.101:80 10.1.0.11 NONE leads 0`),
      counts(1, { active: 0, inactive: 0, templates: 1 }),
      passesAndSweeps(301),
      counts(1, { active: 0, inactive: 0, templates: 0 }),
    ],
  },
  {
    name: "fullnat: no local port is left",
    setup: setup(persistent([real(1, "fullnat")])),
    steps: [
      goes(1, syn(A, 1000)),
      goes("drop local_ports_exhausted", syn(A, 1001)),
      goes("drop local_ports_exhausted", syn(B, 1000)),
      templates(line(A, 1, "NONE leads 1"), line(B, 1, "NONE leads 0")),
    ],
  },
  {
    name: "fullnat: there is no local address",
    setup: { services: [persistent([real(1, "fullnat")])] },
    steps: [goes("drop no_local_address", syn(A, 1000)), templates(line(A, 1, "NONE leads 0"))],
  },
  {
    name: "the next hop is not known yet",
    setup: setup(persistent([real(1, "nat", { hop: "unresolved" })])),
    steps: [goes("drop next_hop_unresolved", syn(A, 1000)), templates(line(A, 1, "NONE leads 0"))],
  },
  {
    name: "there is no real server: nor is there a template",
    setup: setup(persistent([real(1, "nat", { weight: 0 })])),
    steps: [goes("drop no_real_server", syn(A, 1000)), templates(), counts(0, { templates: 0 })],
  },
  {
    name: "a segment that opens nothing makes no template",
    setup: setup(persistent(two)),
    steps: [goes("pass", segment("A", { client: A })), goes("pass", segment("SR", { client: A })), templates()],
  },
];

t.test("a template", async (t) => {
  const bed = await Bed.open({ buckets: 64 });
  t.teardown(() => bed.close());
  t.test("its time", async (t) => runRows(t, bed, time));
  t.test("its state", async (t) => runRows(t, bed, states));
  t.test("where the connection does not open after all, names nothing", async (t) => runRows(t, bed, fails));
});

/** Two buckets of 16: every flow may lie anywhere, and the table is full at once. */
t.test("in a full table", async (t) => {
  const bed = await Bed.open({ buckets: 2 });
  t.teardown(() => bed.close());
  const SLOTS = 32;
  const OTHER = "10.0.0.101";
  const both = setup(persistent(two), { protocol: "tcp", vip: OTHER, port: 80, realServers: [real(3, "dr")] });
  /** Established connections of the service without persistence. */
  const fills =
    (count: number): Action =>
    async (bed, t) => {
      for (let port = 1; port <= count; port++) {
        for (const flags of ["S", "A"]) await goes(3, segment(flags, { client: B, port, vip: OTHER }))(bed, t);
      }
    };
  const other = (flags: string, port: number): Frame => segment(flags, { client: B, port, vip: OTHER });

  runRows(t, bed, [
    {
      name: "no room for a template",
      setup: both,
      steps: [fills(SLOTS), goes("drop table_full", syn(A, 1000)), templates(), counts(0, { templates: 0 })],
    },
    {
      name: "room for a template alone: it is there, and names nothing",
      setup: both,
      steps: [
        fills(SLOTS - 1),
        goes("drop table_full", syn(A, 1000)),
        templates(line(A, 1, "NONE leads 0")),
        goes("drop table_full", syn(A, 1000)),
        templates(line(A, 1, "NONE leads 0")),
        counts(0, { active: 0, templates: 1 }),
      ],
    },
    {
      name: "a template that leads nothing makes room for a connection",
      setup: both,
      steps: [
        fills(SLOTS - 1),
        goes("drop table_full", syn(A, 1000)),
        goes(3, other("S", 99)),
        templates(),
        counts(0, { active: 0, templates: 0 }),
      ],
    },
    {
      name: "a template that leads one stays, and so does the connection once it is established",
      setup: both,
      steps: [
        goes(1, syn(A, 1000)),
        goes(1, segment("A", { client: A })),
        fills(SLOTS - 2),
        goes("drop table_full", other("S", 99)),
        passes(301), // the template's time is over
        goes("drop table_full", other("S", 99)),
        templates(line(A, 1, "ASSURED leads 1")),
        goes(1, segment("A", { client: A })),
      ],
    },
    {
      name: "a template that leads one is not what has to go, though its time is over: another makes room",
      setup: both,
      steps: [
        goes(1, syn(A, 1000)),
        goes(1, segment("A", { client: A })),
        fills(SLOTS - 3),
        passes(301),
        goes(3, other("S", 98)),
        goes(3, other("S", 99)),
        goes("pass", other("A", 98)),
        goes(3, other("A", 99)),
        templates(line(A, 1, "ASSURED leads 1")),
      ],
    },
    {
      name: "a half-open connection makes room, and then its template does",
      setup: both,
      steps: [
        goes(1, syn(A, 1000)),
        fills(SLOTS - 2),
        goes(3, other("S", 99)),
        goes(3, other("A", 99)),
        templates(line(A, 1, "NONE leads 0")),
        counts(0, { active: 0, templates: 1 }),
        goes(3, other("S", 100)),
        templates(),
        counts(0, { active: 0, templates: 0 }),
      ],
    },
    {
      name: "the next connection takes the place of a half-open one, not that of the template that leads both",
      setup: both,
      steps: [
        goes(1, syn(A, 1000)),
        fills(SLOTS - 2),
        goes(1, syn(A, 1001)),
        templates(line(A, 1, "NONE leads 1")),
        goes("pass", segment("A", { client: A })), // 1000 was thrown out for 1001
        goes(1, segment("A", { client: A, port: 1001 })),
      ],
    },
  ]);
});
