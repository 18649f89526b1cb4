/**
 * One-packet scheduling (ipvsadm's -o): each UDP packet goes where the scheduler says, and leaves no connection behind. By
 * nat and fullnat a translation stays, so that the reply comes from the VIP; IPVS keeps none, and lets it through untranslated.
 */
import "./own-namespace.js";
import t from "tap";
import { changes, counts, goes, passesAndSweeps, secondsLeft, templates } from "./actions.js";
import { Bed, type Method, type RealServerSetup, type ServiceSetup, type Setup } from "./bed.js";
import type { Counted } from "./counted.js";
import { build, type Frame, parse } from "./frame.js";
import { CLIENT, INTERFACES, ROUTER_MAC, realAddress, realMac, VIP } from "./network.js";
import { answerDatagram, answerSegment, datagram, pick, real, segment } from "./packets.js";
import { type Action, change, opens, passes, type Row, replies, runRows } from "./row.js";
import { TIMEOUTS } from "./states.js";

const LOCAL = "10.1.0.1";
const NAME = `udp:${VIP}:80`;

function setup(realServers: readonly RealServerSetup[], more: Partial<ServiceSetup> = {}): Setup {
  return {
    services: [{ protocol: "udp", vip: VIP, port: 80, onePacket: true, realServers, ...more }],
    localAddresses: [LOCAL],
    localPorts: [20000, 20000],
  };
}

const servers = (method: Method, count = 3): RealServerSetup[] =>
  Array.from({ length: count }, (_, i) => real(i + 1, method));

const BYTES = 28;
const counted = (n: number): Counted["realServers"] => ({
  [`${NAME} ${realAddress(n)}:80`]: { connections: 1, in_packets: 1, in_bytes: BYTES },
});

/** Each packet is a turn of its own, and a connection in the statistics alone. */
function turns(method: Method): Row {
  return {
    name: `${method}: every packet of a client is scheduled, and counted as a connection that is never there`,
    setup: setup(servers(method)),
    steps: [
      (bed, t) => {
        for (const n of [1, 2, 3, 1, 2, 3, 1]) {
          const result = bed.run(build(datagram()));
          t.equal(result.verdict, "redirect");
          t.equal(result.frame[5], n);
          t.strictSame(result.counted.realServers, counted(n));
        }
      },
      ...[0, 1, 2].map((index) => counts(index, { active: 0, inactive: 0, templates: 0 })),
      (bed, t) => {
        const states = bed.connections().map(({ state }) => state);
        t.strictSame(
          states,
          method === "nat" || method === "fullnat" ? ["ONE_PACKET", "ONE_PACKET", "ONE_PACKET"] : [],
        );
      },
    ],
  };
}

/** The whole packets, there and back. */
function translation(method: "nat" | "fullnat", n: number): Row["steps"] {
  const came = datagram();
  const of = { service: NAME, real: `${realAddress(n)}:80` };
  const isFullnat = method === "fullnat";
  const back = answerDatagram(n, isFullnat ? { to: LOCAL, port: 20000 } : {});
  const reply = replies(
    of,
    back,
    change(back, {
      ethernet: { source: INTERFACES.c0.mac, destination: ROUTER_MAC },
      ipv4: { source: VIP, destination: CLIENT, ttl: 63 },
      udp: { sourcePort: 80, destinationPort: 1000 },
    }),
  );
  return [
    opens(
      of,
      came,
      change(came, {
        ethernet: { source: INTERFACES.r0.mac, destination: realMac(n) },
        ipv4: { ...(isFullnat && { source: LOCAL }), destination: realAddress(n), ttl: 63 },
        udp: { ...(isFullnat && { sourcePort: 20000 }) },
      }),
    ),
    reply,
    reply,
  ];
}

