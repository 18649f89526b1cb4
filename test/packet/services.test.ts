/**
 * Which service a packet is for: by its firewall mark, by address and port, by address alone (IPVS's order:
 * ip_vs_service_find() in net/netfilter/ipvs/ip_vs_ctl.c); and which port its real server then gets.
 */
import "./own-namespace.js";
import t from "tap";
import { goes } from "./actions.js";
import { Bed, type MarkRuleSetup, type Method, type RealServerSetup, type ServiceSetup, type Setup } from "./bed.js";
import type { Frame } from "./frame.js";
import { CLIENT, INTERFACES, ROUTER_MAC, realAddress, realMac, VIP } from "./network.js";
import { answerDatagram, answerSegment, datagram, pick, real, segment } from "./packets.js";
import { change, opens, passes, type Row, replies, runRows, type Step } from "./row.js";

const LOCAL = "10.1.0.1";
/** Addresses that no service has, only marks. */
const NETWORK = { address: "203.0.113.0", mask: "255.255.255.0" } as const;
const INSIDE = "203.0.113.9";

/** A service that real server n alone is of. */
function service(n: number, protocol: ServiceSetup["protocol"], vip: string, port: number): ServiceSetup {
  return { protocol, vip, port, realServers: [real(n, "dr")] };
}

const bed = await Bed.open({ buckets: 16 });
t.teardown(() => bed.close());

// ------------------------------------------------------------------------------------------------------------ order

const all: Setup = {
  services: [
    service(1, "mark", "0.0.0.5", 0),
    service(2, "tcp", VIP, 80),
    service(3, "tcp", VIP, 0),
    service(4, "udp", VIP, 80),
  ],
  markRules: [
    { mark: 5, protocol: "tcp", destination: { address: VIP, mask: "255.255.255.255" }, destinationPorts: [79, 81] },
  ],
};

t.test("the order", async (t) =>
  runRows(t, bed, [
    {
      name: "a mark before an address and port, those before an address alone",
      setup: all,
      steps: [
        goes(1, segment("S", { vport: 79, port: 1 })),
        goes(1, segment("S", { vport: 80, port: 2 })),
        goes(1, segment("S", { vport: 81, port: 3 })),
        goes(3, segment("S", { vport: 82, port: 4 })),
        goes(4, datagram({ vport: 80 })),
        goes("pass", datagram({ vport: 81 })),
        goes("pass", segment("S", { vip: "10.0.0.101" })),
      ],
    },
    {
      name: "without rules, an address and port before an address alone",
      setup: { ...all, markRules: [] },
      steps: [
        goes(2, segment("S", { vport: 80 })),
        goes(3, segment("S", { vport: 81 })),
        goes(3, segment("S", { vport: 1 })),
        goes(3, segment("S", { vport: 65535 })),
        goes(4, datagram({ vport: 80 })),
        goes("pass", datagram({ vport: 81 })),
      ],
    },
    {
      name: "a mark that no service is of is none",
      setup: { ...all, markRules: [{ mark: 6 }] },
      steps: [goes(2, segment("S", { vport: 80 })), goes(3, segment("S", { vport: 81 }))],
    },
    {
      name: "a connection stays where it is when the rules change",
      setup: all,
      steps: [
        goes(1, segment("S")),
        (bed) => bed.changeMarkRules([]),
        goes(1, segment("A")),
        goes(1, segment("S")),
        goes(2, segment("S", { port: 1001 })),
        (bed) => bed.changeMarkRules(all.markRules ?? []),
        goes(2, segment("A", { port: 1001 })),
        goes(1, segment("S", { port: 1002 })),
      ],
    },
    {
      name: "a segment that opens nothing is the host's, whatever service it is for",
      setup: all,
      steps: [79, 80, 82].flatMap((vport) =>
        ["A", "FA", "R", "SR", ""].map((flags) => passes(segment(flags, { vport }))),
      ),
    },
  ]),
);

// ------------------------------------------------------------------------------------------------------- mark rules

