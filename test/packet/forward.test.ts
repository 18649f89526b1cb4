/** The four forwarding methods, for TCP and UDP, there and back: every field of every packet, by checksums from scratch. */
import "./own-namespace.js";
import { execFileSync } from "node:child_process";
import { setTimeout as sleep } from "node:timers/promises";
import t from "tap";
import { Bed, type Method, type RealServerSetup, type Setup } from "./bed.js";
import { build, counting, type Frame, type Layer, padded, parse, wrongChecksums } from "./frame.js";
import {
  CLIENT,
  CLIENT_BEHIND_NARROW_LINK,
  CLIENT_BEHIND_OTHER_INTERFACE,
  CLIENT_BEHIND_UNKNOWN_NEIGHBOUR,
  CLIENT_ON_REAL_SIDE,
  CLIENT_WITHOUT_ROUTE,
  INTERFACES,
  ROUTER_MAC,
  realAddress,
  realMac,
  VIP,
} from "./network.js";
import { change, continues, drops, type Of, opens, opensThenDrops, passes, type Row, replies, runRows } from "./row.js";

const LOCAL = "10.1.0.1";
const LOCAL_PORT = 20000;
const CLIENT_PORT = 40000;

/** One service of each protocol with one real server. nat and fullnat map ports; dr and tun cannot. */
function setup(method: Method, real: Partial<RealServerSetup> = {}): Setup {
  const realServer: RealServerSetup = {
    address: realAddress(1),
    method,
    hop: { mac: realMac(1) },
    ...(mapsPorts(method) && { port: 8080 }),
    ...real,
  };
  return {
    services: (["tcp", "udp"] as const).map((protocol) => ({
      protocol,
      vip: VIP,
      port: 80,
      realServers: [realServer],
    })),
    localAddresses: [LOCAL],
    localPorts: [LOCAL_PORT, LOCAL_PORT],
  };
}

function mapsPorts(method: Method): boolean {
  return method === "nat" || method === "fullnat";
}

function of(method: Method, protocol: "tcp" | "udp"): Of {
  return { service: `${protocol}:${VIP}:80`, real: `${realAddress(1)}:${mapsPorts(method) ? 8080 : 80}` };
}

const FROM_ROUTER: Layer = { kind: "ethernet", destination: INTERFACES.c0.mac, source: ROUTER_MAC };
const TO_REAL: Layer = { kind: "ethernet", destination: realMac(1), source: INTERFACES.r0.mac };
const FROM_REAL: Layer = { kind: "ethernet", destination: INTERFACES.r0.mac, source: realMac(1) };

interface Options {
  readonly ip?: Partial<Extract<Layer, { kind: "ipv4" }>>;
  readonly tcp?: Partial<Extract<Layer, { kind: "tcp" }>>;
  readonly udp?: Partial<Extract<Layer, { kind: "udp" }>>;
  /** Bytes of payload. */
  readonly length?: number;
}

function transport(protocol: "tcp" | "udp", ports: [number, number], options: Options): Layer[] {
  const [sourcePort, destinationPort] = ports;
  const payload: Layer[] = options.length === 0 ? [] : [{ kind: "payload", bytes: counting(options.length ?? 18) }];
  if (protocol === "udp") return [{ kind: "udp", sourcePort, destinationPort, ...options.udp }, ...payload];
  const tcp = { sequence: 1000, acknowledgement: 5000, flags: "S", window: 64240, ...options.tcp };
  return [{ kind: "tcp", sourcePort, destinationPort, ...tcp }, ...payload];
}

function request(protocol: "tcp" | "udp", options: Options = {}): Frame {
  return [
    FROM_ROUTER,
    { kind: "ipv4", source: CLIENT, destination: VIP, id: 1001, ...options.ip },
    ...transport(protocol, [CLIENT_PORT, 80], options),
  ];
}

