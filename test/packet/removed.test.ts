/**
 * What the connections of a removed real server get: dropped (IPVS's expire_nodest_conn 0), kept until they close, or reset
 * (its 1: TCP is told, UDP and a SYN are scheduled afresh).
 */
import "./own-namespace.js";
import t from "tap";
import { randomIntegers } from "../prelude/flows.js";
import { changes, counts, goes, passesAndSweeps, sets, sweeps } from "./actions.js";
import { Bed, type Method, type Setup } from "./bed.js";
import { build, counting, type Frame, padded, type Tcp } from "./frame.js";
import { INTERFACES, ROUTER_MAC, VIP } from "./network.js";
import { answerDatagram, answerSegment, datagram, pick, real, segment } from "./packets.js";
import { type Action, change, drops, passes, type Row, runRows, type Step } from "./row.js";

const LOCAL = "10.1.0.1";
const METHODS = ["nat", "fullnat", "dr", "tun"] as const;
/** The last byte of the client's router's MAC: where pick() says that a reply went. */
const ROUTER = 2;

function setup(method: Method, settings: Setup["settings"] = {}): Setup {
  return {
    services: (["tcp", "udp"] as const).map((protocol) => ({
      ...{ protocol, vip: VIP, port: 80 },
      realServers: [1, 2].map((n) => real(n, method)),
    })),
    localAddresses: [LOCAL],
    localPorts: [20000, 20000],
    settings,
  };
}

const isTranslated = (method: Method): boolean => method === "nat" || method === "fullnat";
const local = (method: Method): { to?: string; port?: number } =>
  method === "fullnat" ? { to: LOCAL, port: 20000 } : {};
/** TCP's and UDP's first real servers. */
const removes =
  (removed: "drop" | "keep" | "reset" | undefined): Action =>
  (bed) => {
    bed.changeRealServer(0, 0, { removed });
    bed.changeRealServer(1, 0, { removed });
  };
const established = [goes(1, segment("S")), goes(1, segment("A")), goes(1, datagram())];

/** What a host that does not know the connection answers a segment with: RFC 9293, 3.10.7.1. */
function reset(frame: Frame): Frame {
  const tcp = frame.find((layer) => layer.kind === "tcp");
  const ip = frame.find((layer) => layer.kind === "ipv4");
  if (tcp === undefined || ip === undefined) throw new TypeError("no TCP segment");
  const payload = frame.find((layer) => layer.kind === "payload")?.bytes.length ?? 0;
  const { flags = "", sequence = 0, acknowledgement = 0 } = tcp;
  const length = payload / 2 + (flags.includes("S") ? 1 : 0) + (flags.includes("F") ? 1 : 0);
  const answer: Partial<Tcp> = flags.includes("A")
    ? { sequence: acknowledgement, flags: "R" }
    : { acknowledgement: (sequence + length) % 2 ** 32, flags: "RA" };
  return [
    { kind: "ethernet", destination: ROUTER_MAC, source: INTERFACES.c0.mac },
    { kind: "ipv4", source: ip.destination, destination: ip.source, ...(ip.tos !== undefined && { tos: ip.tos }) },
    { kind: "tcp", sourcePort: tcp.destinationPort, destinationPort: tcp.sourcePort, ...answer },
  ];
}

/** A segment that is answered with that, and counted as dropped. */
function isReset(frame: Frame): Step {
  return { ...drops("real_server_removed", frame), verdict: "transmit", out: reset(frame), randomOuterId: true };
}

const dropped: Row[] = METHODS.map((method) => ({
  name: `drop, ${method}`,
  setup: setup(method),
  steps: [
    ...established,
    removes("drop"),
    ...["A", "PA", "S", "FA", "R"].map((flags) => drops("real_server_removed", segment(flags))),
    drops("real_server_removed", datagram()),
    goes(2, segment("S", { port: 1001 })),
    goes(2, datagram({ port: 1001 })),
    counts(0, { active: 1, inactive: 0 }),
    counts(2, { active: 0, inactive: 1 }),
    ...(isTranslated(method) && method !== "fullnat"
      ? [
          goes(ROUTER, answerSegment(1, "PA", local(method)), "r0"),
          goes(ROUTER, answerDatagram(1, local(method)), "r0"),
        ]
      : []),
    sweeps(),
    counts(0, { active: 1, inactive: 0 }),
    removes(undefined),
    goes(1, segment("A")),
    goes(1, datagram()),
    removes("drop"),
    passesAndSweeps(901),
    counts(0, { active: 0, inactive: 0 }),
    counts(2, { active: 0, inactive: 0 }),
  ],
}));