interface Marking {
  readonly name: string;
  readonly rules: readonly MarkRuleSetup[];
  /** Real server n stands for mark n. */
  readonly packets: readonly (readonly [Frame, number | "pass"])[];
}

const inside = (ends: Parameters<typeof segment>[1] = {}): Frame => segment("S", { vip: INSIDE, ...ends });

const markings: readonly Marking[] = [
  { name: "no rule", rules: [], packets: [[inside(), "pass"]] },
  {
    name: "a rule for everything",
    rules: [{ mark: 1 }],
    packets: [
      [inside(), 1],
      [datagram({ vip: "192.0.2.1" }), 1],
    ],
  },
  {
    name: "the first that matches",
    rules: [
      { mark: 1, destinationPorts: [443, 443] },
      { mark: 2, destination: NETWORK },
      { mark: 3, destinationPorts: [80, 80] },
      { mark: 2 },
      { mark: 1 },
    ],
    packets: [
      [inside({ vport: 443 }), 1],
      [inside({ vport: 80 }), 2],
      [segment("S", { vip: "203.0.114.9", vport: 80 }), 3],
      [segment("S", { vip: "203.0.114.9", vport: 81 }), 2],
    ],
  },
  {
    name: "a rule whose mark has no service ends the search all the same",
    rules: [
      { mark: 99, destinationPorts: [80, 80] },
      { mark: 1, destination: NETWORK },
    ],
    packets: [
      [inside({ vport: 80 }), "pass"],
      [inside({ vport: 81 }), 1],
    ],
  },
  {
    name: "destination prefixes, to the bit",
    rules: [
      { mark: 1, destination: { address: INSIDE, mask: "255.255.255.255" } },
      { mark: 2, destination: { address: "203.0.113.64", mask: "255.255.255.192" } },
      { mark: 3, destination: { address: "203.0.112.0", mask: "255.255.254.0" } },
    ],
    packets: [
      [inside(), 1],
      [inside({ vip: "203.0.113.8" }), 3],
      [inside({ vip: "203.0.113.63" }), 3],
      [inside({ vip: "203.0.113.64" }), 2],
      [inside({ vip: "203.0.113.127" }), 2],
      [inside({ vip: "203.0.113.128" }), 3],
      [inside({ vip: "203.0.112.255" }), 3],
      [inside({ vip: "203.0.114.0" }), "pass"],
      [inside({ vip: "203.0.111.255" }), "pass"],
    ],
  },
  {
    name: "source prefixes",
    rules: [
      { mark: 1, source: { address: "198.18.4.0", mask: "255.255.252.0" } },
      { mark: 2, source: { address: "198.18.0.0", mask: "255.254.0.0" }, destination: NETWORK },
    ],
    packets: [
      [inside({ client: "198.18.4.0" }), 1],
      [inside({ client: "198.18.7.255" }), 1],
      [inside({ client: "198.18.8.0" }), 2],
      [inside({ client: "198.19.255.255" }), 2],
      [inside({ client: "198.20.0.0" }), "pass"],
      [segment("S", { client: "198.18.8.0", vip: "203.0.114.1" }), "pass"],
    ],
  },
  {
    name: "ports, both ends included",
    rules: [
      { mark: 1, protocol: "tcp", destinationPorts: [80, 90] },
      { mark: 2, protocol: "tcp", sourcePorts: [1024, 2047] },
      { mark: 3, protocol: "udp", sourcePorts: [5, 5], destinationPorts: [7, 7] },
    ],
    packets: [
      [inside({ vport: 79, port: 1 }), "pass"],
      [inside({ vport: 80, port: 2 }), 1],
      [inside({ vport: 90, port: 3 }), 1],
      [inside({ vport: 91, port: 4 }), "pass"],
      [inside({ vport: 91, port: 1023 }), "pass"],
      [inside({ vport: 91, port: 1024 }), 2],
      [inside({ vport: 91, port: 2047 }), 2],
      [inside({ vport: 91, port: 2048 }), "pass"],
      [datagram({ vip: INSIDE, port: 5, vport: 7 }), 3],
      [datagram({ vip: INSIDE, port: 7, vport: 5 }), "pass"],
      [datagram({ vip: INSIDE, port: 5, vport: 8 }), "pass"],
    ],
  },
  {
    name: "protocols, and any",
    rules: [
      { mark: 1, protocol: "tcp", destinationPorts: [53, 53] },
      { mark: 2, protocol: "udp" },
      { mark: 3, destination: NETWORK },
    ],
    packets: [
      [inside({ vport: 53 }), 1],
      [datagram({ vip: INSIDE, vport: 53 }), 2],
      [inside({ vport: 54 }), 3],
    ],
  },
  {
    name: "the family: a rule for IPv6 is for no IPv4 packet",
    rules: [
      { mark: 1, family: "ipv6" },
      { mark: 2, destination: NETWORK },
    ],
    packets: [
      [inside(), 2],
      [inside({ vip: "203.0.114.1" }), "pass"],
    ],
  },
  {
    name: "as many rules as there may be",
    rules: Array.from({ length: 1024 }, (_, n) => ({ mark: n < 1023 ? 1 : 3, destinationPorts: [n, n] })),
    packets: [
      [inside({ vport: 0 }), 1],
      [inside({ vport: 1022 }), 1],
      [inside({ vport: 1023 }), 3],
      [inside({ vport: 1024 }), "pass"],
    ],
  },
];

