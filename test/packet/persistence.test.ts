/**
 * Persistence: which real server a client's connections go to, and what a template is the key of (ip_vs_sched_persist() in
 * net/netfilter/ipvs/ip_vs_core.c, ip_vs_check_template() in ip_vs_conn.c).
 */
import "./own-namespace.js";
import t from "tap";
import { changes, counts, goes, passesAndSweeps, sets, templates } from "./actions.js";
import { Bed, type Method, type RealServerSetup, type ServiceSetup, type Setup } from "./bed.js";
import { build } from "./frame.js";
import { INTERFACES, ROUTER_MAC, realAddress, realMac, VIP } from "./network.js";
import { answerSegment, datagram, real, segment } from "./packets.js";
import { change, continues, opens, type Row, replies, runRows } from "./row.js";

const LOCAL = "10.1.0.1";
const [A, B, C, D] = ["198.18.0.1", "198.18.0.2", "198.18.0.3", "198.18.0.4"] as const;

function persistent(realServers: readonly RealServerSetup[], more: Partial<ServiceSetup> = {}): ServiceSetup {
  return { protocol: "tcp", vip: VIP, port: 80, persistence: { seconds: 300 }, realServers, ...more };
}

function setup(...services: ServiceSetup[]): Setup {
  return { services, localAddresses: [LOCAL], localPorts: [20000, 20000] };
}

const three = (method: Method): RealServerSetup[] => [1, 2, 3].map((n) => real(n, method));
const syn = (client: string, port: number, vport = 80, vip = VIP) => segment("S", { client, port, vport, vip });
const ack = (client: string, port: number, vport = 80, vip = VIP) => segment("A", { client, port, vport, vip });