const translations: Row[] = (["nat", "fullnat"] as const).flatMap((method): Row[] => [
  {
    name: `${method}: replies come from the VIP, of each real server, as many as there are`,
    setup: setup(servers(method, 2)),
    steps: [...translation(method, 1), ...translation(method, 2), ...translation(method, 1), ...translation(method, 2)],
  },
  {
    name: `${method}: a client and a real server have one translation, whatever comes`,
    setup: setup(servers(method, 2)),
    steps: [
      ...[1, 2, 1, 2, 1].map((n) => goes(n, datagram())),
      counts(0, { onePacket: 1 }),
      counts(1, { onePacket: 1 }),
      (bed, t) => {
        t.equal(bed.table().entries().length, 4);
      },
    ],
  },
  {
    name: `${method}: it is over so long after the last packet, and the sweeper takes it`,
    setup: setup(servers(method, 1)),
    steps: [
      goes(1, datagram()),
      (bed, t) => {
        const left = secondsLeft(bed.connections()[0]);
        t.ok(left > TIMEOUTS.ONE_PACKET - 5 && left <= TIMEOUTS.ONE_PACKET + 0.1, `${left} seconds left`);
      },
      passesAndSweeps(20),
      goes(1, datagram()),
      passesAndSweeps(20),
      counts(0, { onePacket: 1 }),
      passesAndSweeps(10.1),
      counts(0, { active: 0, inactive: 0, onePacket: 0 }),
      passes(answerDatagram(1, method === "fullnat" ? { to: LOCAL, port: 20000 } : {}), "r0"),
    ],
  },
  {
    name: `${method}: a reply moves its end ahead as well`,
    setup: setup(servers(method, 1)),
    steps: [
      goes(1, datagram()),
      passesAndSweeps(20),
      goes(2, answerDatagram(1, method === "fullnat" ? { to: LOCAL, port: 20000 } : {}), "r0"), // to the router
      passesAndSweeps(20),
      goes(2, answerDatagram(1, method === "fullnat" ? { to: LOCAL, port: 20000 } : {}), "r0"),
      counts(0, { active: 0, inactive: 0, onePacket: 1 }),
    ],
  },
  {
    name: `${method}: once it is over, the next packet has a new one without a sweep`,
    setup: setup(servers(method, 1)),
    steps: [goes(1, datagram()), (bed) => bed.advance(31), ...translation(method, 1), counts(0, { onePacket: 1 })],
  },
]);

const sent = (bed: Bed, frame: Frame): Frame => parse(bed.run(build(frame)).frame);

const others: Row[] = [
  {
    name: "clients and their ports have translations of their own",
    setup: setup(servers("nat", 1)),
    steps: [
      goes(1, datagram({ port: 1 })),
      goes(1, datagram({ port: 2 })),
      goes(1, datagram({ port: 1, client: "198.18.0.9" })),
      counts(0, { onePacket: 3 }),
      ...[
        [1, CLIENT],
        [2, CLIENT],
        [1, "198.18.0.9"],
      ].map(([port, to]): Action => {
        return (bed, t) => {
          const out = bed.run(build(answerDatagram(1, { port: Number(port), to: String(to) })), "r0");
          const [, ip, udp] = parse(out.frame);
          t.match(ip, { source: VIP, destination: to });
          t.match(udp, { sourcePort: 80, destinationPort: port });
        };
      }),
    ],
  },
  {
    name: "two services with one real server: the second one's packet waits until the first's translation is over",
    setup: {
      services: ["udp", "udp"].map((_, i) => ({
        ...{ protocol: "udp", vip: `10.0.0.10${i}`, port: 80, onePacket: true },
        realServers: [real(1, "nat", { port: 53 })],
      })),
    },
    steps: [
      goes(1, datagram()),
      goes("drop reply_flow_taken", datagram({ vip: "10.0.0.101" })),
      goes(1, datagram()),
      (bed) => bed.advance(31),
      goes(1, datagram({ vip: "10.0.0.101" })),
      counts(0, { onePacket: 0 }),
      counts(1, { onePacket: 1 }),
    ],
  },
  {
    name: "fullnat: no local port is left for another client",
    setup: setup(servers("fullnat", 1)),
    steps: [
      goes(1, datagram({ port: 1 })),
      goes("drop local_ports_exhausted", datagram({ port: 2 })),
      goes(1, datagram({ port: 1 })),
      passesAndSweeps(31),
      goes(1, datagram({ port: 2 })),
    ],
  },
  {
    name: "a removed real server gets no more, and its replies are translated while the translation lives",
    setup: setup(servers("nat", 2)),
    steps: [
      goes(1, datagram()),
      goes(2, datagram()),
      changes(0, { removed: "drop" }),
      goes(2, datagram()),
      goes(2, datagram()),
      goes(2, answerDatagram(1), "r0"), // to the router
      counts(0, { onePacket: 1 }),
      passesAndSweeps(31),
      counts(0, { onePacket: 0 }),
    ],
  },
  {
    name: "no real server",
    setup: setup([real(1, "nat", { weight: 0 })]),
    steps: [goes("drop no_real_server", datagram()), goes("drop no_real_server", datagram())],
  },
  {
    name: "with a mark, UDP alone: TCP has connections",
    setup: {
      ...setup(servers("nat"), { protocol: "mark", vip: "0.0.0.3", port: 0 }),
      markRules: [{ mark: 3 }],
    },
    steps: [
      goes(1, datagram({ vip: "203.0.113.1", vport: 53 })),
      goes(2, datagram({ vip: "203.0.113.1", vport: 53 })),
      goes(3, segment("S", { vip: "203.0.113.1", vport: 53 })),
      goes(3, segment("A", { vip: "203.0.113.1", vport: 53 })),
      goes(1, datagram({ vip: "203.0.113.1", vport: 53 })),
      counts(0, { active: 0, inactive: 0, onePacket: 1 }),
      counts(2, { active: 1, inactive: 0, onePacket: 0 }),
    ],
  },
  {
    name: "of a TCP service, connections are as always",
    setup: setup(servers("nat"), { protocol: "tcp" }),
    steps: [
      goes(1, segment("S")),
      goes(1, segment("A")),
      goes(2, answerSegment(1, "A"), "r0"), // to the router
      goes(2, segment("S", { port: 1001 })),
      goes("pass", segment("A", { port: 1002 })),
      goes(1, segment("FA")),
      counts(0, { active: 0, inactive: 1, onePacket: 0 }),
      counts(1, { active: 1, inactive: 0, onePacket: 0 }),
    ],
  },
  {
    name: "an ordinary connection through the same service, from before, goes on",
    setup: setup(servers("dr"), { onePacket: false }),
    steps: [
      goes(1, datagram()),
      (bed) => {
        const service = bed.map("services").get(0);
        if (service !== undefined) bed.map("services").set(0, { ...service, one_packet: 1 });
      },
      goes(1, datagram()),
      goes(2, datagram({ port: 1001 })),
      goes(3, datagram({ port: 1001 })),
    ],
  },
  // README of the kernel's captures: "-o -p: template kept, all packets of the client to one server".
  ...(["dr", "nat"] as const).map((method): Row => {
    return {
      name: `${method}, with persistence: all packets of a client go to one real server`,
      setup: setup(servers(method), { persistence: { seconds: 300 } }),
      steps: [
        ...[1000, 1000, 1001].map((port) => goes(1, datagram({ port }))),
        goes(2, datagram({ client: "198.18.0.2" })),
        goes(1, datagram({ port: 1002 })),
        templates(
          `udp ${CLIENT}:0 ${VIP}:80 10.1.0.11 NONE leads 0`,
          `udp 198.18.0.2:0 ${VIP}:80 10.1.0.12 NONE leads 0`,
        ),
        counts(0, { active: 0, inactive: 0, templates: 1, onePacket: method === "nat" ? 3 : 0 }),
        passesAndSweeps(301),
        counts(0, { templates: 0, onePacket: 0 }),
        goes(3, datagram()),
      ],
    };
  }),
];

