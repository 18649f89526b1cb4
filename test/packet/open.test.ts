/** How connections open: which real server gets them, when none does, and what else can be in the way. */
import "./own-namespace.js";
import t from "tap";
import { DropReason, EventKind } from "../../src/dataplane/sluice.bpf.js";
import { ipv4Bytes, ipv4Text } from "./addresses.js";
import { Bed, type Method, type RealServerSetup, type Setup } from "./bed.js";
import type { DropName } from "./counted.js";
import { build, type Frame } from "./frame.js";
import {
  CLIENT,
  CLIENT_BEHIND_UNKNOWN_NEIGHBOUR,
  INTERFACES,
  ROUTER_MAC,
  realAddress,
  realMac,
  VIP,
} from "./network.js";
import { type Action, drops, type Row, runRows, waits } from "./row.js";
import { mhSlot, sipHash } from "./siphash.js";

const LOCAL = "10.1.0.1";

function real(n: number, method: Method, more: Partial<RealServerSetup> = {}): RealServerSetup {
  return { address: realAddress(n), method, hop: { mac: realMac(n) }, ...more };
}

function service(realServers: readonly RealServerSetup[], more: Partial<Setup["services"][number]> = {}): Setup {
  return {
    services: [{ protocol: "tcp", vip: VIP, port: 80, realServers, ...more }],
    localAddresses: [LOCAL],
    localPorts: [20000, 60000],
  };
}

function segment(flags: string, clientPort: number, source = CLIENT, vip = VIP): Frame {
  return [
    { kind: "ethernet", destination: INTERFACES.c0.mac, source: ROUTER_MAC },
    { kind: "ipv4", source, destination: vip },
    { kind: "tcp", sourcePort: clientPort, destinationPort: 80, flags },
  ];
}

function datagram(clientPort: number, source = CLIENT): Frame {
  return [
    { kind: "ethernet", destination: INTERFACES.c0.mac, source: ROUTER_MAC },
    { kind: "ipv4", source, destination: VIP },
    { kind: "udp", sourcePort: clientPort, destinationPort: 80 },
  ];
}

/** The real server that a frame left for, by the MAC it has; or why it did not leave. */
function pick(bed: Bed, frame: Frame): number | string {
  const { verdict, frame: out, counted } = bed.run(build(frame));
  if (verdict !== "redirect") return [verdict, ...Object.keys(counted.drops)].join(" ");
  return out[5] ?? 0;
}

function picks(bed: Bed, count: number): (number | string)[] {
  return Array.from({ length: count }, (_, n) => pick(bed, segment("S", 1000 + n)));
}

