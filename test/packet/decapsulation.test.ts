/** The real server's decapsulation program: what it unwraps, and that it leaves all else as it was. */
import { fileURLToPath } from "node:url";
import fc from "fast-check";
import { type BpfMap, openObject, type Program } from "libbpf-ts";
import t from "tap";
import {
  AddressFamily,
  DecapsulationOutcome,
  type HostAddress,
  type OutcomeCounter,
} from "../../src/real-server/decapsulate.bpf.js";
import { ipv4Bytes } from "./addresses.js";
import { build, counting, type Frame, type Ipv4, padded, parse } from "./frame.js";

const OBJECT = fileURLToPath(new URL("../../../build/bpf/decapsulate.bpf.o", import.meta.url));

const TUNNEL = "10.1.0.11";
const VIP = "10.0.0.100";
const DIRECTOR = "10.1.0.1";
const CLIENT = "198.51.100.7";

const XDP_DROP = 1;
const XDP_PASS = 2;

const ethernet = { kind: "ethernet", destination: "02:00:00:00:01:01", source: "02:00:00:00:0a:01" } as const;
const outer: Ipv4 = { kind: "ipv4", source: DIRECTOR, destination: TUNNEL, id: 7, ttl: 63, dontFragment: true };
const inner: Ipv4 = { kind: "ipv4", source: CLIENT, destination: VIP, id: 99, ttl: 61 };
const tcp = { kind: "tcp", sourcePort: 4000, destinationPort: 80, flags: "PA", window: 1000 } as const;
const data = { kind: "payload", bytes: counting(100) } as const;

/** An inner packet with these differences in the headers around it. */
function wrapped(outerChange: Partial<Ipv4> = {}, innerChange: Partial<Ipv4> = {}): Frame {
  return [ethernet, { ...outer, ...outerChange }, { ...inner, ...innerChange }, tcp, data];
}

function plain(innerChange: Partial<Ipv4> = {}): Frame {
  return [ethernet, { ...inner, ...innerChange }, tcp, data];
}

interface Row {
  readonly name: string;
  readonly in: Frame;
  readonly outcome: keyof typeof DecapsulationOutcome;
  /** Left out: as it came. */
  readonly out?: Frame;
}

const ECN = { none: 0, ect1: 1, ect0: 2, ce: 3 } as const;

const rows: readonly Row[] = [
  { name: "a tunnelled TCP segment", in: wrapped(), outcome: "DECAPSULATION_UNWRAPPED", out: plain() },
  {
    name: "a tunnelled datagram with inner options, its DSCP kept",
    in: [
      ethernet,
      { ...outer, tos: 0x10 },
      { ...inner, tos: 0xb8, options: "94040000" },
      { kind: "udp", sourcePort: 5000, destinationPort: 53 },
      data,
    ],
    outcome: "DECAPSULATION_UNWRAPPED",
    out: [
      ethernet,
      { ...inner, tos: 0xb8, options: "94040000" },
      { kind: "udp", sourcePort: 5000, destinationPort: 53 },
      data,
    ],
  },
  {
    name: "an inner fragment: the stack reassembles it",
    in: [ethernet, outer, { ...inner, protocol: 17, moreFragments: true }, data],
    outcome: "DECAPSULATION_UNWRAPPED",
    out: [ethernet, { ...inner, protocol: 17, moreFragments: true }, data],
  },
  { name: "an ordinary packet to the VIP", in: plain(), outcome: "DECAPSULATION_PASSED_NOT_A_TUNNEL" },
  {
    name: "ARP",
    in: padded([
      ethernet,
      {
        kind: "arp",
        operation: 1,
        senderMac: ethernet.source,
        senderAddress: DIRECTOR,
        targetMac: "00:00:00:00:00:00",
        targetAddress: TUNNEL,
      },
    ]),
    outcome: "DECAPSULATION_PASSED_NOT_A_TUNNEL",
  },
  {
    name: "IPv6",
    in: [ethernet, { kind: "ipv6", source: "2001:db8::1", destination: "2001:db8::2" }, tcp, data],
    outcome: "DECAPSULATION_PASSED_NOT_A_TUNNEL",
  },
  {
    name: "a tunnelled packet behind a VLAN tag",
    in: [ethernet, { kind: "vlan", id: 5 }, outer, inner, tcp, data],
    outcome: "DECAPSULATION_PASSED_NOT_A_TUNNEL",
  },
  {
    name: "to another tunnel address",
    in: wrapped({ destination: "10.1.0.12" }),
    outcome: "DECAPSULATION_PASSED_OTHER_TUNNEL_ADDRESS",
  },
  {
    name: "for another virtual address",
    in: wrapped({}, { destination: "10.0.0.101" }),
    outcome: "DECAPSULATION_PASSED_OTHER_VIRTUAL_ADDRESS",
  },
  {
    name: "to the VIP as if it were a tunnel address",
    in: wrapped({ destination: VIP }),
    outcome: "DECAPSULATION_PASSED_OTHER_TUNNEL_ADDRESS",
  },
  {
    name: "the outer packet's first fragment",
    in: wrapped({ dontFragment: false, moreFragments: true }),
    outcome: "DECAPSULATION_PASSED_FRAGMENT",
  },
  {
    name: "the outer packet's last fragment",
    in: wrapped({ dontFragment: false, fragmentOffset: 1480 }),
    outcome: "DECAPSULATION_PASSED_FRAGMENT",
  },
  { name: "a wrong outer checksum", in: wrapped({ checksum: 0xdead }), outcome: "DECAPSULATION_PASSED_MALFORMED" },
  { name: "outer options", in: wrapped({ options: "94040000" }), outcome: "DECAPSULATION_PASSED_MALFORMED" },
  { name: "an inner version of 6", in: wrapped({}, { version: 6 }), outcome: "DECAPSULATION_PASSED_MALFORMED" },
  {
    name: "an inner header cut short",
    in: [ethernet, { ...outer, protocol: 4 }, { kind: "payload", bytes: counting(19) }],
    outcome: "DECAPSULATION_PASSED_MALFORMED",
  },
  // RFC 6040, figure 4, by what the inner header says: not capable, ECT(0), ECT(1), CE.
  ...(
    [
      ["none", ["none", "ect0", "ect1", "ce"]],
      ["ect0", ["none", "ect0", "ect1", "ce"]],
      ["ect1", ["none", "ect1", "ect1", "ce"]],
      ["ce", ["drop", "ce", "ce", "ce"]],
    ] as const
  ).flatMap(([outside, results]) =>
    (["none", "ect0", "ect1", "ce"] as const).map((inside, column): Row => {
      const result = results[column] ?? "drop";
      const dscp = 0x28;
      return {
        name: `ECN: outer ${outside}, inner ${inside}: ${result}`,
        in: wrapped({ tos: ECN[outside] }, { tos: dscp | ECN[inside] }),
        ...(result === "drop"
          ? { outcome: "DECAPSULATION_DROPPED_CONGESTION" }
          : { outcome: "DECAPSULATION_UNWRAPPED", out: plain({ tos: dscp | ECN[result] }) }),
      };
    }),
  ),
];

