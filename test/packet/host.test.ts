/** The host's own traffic passes byte for byte; what a VIP gets that cannot be balanced is answered or dropped. */
import "./own-namespace.js";
import t from "tap";
import { Bed, type Setup } from "./bed.js";
import { onesComplementSum } from "./checksum.js";
import { build, counting, type Frame, type Layer, padded } from "./frame.js";
import { CLIENT, INTERFACES, ROUTER_MAC, realAddress, realMac, VIP } from "./network.js";
import { change, drops, opens, passes, type Row, runRow, runRows, type Step } from "./row.js";

const HOST = INTERFACES.c0.address;
const FROM_ROUTER: Layer = { kind: "ethernet", destination: INTERFACES.c0.mac, source: ROUTER_MAC };

const setup: Setup = {
  services: (["tcp", "udp"] as const).map((protocol) => ({
    protocol,
    vip: VIP,
    port: 80,
    realServers: [{ address: realAddress(1), port: 8080, method: "nat", hop: { mac: realMac(1) } }],
  })),
};

function ipv4(destination: string, more: Partial<Extract<Layer, { kind: "ipv4" }>> = {}): Layer {
  return { kind: "ipv4", source: CLIENT, destination, id: 77, ...more };
}
function syn(port: number): Layer {
  return { kind: "tcp", sourcePort: 40000, destinationPort: port, sequence: 1, flags: "S", window: 64240 };
}
function udp(port: number): Layer {
  return { kind: "udp", sourcePort: 40000, destinationPort: port };
}
function data(length: number): Layer {
  return { kind: "payload", bytes: counting(length) };
}
function echo(length = 56): Layer[] {
  return [{ kind: "icmp", type: 8, code: 0, rest: 0xbeef0001 }, data(length)];
}

/** Bytes of a frame that a description cannot say: cut short, or with some replaced. */
function raw(frame: Frame, change: { readonly cut?: number; readonly set?: Readonly<Record<number, number>> }): Frame {
  const bytes = build(frame);
  for (const [at, value] of Object.entries(change.set ?? {})) bytes[Number(at)] = value;
  const [head, rest] = [bytes.subarray(0, 14), bytes.subarray(14, change.cut ?? bytes.length)];
  const mac = (part: Uint8Array): string => Array.from(part, (byte) => byte.toString(16).padStart(2, "0")).join(":");
  return [
    {
      kind: "ethernet",
      destination: mac(head.subarray(0, 6)),
      source: mac(head.subarray(6, 12)),
      type: (head[12] ?? 0) * 256 + (head[13] ?? 0),
    },
    { kind: "payload", bytes: Buffer.from(rest).toString("hex") },
  ];
}