t.test("schedulers", async (t) => {
  const bed = await Bed.open({ buckets: 64 });
  t.teardown(() => bed.close());
  const three = [1, 2, 3].map((n) => real(n, "dr"));

  t.test("rr goes through the ring, round and round", async (t) => {
    bed.configure(service(three, { ring: [2, 1, 0] }));
    t.strictSame(picks(bed, 7), [3, 2, 1, 3, 2, 1, 3]);
  });

  t.test("rr: packets of a connection stay with it, and take no turn", async (t) => {
    bed.configure(service(three));
    t.equal(pick(bed, segment("S", 1)), 1);
    for (const flags of ["S", "A", "PA", "A"]) t.equal(pick(bed, segment(flags, 1)), 1);
    t.equal(pick(bed, segment("S", 2)), 2);
    t.equal(pick(bed, segment("A", 1)), 1);
    t.equal(pick(bed, segment("S", 3)), 3);
    t.same(bed.violations(), []);
  });

  t.test("rr: each service has its own turn", async (t) => {
    const setup = service(three);
    const [first] = setup.services;
    if (first === undefined) throw new Error("unreachable");
    bed.configure({ ...setup, services: [first, { ...first, protocol: "udp" }, { ...first, vip: "10.0.0.101" }] });
    t.strictSame(
      [segment("S", 1), datagram(1), segment("S", 1, CLIENT, "10.0.0.101"), segment("S", 2), datagram(2)].map((frame) =>
        pick(bed, frame),
      ),
      [1, 1, 1, 2, 2],
    );
  });

  t.test("wrr goes through a ring in which weights are shares", async (t) => {
    bed.configure(service(three, { scheduler: "wrr", ring: [0, 0, 1, 0, 1, 2, 0, 1, 2] }));
    t.strictSame(picks(bed, 18), [1, 1, 2, 1, 2, 3, 1, 2, 3, 1, 1, 2, 1, 2, 3, 1, 2, 3]);
  });

  t.test("a ring may be long: every slot of every chunk is reached", async (t) => {
    const ring = Array.from({ length: 100 }, (_, slot) => (slot * 7) % 3);
    bed.configure(service(three, { ring }));
    t.strictSame(
      picks(bed, 200),
      [...ring, ...ring].map((place) => place + 1),
    );
  });

  t.test("SipHash agrees with the paper and with the kernel's vectors of mh", async (t) => {
    const bytes = (length: number): Uint8Array => Uint8Array.from({ length }, (_, i) => i);
    // Aumasson and Bernstein, appendix A; key 00 01 .. 0f, 15 bytes.
    t.equal(sipHash(2, 4, [0x0706050403020100n, 0x0f0e0d0c0b0a0908n], bytes(15)), 0xa129ca6149be45e5n);
    // lib/siphash.c of Linux 6.1 compiled for 64 bit, reduced to a table of 4093 slots.
    for (const [address, slot] of [
      ["0.0.0.0", 2495],
      ["0.0.0.1", 979],
      ["198.18.0.1", 2895],
      ["10.1.31.155", 2077],
      ["255.255.255.255", 3432],
      ["198.18.39.17", 1467],
      ["198.19.2.3", 688],
      ["10.1.0.64", 1117],
    ] as const) {
      t.equal(mhSlot(ipv4Bytes(address), 4093), slot, address);
    }
  });

  t.test("mh: the client's address names the slot, whatever its port", async (t) => {
    for (const length of [251, 4093]) {
      // Each slot's real server, so that a pick tells much of the slot.
      const ring = Array.from({ length }, (_, slot) => slot % 16);
      const sixteen = Array.from({ length: 16 }, (_, n) => real(n + 1, "dr"));
      bed.configure(service(sixteen, { scheduler: "mh", ring }));
      const wrong: string[] = [];
      for (let n = 0; n < 400; n++) {
        const client = Uint8Array.from([198, 18 + (n & 1), (n * 91) & 0xff, (n * 57 + 3) & 0xff]);
        const expected = (mhSlot(client, length) % 16) + 1;
        const got = pick(bed, segment("S", 1024 + n, ipv4Text(client)));
        if (got !== expected) wrong.push(`${ipv4Text(client)}: ${got}, not ${expected}`);
      }
      t.strictSame(wrong, [], `ring of ${length}`);
      const again = Array.from({ length: 20 }, (_, n) => pick(bed, segment("S", 5000 + n * 77)));
      t.equal(new Set(again).size, 1, "one client, one real server");
    }
  });
});

function reverseReply(local: number, n: number): Frame {
  return [
    { kind: "ethernet", destination: INTERFACES.r0.mac, source: realMac(n) },
    { kind: "ipv4", source: realAddress(n), destination: LOCAL },
    { kind: "tcp", sourcePort: 80, destinationPort: local, flags: "SA" },
  ];
}

const nothingOpens: Row[] = [
  {
    name: "a service without real servers",
    setup: service([]),
    steps: [drops("no_real_server", segment("S", 1)), drops("no_real_server", segment("S", 1))],
  },
  {
    name: "a service whose real servers all have weight 0",
    setup: service([real(1, "nat", { weight: 0 }), real(2, "dr", { weight: 0 })]),
    steps: [drops("no_real_server", segment("S", 1))],
  },
  {
    name: "the ring's real server was removed",
    setup: service([real(1, "nat", { removed: "drop" })], { ring: [0] }),
    steps: [drops("no_real_server", segment("S", 1))],
  },
  {
    name: "fullnat without a local address",
    setup: { ...service([real(1, "fullnat")]), localAddresses: [] },
    steps: [drops("no_local_address", segment("S", 1))],
  },
  ...(["nat", "dr", "tun", "fullnat"] as const).map((method): Row => {
    return {
      name: `${method}: the next hop is not known yet`,
      setup: service([real(1, method, { hop: "unresolved" })]),
      steps: [drops("next_hop_unresolved", segment("S", 1)), drops("next_hop_unresolved", segment("S", 2))],
    };
  }),
];

