/** SCTP by the four forwarding methods, there and back: every field of every packet, by a CRC from scratch. */
import "./own-namespace.js";
import t from "tap";
import { Bed, type Method, type RealServerSetup, type Setup } from "./bed.js";
import { build, counting, type Frame, type Layer, padded, parse, wrongChecksums } from "./frame.js";
import { CLIENT, INTERFACES, ROUTER_MAC, realAddress, realMac, VIP } from "./network.js";
import { change, continues, drops, opens, passes, type Row, replies, runRows } from "./row.js";
import { CHUNK, type Sctp } from "./sctp-layers.js";

const LOCAL = "10.1.0.1";
const LOCAL_PORT = 20000;
const CLIENT_PORT = 40000;
const PORT = 9999;
const REAL_PORT = 9998;

function mapsPorts(method: Method): boolean {
  return method === "nat" || method === "fullnat";
}

function setup(method: Method, real: Partial<RealServerSetup> = {}, more: Partial<Setup> = {}): Setup {
  const realServer: RealServerSetup = {
    address: realAddress(1),
    method,
    hop: { mac: realMac(1), mtu: 4000 },
    ...(mapsPorts(method) && { port: REAL_PORT }),
    ...real,
  };
  return {
    services: [{ protocol: "sctp", vip: VIP, port: PORT, realServers: [realServer] }],
    localAddresses: [LOCAL],
    localPorts: [LOCAL_PORT, LOCAL_PORT],
    ...more,
  };
}

function of(method: Method): { service: string; real: string } {
  return { service: `sctp:${VIP}:${PORT}`, real: `${realAddress(1)}:${mapsPorts(method) ? REAL_PORT : PORT}` };
}

const FROM_ROUTER: Layer = { kind: "ethernet", destination: INTERFACES.c0.mac, source: ROUTER_MAC };
const TO_REAL: Layer = { kind: "ethernet", destination: realMac(1), source: INTERFACES.r0.mac };
const FROM_REAL: Layer = { kind: "ethernet", destination: INTERFACES.r0.mac, source: realMac(1) };

interface Options {
  readonly ip?: Partial<Extract<Layer, { kind: "ipv4" }>>;
  readonly sctp?: Partial<Sctp>;
  /** What follows the common header; left out: one chunk, as the packet's place in the association has it. */
  readonly chunks?: readonly Layer[];
}

function request(options: Options = {}, type: number = CHUNK.INIT): Frame {
  return [
    FROM_ROUTER,
    { kind: "ipv4", source: CLIENT, destination: VIP, id: 1001, ...options.ip },
    { kind: "sctp", sourcePort: CLIENT_PORT, destinationPort: PORT, verificationTag: 0, ...options.sctp },
    ...(options.chunks ?? [{ kind: "chunk", type, value: counting(16) }]),
  ];
}

function response(method: Method, options: Options = {}, type: number = CHUNK.INIT_ACK): Frame {
  const [destination, destinationPort] = method === "fullnat" ? [LOCAL, LOCAL_PORT] : [CLIENT, CLIENT_PORT];
  return [
    FROM_REAL,
    { kind: "ipv4", source: realAddress(1), destination, id: 2001, ...options.ip },
    { kind: "sctp", sourcePort: REAL_PORT, destinationPort, verificationTag: 0xcafe0001, ...options.sctp },
    ...(options.chunks ?? [{ kind: "chunk", type, value: counting(36) }]),
  ];
}

/** What the request must have become. */
function sent(method: Method, frame: Frame): Frame {
  const ip = frame.find((layer) => layer.kind === "ipv4");
  const ttl = (ip?.ttl ?? 64) - 1;
  const ethernet = { destination: realMac(1), source: INTERFACES.r0.mac };
  switch (method) {
    case "nat":
      return change(frame, {
        ethernet,
        ipv4: { ttl, destination: realAddress(1) },
        sctp: { destinationPort: REAL_PORT },
      });
    case "fullnat":
      return change(frame, {
        ethernet,
        ipv4: { ttl, source: LOCAL, destination: realAddress(1) },
        sctp: { sourcePort: LOCAL_PORT, destinationPort: REAL_PORT },
      });
    case "dr":
      return change(frame, { ethernet, ipv4: { ttl } });
    case "tun": {
      const outer: Layer = { kind: "ipv4", source: INTERFACES.r0.address, destination: realAddress(1), ttl };
      return [TO_REAL, outer, ...change(frame, { ipv4: { ttl } }).slice(1)];
    }
  }
}