/** Everything here reaches the local stack as it came. */
const untouched: Readonly<Record<string, readonly Frame[]>> = {
  "the host's own ssh, DNS and pings": [
    [FROM_ROUTER, ipv4(HOST), syn(22)],
    [FROM_ROUTER, ipv4(HOST), { ...syn(22), flags: "PA" } as Layer, data(37)],
    [FROM_ROUTER, ipv4(HOST), syn(80)],
    [FROM_ROUTER, ipv4(HOST), udp(53), data(40)],
    [FROM_ROUTER, ipv4(HOST), udp(80), data(40)],
    padded([FROM_ROUTER, ipv4(HOST), udp(53)], "ee"),
    [FROM_ROUTER, ipv4(HOST), ...echo()],
    [FROM_ROUTER, ipv4(HOST), { kind: "icmp", type: 0, code: 0, rest: 1 }, data(56)],
    [FROM_ROUTER, ipv4(HOST, { ttl: 1 }), ...echo()],
    [FROM_ROUTER, ipv4(HOST, { options: "94040000" }), ...echo()],
  ],
  "what the host only routes": [
    [FROM_ROUTER, ipv4(realAddress(1)), syn(80)],
    [FROM_ROUTER, ipv4(realAddress(1)), udp(8080), data(9)],
    [FROM_ROUTER, ipv4(realAddress(1), { ttl: 1 }), udp(8080), data(9)],
    [FROM_ROUTER, ipv4(realAddress(1)), ...echo()],
  ],
  "a port of the VIP that no service has": [
    [FROM_ROUTER, ipv4(VIP), syn(81)],
    [FROM_ROUTER, ipv4(VIP), syn(0)],
    [FROM_ROUTER, ipv4(VIP), { ...syn(22), flags: "A" } as Layer],
    [FROM_ROUTER, ipv4(VIP), udp(53), data(30)],
    [FROM_ROUTER, ipv4(VIP, { ttl: 1 }), udp(53), data(30)],
  ],
  "TCP to a service, without a connection and no SYN": ["A", "PA", "FA", "R", "RA", "F", "", "SR", "SRA", "U"].map(
    (flags): Frame => [FROM_ROUTER, ipv4(VIP), { ...syn(80), flags } as Layer, data(5)],
  ),
  ARP: [
    padded([
      { ...FROM_ROUTER, destination: "ff:ff:ff:ff:ff:ff" },
      {
        kind: "arp",
        operation: 1,
        senderMac: ROUTER_MAC,
        senderAddress: "10.0.0.2",
        targetMac: "00:00:00:00:00:00",
        targetAddress: VIP,
      },
    ]),
    padded([
      FROM_ROUTER,
      {
        kind: "arp",
        operation: 2,
        senderMac: ROUTER_MAC,
        senderAddress: "10.0.0.2",
        targetMac: INTERFACES.c0.mac,
        targetAddress: HOST,
      },
    ]),
  ],
  IPv6: [
    [
      FROM_ROUTER,
      { kind: "ipv6", source: "2001:db8:c::1", destination: "fd00:c::100" },
      { kind: "tcp", sourcePort: 40000, destinationPort: 80, flags: "S" },
    ],
    [
      FROM_ROUTER,
      { kind: "ipv6", source: "2001:db8:c::1", destination: "fd00:c::1", nextHeader: 58 },
      { kind: "payload", bytes: `8000ffff${counting(60)}` },
    ],
    [
      { ...FROM_ROUTER, destination: "33:33:00:00:00:01" },
      { kind: "ipv6", source: "fe80::1", destination: "ff02::1", nextHeader: 58, hopLimit: 255 },
      { kind: "payload", bytes: `8600ffff${counting(20)}` },
    ],
  ],
  "VLAN tags, for the VIP too": [
    [FROM_ROUTER, { kind: "vlan", id: 100 }, ipv4(VIP), syn(80)],
    [FROM_ROUTER, { kind: "vlan", tpid: 0x88a8, id: 100 }, { kind: "vlan", id: 7 }, ipv4(VIP), syn(80)],
    [FROM_ROUTER, { kind: "vlan", id: 0, priority: 14 }, ipv4(HOST), udp(53), data(12)],
  ],
  "other ethertypes": [
    [{ ...FROM_ROUTER, type: 0x88cc }, data(60)],
    [{ ...FROM_ROUTER, type: 0x0026 }, data(46)],
    [{ ...FROM_ROUTER, type: 0xffff }, data(1)],
    raw([FROM_ROUTER, ipv4(VIP), syn(80)], { set: { 12: 0x88, 13: 0x47 } }),
  ],
  "other protocols over IPv4, to the VIP too": [0, 1, 2, 4, 41, 47, 50, 51, 89, 112, 132, 255].flatMap((protocol) =>
    [HOST, VIP].map((to): Frame => [FROM_ROUTER, ipv4(to, { protocol }), data(protocol === 1 ? 8 : 40)]),
  ),
  "group destinations": [
    [
      { ...FROM_ROUTER, destination: "ff:ff:ff:ff:ff:ff" },
      ipv4("255.255.255.255", { source: "0.0.0.0" }),
      { kind: "udp", sourcePort: 68, destinationPort: 67 },
      data(300),
    ],
    [{ ...FROM_ROUTER, destination: "01:00:5e:00:00:fb" }, ipv4("224.0.0.251", { ttl: 255 }), udp(5353), data(60)],
    [{ ...FROM_ROUTER, destination: "ff:ff:ff:ff:ff:ff" }, ipv4("10.0.0.255"), udp(80), data(60)],
    [{ ...FROM_ROUTER, destination: "ff:ff:ff:ff:ff:ff" }, ipv4(VIP), udp(80), data(60)],
    [{ ...FROM_ROUTER, destination: "01:00:5e:00:00:64" }, ipv4(VIP), syn(80)],
    [{ ...FROM_ROUTER, destination: "ff:ff:ff:ff:ff:ff" }, ipv4(VIP), ...echo()],
  ],
  "fragments to the host and through it": [HOST, realAddress(1), "10.0.0.101"].flatMap((to) =>
    [6, 17, 1, 132].flatMap((protocol): Frame[] => [
      [FROM_ROUTER, ipv4(to, { protocol, moreFragments: true }), data(1480)],
      [FROM_ROUTER, ipv4(to, { protocol, moreFragments: true, fragmentOffset: 1480 }), data(1480)],
      [FROM_ROUTER, ipv4(to, { protocol, fragmentOffset: 2960 }), data(1)],
    ]),
  ),
  "fragments of ICMP to the VIP": [
    [FROM_ROUTER, ipv4(VIP, { protocol: 1, moreFragments: true }), data(1480)],
    [FROM_ROUTER, ipv4(VIP, { protocol: 1, fragmentOffset: 1480 }), data(33)],
  ],
  "runts and headers cut short": [
    ...[14, 15, 33].map((cut) => raw([FROM_ROUTER, ipv4(VIP), syn(80), data(6)], { cut })),
    ...[34, 37, 41, 53].map((cut) => raw([FROM_ROUTER, ipv4(HOST), syn(80), data(6)], { cut })),
    raw([FROM_ROUTER, ipv4(HOST), udp(53)], { cut: 40 }),
    raw([FROM_ROUTER, ipv4(HOST), ...echo()], { cut: 40 }),
    ...[14, 53, 60].map((cut) =>
      raw([FROM_ROUTER, { kind: "ipv6", source: "::1", destination: "::2" }, udp(53), data(9)], { cut }),
    ),
  ],
  "no IPv4, though the ethertype says so": [
    ...[0, 5, 6, 15].map((version): Frame => [FROM_ROUTER, ipv4(VIP, { version }), syn(80)]),
    ...[0, 1, 4].map((headerLength): Frame => [FROM_ROUTER, ipv4(VIP, { headerLength }), syn(80)]),
  ],
  "lengths that contradict each other, to the host": [
    [FROM_ROUTER, ipv4(HOST, { totalLength: 0 }), syn(80)],
    [FROM_ROUTER, ipv4(HOST, { totalLength: 19 }), syn(80)],
    [FROM_ROUTER, ipv4(HOST, { totalLength: 39 }), syn(80)],
    [FROM_ROUTER, ipv4(HOST, { totalLength: 41 }), syn(80)],
    [FROM_ROUTER, ipv4(HOST, { totalLength: 65535 }), udp(53)],
    [FROM_ROUTER, ipv4(HOST, { headerLength: 15 }), syn(80)],
  ],
  "ICMP to the VIP that is no echo request": [0, 3, 4, 5, 9, 11, 12, 13, 17, 42].map(
    (type): Frame => [FROM_ROUTER, ipv4(VIP), { kind: "icmp", type, code: 0, rest: 1 }, data(48)],
  ),
  "echo requests to the VIP that are the host's to judge": [
    [FROM_ROUTER, ipv4(VIP), { kind: "icmp", type: 8, code: 1, rest: 1 }, data(48)],
    [FROM_ROUTER, ipv4(VIP, { options: "94040000" }), ...echo()],
    [FROM_ROUTER, ipv4(VIP, { source: "224.0.0.1" }), ...echo()],
    [FROM_ROUTER, ipv4(VIP, { source: "255.255.255.255" }), ...echo()],
    [FROM_ROUTER, ipv4(VIP, { source: "127.0.0.1" }), ...echo()],
    [FROM_ROUTER, ipv4(VIP, { source: "0.0.0.0" }), ...echo()],
  ],
};