const kept: Row[] = METHODS.map((method) => ({
  name: `keep, ${method}`,
  setup: { ...setup(method), localPorts: [20000, 60000] },
  steps: [
    ...established,
    removes("keep"),
    goes(1, segment("PA")),
    goes(1, datagram()),
    goes(2, segment("S", { port: 1001 })),
    goes(2, segment("S", { port: 1002 })),
    goes(2, datagram({ port: 1001 })),
    ...(method === "nat" ? [goes(ROUTER, answerSegment(1, "PA"), "r0"), goes(ROUTER, answerDatagram(1), "r0")] : []),
    passesAndSweeps(290),
    goes(1, datagram()), // each packet gives it its time again
    passesAndSweeps(290),
    goes(1, datagram()),
    goes(1, segment("FA")),
    (bed, t) => {
      t.equal(
        bed.connections().find(({ sourcePort, protocol }) => sourcePort === 1000 && protocol === 6)?.state,
        isTranslated(method) ? "CLOSE_WAIT" : "FIN_WAIT",
      );
    },
    counts(0, { active: 0, inactive: 1 }),
    passesAndSweeps(121),
    counts(0, { active: 0, inactive: 0 }),
    goes("pass", segment("A")),
    goes(2, segment("S")),
  ],
}));

const resets: Row[] = METHODS.flatMap((method): Row[] => [
  {
    name: `reset, ${method}: a segment is answered with a reset, and the connection is gone`,
    setup: setup(method),
    steps: [
      goes(1, segment("S")),
      goes(1, segment("A")),
      removes("reset"),
      isReset(change(segment("PA"), { tcp: { sequence: 1001, acknowledgement: 5001 } })),
      counts(0, { active: 0, inactive: 0 }),
      (bed, t) => {
        t.strictSame(bed.table().entries(), []);
      },
      passes(segment("A")),
      goes(2, segment("S")),
      counts(1, { active: 1, inactive: 0 }),
    ],
  },
  {
    name: `reset, ${method}: a reset gets none, and the connection is gone`,
    setup: setup(method),
    steps: [
      goes(1, segment("S")),
      goes(1, segment("A")),
      removes("reset"),
      drops("real_server_removed", segment("R")),
      counts(0, { active: 0, inactive: 0 }),
      passes(segment("R")),
    ],
  },
  {
    name: `reset, ${method}: a SYN and UDP are scheduled afresh`,
    setup: { ...setup(method), localPorts: [20000, 60000] },
    steps: [
      ...established,
      removes("reset"),
      goes(2, segment("S")),
      goes(2, segment("A")),
      goes(2, datagram()),
      goes(2, datagram()),
      counts(0, { active: 0, inactive: 0 }),
      counts(1, { active: 1, inactive: 0 }),
      counts(2, { active: 0, inactive: 0 }),
      counts(3, { active: 0, inactive: 1 }),
    ],
  },
  {
    name: `reset, ${method}: the sweeper ends what sends nothing`,
    setup: { ...setup(method), localPorts: [20000, 60000] },
    steps: [
      ...established,
      goes(2, segment("S", { port: 1001 })),
      removes("reset"),
      sweeps(),
      counts(0, { active: 0, inactive: 0 }),
      counts(1, { active: 1, inactive: 0 }),
      counts(2, { active: 0, inactive: 0 }),
      (bed, t) => {
        t.strictSame(
          bed.connections().map(({ sourcePort }) => sourcePort),
          [1001],
        );
      },
      passes(segment("A")),
    ],
  },
]);

const replies: Row[] = (["nat", "fullnat"] as const).map((method) => ({
  name: `reset, ${method}: a reply is none any more`,
  setup: setup(method),
  steps: [
    goes(1, segment("S")),
    goes(1, segment("A")),
    goes(ROUTER, answerSegment(1, "A", local(method)), "r0"),
    removes("reset"),
    passes(answerSegment(1, "A", local(method)), "r0"),
    isReset(segment("A")),
    passes(answerSegment(1, "A", local(method)), "r0"),
  ],
}));

// ------------------------------------------------------------------------------------------------- the reset itself

const data = (flags: string, more: Partial<Tcp> = {}, bytes = 0): Frame => [
  ...change(segment(flags), { tcp: { sequence: 1000, acknowledgement: 5000, window: 64240, ...more } }),
  ...(bytes > 0 ? ([{ kind: "payload", bytes: counting(bytes) }] as const) : []),
];

