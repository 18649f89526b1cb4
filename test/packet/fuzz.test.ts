/**
 * Random and mutated frames against a director with services of every method and a table that is always full. The seed is
 * printed; SLUICE_FUZZ_SEED repeats a run, SLUICE_FUZZ_FRAMES makes it longer.
 */
import "./own-namespace.js";
import t, { type Test } from "tap";
import { randomIntegers } from "../prelude/flows.js";
import { Bed, type Method, type Result, type SettingsSetup, type Setup } from "./bed.js";
import type { Entry } from "./connection-table.js";
import { build, counting, ETHERTYPE, type Frame, type Layer, PROTOCOL, parse, wrongChecksums } from "./frame.js";
import { INTERFACES, type InterfaceName, ROUTER_MAC, realAddress, realMac } from "./network.js";

const FRAMES = Number(process.env["SLUICE_FUZZ_FRAMES"] ?? 10_000);
const SEED = Number(process.env["SLUICE_FUZZ_SEED"] ?? Date.now() % 0x7fffffff);

const METHODS: readonly Method[] = ["nat", "dr", "tun", "fullnat"];
const PROTOCOLS = ["tcp", "udp", "sctp"] as const;
type TransportName = (typeof PROTOCOLS)[number];
const VIPS = ["10.0.0.100", "10.0.0.101", "10.0.0.102", "10.0.0.103"] as const;
/** Of the second setup alone: nobody is there. */
const DESERTED = "10.0.0.104";
const LOCAL_ADDRESSES = ["10.1.0.1", "10.1.0.2"];
const CLIENTS = ["198.18.0.1", "198.18.255.254", "198.19.7.9", "10.1.0.200", "203.0.113.1", "192.0.2.1"];
const OTHERS = [INTERFACES.c0.address, INTERFACES.r0.address, "10.1.0.99", "224.0.0.1", "255.255.255.255", "0.0.0.0"];

/** A VIP for each method, with two real servers for each protocol; connections that are soon over among the others. */
const methods: Setup = {
  services: VIPS.flatMap((vip, index) =>
    PROTOCOLS.map((protocol) => ({
      protocol,
      vip,
      port: 80,
      realServers: [1, 2].map((n) => ({
        address: realAddress(2 * index + n),
        method: METHODS[index] ?? "nat",
        hop: { mac: realMac(2 * index + n), interface: n === 1 ? ("r0" as const) : ("c0" as const) },
      })),
    })),
  ),
  localAddresses: LOCAL_ADDRESSES,
  localPorts: [20000, 20020],
  timeouts: { CLOSE: 0.05, UDP: 0.1, SYN_RECV: 0.2 },
};

/** The same with all that a service may have besides: any port, a mark, persistence, one packet, thresholds, nobody there. */
const options: Setup = {
  ...methods,
  services: [
    ...methods.services.map((service, index) => ({
      ...service,
      ...(index % 2 === 0 && { persistence: { seconds: 0.3, mask: "255.255.0.0" } }),
      ...(index % 3 === 0 && { port: 0 }),
      onePacket: index % 4 < 2,
      realServers: service.realServers.map((real) => ({ ...real, thresholds: [4, 2] as const })),
    })),
    ...PROTOCOLS.map((protocol) => ({ protocol, vip: DESERTED, port: 80, realServers: [] })),
    {
      ...{ protocol: "mark", vip: "0.0.0.9", port: 0, persistence: { seconds: 0.3 } },
      realServers: [{ address: realAddress(9), method: "nat", hop: { mac: realMac(9) } }],
    },
  ],
  markRules: [
    { mark: 8, sourcePorts: [40000, 40000] },
    { mark: 9, destination: { address: DESERTED, mask: "255.255.255.254" }, destinationPorts: [1, 79] },
  ],
  timeouts: { ...methods.timeouts, ONE_PACKET: 0.1 },
};
const SETTINGS: readonly SettingsSetup[] = [
  { icmpRate: 1_000_000, natIcmpSend: true, expireNodestConn: true, expireQuiescentTemplate: true, sloppyTcp: true },
  { icmpRate: 1_000_000, connReuseMode: 3, sloppySctp: true },
  { icmpRate: 0, natIcmpSend: true, connReuseMode: 0, expireNodestConn: true },
];