/** What the reply must have become. */
function returned(frame: Frame): Frame {
  return change(frame, {
    ethernet: { destination: ROUTER_MAC, source: INTERFACES.c0.mac },
    ipv4: { ttl: 63, source: VIP, destination: CLIENT },
    sctp: { sourcePort: PORT, destinationPort: CLIENT_PORT },
  });
}

const METHODS = ["nat", "dr", "tun", "fullnat"] as const;
const data = (length: number): Layer => ({ kind: "chunk", type: CHUNK.DATA, chunkFlags: 3, value: counting(length) });

/** Packets of an established association whose way is the same and whose bytes are not. */
const variants: Readonly<Record<string, Options>> = {
  "a chunk that is only a header": { chunks: [{ kind: "chunk", type: CHUNK.COOKIE_ACK }] },
  data: { chunks: [data(18)], sctp: { verificationTag: 0xdeadbeef } },
  "two chunks, both filled up": { chunks: [data(17), data(19)] },
  "as long as the link takes but for an outer header": { chunks: [data(1444)] },
  "a SACK and a chunk of a type that nobody knows": {
    chunks: [
      { kind: "chunk", type: CHUNK.SACK, value: counting(12) },
      { kind: "chunk", type: 193, chunkFlags: 0xff, value: "00" },
    ],
  },
  "bytes that are no whole word": { chunks: [data(8), { kind: "payload", bytes: "01" }] },
  "bytes that are no whole word, two more": { chunks: [data(8), { kind: "payload", bytes: "010203" }] },
  "a chunk longer than the packet": { chunks: [{ kind: "chunk", type: CHUNK.DATA, value: "00", length: 9000 }] },
  "an IP option": { ip: { options: "94040000" } },
  "forty bytes of IP options": { ip: { options: "01".repeat(39) + "00" } },
  "no checksum (RFC 9653)": { chunks: [data(30)], sctp: { checksum: 0 } },
};

const rows: Row[] = [];

for (const method of METHODS) {
  const first = request();
  const chance = { randomOuterId: method === "tun" };
  rows.push({
    name: `${method}: an association is set up`,
    setup: setup(method),
    steps: [
      opens(of(method), first, sent(method, first), chance),
      ...(mapsPorts(method) ? [replies(of(method), response(method), returned(response(method)))] : []),
      ...[CHUNK.COOKIE_ECHO, CHUNK.DATA, CHUNK.HEARTBEAT, CHUNK.SHUTDOWN].map((type) =>
        continues(of(method), request({}, type), sent(method, request({}, type)), chance),
      ),
    ],
  });
  for (const [name, options] of Object.entries(variants)) {
    const there = request(options, CHUNK.DATA);
    const back = response(method, options, CHUNK.DATA);
    rows.push({
      name: `${method}: ${name}`,
      setup: setup(method),
      steps: [
        opens(of(method), first, sent(method, first), chance),
        continues(of(method), there, sent(method, there), chance),
        ...(mapsPorts(method) ? [replies(of(method), back, returned(back))] : []),
      ],
    });
  }
  const short = request({ chunks: [{ kind: "chunk", type: CHUNK.INIT }] });
  const out = sent(method, short);
  const filled = padded(short, "a5");
  rows.push({
    name: `${method}: the link's padding counts for nothing`,
    setup: setup(method),
    steps: [opens(of(method), filled, [...out, filled.at(-1)!], chance)],
  });
}

for (const method of ["nat", "fullnat"] as const) {
  const same = setup(method, { port: PORT });
  const to = { service: `sctp:${VIP}:${PORT}`, real: `${realAddress(1)}:${PORT}` };
  const there = change(sent(method, request()), { sctp: { destinationPort: PORT } });
  const back = change(response(method), { sctp: { sourcePort: PORT } });
  rows.push({
    name: `${method}: the port that is mapped to itself`,
    setup: same,
    steps: [opens(to, request(), there), replies(to, back, returned(back))],
  });
}