t.test("mark rules", async (t) => {
  for (const { name, rules, packets } of markings) {
    t.test(name, async (t) => {
      for (const [frame, to] of packets) {
        bed.configure({ services: [1, 2, 3].map((n) => service(n, "mark", `0.0.0.${n}`, 0)), markRules: rules });
        t.equal(pick(bed, frame), to, JSON.stringify(frame.slice(1)));
      }
      t.same(bed.violations(), []);
    });
  }

  t.test("hold from where the settings say on, and no further", async (t) => {
    bed.configure({
      services: [1, 2].map((n) => service(n, "mark", `0.0.0.${n}`, 0)),
      markRules: [{ mark: 1 }],
    });
    const settings = bed.map("settings").get(0);
    const rule = bed.map("mark_rules").get(0);
    if (settings === undefined || rule === undefined) throw new Error("unreachable");
    bed.map("mark_rules").set(1024, { ...rule, destination_ports: [80, 80], mark: 2 });
    bed.map("mark_rules").set(1025, rule);
    bed.map("settings").set(0, { ...settings, mark_rules: { first: 1024, count: 1 } });
    t.equal(pick(bed, inside({ vport: 80 })), 2);
    t.equal(pick(bed, inside({ vport: 81 })), "pass");
  });

  t.test("a mark has 32 bits", async (t) => {
    bed.configure({
      services: [
        service(1, "mark", "255.255.255.255", 0),
        service(2, "mark", "128.0.0.1", 0),
        service(3, "mark", "0.0.0.1", 0),
      ],
      markRules: [
        { mark: 0xffff_ffff, destinationPorts: [1, 1] },
        { mark: 0x8000_0001, destinationPorts: [2, 2] },
        { mark: 1 },
      ],
    });
    t.strictSame(
      [1, 2, 3].map((vport) => pick(bed, inside({ vport }))),
      [1, 2, 3],
    );
  });
});

// ---------------------------------------------------------------------------------------------- the real server's port

interface Translation {
  readonly name: string;
  readonly setup: Setup;
  readonly of: string;
  /** As the service counts it; the packet's own port gets another where it is not 0. */
  readonly rport: number;
  readonly vip: string;
  readonly vport: number;
  readonly protocol: "tcp" | "udp";
}