/** What the real server sends back, before the director. */
function response(method: Method, protocol: "tcp" | "udp", options: Options = {}): Frame {
  const [destination, port] = method === "fullnat" ? [LOCAL, LOCAL_PORT] : [CLIENT, CLIENT_PORT];
  return [
    FROM_REAL,
    { kind: "ipv4", source: realAddress(1), destination, id: 2001, ...options.ip },
    ...transport(protocol, [8080, port], { ...options, tcp: { flags: "SA", ...options.tcp } }),
  ];
}

/** What the request must have become, whatever else is in it. */
function sent(method: Method, frame: Frame): Frame {
  const ip = frame.find((layer) => layer.kind === "ipv4");
  const ttl = (ip?.ttl ?? 64) - 1;
  const ethernet = { destination: realMac(1), source: INTERFACES.r0.mac };
  switch (method) {
    case "nat":
      return change(frame, {
        ethernet,
        ipv4: { ttl, destination: realAddress(1) },
        tcp: { destinationPort: 8080 },
        udp: { destinationPort: 8080 },
      });
    case "fullnat":
      return change(frame, {
        ethernet,
        ipv4: { ttl, source: LOCAL, destination: realAddress(1) },
        tcp: { sourcePort: LOCAL_PORT, destinationPort: 8080 },
        udp: { sourcePort: LOCAL_PORT, destinationPort: 8080 },
      });
    case "dr":
      return change(frame, { ethernet, ipv4: { ttl } });
    case "tun": {
      const outer: Layer = {
        kind: "ipv4",
        source: INTERFACES.r0.address,
        destination: realAddress(1),
        ttl,
        tos: outerTos(ip?.tos ?? 0),
        dontFragment: ip?.dontFragment ?? false,
      };
      return [TO_REAL, outer, ...change(frame, { ipv4: { ttl } }).slice(1)];
    }
  }
}

/** RFC 6040 by way of INET_ECN_encapsulate(): congestion met before the tunnel stays inside. */
function outerTos(tos: number): number {
  return (tos & 3) === 3 ? (tos & 0xfc) | 2 : tos;
}

/** What the reply must have become. */
function returned(frame: Frame): Frame {
  const ip = frame.find((layer) => layer.kind === "ipv4");
  return change(frame, {
    ethernet: { destination: ROUTER_MAC, source: INTERFACES.c0.mac },
    ipv4: { ttl: (ip?.ttl ?? 64) - 1, source: VIP, destination: CLIENT },
    tcp: { sourcePort: 80, destinationPort: CLIENT_PORT },
    udp: { sourcePort: 80, destinationPort: CLIENT_PORT },
  });
}

/** tun draws the outer id by chance where the packet may be fragmented. */
function chance(method: Method, frame: Frame): { randomOuterId: boolean } {
  const ip = frame.find((layer) => layer.kind === "ipv4");
  return { randomOuterId: method === "tun" && !(ip?.dontFragment ?? false) };
}

interface Variant {
  readonly name: string;
  readonly protocols: readonly ("tcp" | "udp")[];
  readonly options: Options;
}