const segments: readonly (readonly [string, Frame])[] = [
  ["an acknowledgement", data("A")],
  ["data", data("PA", {}, 100)],
  ["data of an odd length", data("PA", {}, 7)],
  ["as much as fits", data("A", {}, 1460)],
  ["the end of data", data("FPA", {}, 10)],
  ["urgent data", data("PAU", { urgent: 3 }, 10)],
  ["options", data("A", { options: "0101080a0000000100000002" }, 3)],
  ["without an acknowledgement: the data is acknowledged", data("P", {}, 100)],
  ["without an acknowledgement, no data", data("", {}, 0)],
  ["FIN alone takes a place in the sequence", data("F", {}, 0)],
  ["FIN with data", data("F", {}, 12)],
  ["the sequence wraps", data("F", { sequence: 0xffff_fff0 }, 30)],
  ["the highest acknowledgement", data("A", { acknowledgement: 0xffff_ffff })],
  ["a checksum that is wrong is answered all the same", data("A", { checksum: 0x1234 }, 4)],
  ["TOS is the segment's", change(data("A"), { ipv4: { tos: 0xb8, id: 7, ttl: 3, dontFragment: true } })],
  ["IP options are not sent back", change(data("PA", {}, 9), { ipv4: { options: "0101010101010100" } })],
  ["a frame that was padded", padded(data("A"))],
  ["a frame that was padded, with data", padded(data("PA", {}, 2), "ff")],
];

const forms: Row[] = segments.map(([name, frame]) => ({
  name,
  setup: setup("nat"),
  steps: [goes(1, segment("S")), goes(1, segment("A")), removes("reset"), isReset(frame)],
}));

const silent: Row[] = [
  ...["R", "RA", "RPA"].map(
    (flags): Row => ({
      name: `${flags} is not answered`,
      setup: setup("dr"),
      steps: [
        goes(1, segment("S")),
        goes(1, segment("A")),
        removes("reset"),
        drops("real_server_removed", data(flags, {}, flags.includes("P") ? 4 : 0)),
      ],
    }),
  ),
  {
    name: "the MACs are those of the way it came",
    setup: setup("dr"),
    steps: [
      goes(1, segment("S")),
      goes(1, segment("A")),
      removes("reset"),
      (bed, t) => {
        const came = change(segment("A"), { ethernet: { source: "02:00:00:00:0c:77" } });
        const { frame } = bed.run(build(came));
        t.strictSame(
          Buffer.from(frame.subarray(0, 12)).toString("hex"),
          Buffer.from(build(came)).toString("hex", 6, 12) + Buffer.from(build(came)).toString("hex", 0, 6),
        );
      },
    ],
  },
];

/** conn_reuse_mode and expire_nodest_conn come before: the SYN in their place is scheduled, whatever becomes of the rest. */
const reused: Row[] = [
  {
    name: "drop: a SYN in CLOSE is scheduled afresh by conn_reuse_mode",
    setup: setup("dr"),
    steps: [
      goes(1, segment("S")),
      goes(1, segment("A")),
      goes(1, segment("R")),
      removes("drop"),
      goes(2, segment("S")),
      counts(0, { active: 0, inactive: 0 }),
    ],
  },
  {
    name: "drop, conn_reuse_mode 0: it is not",
    setup: setup("dr", { connReuseMode: 0 }),
    steps: [
      goes(1, segment("S")),
      goes(1, segment("A")),
      goes(1, segment("R")),
      removes("drop"),
      drops("real_server_removed", segment("S")),
      changes(0, { removed: undefined }),
      sets({ connReuseMode: 1 }),
      goes(2, segment("S")),
    ],
  },
];

const bed = await Bed.open({ buckets: 16 });
t.teardown(() => bed.close());

t.test("connections of a removed real server", async (t) =>
  runRows(t, bed, [...dropped, ...kept, ...resets, ...replies, ...reused]),
);
t.test("the reset", async (t) => runRows(t, bed, [...forms, ...silent]));

t.test("the reset of any segment", async (t) => {
  const random = randomIntegers(11);
  const wrong: string[] = [];
  for (let i = 0; i < 300; i++) {
    const flags = Array.from("FSPAU")
      .filter(() => random(2) === 1)
      .join("");
    if (flags.includes("S")) continue; // is scheduled
    bed.configure(setup("dr"));
    for (const opening of ["S", "A"]) pick(bed, segment(opening));
    bed.changeRealServer(0, 0, { removed: "reset" });
    const came = data(flags, { sequence: random(2 ** 32), acknowledgement: random(2 ** 32) }, random(400));
    const { frame, verdict } = bed.run(build(came));
    const id = (Number(frame[18]) << 8) | Number(frame[19]);
    const expected = build(change(reset(came), { ipv4: { ...(id !== 0 && { id }) } }));
    if (verdict !== "transmit" || !Buffer.from(expected).equals(frame)) {
      wrong.push(`${flags}: ${Buffer.from(frame).toString("hex")}, not ${Buffer.from(expected).toString("hex")}`);
    }
  }
  t.strictSame(wrong, []);
});

t.test("the reset goes to unicast alone", async (t) => {
  for (const client of ["127.0.0.1", "0.0.0.0", "224.0.0.1", "255.255.255.255"]) {
    bed.configure(setup("dr"));
    for (const opening of ["S", "A"]) pick(bed, segment(opening, { client }));
    bed.changeRealServer(0, 0, { removed: "reset" });
    t.equal(pick(bed, segment("A", { client })), "drop real_server_removed", client);
  }
});