const keys: Row[] = [
  {
    name: "a client's connections follow its first, other clients take their turns",
    setup: setup(persistent(three("dr"))),
    steps: [
      goes(1, syn(A, 1000)),
      goes(2, syn(B, 1000)),
      goes(1, syn(A, 1001)),
      goes(3, syn(C, 1000)),
      goes(1, syn(A, 1002)),
      goes(2, syn(B, 1001)),
      goes(1, syn(D, 1000)),
      templates(
        `tcp ${A}:0 ${VIP}:80 10.1.0.11 NONE leads 3`,
        `tcp ${B}:0 ${VIP}:80 10.1.0.12 NONE leads 2`,
        `tcp ${C}:0 ${VIP}:80 10.1.0.13 NONE leads 1`,
        `tcp ${D}:0 ${VIP}:80 10.1.0.11 NONE leads 1`,
      ),
      counts(0, { active: 4, inactive: 0, templates: 2 }),
      counts(1, { active: 2, inactive: 0, templates: 1 }),
    ],
  },
  {
    name: "a netmask makes a network one client",
    setup: setup(persistent(three("dr"), { persistence: { seconds: 300, mask: "255.255.255.240" } })),
    steps: [
      goes(1, syn("198.18.0.1", 1000)),
      goes(1, syn("198.18.0.15", 1000)),
      goes(2, syn("198.18.0.16", 1000)),
      goes(1, syn("198.18.0.0", 1000)),
      goes(2, syn("198.18.0.31", 1000)),
      goes(3, syn("198.18.1.1", 1000)),
      templates(
        `tcp 198.18.0.0:0 ${VIP}:80 10.1.0.11 NONE leads 3`,
        `tcp 198.18.0.16:0 ${VIP}:80 10.1.0.12 NONE leads 2`,
        `tcp 198.18.1.0:0 ${VIP}:80 10.1.0.13 NONE leads 1`,
      ),
    ],
  },
  {
    name: "a netmask may have any bits",
    setup: setup(persistent(three("dr"), { persistence: { seconds: 300, mask: "128.0.255.0" } })),
    steps: [
      goes(1, syn("198.18.5.1", 1000)),
      goes(2, syn("198.18.6.1", 1000)),
      goes(1, syn("255.99.5.200", 1000)),
      goes(3, syn("100.18.5.1", 1000)),
    ],
  },
  {
    name: "two ports of a VIP are two services, and so are TCP and UDP",
    setup: setup(
      persistent(three("dr")),
      persistent(
        [4, 5].map((n) => real(n, "dr"), { port: 443 }),
        { port: 443 },
      ),
      persistent(
        [6, 7].map((n) => real(n, "dr")),
        { protocol: "udp" },
      ),
    ),
    steps: [
      goes(1, syn(A, 1000)),
      goes(4, syn(A, 1000, 443)),
      goes(6, datagram({ client: A })),
      goes(5, syn(B, 1000, 443)),
      goes(2, syn(B, 1000)),
      goes(7, datagram({ client: B })),
      goes(4, syn(A, 1001, 443)),
      goes(1, syn(A, 1001)),
      goes(6, datagram({ client: A, port: 1001 })),
      templates(
        `tcp ${A}:0 ${VIP}:80 10.1.0.11 NONE leads 2`,
        `tcp ${B}:0 ${VIP}:80 10.1.0.12 NONE leads 1`,
        `tcp ${A}:0 ${VIP}:443 10.1.0.14 NONE leads 2`,
        `tcp ${B}:0 ${VIP}:443 10.1.0.15 NONE leads 1`,
        `udp ${A}:0 ${VIP}:80 10.1.0.16 NONE leads 2`,
        `udp ${B}:0 ${VIP}:80 10.1.0.17 NONE leads 1`,
      ),
    ],
  },
  {
    name: "of an any-port service, all ports share a template",
    setup: setup(persistent(three("dr"), { port: 0 })),
    steps: [
      goes(1, syn(A, 1000, 80)),
      goes(1, syn(A, 1001, 443)),
      goes(2, syn(B, 1000, 443)),
      goes(1, syn(A, 1002, 65535)),
      goes(2, syn(B, 1001, 80)),
      templates(`tcp ${A}:0 ${VIP}:0 10.1.0.11 NONE leads 3`, `tcp ${B}:0 ${VIP}:0 10.1.0.12 NONE leads 2`),
    ],
  },
  {
    name: "of a firewall mark's service, all that has the mark: addresses, ports and protocols",
    setup: {
      ...setup(persistent(three("dr"), { protocol: "mark", vip: "0.0.1.7", port: 0 })),
      markRules: [{ mark: 0x107, destination: { address: "203.0.113.0", mask: "255.255.255.0" } }],
    },
    steps: [
      goes(1, syn(A, 1000, 80, "203.0.113.1")),
      goes(1, syn(A, 1001, 443, "203.0.113.1")),
      goes(2, datagram({ client: B, vport: 53, vip: "203.0.113.2" })),
      goes(1, datagram({ client: A, vport: 53, vip: "203.0.113.3" })),
      goes(2, syn(B, 1000, 22, "203.0.113.255")),
      goes(3, syn(C, 1000, 80, "203.0.113.1")),
      templates(
        `ip ${A}:0 0.0.1.7:0 10.1.0.11 NONE leads 3`,
        `ip ${B}:0 0.0.1.7:0 10.1.0.12 NONE leads 2`,
        `ip ${C}:0 0.0.1.7:0 10.1.0.13 NONE leads 1`,
      ),
    ],
  },
  {
    name: "a template is for no packet, not even one from its address and port 0",
    setup: setup(persistent(three("dr")), persistent(three("dr"), { port: 0, vip: "10.0.0.101" })),
    steps: [
      goes(1, syn(A, 1000)),
      goes("pass", ack(A, 0)),
      goes("pass", segment("R", { client: A, port: 0 })),
      goes(1, syn(A, 0)),
      goes(1, ack(A, 0)),
      goes(1, syn(A, 1000, 443, "10.0.0.101")),
      goes("pass", ack(A, 0, 0, "10.0.0.101")),
      templates(`tcp ${A}:0 ${VIP}:80 10.1.0.11 ASSURED leads 2`, `tcp ${A}:0 10.0.0.101:0 10.1.0.11 NONE leads 1`),
    ],
  },
];