function address(text: string): HostAddress {
  const bytes = new Uint8Array(16);
  bytes.set(ipv4Bytes(text));
  return { address: { bytes }, family: AddressFamily.FAMILY_IPV4 };
}

function packetsOf(counters: BpfMap<number, OutcomeCounter>, outcome: number): bigint {
  return (counters.getPerCpu(outcome) ?? []).reduce((sum, { packets }) => sum + packets, 0n);
}

function run(program: Program, bytes: Uint8Array): { verdict: number; bytes: Uint8Array } {
  const { returnValue, data: out } = program.testRun({ data: bytes });
  return { verdict: returnValue, bytes: out };
}

t.test("decapsulation", async (t) => {
  const object = await openObject(OBJECT).load();
  t.teardown(() => {
    object.close();
  });
  const program = object.program("decapsulate");
  const counters = object.map<number, OutcomeCounter>("outcomes");
  object.map<HostAddress, number>("tunnel_addresses").set(address(TUNNEL), 1);
  object.map<HostAddress, number>("virtual_addresses").set(address(VIP), 1);

  for (const row of rows) {
    t.test(row.name, async (t) => {
      const outcome = DecapsulationOutcome[row.outcome];
      const before = packetsOf(counters, outcome);
      const { verdict, bytes } = run(program, build(row.in));
      t.equal(verdict, row.outcome === "DECAPSULATION_DROPPED_CONGESTION" ? XDP_DROP : XDP_PASS);
      t.same(parse(bytes), parse(build(row.out ?? row.in)));
      t.equal(packetsOf(counters, outcome) - before, 1n, `counted as ${row.outcome}`);
    });
  }

  t.test("whatever comes: unwrapped exactly, or left as it was", async (t) => {
    const frame = build(wrapped());
    const mutation = fc.record({ offset: fc.nat(frame.length - 1), value: fc.nat(255) });
    const frames = fc.oneof(
      fc.uint8Array({ minLength: 14, maxLength: 200 }),
      fc.array(mutation, { minLength: 1, maxLength: 4 }).map((mutations) => {
        const mutated = Uint8Array.from(frame);
        for (const { offset, value } of mutations) mutated[offset] = value;
        return mutated;
      }),
      fc.integer({ min: 14, max: frame.length }).map((length) => frame.subarray(0, length)),
    );
    fc.assert(
      fc.property(frames, (bytes) => {
        const { verdict, bytes: out } = run(program, bytes);
        if (verdict === XDP_DROP) return out.length === bytes.length;
        if (out.length === bytes.length) return Buffer.compare(out, bytes) === 0;
        // Unwrapped: same MACs, then the inner packet, but for the byte with the ECN bits and the checksum over it.
        const expected = Buffer.concat([bytes.subarray(0, 14), bytes.subarray(34)]);
        const same = (from: number, to: number): boolean =>
          Buffer.compare(out.subarray(from, to), expected.subarray(from, to)) === 0;
        return out.length === expected.length && same(0, 15) && same(16, 24) && same(26, out.length);
      }),
      { numRuns: 10_000 },
    );
    t.pass("10,000 random and mutated frames");
  });
});