/** Packets whose way is the same and whose bytes are not. */
const variants: readonly Variant[] = [
  { name: "a plain one", protocols: ["tcp", "udp"], options: {} },
  { name: "nothing after the headers", protocols: ["tcp", "udp"], options: { length: 0 } },
  { name: "an odd number of bytes", protocols: ["tcp", "udp"], options: { length: 19 } },
  { name: "one byte", protocols: ["tcp", "udp"], options: { length: 1 } },
  { name: "as long as the link takes but for an outer header", protocols: ["tcp", "udp"], options: { length: 1440 } },
  { name: "TTL 2, the last that goes on", protocols: ["tcp", "udp"], options: { ip: { ttl: 2 } } },
  { name: "TTL 255", protocols: ["tcp", "udp"], options: { ip: { ttl: 255 } } },
  { name: "do not fragment", protocols: ["tcp", "udp"], options: { ip: { dontFragment: true } } },
  { name: "id 0xffff", protocols: ["tcp", "udp"], options: { ip: { id: 0xffff } } },
  { name: "DSCP EF", protocols: ["tcp", "udp"], options: { ip: { tos: 0xb8 } } },
  { name: "ECT(0)", protocols: ["tcp", "udp"], options: { ip: { tos: 2 } } },
  { name: "ECT(1)", protocols: ["tcp", "udp"], options: { ip: { tos: 1 } } },
  { name: "congestion experienced", protocols: ["tcp", "udp"], options: { ip: { tos: 0xbb } } },
  { name: "an IP option", protocols: ["tcp", "udp"], options: { ip: { options: "94040000" } } },
  {
    name: "forty bytes of IP options",
    protocols: ["tcp", "udp"],
    options: { ip: { options: "01".repeat(39) + "00" } },
  },
  {
    name: "TCP options",
    protocols: ["tcp"],
    options: { tcp: { options: "020405b40402080a000000010000000001030307" } },
  },
  { name: "all TCP fields in use", protocols: ["tcp"], options: { tcp: { flags: "SPUEC", urgent: 7, reserved: 5 } } },
  { name: "a TCP sequence number that carries over", protocols: ["tcp"], options: { tcp: { sequence: 0xffffffff } } },
  { name: "no UDP checksum", protocols: ["udp"], options: { udp: { checksum: 0 } } },
];

const rows: Row[] = [];

for (const method of ["nat", "dr", "tun", "fullnat"] as const) {
  for (const { name, protocols, options } of variants) {
    for (const protocol of protocols) {
      const frame = request(protocol, options);
      const steps = [
        opens(of(method, protocol), frame, sent(method, frame), chance(method, frame)),
        continues(of(method, protocol), frame, sent(method, frame), chance(method, frame)),
      ];
      if (mapsPorts(method)) {
        const answer = response(method, protocol, options);
        steps.push(replies(of(method, protocol), answer, returned(answer)));
      }
      const ways = mapsPorts(method) ? "there and back" : "there";
      rows.push({ name: `${method} ${protocol} ${ways}: ${name}`, setup: setup(method), steps });
    }
  }
}

for (const method of ["nat", "dr", "tun", "fullnat"] as const) {
  for (const protocol of ["tcp", "udp"] as const) {
    const short = request(protocol, { length: protocol === "udp" ? 1 : 0 });
    const frame = padded(short, "a5");
    const steps = [
      opens(of(method, protocol), frame, withPaddingOf(frame, sent(method, short)), chance(method, frame)),
    ];
    if (mapsPorts(method)) {
      const answer = padded(response(method, protocol, { length: 0 }), "5a");
      steps.push(replies(of(method, protocol), answer, returned(answer)));
    }
    rows.push({ name: `${method} ${protocol}: the link's padding counts for nothing`, setup: setup(method), steps });
  }
}

/** The padding stays behind the packet, outside all lengths. */
function withPaddingOf(frame: Frame, out: Frame): Frame {
  const last = frame.at(-1);
  return last?.kind === "padding" ? [...out, last] : out;
}