const staysEmpty: Action = (bed, t) => {
  t.strictSame(bed.table().entries(), [], "the table stays empty");
};

t.test("nothing opens", async (t) => {
  const bed = await Bed.open();
  t.teardown(() => bed.close());
  runRows(
    t,
    bed,
    nothingOpens.map((row) => ({
      ...row,
      steps: [...row.steps, staysEmpty],
    })),
  );
});

t.test("real servers that go", async (t) => {
  const bed = await Bed.open();
  t.teardown(() => bed.close());
  for (const method of ["nat", "dr", "tun", "fullnat"] as const) {
    t.test(`${method}: quiesced, it keeps its connections`, async (t) => {
      bed.configure(service([real(1, method)]));
      t.equal(pick(bed, segment("S", 1)), 1);
      bed.changeRealServer(0, 0, { weight: 0 });
      t.equal(pick(bed, segment("A", 1)), 1);
      t.same(bed.violations(), []);
    });

    t.test(`${method}: removed, its connections' packets are dropped, and replies still translated`, async (t) => {
      bed.configure(service([real(1, method)]));
      t.equal(pick(bed, segment("S", 1)), 1);
      bed.changeRealServer(0, 0, { removed: "drop" });
      t.equal(pick(bed, segment("A", 1)), "drop real_server_removed");
      if (method === "fullnat") {
        const result = bed.run(build(reverseReply(bed.connections()[0]?.local.port ?? 0, 1)), "r0");
        t.equal(result.verdict, "redirect");
      }
      t.equal(bed.connections().length, 1, "until it expires");
      bed.changeRealServer(0, 0, { removed: undefined });
      t.equal(pick(bed, segment("A", 1)), 1, "and come back with it");
      t.same(bed.violations(), []);
    });

    t.test(`${method}: its next hop is lost, and the control plane hears of it`, async (t) => {
      bed.configure(service([real(2, method), real(1, method)], { ring: [1] }));
      t.equal(pick(bed, segment("S", 1)), 1);
      bed.changeRealServer(0, 1, { hop: "unresolved" });
      await waits(0.03)(bed, t);
      await bed.events();
      t.equal(pick(bed, segment("A", 1)), "drop next_hop_unresolved");
      const events = await bed.events();
      t.strictSame(
        events.map(({ kind, subject }) => ({ kind, subject })),
        [{ kind: EventKind.EVENT_NEXT_HOP_MISSING, subject: 1 }],
      );
      t.same(bed.violations(), []);
    });
  }

  t.test(
    "a packet that would open finds the next hop unknown: the control plane hears of it, not too often",
    async (t) => {
      bed.configure(service([real(1, "nat", { hop: "unresolved" })]));
      await waits(0.03)(bed, t);
      await bed.events();
      for (let n = 0; n < 100; n++) bed.run(build(segment("S", n)));
      const events = await bed.events();
      t.ok(events.length >= 1 && events.length < 60, `${events.length} events for 100 packets`);
      t.ok(events.every(({ kind, subject }) => kind === EventKind.EVENT_NEXT_HOP_MISSING && subject === 0));
    },
  );

  t.test("a reply finds the client's next hop unknown: the control plane hears of it", async (t) => {
    bed.configure(service([real(1, "fullnat")]));
    bed.run(build(segment("S", 1, CLIENT_BEHIND_UNKNOWN_NEIGHBOUR.address)));
    await waits(0.03)(bed, t);
    await bed.events();
    bed.run(build(reverseReply(bed.connections()[0]?.local.port ?? 0, 1)), "r0");
    const [event] = await bed.events();
    t.equal(event?.kind, EventKind.EVENT_CLIENT_NEIGHBOUR_MISSING);
    t.equal(ipv4Text(event?.address.bytes.subarray(0, 4) ?? new Uint8Array()), CLIENT_BEHIND_UNKNOWN_NEIGHBOUR.router);
    t.equal(event?.ifindex, bed.interfaces.c0);
  });
});