function protocolNamed(protocol: number): TransportName {
  return PROTOCOLS.find((name) => PROTOCOL[name] === protocol) ?? "udp";
}

class Generator {
  readonly #integer: (below: number) => number;

  constructor(seed: number) {
    this.#integer = randomIntegers(seed);
  }

  below(n: number): number {
    return this.#integer(n);
  }

  /** True once in n times. */
  once(n: number): boolean {
    return this.below(n) === 0;
  }

  of<T>(values: readonly T[]): T {
    const value = values[this.below(values.length)];
    if (value === undefined) throw new RangeError("nothing to choose from");
    return value;
  }

  bytes(length: number): Uint8Array {
    return Uint8Array.from({ length }, () => this.below(256));
  }

  /** Data whose length and bytes are as likely to be at an edge as not. */
  #data(): Layer[] {
    const length = this.of([0, 0, 1, 2, 3, 18, this.below(64), this.below(1500), 1460, 1472, 1480]);
    if (length === 0) return [];
    if (this.once(4)) return [{ kind: "payload", bytes: this.of(["00", "ff"]).repeat(length) }];
    return [{ kind: "payload", bytes: counting(length) }];
  }

  #ethernet(): Layer {
    const group = this.once(50);
    return {
      kind: "ethernet",
      destination: group
        ? this.of(["ff:ff:ff:ff:ff:ff", "01:00:5e:00:00:01"])
        : this.of([INTERFACES.c0.mac, INTERFACES.r0.mac]),
      source: this.of([ROUTER_MAC, realMac(1), realMac(2)]),
    };
  }

  #ip(source: string, destination: string): Layer {
    return {
      kind: "ipv4",
      source,
      destination,
      id: this.below(65536),
      tos: this.once(3) ? this.below(256) : 0,
      ttl: this.once(8) ? this.of([0, 1, 2, 255]) : 64,
      dontFragment: this.once(2),
      options: this.once(10) ? this.of(["94040000", "01010101", "0101010101010101"]) : "",
    };
  }

  #transport(sourcePort: number, destinationPort: number, protocol: TransportName): Layer[] {
    switch (protocol) {
      case "udp":
        return [{ kind: "udp", sourcePort, destinationPort, ...(this.once(6) && { checksum: 0 }) }];
      case "sctp":
        return this.#sctp(sourcePort, destinationPort);
      case "tcp":
        return [this.#tcp(sourcePort, destinationPort)];
    }
  }

  #sctp(sourcePort: number, destinationPort: number): Layer[] {
    const chunk = (): Layer => ({
      kind: "chunk",
      type: this.once(20) ? this.below(256) : this.of([1, 1, 1, 0, 2, 3, 6, 7, 8, 9, 10, 10, 11, 11, 14]),
      value: counting(this.once(2) ? 0 : this.below(40)),
      ...(this.once(20) && { length: this.of([0, 3, 4, 200, 65535, this.below(65536)]) }),
    });
    const checksum = this.once(10) && { checksum: 0 };
    const header: Layer = {
      kind: "sctp",
      sourcePort,
      destinationPort,
      verificationTag: this.below(0x1_0000_0000),
      ...checksum,
    };
    return [header, ...Array.from({ length: 1 + this.below(3) }, chunk)];
  }

  #tcp(sourcePort: number, destinationPort: number): Layer {
    return {
      kind: "tcp",
      sourcePort,
      destinationPort,
      sequence: this.below(0x1_0000_0000),
      acknowledgement: this.below(0x1_0000_0000),
      flags: this.of(["S", "S", "A", "A", "PA", "FA", "R", "RA", "SA", "", "F", "SF", "FSRPAUEC"]),
      window: this.below(65536),
      options: this.once(4) ? "020405b40402080a000000010000000001030307" : "",
    };
  }

  /** A right frame: a request, either side's of a connection that is there, or something that is not for us. */
  #right(known: readonly Entry[]): Frame {
    const kind = this.below(20);
    const protocol = this.of(PROTOCOLS);
    const clientPort = this.of([1, 1000, 40000, 65535, this.below(65536)]);
    if (kind < 9) {
      const port = this.once(12) ? this.below(65536) : 80;
      return [
        this.#ethernet(),
        this.#ip(this.of(CLIENTS), this.of([...VIPS, DESERTED])),
        ...this.#transport(clientPort, port, protocol),
        ...this.#data(),
      ];
    }
    if (kind < 14 && known.length > 0) {
      const entry = this.of(known);
      return [
        this.#ethernet(),
        this.#ip(entry.source, entry.destination),
        ...this.#transport(entry.sourcePort, entry.destinationPort, protocolNamed(entry.protocol)),
        ...this.#data(),
      ];
    }
    const anyone = this.of([...VIPS, ...OTHERS, ...CLIENTS, ...LOCAL_ADDRESSES, realAddress(1)]);
    const ip = this.#ip(this.of([...CLIENTS, ...VIPS, ...OTHERS, realAddress(1)]), anyone);
    switch (kind) {
      case 14:
        return [
          this.#ethernet(),
          ip,
          {
            kind: "icmp",
            type: this.of([0, 3, 8, 8, 8, 11]),
            code: this.once(5) ? 1 : 0,
            rest: this.below(0x1_0000_0000),
          },
          ...this.#data(),
        ];
      case 15:
        return [
          this.#ethernet(),
          {
            ...ip,
            protocol: this.of([6, 17, 132, 1, 47]),
            moreFragments: this.once(2),
            fragmentOffset: 8 * this.of([0, 1, 185, 8191]),
          } as Layer,
          ...this.#data(),
        ];
      case 16:
        return [
          this.#ethernet(),
          { kind: "ipv6", source: "2001:db8::1", destination: "2001:db8::2" },
          ...this.#transport(clientPort, 80, protocol),
          ...this.#data(),
        ];
      case 17:
        return [
          this.#ethernet(),
          { kind: "vlan", id: this.below(4096) },
          ip,
          ...this.#transport(clientPort, 80, protocol),
          ...this.#data(),
        ];
      case 18:
        return [
          this.#ethernet(),
          ip,
          { ...ip, destination: this.of(VIPS) } as Layer,
          ...this.#transport(clientPort, 80, protocol),
        ];
      default:
        return [this.#ethernet(), ip, ...this.#transport(clientPort, this.of([22, 53, 80]), protocol), ...this.#data()];
    }
  }

  /** Some bytes changed, mostly in the headers; cut short, or longer; or nothing but chance. */
  frame(known: readonly Entry[]): Uint8Array {
    if (this.once(25)) {
      const bytes = this.bytes(14 + this.below(200));
      if (this.once(2)) new DataView(bytes.buffer).setUint16(12, this.of(Object.values(ETHERTYPE)));
      return bytes;
    }
    let bytes = build(this.#right(known));
    if (this.once(2)) return bytes;
    for (let changes = this.below(4); changes > 0; changes--) {
      const at = this.once(4) ? this.below(bytes.length) : this.below(Math.min(bytes.length, 74));
      bytes[at] = this.once(2) ? this.below(256) : (bytes[at] ?? 0) ^ (1 << this.below(8));
    }
    if (this.once(4)) bytes = bytes.slice(0, 14 + this.below(bytes.length - 13));
    if (this.once(6)) bytes = Uint8Array.from([...bytes, ...this.bytes(this.below(50))]);
    return bytes;
  }
}