for (const method of ["nat", "dr", "tun", "fullnat"] as const) {
  for (const protocol of ["tcp", "udp"] as const) {
    const frame = request(protocol);
    const back: Layer = { kind: "ethernet", destination: realMac(1), source: INTERFACES.c0.mac };
    const sentBack = [back, ...sent(method, frame).slice(1)].map((layer, index) =>
      method === "tun" && index === 1 ? { ...layer, source: INTERFACES.c0.address } : layer,
    ) as Frame;
    rows.push({
      name: `${method} ${protocol}: out of the interface it came in by`,
      setup: setup(method, { hop: { mac: realMac(1), interface: "c0" } }),
      steps: [
        opens(of(method, protocol), frame, sentBack, { verdict: "transmit", ...chance(method, frame) }),
        continues(of(method, protocol), frame, sentBack, { verdict: "transmit", ...chance(method, frame) }),
      ],
    });
  }

  const mtu = method === "tun" ? 1480 : 1500;
  const fits = request("udp", { length: mtu - 28 });
  const tooLong = request("udp", { length: mtu - 27 });
  rows.push(
    {
      name: `${method}: as long as the way to the real server takes`,
      setup: setup(method),
      steps: [opens(of(method, "udp"), fits, sent(method, fits), chance(method, fits))],
    },
    {
      name: `${method}: a byte longer than the way to the real server takes`,
      setup: setup(method),
      steps: [opensThenDrops(of(method, "udp"), "mtu_exceeded", tooLong), drops("mtu_exceeded", tooLong)],
    },
  );

  for (const ttl of [0, 1]) {
    const last = request("tcp", { ip: { ttl } });
    rows.push({
      name: `${method}: TTL ${ttl} goes no further`,
      setup: setup(method),
      steps: [opensThenDrops(of(method, "tcp"), "ttl_exceeded", last), drops("ttl_exceeded", last)],
    });
  }

  rows.push({
    name: `${method}: the way leads over an interface that packets may not leave by`,
    setup: { ...setup(method), egress: ["c0"] },
    steps: [opensThenDrops(of(method, "tcp"), "egress_unknown", request("tcp"))],
  });
}

for (const method of ["nat", "fullnat"] as const) {
  const there = request("tcp");
  const opened = opens(of(method, "tcp"), there, sent(method, there));
  for (const ttl of [0, 1]) {
    rows.push({
      name: `${method}: a reply with TTL ${ttl} goes no further`,
      setup: setup(method),
      steps: [opened, drops("ttl_exceeded", response(method, "tcp", { ip: { ttl } }), "r0")],
    });
  }
  rows.push({
    name: `${method}: what else the real server sends is the kernel's to route`,
    setup: setup(method),
    steps: [
      opened,
      ...[
        change(response(method, "tcp"), { tcp: { sourcePort: 8081 } }),
        change(response(method, "tcp"), { tcp: { destinationPort: 1 } }),
        change(response(method, "tcp"), { ipv4: { source: realAddress(2) } }),
        response(method, "udp"),
      ].map((frame) => passes(frame, "r0")),
    ],
  });
}

/** nat and fullnat replies go where the kernel's routing table sends them. */
function toClient(
  method: Method,
  address: string,
  port = CLIENT_PORT,
): { there: Frame; sent: Frame; back: Frame; returned: Frame } {
  const there = change(request("tcp"), { ipv4: { source: address }, tcp: { sourcePort: port } });
  const back =
    method === "nat"
      ? change(response("nat", "tcp"), { ipv4: { destination: address }, tcp: { destinationPort: port } })
      : response(method, "tcp");
  return {
    there,
    sent: sent(method, there),
    back,
    returned: change(returned(back), { ipv4: { destination: address }, tcp: { destinationPort: port } }),
  };
}

for (const method of ["nat", "fullnat"] as const) {
  const onRealSide = toClient(method, CLIENT_ON_REAL_SIDE.address);
  rows.push({
    name: `${method}: the reply to a client on the real servers' side leaves by the interface it came in by`,
    setup: setup(method),
    steps: [
      opens(of(method, "tcp"), onRealSide.there, onRealSide.sent),
      replies(
        of(method, "tcp"),
        onRealSide.back,
        change(onRealSide.returned, {
          ethernet: { destination: CLIENT_ON_REAL_SIDE.mac, source: INTERFACES.r0.mac },
        }),
        { verdict: "transmit" },
      ),
    ],
  });

  const narrow = toClient(method, CLIENT_BEHIND_NARROW_LINK);
  const long: Layer = { kind: "payload", bytes: counting(1400 - 40) };
  const tooLong: Layer = { kind: "payload", bytes: counting(1400 - 39) };
  rows.push({
    name: `${method}: a reply no longer than the way to the client takes, and one longer`,
    setup: setup(method),
    steps: [
      opens(of(method, "tcp"), narrow.there, narrow.sent),
      replies(of(method, "tcp"), [...narrow.back.slice(0, 3), long], [...narrow.returned.slice(0, 3), long]),
      drops("mtu_exceeded", [...narrow.back.slice(0, 3), tooLong], "r0"),
    ],
  });

  for (const { name, address, reason } of [
    { name: "no route", address: CLIENT_WITHOUT_ROUTE, reason: "no_route_to_client" },
    { name: "no neighbour", address: CLIENT_BEHIND_UNKNOWN_NEIGHBOUR.address, reason: "neighbour_unresolved" },
    { name: "no egress", address: CLIENT_BEHIND_OTHER_INTERFACE, reason: "egress_unknown" },
  ] as const) {
    const way = toClient(method, address);
    rows.push({
      name: `${method}: a reply to a client that there is ${name} to`,
      setup: setup(method),
      steps: [opens(of(method, "tcp"), way.there, way.sent), drops(reason, way.back, "r0")],
    });
  }
}