const header = { kind: "sctp", sourcePort: CLIENT_PORT, destinationPort: PORT } as const;
const ip = { kind: "ipv4", source: CLIENT, destination: VIP } as const;
const malformed: Readonly<Record<string, Frame>> = {
  "a common header alone": [FROM_ROUTER, ip, header],
  "a chunk header that is cut short": [FROM_ROUTER, ip, header, { kind: "payload", bytes: "010000" }],
  "a first chunk shorter than its header": [FROM_ROUTER, ip, header, { kind: "chunk", type: CHUNK.INIT, length: 3 }],
  "a first chunk of no length": [FROM_ROUTER, ip, header, { kind: "chunk", type: CHUNK.INIT, length: 0 }],
  "seven bytes": [FROM_ROUTER, { ...ip, protocol: 132 }, { kind: "payload", bytes: "9c40270f000000" }],
  "nothing behind the IP header": [FROM_ROUTER, { ...ip, protocol: 132 }],
  "an IP length that ends before the first chunk": [
    FROM_ROUTER,
    { ...ip, totalLength: 35 },
    header,
    { kind: "chunk", type: CHUNK.INIT },
  ],
};
for (const [name, frame] of Object.entries(malformed)) {
  const elsewhere = frame.map((layer) =>
    layer.kind === "ipv4" ? { ...layer, destination: INTERFACES.c0.address } : layer,
  );
  rows.push({
    name: `malformed: ${name}`,
    setup: setup("nat"),
    steps: [drops("malformed", frame), passes(elsewhere)],
  });
}
const fragment = { ...ip, protocol: 132, moreFragments: true } as const;
rows.push(
  {
    name: "fragments",
    setup: setup("nat"),
    steps: [
      drops("fragment", [FROM_ROUTER, fragment, { kind: "payload", bytes: counting(64) }]),
      passes([
        FROM_ROUTER,
        { ...fragment, destination: INTERFACES.c0.address },
        { kind: "payload", bytes: counting(64) },
      ]),
    ],
  },
  {
    name: "no service is for the port, nor for the protocol",
    setup: { services: [{ ...setup("nat").services[0]!, protocol: "udp" }] },
    steps: [passes(request()), passes(change(request(), { sctp: { destinationPort: 80 } }))],
  },
);

t.test("rows", async (t) => {
  const bed = await Bed.open();
  t.teardown(() => bed.close());
  runRows(t, bed, rows);
});

t.test("checksums", async (t) => {
  const bed = await Bed.open();
  t.teardown(() => bed.close());
  const bytesOf = (length: number): Layer[] => {
    const first: Layer = { kind: "chunk", type: CHUNK.DATA };
    return length > 16 ? [first, { kind: "payload", bytes: counting(length - 16) }] : [first];
  };

  for (const method of ["nat", "fullnat"] as const) {
    t.test(`${method}: right for packets of every length, there and back`, async (t) => {
      bed.configure(setup(method));
      bed.run(build(request()));
      const wrong: unknown[] = [];
      for (let length = 16; length <= 3300; length += length < 300 || (length > 2030 && length < 2070) ? 1 : 41) {
        const there = request({ chunks: bytesOf(length) });
        const back = response(method, { chunks: bytesOf(length) });
        const pairs = [[bed.run(build(there)).frame, sent(method, there)] as const];
        if (length <= 1480) pairs.push([bed.run(build(back), "r0").frame, returned(back)]); // the clients' link's MTU
        for (const [seen, expected] of pairs) {
          if (!Buffer.from(seen).equals(build(expected))) wrong.push({ length, seen: parse(seen), expected });
        }
      }
      t.strictSame(wrong.slice(0, 3), []);
    });

    t.test(`${method}: right whatever the ports are`, async (t) => {
      for (const sourcePort of [1, 2, 0x8000, 0xffff, CLIENT_PORT]) {
        for (const port of [1, 0x00ff, 0xff00, 0xffff, PORT]) {
          bed.configure(setup(method, { port }));
          const frame = change(request(), { sctp: { sourcePort } });
          const out = parse(bed.run(build(frame)).frame);
          t.strictSame(wrongChecksums(out), []);
          t.equal(out.find((layer) => layer.kind === "sctp")?.destinationPort, port);
        }
      }
    });

    t.test(`${method}: a wrong one stays wrong by the same bits`, async (t) => {
      bed.configure(setup(method));
      const at = 14 + 20 + 8;
      const checksum = (frame: Uint8Array): number => Buffer.from(frame).readUInt32BE(at);
      const right = build(request());
      const out = checksum(bed.run(right).frame);
      for (const bits of [1, 0x80000000, 0xdeadbeef]) {
        const wrong = Buffer.from(right);
        wrong.writeUInt32BE((checksum(right) ^ bits) >>> 0, at);
        const { verdict, frame } = bed.run(wrong);
        t.equal(verdict, "redirect");
        t.equal((checksum(frame) ^ out) >>> 0, bits);
      }
    });
  }
});

