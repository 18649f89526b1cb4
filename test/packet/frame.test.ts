import fc from "fast-check";
import t from "tap";
import { ipv4Bytes, ipv6Bytes, ipv6Text, macBytes } from "./addresses.js";
import { crc32c, internetChecksum, onesComplementSum } from "./checksum.js";
import { build, counting, type Frame, type Layer, padded, parse, wrongChecksums } from "./frame.js";
import { CHUNK } from "./sctp-layers.js";

const hex = (text: string): Uint8Array => Uint8Array.from(Buffer.from(text.replaceAll(" ", ""), "hex"));
const text = (bytes: Uint8Array): string => Buffer.from(bytes).toString("hex");

/** Frames whose bytes this code had no part in, with what they say. */
const captured: readonly { name: string; bytes: string; frame: Frame }[] = [
  {
    name: "an empty UDP datagram, both checksums worked out by hand",
    bytes: "ffffffffffff 020000000001 0800 4500001c000040004011b8b8c0a80001c0a800c7 0044 0043 0008 7d3e",
    frame: [
      { kind: "ethernet", destination: "ff:ff:ff:ff:ff:ff", source: "02:00:00:00:00:01" },
      { kind: "ipv4", source: "192.168.0.1", destination: "192.168.0.199", dontFragment: true },
      { kind: "udp", sourcePort: 68, destinationPort: 67 },
    ],
  },
  {
    name: "a SYN with options as the kernel's IPVS forwarded it by direct routing",
    bytes:
      "020000000101020000000a0108004500003c03e900003f06a75cc61200010a00006403e80050000003e800000000a002faf0747700000204" +
      "05b40402080a000000010000000001030307",
    frame: [
      { kind: "ethernet", destination: "02:00:00:00:01:01", source: "02:00:00:00:0a:01" },
      { kind: "ipv4", source: "198.18.0.1", destination: "10.0.0.100", id: 1001, ttl: 63 },
      {
        kind: "tcp",
        sourcePort: 1000,
        destinationPort: 80,
        sequence: 1000,
        flags: "S",
        window: 64240,
        options: "020405b40402080a000000010000000001030307",
      },
    ],
  },
  {
    name: "data with a wrong TCP checksum as the kernel's IPVS tunnelled it",
    bytes:
      "020000000101020000000a01080045 00003ff7e100003f046fcc0a0100010a01000b4500002b03ec00003f06a76ac61200010a000064" +
      "03e80050000003fb0000139c5018faf0dead000078797a",
    frame: [
      { kind: "ethernet", destination: "02:00:00:00:01:01", source: "02:00:00:00:0a:01" },
      { kind: "ipv4", source: "10.1.0.1", destination: "10.1.0.11", id: 63457, ttl: 63 },
      { kind: "ipv4", source: "198.18.0.1", destination: "10.0.0.100", id: 1004, ttl: 63 },
      {
        kind: "tcp",
        sourcePort: 1000,
        destinationPort: 80,
        sequence: 1019,
        acknowledgement: 5020,
        flags: "PA",
        window: 64240,
        checksum: 0xdead,
      },
      { kind: "payload", bytes: "78797a" },
    ],
  },
];