/** Whether a frame may be touched at all: IPv4 to a VIP, or a reply of a connection in the table, or a real server's. */
function concernsUs(bytes: Uint8Array, reverse: readonly Entry[], mayTell: boolean): boolean {
  if (bytes.length < 34 || bytes[12] !== 8 || bytes[13] !== 0) return false;
  const destination = bytes.subarray(30, 34).join(".");
  if ([...VIPS, DESERTED].includes(destination)) return true;
  const source = bytes.subarray(26, 30).join(".");
  if (mayTell && source.startsWith("10.1.0.1")) return true;
  return reverse.some(
    (entry) => entry.source === source && entry.destination === destination && entry.protocol === bytes[23],
  );
}

/** The data plane's own answers: ICMP port unreachable, TCP's reset and SCTP's ABORT, whole and with right checksums, about a frame that was dropped. */
function wrongAnswer(
  bytes: Uint8Array,
  frame: Uint8Array,
  dropped: readonly { packets: number; bytes: number }[],
): string[] {
  const found: string[] = [];
  const left = parse(frame);
  const [, ip, answer] = left;
  if (dropped.length !== 1 || dropped[0]?.packets !== 1 || dropped[0].bytes !== bytes.length) {
    found.push("answered, and not counted once as dropped");
  }
  if (wrongChecksums(left).length > 0 || ip?.kind !== "ipv4") found.push("answered, with a wrong checksum");
  if (ip?.kind === "ipv4" && ip.destination !== bytes.subarray(26, 30).join(".")) found.push("answered someone else");
  const isError = answer?.kind === "icmp" && answer.type === 3 && answer.code === 3;
  // ABORT; SHUTDOWN COMPLETE, where a SHUTDOWN ACK came (RFC 9260, 8.4).
  const isAbort = answer?.kind === "sctp" && left[3]?.kind === "chunk" && [6, 14].includes(left[3].type);
  const isReset = answer?.kind === "tcp" && answer.flags?.includes("R");
  if (!isError && !isAbort && !isReset) found.push("answered otherwise");
  if (isError && frame.length > 14 + 576) found.push("answered at length");
  return found;
}