t.test("what cannot go on", async (t) => {
  const bed = await Bed.open();
  t.teardown(() => bed.close());
  const answered = (frame: Frame): Frame | string => {
    const result = bed.run(build(frame));
    if (result.verdict !== "transmit") return result.verdict;
    return parse(result.frame).map((layer) => (layer.kind === "ipv4" ? { ...layer, id: 0 } : layer));
  };

  t.test("of a removed real server whose connections are reset: ABORT, and INIT goes to another", async (t) => {
    const back: Layer[] = [
      { kind: "ethernet", destination: ROUTER_MAC, source: INTERFACES.c0.mac },
      { kind: "ipv4", source: VIP, destination: CLIENT, id: 0 },
      { kind: "sctp", sourcePort: PORT, destinationPort: CLIENT_PORT, verificationTag: 0x01020304 },
    ];
    for (const method of METHODS) {
      const reset = (): void => {
        const two = [1, 2].map((n) => ({ address: realAddress(n), method, hop: { mac: realMac(n) } }));
        bed.configure({ ...setup(method), services: [{ ...setup(method).services[0]!, realServers: two }] });
        bed.run(build(request()));
        bed.changeRealServer(0, bed.connections()[0]?.real ?? 0, { removed: "reset" });
      };
      const tagged = (type: number): Frame => request({ sctp: { verificationTag: 0x01020304 } }, type);
      const abort: Layer = { kind: "chunk", type: CHUNK.ABORT, chunkFlags: 1 };
      for (const type of [CHUNK.DATA, CHUNK.SACK, CHUNK.COOKIE_ECHO, CHUNK.SHUTDOWN, CHUNK.HEARTBEAT]) {
        reset();
        t.strictSame(answered(tagged(type)), [...back, abort], `${method}: chunk type ${type}`);
        t.equal(bed.connections().length, 0);
      }
      reset();
      const complete: Layer = { kind: "chunk", type: CHUNK.SHUTDOWN_COMPLETE, chunkFlags: 1 };
      t.strictSame(answered(tagged(CHUNK.SHUTDOWN_ACK)), [...back, complete]);
      for (const type of [CHUNK.ABORT, CHUNK.SHUTDOWN_COMPLETE, CHUNK.COOKIE_ACK]) {
        reset();
        t.equal(answered(tagged(type)), "drop", `${method}: chunk type ${type} is not answered`);
      }
      reset();
      t.equal(answered(request()), "redirect");
      t.equal(bed.connections().length, 1);
      t.same(bed.violations(), []);
    }
  });

  t.test("an answer is no longer than it has to be, whatever it answers", async (t) => {
    for (const length of [0, 4, 1400]) {
      bed.configure(setup("nat"));
      bed.run(build(request()));
      bed.changeRealServer(0, 0, { removed: "reset" });
      const options = length === 4 ? "94040000" : "";
      const frame = padded(request({ ip: { options }, chunks: [data(length)] }));
      const result = bed.run(build(frame));
      t.equal(result.verdict, "transmit");
      t.equal(result.frame.length, 14 + 20 + 16);
      t.strictSame(wrongChecksums(parse(result.frame)), []);
    }
  });

  t.test("from a nat real server's port without a connection, with nat_icmp_send", async (t) => {
    bed.configure(setup("nat", {}, { settings: { natIcmpSend: true, icmpRate: 1000 } }));
    const verdict = (type: number): string => bed.run(build(response("nat", {}, type)), "r0").verdict;
    t.equal(verdict(CHUNK.DATA), "transmit", "is answered with ICMP port unreachable");
    t.equal(verdict(CHUNK.SHUTDOWN), "transmit");
    t.equal(verdict(CHUNK.ABORT), "pass", "but an ABORT");
  });
});