const toVip = (...layers: Layer[]): Frame => [FROM_ROUTER, ...layers];

/** To a VIP, and nothing to be done with: dropped, with the reason. */
const refused: Readonly<Record<string, readonly Step[]>> = {
  fragments: [6, 17].flatMap((protocol) => [
    drops("fragment", toVip(ipv4(VIP, { protocol, moreFragments: true }), data(1480))),
    drops("fragment", toVip(ipv4(VIP, { protocol, moreFragments: true, fragmentOffset: 1480 }), data(1480))),
    drops("fragment", toVip(ipv4(VIP, { protocol, fragmentOffset: 2960 }), data(1))),
    drops("fragment", padded(toVip(ipv4(VIP, { protocol, fragmentOffset: 65528 }), data(8)))),
  ]),
  "headers cut short": [
    ...[34, 37, 41, 53].map((cut) => drops("malformed", raw(toVip(ipv4(VIP), syn(80)), { cut }))),
    drops("malformed", raw(toVip(ipv4(VIP), udp(80)), { cut: 41 })),
    ...[0, 1, 7].map((length) => drops("malformed", toVip(ipv4(VIP, { protocol: 17 }), data(length)))),
    ...[0, 8, 19].map((length) => drops("malformed", toVip(ipv4(VIP, { protocol: 6 }), data(length)))),
  ],
  "lengths that contradict each other": [
    drops("malformed", toVip(ipv4(VIP, { totalLength: 0 }), syn(80))),
    drops("malformed", toVip(ipv4(VIP, { totalLength: 19 }), syn(80))),
    drops("malformed", toVip(ipv4(VIP, { totalLength: 39 }), syn(80))),
    drops("malformed", toVip(ipv4(VIP, { totalLength: 41 }), syn(80))),
    drops("malformed", toVip(ipv4(VIP, { totalLength: 65535 }), udp(80))),
    drops("malformed", toVip(ipv4(VIP, { headerLength: 15 }), syn(80))),
    drops("malformed", padded(toVip(ipv4(VIP, { totalLength: 27 }), udp(80)))),
  ],
};