/** Each kind of layer, broken lengths, padding and checksums included. */
const described: readonly { name: string; frame: Frame }[] = [
  {
    name: "ARP, padded",
    frame: padded([
      { kind: "ethernet", destination: "ff:ff:ff:ff:ff:ff", source: "02:00:00:00:0c:02" },
      {
        kind: "arp",
        operation: 1,
        senderMac: "02:00:00:00:0c:02",
        senderAddress: "10.0.0.2",
        targetMac: "00:00:00:00:00:00",
        targetAddress: "10.0.0.100",
      },
    ]),
  },
  {
    name: "two tags, IPv6, UDP",
    frame: [
      { kind: "ethernet", destination: "02:00:00:00:0c:01", source: "02:00:00:00:0c:02" },
      { kind: "vlan", tpid: 0x88a8, id: 100, priority: 5 },
      { kind: "vlan", id: 4094 },
      { kind: "ipv6", source: "2001:db8::1", destination: "fd00:c::100", trafficClass: 0xb9, flowLabel: 0xabcde },
      { kind: "udp", sourcePort: 5353, destinationPort: 53 },
      { kind: "payload", bytes: counting(5) },
    ],
  },
  {
    name: "IPv4 with options, TCP with all flags, odd payload",
    frame: [
      { kind: "ethernet", destination: "02:00:00:00:0c:01", source: "02:00:00:00:0c:02" },
      { kind: "ipv4", source: "198.18.0.1", destination: "10.0.0.100", options: "94040000", tos: 0xb9, ttl: 1 },
      { kind: "tcp", sourcePort: 1, destinationPort: 65535, flags: "FSRPAUEC", urgent: 7, reserved: 1, window: 9 },
      { kind: "payload", bytes: counting(7) },
    ],
  },
  {
    name: "a first fragment and no checksum worth the name",
    frame: [
      { kind: "ethernet", destination: "02:00:00:00:0c:01", source: "02:00:00:00:0c:02" },
      {
        kind: "ipv4",
        source: "198.18.0.1",
        destination: "10.0.0.100",
        moreFragments: true,
        protocol: 17,
        checksum: 0x1234,
      },
      { kind: "payload", bytes: counting(16) },
    ],
  },
  {
    name: "UDP without a checksum",
    frame: [
      { kind: "ethernet", destination: "02:00:00:00:0c:01", source: "02:00:00:00:0c:02" },
      { kind: "ipv4", source: "198.18.0.1", destination: "10.0.0.100" },
      { kind: "udp", sourcePort: 5353, destinationPort: 53, checksum: 0 },
    ],
  },
  {
    name: "SCTP: a cookie whose chunk is filled up, and data behind it",
    frame: [
      { kind: "ethernet", destination: "02:00:00:00:0c:01", source: "02:00:00:00:0c:02" },
      { kind: "ipv4", source: "198.18.0.1", destination: "10.0.0.100" },
      { kind: "sctp", sourcePort: 1000, destinationPort: 9999, verificationTag: 0xdeadbeef },
      { kind: "chunk", type: CHUNK.COOKIE_ECHO, value: counting(9) },
      { kind: "chunk", type: CHUNK.DATA, chunkFlags: 3, value: counting(13) },
    ],
  },
  {
    name: "SCTP without a checksum, and with a chunk that ends beyond the packet",
    frame: [
      { kind: "ethernet", destination: "02:00:00:00:0c:01", source: "02:00:00:00:0c:02" },
      { kind: "ipv6", source: "2001:db8::1", destination: "fd00:c::100" },
      { kind: "sctp", sourcePort: 1000, destinationPort: 9999, checksum: 0 },
      { kind: "chunk", type: CHUNK.SACK, value: counting(12) },
      { kind: "payload", bytes: "00030015" },
    ],
  },
  {
    name: "an echo",
    frame: [
      { kind: "ethernet", destination: "02:00:00:00:0c:01", source: "02:00:00:00:0c:02" },
      { kind: "ipv4", source: "198.18.0.1", destination: "10.0.0.100" },
      { kind: "icmp", type: 8, code: 0, rest: 0x12340001 },
      { kind: "payload", bytes: counting(57) },
    ],
  },
  {
    name: "an unknown ethertype",
    frame: [
      { kind: "ethernet", destination: "02:00:00:00:0c:01", source: "02:00:00:00:0c:02", type: 0x88b5 },
      { kind: "payload", bytes: counting(46) },
    ],
  },
];

t.test("RFC 1071's own example", async (t) => {
  t.equal(onesComplementSum(hex("0001f203f4f5f6f7")), 0xddf2, "section 3");
  t.equal(internetChecksum(hex("0001f203f4f5f6f7")), 0x220d);
  t.equal(onesComplementSum(hex("0001f2"), hex("03f4f5f6f7")), 0xddf2, "a word may lie across two parts");
  t.equal(onesComplementSum(hex("0001f203f4f5f6")), 0xdcfb, "an odd last byte is the high half of a word");
  t.equal(internetChecksum(hex("45000073000040004011 0000 c0a80001c0a800c7")), 0xb861);
});

t.test("RFC 3720's own examples of CRC-32C, appendix B.4", async (t) => {
  t.equal(crc32c(new Uint8Array(32)), 0x8a9136aa);
  t.equal(crc32c(new Uint8Array(32).fill(0xff)), 0x62a8ab43);
  t.equal(crc32c(hex(counting(32))), 0x46dd794e);
  t.equal(crc32c(hex(counting(32)).reverse()), 0x113fdb5c);
});

t.test("SCTP's checksum goes from its lowest byte on", async (t) => {
  const sctp: Layer = { kind: "sctp", sourcePort: 1, destinationPort: 2 };
  const bytes = build([sctp, { kind: "chunk", type: CHUNK.COOKIE_ACK }]);
  const sum = crc32c(hex("00010002 00000000 00000000 0b000004"));
  t.equal(text(bytes.subarray(8, 12)), Buffer.from(Uint32Array.of(sum).buffer).toString("hex"));
});

t.test("addresses", async (t) => {
  t.equal(text(ipv6Bytes("::")), "00".repeat(16));
  t.equal(text(ipv6Bytes("2001:db8::1")), "20010db8000000000000000000000001");
  t.equal(ipv6Text(ipv6Bytes("2001:DB8:0:0:1:0:0:1")), "2001:db8::1:0:0:1", "RFC 5952, 4.2.3");
  t.equal(ipv6Text(ipv6Bytes("2001:db8:0:1:1:1:1:1")), "2001:db8:0:1:1:1:1:1", "RFC 5952, 4.2.2");
  t.equal(ipv6Text(ipv6Bytes("fe80::")), "fe80::");
  for (const wrong of ["1.2.3", "1.2.3.256", "1.2.3.4.5", "a.b.c.d", ""]) t.throws(() => ipv4Bytes(wrong), wrong);
  for (const wrong of ["1::2::3", "1:2:3:4:5:6:7", "12345::", ":::", "1:2:3:4:5:6:7::8"])
    t.throws(() => ipv6Bytes(wrong), wrong);
  t.throws(() => macBytes("02:00:00:00:01"));
});