t.test("one-packet scheduling", async (t) => {
  const bed = await Bed.open({ buckets: 16 });
  t.teardown(() => bed.close());
  t.test("turns", async (t) => runRows(t, bed, (["nat", "fullnat", "dr", "tun"] as const).map(turns)));
  t.test("translations", async (t) => runRows(t, bed, translations));
  t.test("and what else there is", async (t) => runRows(t, bed, others));

  t.test("fullnat: a client's packets to a real server come from one local port", async (t) => {
    bed.configure({ ...setup(servers("fullnat", 1)), localPorts: [20000, 60000] });
    const ports = Array.from({ length: 20 }, () => {
      const udp = sent(bed, datagram()).find((layer) => layer.kind === "udp");
      return udp?.sourcePort;
    });
    t.equal(new Set(ports).size, 1);
    t.same(bed.violations(), []);
  });
});

t.test("a full table", async (t) => {
  const bed = await Bed.open({ buckets: 2 });
  t.teardown(() => bed.close());

  t.test("makes room for a connection with a translation, and the other way round", async (t) => {
    const both = setup(servers("nat", 1));
    bed.configure({
      ...both,
      services: [...both.services, { protocol: "tcp", vip: VIP, port: 80, realServers: [real(2, "nat")] }],
    });
    for (let port = 1; port <= 16; port++) t.equal(pick(bed, datagram({ port })), 1);
    t.equal(bed.loads()[0]?.onePacket, 16);
    for (let port = 1; port <= 16; port++) {
      for (const flags of ["S", "A"]) t.equal(pick(bed, segment(flags, { port })), 2);
      t.same(bed.violations(), []);
    }
    t.strictSame(bed.load(1), { active: 16, inactive: 0 });
    t.equal(bed.loads()[0]?.onePacket, 0);
    t.equal(pick(bed, datagram()), "drop table_full");
    t.same(bed.violations(), []);
  });

  t.test("dr needs no entry", async (t) => {
    const both = setup(servers("dr", 1));
    bed.configure({
      ...both,
      services: [...both.services, { protocol: "tcp", vip: VIP, port: 80, realServers: [real(2, "nat")] }],
    });
    for (let port = 1; port <= 16; port++) for (const flags of ["S", "A"]) pick(bed, segment(flags, { port }));
    t.equal(pick(bed, datagram()), 1);
  });
});