const translated: Row[] = (["nat", "fullnat"] as const).map((method): Row => {
  const name = `tcp:${VIP}:0`;
  const of = { service: name, real: `${realAddress(1)}:0` };
  const came = syn(A, 1000, 8443);
  const out = change(came, {
    ethernet: { source: INTERFACES.r0.mac, destination: realMac(1) },
    ipv4: { ...(method === "fullnat" && { source: LOCAL }), destination: realAddress(1), ttl: 63 },
    tcp: { ...(method === "fullnat" && { sourcePort: 20000 }) },
  });
  const back = answerSegment(1, "SA", { rport: 8443, ...(method === "fullnat" && { to: LOCAL, port: 20000 }) });
  return {
    name: `${method}: replies of what a template led are translated`,
    setup: setup(persistent(three(method), { port: 0 })),
    steps: [
      opens(of, came, out),
      replies(
        of,
        back,
        change(back, {
          ethernet: { source: INTERFACES.c0.mac, destination: ROUTER_MAC },
          ipv4: { source: VIP, destination: A, ttl: 63 },
          tcp: { destinationPort: 1000 },
        }),
      ),
      continues(
        of,
        change(came, { tcp: { flags: "A" } }),
        change(out, { tcp: { ...(method === "fullnat" && { sourcePort: 20000 }), flags: "A" } }),
      ),
      templates(`tcp ${A}:0 ${VIP}:0 10.1.0.11 ASSURED leads 1`),
    ],
  };
});