function complaints(bytes: Uint8Array, result: Result, reverse: readonly Entry[], mayTell: boolean): string[] {
  const found: string[] = [];
  const { verdict, frame, counted } = result;
  const dropped = Object.values(counted.drops);
  const inPackets = Object.values(counted.services).reduce((sum, counts) => sum + (counts.in_packets ?? 0), 0);
  const outPackets = Object.values(counted.services).reduce((sum, counts) => sum + (counts.out_packets ?? 0), 0);
  const connections = Object.values(counted.services).reduce((sum, counts) => sum + (counts.connections ?? 0), 0);

  for (const counts of [...Object.values(counted.services), ...Object.values(counted.realServers)]) {
    if (Object.values(counts).some((count) => count < 0)) found.push("a counter went backwards");
  }
  if (verdict !== "pass" && !concernsUs(bytes, reverse, mayTell)) found.push("not ours, and touched");
  switch (verdict) {
    case "aborted":
      found.push("aborted");
      break;
    case "pass":
      if (!Buffer.from(frame).equals(Buffer.from(bytes))) found.push("passed, and changed");
      if (dropped.length + inPackets + outPackets + connections !== 0) found.push("passed, and counted");
      break;
    case "drop":
      if (dropped.length !== 1 || dropped[0]?.packets !== 1 || dropped[0].bytes !== bytes.length) {
        found.push("dropped, and not counted once");
      }
      break;
    case "transmit":
    case "redirect": {
      if (dropped.length > 0) return [...found, ...wrongAnswer(bytes, frame, dropped)];
      const came = parse(bytes);
      const left = parse(frame);
      const kinds = ({ kind }: Layer): string => kind;
      const inner = left.length > came.length ? left.toSpliced(1, 1) : left;
      // A header that has no description of its own, one with the reserved bit, is bytes in the one and wrapped in the other.
      const isOpaque = came[1]?.kind === "payload";
      if (!isOpaque && inner.map(kinds).join() !== came.map(kinds).join()) found.push("sent, and of another kind");
      if (wrongChecksums(came).length === 0 && wrongChecksums(left).length > 0)
        found.push("a right checksum made wrong");
      break;
    }
    default:
      return verdict satisfies never;
  }
  return found;
}

