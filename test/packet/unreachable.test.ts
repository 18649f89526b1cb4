/**
 * ICMP port unreachable: from the VIP to a client that no real server is there for (ip_vs_leave() in
 * net/netfilter/ipvs/ip_vs_core.c), and with nat_icmp_send from the director to a nat real server whose packet has no connection
 * (ip_vs_out_hook()). As icmp_send() in net/ipv4/icmp.c builds it: RFC 792, RFC 1812 section 4.3.2.
 */
import "./own-namespace.js";
import t from "tap";
import { randomIntegers } from "../prelude/flows.js";
import { changes, goes, sets } from "./actions.js";
import { Bed, type RealServerSetup, type ServiceSetup, type Setup } from "./bed.js";
import type { DropName } from "./counted.js";
import { build, counting, type Frame, padded, parse } from "./frame.js";
import { INTERFACES, realAddress, realMac, VIP } from "./network.js";
import { answerDatagram, answerSegment, datagram, pick, real, segment } from "./packets.js";
import { change, drops, passes, type Row, runRows, type Step, waits } from "./row.js";

/** Of the budget's second, 2^8 ticks: a little more. */
const SECOND = 1.1;
const PLENTY = 1_000_000;

function setup(realServers: readonly RealServerSetup[] = [], more: Partial<ServiceSetup> = {}): Setup {
  return {
    services: (["tcp", "udp"] as const).map((protocol) => ({ protocol, vip: VIP, port: 80, realServers, ...more })),
    settings: { icmpRate: PLENTY },
  };
}

/** The error about a packet: from `source` to where it came from, the way it came, with as much of it as fits into 576 bytes. */
function unreachable(frame: Frame, source: string): Frame {
  const bytes = build(frame);
  const [ethernet, ip] = frame;
  if (ethernet?.kind !== "ethernet" || ip?.kind !== "ipv4") throw new TypeError("no IPv4 packet");
  const packet = bytes.subarray(14, 14 + new DataView(bytes.buffer, bytes.byteOffset).getUint16(16));
  const quoted = packet.subarray(0, 576 - 20 - 8);
  return [
    { kind: "ethernet", destination: ethernet.source, source: ethernet.destination },
    { kind: "ipv4", source, destination: ip.source, tos: ((ip.tos ?? 0) & 0x1e) | 0xc0 },
    { kind: "icmp", type: 3, code: 3 },
    { kind: "payload", bytes: Buffer.from(quoted).toString("hex") },
  ];
}

function answers(reason: DropName, frame: Frame, source: string, on: "c0" | "r0" = "c0"): Step {
  return { ...drops(reason, frame, on), verdict: "transmit", out: unreachable(frame, source), randomOuterId: true };
}
const refused = (frame: Frame): Step => answers("no_real_server", frame, VIP);

const withData = (frame: Frame, length: number): Frame => [...frame, { kind: "payload", bytes: counting(length) }];

const requests: readonly (readonly [string, Frame])[] = [
  ["a SYN", segment("S")],
  ["a SYN with options", change(segment("S"), { tcp: { options: "020405b40103030704020101", sequence: 99 } })],
  ["a SYN with data", withData(segment("S"), 20)],
  ["a datagram without data", datagram()],
  ["a datagram", withData(datagram(), 18)],
  ...[1, 2, 3, 4, 5, 255, 1001].map((n): [string, Frame] => [`a datagram of ${n} bytes`, withData(datagram(), n)]),
  // 576 = 20 + 8 + 548; a datagram has 28 bytes of headers.
  ["one that just fits", withData(datagram(), 520)],
  ["one that is a byte too long", withData(datagram(), 521)],
  ["one that fills the link", withData(datagram(), 1472)],
  ["IP options are quoted, not sent", change(withData(datagram(), 5), { ipv4: { options: "0101010101010100" } })],
  ["as many IP options as there may be", change(withData(datagram(), 600), { ipv4: { options: "01".repeat(40) } })],
  [
    "what the header says goes into the quote unchanged",
    change(withData(segment("S"), 3), { ipv4: { ttl: 1, id: 77, dontFragment: true } }),
  ],
  ["a wrong checksum, too", change(withData(segment("S"), 3), { tcp: { checksum: 0xbad0 } })],
  ["no UDP checksum", change(withData(datagram(), 3), { udp: { checksum: 0 } })],
  ["padding is not quoted", padded(datagram(), "ee")],
  ["padding is not quoted, odd length", padded(withData(datagram(), 7), "ee")],
  ...[0x00, 0x08, 0x1f, 0xe0, 0xff].map((tos): [string, Frame] => [
    `TOS 0x${tos.toString(16)}: the precedence is network control's`,
    change(datagram(), { ipv4: { tos } }),
  ]),
  [
    "a MAC that is not the router's: back the way it came",
    change(datagram(), { ethernet: { source: "02:00:00:00:0c:77" } }),
  ],
];