/** Whatever the addresses and ports, and so whatever the carries; among them sums that come out as 0. */
t.test("checksums", async (t) => {
  const bed = await Bed.open({ buckets: 64 });
  t.teardown(() => bed.close());
  for (const method of ["nat", "dr", "tun", "fullnat"] as const) {
    t.test(`${method}: a UDP sum that comes out as 0 is sent as 0xffff`, async (t) => {
      bed.configure(setup(method));
      // The payload word that makes the sum vanish is the checksum of the same datagram with 0 in its place.
      const out = (frame: Frame): Frame =>
        method === "tun" ? sent(method, frame).slice(2) : sent(method, frame).slice(1);
      const probe = change(request("udp", { length: 2 }), { payload: { bytes: "0000" } });
      const udpAt = 20 + 6;
      const sum = Buffer.from(build([TO_REAL, ...out(probe)])).readUInt16BE(14 + udpAt);
      const frame = change(probe, { payload: { bytes: sum.toString(16).padStart(4, "0") } });
      const result = bed.run(build(frame));
      const at = result.frame.length - 2 - 2;
      t.equal(Buffer.from(result.frame).readUInt16BE(at), 0xffff);
      t.strictSame(result.verdict, "redirect");
    });

    t.test(`${method}: a wrong checksum stays wrong by as much`, async (t) => {
      bed.configure(setup(method));
      for (const protocol of ["tcp", "udp"] as const) {
        const right = build(request(protocol));
        const wrong = Uint8Array.from(right);
        const at = wrong.length - 1; // a payload byte that the checksum does not know of
        wrong[at] = (wrong[at] ?? 0) ^ 0x10;
        const outRight = bed.run(right).frame;
        const outWrong = bed.run(wrong).frame;
        outRight[at - right.length + outRight.length] = wrong[at] ?? 0;
        const l4 = (frame: Uint8Array): Layer | undefined => parse(frame).find(({ kind }) => kind === protocol);
        t.strictSame(l4(outWrong), l4(outRight));
        t.ok(wrongChecksums(parse(outWrong)).length > 0);
      }
    });
  }

  t.test("1,000 clients, each there and back", async (t) => {
    for (const method of ["nat", "fullnat"] as const) {
      for (const protocol of ["tcp", "udp"] as const) {
        bed.configure({ ...setup(method), localPorts: [1024, 65535] });
        let bad = 0;
        for (let n = 0; n < 250; n++) {
          const source = `198.${18 + (n % 2)}.${(n * 37) % 256}.${(n * 101) % 256}`;
          const sourcePort = (n * 7919) % 65536;
          const frame = change(request(protocol, { length: n % 7 }), {
            ipv4: { source, id: (n * 261) % 65536 },
            [protocol]: { sourcePort },
          });
          const there = bed.run(build(frame));
          const seen = parse(there.frame);
          const l4 = seen.find((layer) => layer.kind === protocol);
          const ip = seen.find((layer) => layer.kind === "ipv4");
          if (l4?.kind !== protocol || !ip) throw new Error(`packet ${n} came out as ${JSON.stringify(seen)}`);
          const expected = change(sent(method, frame), { [protocol]: { sourcePort: l4.sourcePort } });
          const answer = change(response(method, protocol, { length: n % 5 }), {
            ipv4: { destination: ip.source, id: n },
            [protocol]: { destinationPort: l4.sourcePort },
          });
          const back = bed.run(build(answer), "r0");
          const expectedBack = change(returned(answer), {
            ipv4: { destination: source },
            [protocol]: { destinationPort: sourcePort },
          });
          if (!same(there.frame, expected) || !same(back.frame, expectedBack)) bad++;
        }
        t.equal(bad, 0, `${method} ${protocol}`);
      }
    }
    t.same(bed.violations(), []);
  });
});