t.setTimeout(170_000);

t.comment(`SLUICE_FUZZ_SEED=${SEED}`);

/** Sends so many frames; how often each verdict came. `between` may change something before every frame. */
async function fuzz(
  t: Test,
  setup: Setup,
  frames: number,
  between: (bed: Bed, generator: Generator, n: number) => void,
): Promise<Record<string, number>> {
  const bed = await Bed.open({ buckets: 4 });
  t.teardown(() => bed.close());
  bed.configure(setup);
  const generator = new Generator(SEED);
  const found: { frame: number; what: string[]; bytes: string; on: InterfaceName; result: string }[] = [];
  const verdicts: Record<string, number> = {};
  let known: Entry[] = [];
  let reverse: Entry[] = [];

  for (let n = 0; n < frames && found.length < 5; n++) {
    if (n % 500 === 499) bed.sweep();
    between(bed, generator, n);
    const on = generator.of(["c0", "r0"] as const);
    const bytes = generator.frame(known);
    const result = bed.run(bytes, on);
    const what = [...complaints(bytes, result, reverse, setup === options), ...bed.violations()];
    if (what.length > 0) {
      found.push({
        frame: n,
        what,
        bytes: Buffer.from(bytes).toString("hex"),
        on,
        result: `${result.verdict} ${Buffer.from(result.frame).toString("hex")} ${JSON.stringify(result.counted)}`,
      });
    }
    const reason = Object.keys(result.counted.drops)[0];
    const name = reason === undefined ? result.verdict : `${result.verdict} ${reason}`;
    verdicts[name] = (verdicts[name] ?? 0) + 1;
    known = bed
      .table()
      .entries()
      .filter(({ direction }) => direction !== "none");
    reverse = known.filter(({ direction }) => direction === "reverse");
  }
  t.strictSame(found, []);
  t.comment(JSON.stringify(verdicts));
  return verdicts;
}

/** A generator that never gets anywhere would find nothing. */
function reaches(t: Test, verdicts: Record<string, number>, wanted: readonly string[]): void {
  for (const verdict of wanted) {
    t.ok((verdicts[verdict] ?? 0) * 1000 >= FRAMES, `${verdict}: ${verdicts[verdict] ?? 0} of ${FRAMES}`);
  }
}

t.test(`${FRAMES} random and mutated frames, SLUICE_FUZZ_SEED=${SEED}`, async (t) => {
  const verdicts = await fuzz(t, methods, FRAMES, () => undefined);
  reaches(t, verdicts, ["pass", "transmit", "redirect", "drop fragment", "drop malformed", "drop ttl_exceeded"]);
});

t.test("a quarter as many, while services with all options change under them", async (t) => {
  const verdicts = await fuzz(t, options, FRAMES / 4, (bed, generator, n) => {
    if (n % 40 === 0) bed.setSettings(generator.of(SETTINGS));
    if (n % 10 !== 0) return;
    // One that has connections, if any has.
    const { real } = generator.of([...bed.connections(), { real: generator.below(2 * methods.services.length) }]);
    const removed = generator.of(["no", "drop", "keep", "reset"] as const);
    bed.changeRealServer(Math.floor(real / 2), real % 2, {
      removed: removed === "no" ? undefined : removed,
      weight: generator.of([0, 1, 1, 2]),
    });
  });
  reaches(t, verdicts, [...["pass", "redirect", "transmit no_real_server", "drop no_real_server"]]);
  const removals = (verdicts["drop real_server_removed"] ?? 0) + (verdicts["transmit real_server_removed"] ?? 0);
  t.ok(removals * 1000 >= FRAMES, `${removals} of removed real servers`);
});