t.test("nat: one reply flow for two VIPs", async (t) => {
  const bed = await Bed.open();
  t.teardown(() => bed.close());
  // The same client port to two VIPs with one real server: the replies could not be told apart.
  const setup: Setup = {
    services: [VIP, "10.0.0.101"].map((vip) => ({
      protocol: "tcp",
      vip,
      port: 80,
      realServers: [real(1, "nat", { port: 8080 })],
    })),
    timeouts: { CLOSE: 0.1 },
  };
  const other = (flags: string): Frame => segment(flags, 1, CLIENT, "10.0.0.101");

  t.test("the second connection is refused while the first lives", async (t) => {
    bed.configure(setup);
    t.equal(pick(bed, segment("S", 1)), 1);
    t.equal(pick(bed, other("S")), "drop reply_flow_taken");
    t.equal(pick(bed, segment("A", 1)), 1);
    t.equal(bed.connections().length, 1);
    t.same(bed.violations(), []);
  });

  t.test("and opens when the first is over", async (t) => {
    bed.configure(setup);
    for (const flags of ["S", "A", "R"]) t.equal(pick(bed, segment(flags, 1)), 1);
    await waits(0.15)(bed, t);
    t.equal(pick(bed, other("S")), 1);
    t.strictSame(
      bed.connections().map(({ destination }) => destination),
      ["10.0.0.101"],
    );
    t.same(bed.violations(), []);
  });
});