function same(bytes: Uint8Array, frame: Frame): boolean {
  return Buffer.from(bytes).equals(Buffer.from(build(frame)));
}

t.test("rows", async (t) => {
  const bed = await Bed.open();
  t.teardown(() => bed.close());
  runRows(t, bed, rows);
});

t.test("replies follow the kernel's tables, though it is not asked for each", async (t) => {
  const router = (mac: string): void => {
    execFileSync("ip", ["neighbour", "replace", "10.0.0.2", "lladdr", mac, "dev", "c0", "nud", "permanent"]);
  };
  const bed = await Bed.open({ buckets: 64 });
  t.teardown(() => {
    router(ROUTER_MAC);
    bed.close();
  });
  bed.configure(setup("nat"));
  bed.run(build(request("tcp")));
  const wayOfReply = (): string => {
    const result = bed.run(build(response("nat", "tcp")), "r0");
    return result.verdict === "drop" ? "drop" : (parse(result.frame).find(isEthernet)?.destination ?? "none");
  };
  /** Longer than a tick, which is what an answer holds for. */
  const later = (): Promise<void> => sleep(25);

  t.equal(wayOfReply(), ROUTER_MAC);
  t.equal(wayOfReply(), ROUTER_MAC);
  router("02:00:00:00:0c:99");
  await later();
  t.equal(wayOfReply(), "02:00:00:00:0c:99", "the neighbour changed");
  execFileSync("ip", ["neighbour", "delete", "10.0.0.2", "dev", "c0"]);
  await later();
  t.equal(wayOfReply(), "drop", "the neighbour is gone");
  router(ROUTER_MAC);
  t.equal(wayOfReply(), ROUTER_MAC, "a refusal is not kept");
});

t.test("clients whose next hops lie in the same place of the cache do not get each other's", async (t) => {
  const bed = await Bed.open({ buckets: 64 });
  t.teardown(() => bed.close());
  bed.configure(setup("nat"));
  const place = (address: string): number => {
    const word = Buffer.from(address.split(".").map(Number)).readUInt32LE();
    return Math.imul(word, 0x9e3779b1) >>> 22;
  };
  const onLink = CLIENT_ON_REAL_SIDE.address;
  const routed = Array.from({ length: 65536 }, (_, i) => `198.18.${i >> 8}.${i & 255}`).find(
    (address) => place(address) === place(onLink),
  );
  if (routed === undefined) throw new Error("no address of 198.18.0.0/16 shares its place");
  for (const client of [onLink, routed]) bed.run(build(change(request("tcp"), { ipv4: { source: client } })));
  for (let turn = 0; turn < 3; turn++) {
    for (const [client, mac] of [
      [onLink, CLIENT_ON_REAL_SIDE.mac],
      [routed, ROUTER_MAC],
    ] as const) {
      const { frame } = bed.run(build(change(response("nat", "tcp"), { ipv4: { destination: client } })), "r0");
      t.equal(parse(frame).find(isEthernet)?.destination, mac);
    }
  }
});

function isEthernet(layer: Layer): layer is Extract<Layer, { kind: "ethernet" }> {
  return layer.kind === "ethernet";
}