for (const { name, bytes, frame } of captured) {
  t.test(name, async (t) => {
    t.equal(text(build(frame)), text(hex(bytes)), "is built byte for byte");
    t.same(parse(hex(bytes)), frame, "is read back");
  });
}

for (const { name, frame } of described) {
  t.test(name, async (t) => t.same(parse(build(frame)), frame, "is read back as it was described"));
}

t.test("a UDP sum that comes out as 0 is sent as 0xffff", async (t) => {
  const frame = (fill: number): Frame => [
    { kind: "ethernet", destination: "02:00:00:00:0c:01", source: "02:00:00:00:0c:02" },
    { kind: "ipv4", source: "198.18.0.1", destination: "10.0.0.100" },
    { kind: "udp", sourcePort: 5353, destinationPort: 53 },
    { kind: "payload", bytes: fill.toString(16).padStart(4, "0") },
  ];
  const checksum = (fill: number): number => Buffer.from(build(frame(fill))).readUInt16BE(14 + 20 + 6);
  const vanishing = checksum(0); // the sum of all else is its complement; adding it makes 0xffff
  t.equal(checksum(vanishing), 0xffff);
  t.same(parse(build(frame(vanishing))), frame(vanishing));
});

t.test("wrong checksums are found, none where there is none", async (t) => {
  const ip: Layer = { kind: "ipv4", source: "198.18.0.1", destination: "10.0.0.100" };
  const ethernet: Layer = { kind: "ethernet", destination: "02:00:00:00:0c:01", source: "02:00:00:00:0c:02" };
  const udp: Layer = { kind: "udp", sourcePort: 1, destinationPort: 2 };
  const kinds = (frame: Frame): string[] => wrongChecksums(parse(build(frame))).map(({ kind }) => kind);
  t.same(kinds([ethernet, ip, udp]), []);
  t.same(kinds([ethernet, ip, { ...udp, checksum: 0 }]), []);
  t.same(kinds([ethernet, { ...ip, checksum: 1 }, { ...udp, checksum: 1 }]), ["ipv4", "udp"]);
  const sctp: Layer = { kind: "sctp", sourcePort: 1, destinationPort: 2 };
  const chunk: Layer = { kind: "chunk", type: CHUNK.COOKIE_ACK };
  t.same(kinds([ethernet, ip, sctp, chunk]), []);
  t.same(kinds([ethernet, ip, { ...sctp, checksum: 0 }, chunk]), []);
  t.same(kinds([ethernet, ip, { ...sctp, checksum: 1 }, chunk]), ["sctp"]);
});

t.test("a header that contradicts the frame is left as bytes", async (t) => {
  const udp: Layer = { kind: "udp", sourcePort: 1, destinationPort: 2 };
  const ip: Layer = { kind: "ipv4", source: "198.18.0.1", destination: "10.0.0.100" };
  const ethernet: Layer = { kind: "ethernet", destination: "02:00:00:00:0c:01", source: "02:00:00:00:0c:02" };
  for (const broken of [{ version: 5 }, { headerLength: 4 }, { headerLength: 15 }, { totalLength: 19 }]) {
    t.same(
      parse(build([ethernet, { ...ip, ...broken }, udp])).map(({ kind }) => kind),
      ["ethernet", "payload"],
      JSON.stringify(broken),
    );
  }
  t.same(
    parse(build([ethernet, ip, { ...udp, length: 7 }])).map(({ kind }) => kind),
    ["ethernet", "ipv4", "payload"],
  );
});

t.test("building what was parsed gives the same bytes, whatever they were", async (t) => {
  const seeds = [...captured, ...described].map(({ frame }) => build(frame));
  const mutated = fc
    .tuple(fc.constantFrom(...seeds), fc.array(fc.tuple(fc.nat(120), fc.nat(255)), { maxLength: 4 }), fc.nat(20))
    .map(([seed, changes, cut]) => {
      const bytes = Uint8Array.from(seed).subarray(0, seed.length - cut);
      for (const [at, value] of changes) if (at < bytes.length) bytes[at] = value;
      return bytes;
    });
  fc.assert(
    fc.property(fc.oneof(mutated, fc.uint8Array({ maxLength: 120 })), (bytes) => {
      return text(build(parse(bytes))) === text(bytes);
    }),
    { numRuns: 5000 },
  );
  t.pass("5,000 random and mutated frames");
});