const nobody: readonly (readonly [string, Setup])[] = [
  ["no real server", setup()],
  ["all quiesced", setup([real(1, "nat", { weight: 0 }), real(2, "dr", { weight: 0 })])],
  ["all removed", setup([real(1, "nat", { removed: "drop" })], { ring: [0] })],
  [
    "quiesced, hashed",
    setup([real(1, "dr", { weight: 0 })], { scheduler: "mh", ring: new Array<number>(251).fill(0) }),
  ],
  ["persistence", setup([real(1, "dr", { weight: 0 })], { persistence: { seconds: 300 } })],
];

const fromVip: Row[] = [
  ...requests.map(([name, frame]): Row => ({ name, setup: setup(), steps: [refused(frame)] })),
  ...nobody.map(
    ([name, none]): Row => ({
      name: `because of: ${name}`,
      setup: none,
      steps: [refused(segment("S")), refused(datagram())],
    }),
  ),
  {
    name: "all are overloaded",
    setup: setup([real(1, "dr", { thresholds: [1, 0] })]),
    steps: [
      goes(1, segment("S")),
      refused(segment("S", { port: 1001 })),
      goes(1, datagram()),
      refused(datagram({ port: 1001 })),
    ],
  },
  {
    name: "an any-port service and a mark's: from the address that was asked",
    setup: {
      ...setup(),
      services: [
        { protocol: "tcp", vip: VIP, port: 0, realServers: [] },
        { protocol: "mark", vip: "0.0.0.5", port: 0, realServers: [] },
      ],
      markRules: [{ mark: 5, protocol: "udp" }],
    },
    steps: [
      refused(segment("S", { vport: 4711 })),
      answers("no_real_server", datagram({ vip: "203.0.113.4" }), "203.0.113.4"),
    ],
  },
  {
    name: "one-packet scheduling",
    setup: setup([real(1, "nat", { weight: 0 })], { onePacket: true }),
    steps: [refused(datagram()), refused(datagram())],
  },
  {
    name: "a segment that opens nothing is the host's to answer",
    setup: setup(),
    steps: ["A", "FA", "R", "SR", ""].map((flags) => passes(segment(flags))),
  },
  {
    name: "with sloppy_tcp a segment opens; a reset gets no answer",
    setup: { ...setup(), settings: { icmpRate: PLENTY, sloppyTcp: true } },
    steps: [refused(segment("A")), refused(segment("FA")), passes(segment("R"))],
  },
  {
    name: "what cannot be a sender gets none",
    setup: setup(),
    steps: ["0.0.0.0", "0.1.2.3", "127.0.0.1", "224.0.0.1", "239.255.255.255", "240.0.0.1", "255.255.255.255"].flatMap(
      (client) => [drops("no_real_server", datagram({ client })), drops("no_real_server", segment("S", { client }))],
    ),
  },
  {
    name: "other reasons get none",
    setup: { ...setup([real(1, "fullnat")]), localAddresses: [] },
    steps: [drops("no_local_address", segment("S")), drops("no_local_address", datagram())],
  },
  {
    name: "a real server that is not known how to reach gets none",
    setup: setup([real(1, "nat", { hop: "unresolved" })]),
    steps: [drops("next_hop_unresolved", segment("S"))],
  },
];

const bed = await Bed.open({ buckets: 16 });
t.teardown(() => bed.close());

t.test("from the VIP", async (t) => runRows(t, bed, fromVip));

t.test("about a datagram of any length, with any options", async (t) => {
  const random = randomIntegers(5);
  const wrong: string[] = [];
  bed.configure(setup());
  for (let i = 0; i < 400; i++) {
    const options = "01".repeat(random(11) * 4);
    const came = change(withData(datagram({ port: random(65536) }), random(1400)), {
      ipv4: { ...(options !== "" && { options }), tos: random(256), id: random(65536) },
    });
    const { frame, verdict } = bed.run(build(came));
    const expected = build(unreachable(came, VIP));
    // The director draws the id.
    const out = change(parse(frame), { ipv4: { id: 0 } });
    if (verdict !== "transmit" || !Buffer.from(build(out)).equals(expected)) wrong.push(`${i}: ${verdict}`);
  }
  t.strictSame(wrong, []);
});

// -------------------------------------------------------------------------------------------------------- how many

t.test("icmp_rate", async (t) => {
  runRows(t, bed, [
    {
      name: "0: none, and all are counted",
      setup: { ...setup(), settings: { icmpRate: 0 } },
      steps: [drops("no_real_server", segment("S")), drops("no_real_server", datagram())],
    },
    {
      name: "3: that many a second, and again in the next",
      setup: { ...setup(), settings: { icmpRate: 3 } },
      steps: [
        waits(SECOND),
        (bed, t) => {
          // Each processor has as many, and a second may end in between.
          const verdicts = Array.from({ length: 30 }, () => bed.run(build(datagram())).verdict);
          const sent = verdicts.filter((verdict) => verdict === "transmit").length;
          t.ok(sent >= 3 && sent <= 12, `${sent} of 30 were answered`);
          t.strictSame(verdicts.slice(0, 3), ["transmit", "transmit", "transmit"]);
        },
        waits(SECOND),
        refused(segment("S")),
        sets({ icmpRate: 0 }),
        drops("no_real_server", segment("S")),
        sets({ icmpRate: PLENTY }),
        refused(segment("S")),
      ],
    },
  ]);
});