/** A table so small that every flow may lie anywhere in it, and that is full at once: two buckets of 16. */
t.test("a full table", async (t) => {
  const bed = await Bed.open({ buckets: 2 });
  t.teardown(() => bed.close());
  const SLOTS = 32;
  /** Connections of two entries each that leave room for one more. */
  const ALMOST = SLOTS / 2 - 1;
  const mixed = (method: Method, timeouts: Setup["timeouts"] = {}): Setup => ({
    services: (["tcp", "udp"] as const).map((protocol) => ({
      protocol,
      vip: VIP,
      port: 80,
      realServers: [real(1, method)],
    })),
    localAddresses: [LOCAL],
    localPorts: [20000, 60000],
    timeouts,
  });
  type Kind = "udp" | "half-open" | "established" | "closing";
  const paths: Readonly<Record<Exclude<Kind, "udp">, readonly string[]>> = {
    "half-open": ["S"],
    established: ["S", "A"],
    closing: ["S", "A", "FA"],
  };
  /** Opens connections from port 1 on, each in a state: `established` ones but for those that are named. */
  const fill = (others: Readonly<Record<number, Kind>>, count = SLOTS): void => {
    for (let port = 1; port <= count; port++) {
      const kind = others[port] ?? "established";
      if (kind === "udp") bed.run(build(datagram(port)));
      else for (const flags of paths[kind]) bed.run(build(segment(flags, port)));
    }
  };
  const ports = (): number[] =>
    bed
      .connections()
      .map(({ sourcePort }) => sourcePort)
      .sort((a, b) => a - b);
  const all = Array.from({ length: SLOTS }, (_, n) => n + 1);
  const NEWCOMER = 99;
  const withNewcomerFor = (gone: number): number[] => [...all.filter((port) => port !== gone), NEWCOMER];

  t.test("of established connections refuses a new one", async (t) => {
    bed.configure(mixed("dr"));
    fill({});
    const newcomer = build(segment("S", NEWCOMER));
    for (let tries = 0; tries < 3; tries++) {
      const { verdict, counted } = bed.run(newcomer);
      t.equal(verdict, "drop");
      t.strictSame(counted, {
        services: {},
        realServers: {},
        drops: { table_full: { packets: 1, bytes: newcomer.length } },
      });
    }
    t.strictSame(ports(), all);
    t.equal(pick(bed, segment("A", 7)), 1, "and serves those that are there");
    t.same(bed.violations(), []);
  });

  t.test("lets an expired one go first", async (t) => {
    bed.configure(mixed("dr", { FIN_WAIT: 0.1 }));
    fill({ 8: "closing", 3: "half-open", 9: "half-open", 14: "udp", 29: "udp" });
    await waits(0.15)(bed, t);
    t.equal(pick(bed, segment("S", NEWCOMER)), 1);
    t.strictSame(ports(), withNewcomerFor(8));
    t.same(bed.violations(), []);
  });

  t.test("then a half-open one, the one that expires first", async (t) => {
    bed.configure(mixed("dr"));
    fill({ 5: "closing", 7: "udp", 8: "half-open", 20: "closing" }, 25);
    await waits(0.1)(bed, t);
    for (let port = 26; port <= SLOTS; port++) bed.run(build(segment("S", port)));
    t.equal(pick(bed, segment("S", NEWCOMER)), 1);
    t.strictSame(ports(), withNewcomerFor(8));
    t.same(bed.violations(), []);
  });

  t.test("then a closing one", async (t) => {
    bed.configure(mixed("dr"));
    fill({ 11: "udp", 12: "closing", 13: "udp", 30: "udp" });
    t.equal(pick(bed, segment("S", NEWCOMER)), 1);
    t.strictSame(ports(), withNewcomerFor(12));
    t.same(bed.violations(), []);
  });

  t.test("then the UDP connection that is idle longest", async (t) => {
    bed.configure(mixed("dr"));
    fill({ 11: "udp", 12: "udp", 13: "udp", 14: "udp", 30: "udp" });
    await waits(0.15)(bed, t);
    for (const port of [11, 12, 14, 30]) bed.run(build(datagram(port)));
    t.equal(pick(bed, segment("S", NEWCOMER)), 1);
    t.strictSame(ports(), withNewcomerFor(13));
    t.same(bed.violations(), []);
  });

  for (const method of ["nat", "fullnat"] as const) {
    t.test(`${method}: both directions go, and never a stranger`, async (t) => {
      bed.configure(mixed(method));
      fill({ 11: "half-open", 12: "half-open" }, ALMOST);
      for (let port = 100; port < 140; port++) {
        t.equal(pick(bed, segment("S", port)), 1);
        t.same(bed.violations(), []);
      }
      t.strictSame(
        ports().filter((port) => port <= ALMOST),
        [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 13, 14, 15],
        "established connections stay",
      );
    });

    t.test(`${method}: of established connections refuses a new one, and leaves nothing of it behind`, async (t) => {
      bed.configure(mixed(method));
      fill({}, ALMOST);
      t.equal(pick(bed, segment("S", NEWCOMER)), 1, "the last two entries");
      t.equal(pick(bed, segment("A", NEWCOMER)), 1);
      t.equal(pick(bed, segment("S", 98)), "drop table_full");
      t.equal(bed.table().entries().length, SLOTS);
      t.same(bed.violations(), []);
    });
  }

  t.test("nat: with room for the reverse entry alone, the new connection leaves nothing behind", async (t) => {
    const nat = mixed("nat");
    const [tcp, udp] = nat.services;
    if (tcp === undefined || udp === undefined) throw new Error("unreachable");
    bed.configure({ ...nat, services: [tcp, { ...tcp, vip: "10.0.0.101", realServers: [real(2, "dr")] }] });
    fill({}, ALMOST);
    for (const flags of ["S", "A"]) bed.run(build(segment(flags, 1, CLIENT, "10.0.0.101"))); // by dr: one entry
    t.equal(pick(bed, segment("S", NEWCOMER)), "drop table_full");
    t.equal(bed.table().entries().length, SLOTS - 1);
    t.same(bed.violations(), []);
  });
});

t.test("every reason to drop has a name in this file or another", async (t) => {
  const covered: readonly DropName[] = [
    "fragment",
    "malformed",
    "no_real_server",
    "real_server_removed",
    "next_hop_unresolved",
    "table_full",
    "reply_flow_taken",
    "local_ports_exhausted",
    "no_local_address",
    "ttl_exceeded",
    "mtu_exceeded",
    "no_route_to_client",
    "neighbour_unresolved",
    "egress_unknown",
    "reply_without_connection",
  ];
  // Two cannot be brought about by one packet at a time: connection-table.test.ts has two processors, and test_run always leaves headroom.
  const elsewhere: readonly DropName[] = ["table_contended", "no_headroom"];
  const all = Object.keys(DropReason)
    .filter((name) => name !== "DROP_REASONS")
    .map((name) => name.replace("DROP_", "").toLowerCase());
  t.strictSame([...covered, ...elsewhere].sort(), all.sort());
});