/** ICMP echo (RFC 792): addresses swapped, type 0, all data kept, sent back where it came from. */
function answered(frame: Frame): Step {
  return {
    in: frame,
    verdict: "transmit",
    out: change(frame, {
      ethernet: { destination: ROUTER_MAC, source: INTERFACES.c0.mac },
      ipv4: { source: VIP, destination: CLIENT, ttl: 64 },
      icmp: { type: 0 },
    }),
    counted: { services: {}, realServers: {}, drops: {} },
  };
}

const echoes: Readonly<Record<string, readonly Frame[]>> = {
  "an echo request to a VIP is answered": [toVip(ipv4(VIP), ...echo())],
  "whatever its length": [0, 1, 2, 17, 1472].map((length) =>
    toVip(ipv4(VIP), ...echo(length).filter((layer) => layer.kind !== "payload" || layer.bytes !== "")),
  ),
  "whatever its TTL": [1, 2, 63, 64, 65, 128, 255].map((ttl) => toVip(ipv4(VIP, { ttl }), ...echo())),
  "with padding behind it": [padded(toVip(ipv4(VIP), { kind: "icmp", type: 8, code: 0, rest: 5 }), "cc")],
  "with its TOS and DF kept": [toVip(ipv4(VIP, { tos: 0xb8, dontFragment: true }), ...echo())],
};

t.test("passed byte for byte", async (t) => {
  const bed = await Bed.open();
  t.teardown(() => bed.close());
  for (const [name, frames] of Object.entries(untouched)) {
    t.test(name, async (t) => {
      for (const on of ["c0", "r0"] as const) {
        await runRow(t, bed, { name, setup, steps: frames.map((frame) => passes(frame, on)) });
      }
    });
  }
  t.test("all of them, with connections there and no service at all", async (t) => {
    const open = (port: number): Frame => toVip(ipv4(VIP), { ...syn(80), sourcePort: port } as Layer);
    const out = (frame: Frame): Frame =>
      change(frame, {
        ethernet: { destination: realMac(1), source: INTERFACES.r0.mac },
        ipv4: { destination: realAddress(1), ttl: 63 },
        tcp: { destinationPort: 8080 },
      });
    const of = { service: `tcp:${VIP}:80`, real: `${realAddress(1)}:8080` };
    const opened = [1, 2, 3].map((port) => opens(of, open(port), out(open(port))));
    const steps = Object.values(untouched).flatMap((frames) => frames.map((frame) => passes(frame)));
    await runRow(t, bed, { name: "connections", setup, steps: [...opened, ...steps] });
    await runRow(t, bed, {
      name: "no service",
      setup: { services: [] },
      steps: [...steps, ...Object.values(refused).flatMap((list) => list.map((step) => passes(step.in)))],
    });
  });
});

t.test("to a VIP, and dropped", async (t) => {
  const bed = await Bed.open();
  t.teardown(() => bed.close());
  runRows(
    t,
    bed,
    Object.entries(refused).map(([name, steps]): Row => ({ name, setup, steps })),
  );
});

t.test("echo", async (t) => {
  const bed = await Bed.open();
  t.teardown(() => bed.close());
  runRows(
    t,
    bed,
    Object.entries(echoes).map(([name, frames]): Row => ({ name, setup, steps: frames.map(answered) })),
  );
  t.test("a receiver's sum comes out right, wherever the checksum wraps", async (t) => {
    bed.configure(setup);
    for (const word of [0x0000, 0x07ff, 0x0800, 0xf7fe, 0xf7ff, 0xf800, 0xfffe, 0xffff]) {
      const echo: Layer = { kind: "icmp", type: 8, code: 0, rest: word };
      const { verdict, frame } = bed.run(build(toVip(ipv4(VIP), echo)));
      t.equal(verdict, "transmit");
      t.equal(onesComplementSum(frame.subarray(34)), 0xffff, word.toString(16)); // RFC 1071, section 1, (3)
    }
  });
});