const withOne = (more: Partial<ServiceSetup>, server: RealServerSetup, markRules: MarkRuleSetup[] = []): Setup => ({
  services: [{ protocol: "tcp", vip: VIP, port: 0, realServers: [server], ...more }],
  localAddresses: [LOCAL],
  localPorts: [20000, 20000],
  markRules,
});
const MARKED = { protocol: "mark", vip: "0.0.0.7", port: 0 } as const;
const RULES = [{ mark: 7, destination: NETWORK }];

const translations = (["nat", "fullnat"] as const).flatMap((method): (Translation & { method: Method })[] => {
  const marked = { method, of: "mark:0.0.0.7:0", vip: INSIDE } as const;
  return [
    {
      ...{ name: "an any-port service: the packet's port", of: `tcp:${VIP}:0`, method, protocol: "tcp" },
      ...{ setup: withOne({}, real(1, method)), vip: VIP, vport: 8443, rport: 0 },
    },
    {
      ...{ name: "a mark's service, no port: the packet's", ...marked, protocol: "tcp" },
      ...{ setup: withOne(MARKED, real(1, method), RULES), vport: 443, rport: 0 },
    },
    {
      ...{ name: "a mark's service, no port, UDP: the packet's", ...marked, protocol: "udp" },
      ...{ setup: withOne(MARKED, real(1, method), RULES), vport: 53, rport: 0 },
    },
    {
      ...{ name: "a mark's service and a port: that one", ...marked, protocol: "tcp" },
      ...{ setup: withOne(MARKED, real(1, method, { port: 8080 }), RULES), vport: 443, rport: 8080 },
    },
    {
      ...{ name: "a mark's service and a port, UDP: that one", ...marked, protocol: "udp" },
      ...{ setup: withOne(MARKED, real(1, method, { port: 5353 }), RULES), vport: 53, rport: 5353 },
    },
  ];
});

/** The request, and the reply translated back to the address and port that the client asked. */
function steps({ method, of, rport, vip, vport, protocol }: Translation & { method: Method }): Step[] {
  const counted = { service: of, real: `${realAddress(1)}:${rport}` };
  const local = method === "fullnat" ? { source: LOCAL } : {};
  const came = protocol === "tcp" ? segment("S", { vip, vport }) : datagram({ vip, vport });
  const ports = { destinationPort: rport || vport, ...(method === "fullnat" && { sourcePort: 20000 }) };
  const answer = { rport: rport || vport, ...(method === "fullnat" && { to: LOCAL, port: 20000 }) };
  const back = protocol === "tcp" ? answerSegment(1, "SA", answer) : answerDatagram(1, answer);
  const hosts = { source: INTERFACES.r0.mac, destination: realMac(1) };
  return [
    opens(
      counted,
      came,
      change(came, { ethernet: hosts, ipv4: { ...local, destination: realAddress(1), ttl: 63 }, [protocol]: ports }),
    ),
    replies(
      counted,
      back,
      change(back, {
        ethernet: { source: INTERFACES.c0.mac, destination: ROUTER_MAC },
        ipv4: { source: vip, destination: CLIENT, ttl: 63 },
        [protocol]: { sourcePort: vport, destinationPort: 1000 },
      }),
    ),
  ];
}

t.test("the real server's port", async (t) =>
  runRows(
    t,
    bed,
    translations.map((translation) => ({
      name: `${translation.method}, ${translation.name}`,
      setup: translation.setup,
      steps: steps(translation),
    })),
  ),
);

const untouched: Row[] = [
  {
    name: "what no rule is for leaves as it came",
    setup: withOne(MARKED, real(1, "nat"), [
      { mark: 7, protocol: "udp", destination: NETWORK, destinationPorts: [53, 53] },
    ]),
    steps: [
      passes(inside()),
      passes(datagram({ vip: INSIDE, vport: 54 })),
      passes(datagram({ vip: "203.0.114.1", vport: 53 })),
      passes(segment("S", { vip: INTERFACES.c0.address, vport: 22 })),
      passes(answerDatagram(1, { rport: 53 }), "r0"),
    ],
  },
];
t.test("untouched", async (t) => runRows(t, bed, untouched));