// -------------------------------------------------------------------------------------------------- nat_icmp_send

/** nat on 8080, dr on 80, both of the VIP's port 80. */
const behind = (natIcmpSend: boolean): Setup => ({
  services: [
    {
      ...{ protocol: "tcp", vip: VIP, port: 80 },
      realServers: [real(1, "nat", { port: 8080 }), real(2, "dr"), real(3, "fullnat", { port: 8080 }), real(4, "tun")],
    },
    { protocol: "udp", vip: VIP, port: 53, realServers: [real(1, "nat", { port: 5353 })] },
  ],
  localAddresses: ["10.1.0.1"],
  settings: { icmpRate: PLENTY, natIcmpSend },
});
const told = (frame: Frame): Step => answers("reply_without_connection", frame, INTERFACES.r0.address, "r0");

const strangers: readonly (readonly [string, Frame])[] = [
  ["a segment", answerSegment(1, "A", { rport: 8080 })],
  ["SYN and ACK", answerSegment(1, "SA", { rport: 8080 })],
  ["a SYN", answerSegment(1, "S", { rport: 8080, to: "192.0.2.1" })],
  ["data", withData(answerSegment(1, "PA", { rport: 8080 }), 1000)],
  ["a datagram", withData(answerDatagram(1, { rport: 5353 }), 31)],
];

const toRealServer: Row[] = [
  ...strangers.map(([name, frame]): Row => ({ name: `1: ${name}`, setup: behind(true), steps: [told(frame)] })),
  {
    name: "0: all pass untouched",
    setup: behind(false),
    steps: strangers.map(([, frame]) => passes(frame, "r0")),
  },
  {
    name: "1: what is not a nat real server's, protocol and port and all, passes untouched",
    setup: behind(true),
    steps: [
      answerSegment(1, "A", { rport: 80 }),
      answerSegment(1, "A", { rport: 8081 }),
      answerSegment(1, "A", { rport: 5353 }),
      answerDatagram(1, { rport: 8080 }),
      answerSegment(2, "A", { rport: 80 }),
      answerSegment(2, "A", { rport: 8080 }),
      answerSegment(3, "A", { rport: 8080 }),
      answerSegment(4, "A", { rport: 80 }),
      answerSegment(5, "A", { rport: 8080 }),
    ].map((frame) => passes(frame, "r0")),
  },
  {
    name: "1: what the director itself asked for passes untouched",
    setup: behind(true),
    steps: [passes(answerSegment(1, "SA", { rport: 8080, to: INTERFACES.r0.address }), "r0")],
  },
  {
    name: "1: a reset passes untouched",
    setup: behind(true),
    steps: ["R", "RA", "SR"].map((flags) => passes(answerSegment(1, flags, { rport: 8080 }), "r0")),
  },
  {
    name: "1: what a connection is there for is translated, and is none once that is over",
    setup: behind(true),
    steps: [
      changes(1, { weight: 0 }),
      goes(1, segment("S")),
      goes(2, answerSegment(1, "SA", { rport: 8080 }), "r0"), // to the router
      goes(1, segment("A")),
      (bed) => bed.advance(901),
      told(answerSegment(1, "A", { rport: 8080 })),
    ],
  },
  {
    name: "1: a real server that is a client of a VIP is served as any other",
    setup: behind(true),
    steps: [
      (bed, t) => {
        const frame = change(segment("S", { client: realAddress(1), port: 8080 }), {
          ethernet: { source: realMac(1), destination: INTERFACES.r0.mac },
        });
        t.equal(pick(bed, frame, "r0"), "transmit");
        t.equal(bed.connections().length, 1);
      },
    ],
  },
  {
    name: "1: from the address that the director has towards it",
    setup: {
      ...behind(true),
      services: [
        { protocol: "tcp", vip: VIP, port: 80, realServers: [real(1, "nat", { port: 8080, director: "10.1.0.99" })] },
      ],
    },
    steps: [answers("reply_without_connection", answerSegment(1, "A", { rport: 8080 }), "10.1.0.99", "r0")],
  },
  {
    name: "1: and no more than icmp_rate",
    setup: { ...behind(true), settings: { natIcmpSend: true, icmpRate: 0 } },
    steps: [drops("reply_without_connection", answerSegment(1, "A", { rport: 8080 }), "r0")],
  },
  {
    name: "1: fragments and other protocols are the host's",
    setup: behind(true),
    steps: [
      passes(change(answerDatagram(1, { rport: 5353 }), { ipv4: { moreFragments: true } }), "r0"),
      passes([...answerDatagram(1).slice(0, 2), { kind: "icmp", type: 0, code: 0, rest: 1 }], "r0"),
    ],
  },
];
t.test("nat_icmp_send", async (t) => runRows(t, bed, toRealServer));