const quiesced: Row[] = [
  {
    name: "a quiesced real server still gets its clients' connections, and no others",
    setup: setup(persistent(three("dr"))),
    steps: [
      goes(1, syn(A, 1000)),
      changes(0, { weight: 0 }),
      goes(1, syn(A, 1001)),
      goes(2, syn(B, 1000)),
      goes(3, syn(C, 1000)),
      goes(2, syn(D, 1000)),
      goes(1, syn(A, 1002)),
      templates(
        `tcp ${A}:0 ${VIP}:80 10.1.0.11 NONE leads 3`,
        `tcp ${B}:0 ${VIP}:80 10.1.0.12 NONE leads 1`,
        `tcp ${C}:0 ${VIP}:80 10.1.0.13 NONE leads 1`,
        `tcp ${D}:0 ${VIP}:80 10.1.0.12 NONE leads 1`,
      ),
    ],
  },
  {
    name: "with expire_quiescent_template they are scheduled anew, and stay with what they then get",
    setup: { ...setup(persistent(three("dr"))), settings: { expireQuiescentTemplate: true } },
    steps: [
      goes(1, syn(A, 1000)),
      goes(1, ack(A, 1000)),
      goes(2, syn(B, 1000)),
      templates(`tcp ${A}:0 ${VIP}:80 10.1.0.11 ASSURED leads 1`, `tcp ${B}:0 ${VIP}:80 10.1.0.12 NONE leads 1`),
      changes(0, { weight: 0 }),
      goes(3, syn(A, 1001)),
      templates(`tcp ${A}:0 ${VIP}:80 10.1.0.13 NONE leads 2`, `tcp ${B}:0 ${VIP}:80 10.1.0.12 NONE leads 1`),
      goes(1, ack(A, 1000)),
      counts(0, { active: 1, templates: 0 }),
      counts(2, { active: 1, templates: 1 }),
      changes(0, { weight: 1 }),
      goes(3, syn(A, 1002)),
      goes(2, syn(B, 1001)),
    ],
  },
  {
    name: "with expire_quiescent_template and every real server quiesced, there is none",
    setup: { ...setup(persistent([real(1, "dr")])), settings: { expireQuiescentTemplate: true } },
    steps: [
      goes(1, syn(A, 1000)),
      changes(0, { weight: 0 }),
      goes("drop no_real_server", syn(A, 1001)),
      templates(`tcp ${A}:0 ${VIP}:80 10.1.0.11 NONE leads 1`),
      sets({}),
      goes(1, syn(A, 1001)),
    ],
  },
  {
    name: "an overloaded real server still gets its clients' connections",
    setup: setup(persistent([real(1, "dr", { thresholds: [1, 0] }), real(2, "dr"), real(3, "dr")])),
    steps: [
      goes(1, syn(A, 1000)),
      goes(2, syn(B, 1000)),
      goes(3, syn(C, 1000)),
      goes(2, syn(D, 1000)),
      goes(1, syn(A, 1001)),
      goes(1, syn(A, 1002)),
      counts(0, { active: 3, templates: 1 }),
    ],
  },
  ...(["drop", "keep", "reset"] as const).map(
    (removed): Row => ({
      name: `of a removed real server (${removed}), clients are scheduled anew, and their template turns`,
      setup: setup(persistent(three("nat"))),
      steps: [
        goes(1, syn(A, 1000)),
        goes(2, syn(B, 1000)),
        changes(0, { removed }),
        goes(3, syn(A, 1001)),
        goes(3, syn(A, 1002)),
        templates(`tcp ${A}:0 ${VIP}:80 10.1.0.13 NONE leads 3`, `tcp ${B}:0 ${VIP}:80 10.1.0.12 NONE leads 1`),
        counts(0, { active: 1, templates: 0 }),
        counts(2, { active: 2, templates: 1 }),
        changes(0, { removed: undefined }),
        goes(3, syn(A, 1003)),
        goes(1, ack(A, 1000)),
        passesAndSweeps(901),
        passesAndSweeps(61),
        templates(),
        counts(0, { active: 0, inactive: 0, templates: 0 }),
        counts(2, { active: 0, inactive: 0, templates: 0 }),
      ],
    }),
  ),
  {
    name: "of a removed real server that comes back before they do, clients are still its own",
    setup: setup(persistent([real(1, "dr"), real(2, "dr", { weight: 0 })])),
    steps: [
      goes(1, syn(A, 1000)),
      changes(0, { removed: "drop" }),
      goes("drop no_real_server", syn(A, 1001)),
      templates(`tcp ${A}:0 ${VIP}:80 10.1.0.11 NONE leads 1`),
      changes(0, { removed: undefined }),
      changes(1, { weight: 1 }),
      goes(1, syn(A, 1001)),
    ],
  },
];

/** conn_reuse_mode does not touch what a template led: is_new_conn_expected() in ip_vs_core.c looks at cp->control first. */
const reused: Row[] = [1, 3].map((connReuseMode) => ({
  name: `conn_reuse_mode ${connReuseMode}: a SYN in TIME_WAIT goes on where the template led`,
  setup: { ...setup(persistent(three("nat"))), settings: { connReuseMode } },
  steps: [
    goes(1, syn(A, 1000)),
    goes(1, ack(A, 1000)),
    goes(1, segment("FA", { client: A })),
    goes(2, answerSegment(1, "FA"), "r0"), // to the router, whose MAC ends so
    counts(0, { active: 0, inactive: 1 }),
    (bed, t) => {
      t.equal(bed.connections()[0]?.state, "TIME_WAIT");
      const { counted } = bed.run(build(syn(A, 1000)));
      t.strictSame(counted.services[`tcp:${VIP}:80`], { in_packets: 1, in_bytes: 40 }, "no connection is counted");
      t.equal(bed.connections()[0]?.state, "SYN_RECV");
    },
    counts(0, { active: 1, inactive: 0, templates: 1 }),
  ],
}));

const bed = await Bed.open({ buckets: 64 });
t.teardown(() => bed.close());

t.test("who is led where", async (t) => runRows(t, bed, keys));
t.test("what is led is translated", async (t) => runRows(t, bed, translated));
t.test("where nothing is led any more", async (t) => runRows(t, bed, quiesced));
t.test("connections that are reused", async (t) => runRows(t, bed, reused));
