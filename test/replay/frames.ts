/** The packets of traces as frames of the test bed's network, and frames as traces tell packets. */
import type { Frame, Layer } from "../packet/frame.js";
import { INTERFACES, ROUTER_MAC, realAddress, realMac } from "../packet/network.js";
import { CHUNK } from "../packet/sctp-layers.js";
import type { Outgoing, Side } from "./trace.js";

export const REAL_SERVERS = 40;

export interface Packet {
  readonly side: Side;
  readonly protocol: "tcp" | "udp" | "sctp";
  readonly flags: string;
  readonly chunk?: string;
  readonly source: string;
  readonly sourcePort: number;
  readonly destination: string;
  readonly destinationPort: number;
  /** Bytes of payload. */
  readonly length: number;
}

export const PROTOCOL_NUMBERS = { icmp: 1, tcp: 6, udp: 17, sctp: 132 } as const;
const TCP_FLAGS = "FSRPAUEC";

/** TCP flags in the order in which frames have them. */
export function sortedFlags(flags: string): string {
  return Array.from(TCP_FLAGS)
    .filter((letter) => flags.includes(letter))
    .join("");
}

export function frameOf(packet: Packet): Frame {
  const { side, source, destination } = packet;
  return [
    side === "c"
      ? { kind: "ethernet", destination: INTERFACES.c0.mac, source: ROUTER_MAC }
      : { kind: "ethernet", destination: INTERFACES.r0.mac, source: realMac(realNumber(source)) },
    { kind: "ipv4", source, destination, id: 1001, ttl: 64 },
    ...transport(packet),
  ];
}

function transport(packet: Packet): Layer[] {
  const { protocol, side, sourcePort, destinationPort, length } = packet;
  const payload: Layer[] = length > 0 ? [{ kind: "payload", bytes: "78".repeat(length) }] : [];
  switch (protocol) {
    case "udp":
      return [{ kind: "udp", sourcePort, destinationPort }, ...payload];
    case "tcp": {
      const sequence = side === "c" ? 1000 : 5000;
      const flags = sortedFlags(packet.flags);
      return [{ kind: "tcp", sourcePort, destinationPort, sequence, flags, window: 65_535 }, ...payload];
    }
    case "sctp":
      return [{ kind: "sctp", sourcePort, destinationPort, verificationTag: 0x1234 }, chunkOf(packet.chunk ?? "")];
    default:
      return protocol satisfies never;
  }
}

/** Hex: the parameters that a chunk has at least (RFC 9260, section 3.3). */
const CHUNK_VALUES: Readonly<Record<string, string>> = {
  DATA: "00000001000000000000000078787878",
  INIT: "00001111000100000001000100000001",
  INIT_ACK: "00001111000100000001000100000001",
  SACK: "000000010001000000000000",
  SHUTDOWN: "00000001",
  COOKIE_ECHO: "0000000000000000",
};

function chunkOf(name: string): Layer {
  if (!Object.hasOwn(CHUNK, name)) throw new TypeError(`${name || "nothing"} is no chunk of SCTP`);
  const value = CHUNK_VALUES[name];
  return { kind: "chunk", type: CHUNK[name as keyof typeof CHUNK], ...(value !== undefined && { value }) };
}

/** 1 for 10.1.0.11; 0 for what is no real server of the test bed. */
function realNumber(address: string): number {
  for (let n = 1; n <= REAL_SERVERS; n++) if (realAddress(n) === address) return n;
  return 0;
}

/** What left, as traces tell it: of a tunnelled packet the inner one. */
export function outgoing(frame: Frame): Outgoing {
  const ethernet = frame.find((layer) => layer.kind === "ethernet");
  const inner = frame.findLast((layer) => layer.kind === "ipv4");
  if (ethernet === undefined || inner === undefined) throw new TypeError("what left is no IPv4");
  const real = Array.from({ length: REAL_SERVERS }, (_, i) => i + 1).find((n) => realMac(n) === ethernet.destination);
  return {
    side: ethernet.source === INTERFACES.c0.mac ? "c" : "r",
    ...(real !== undefined && { real }),
    source: inner.source,
    destination: inner.destination,
    ttl: inner.ttl ?? 64,
    ...outgoingTransport(frame),
  };
}

function outgoingTransport(frame: Frame): Partial<Outgoing> {
  const layer = frame.find(isTransport);
  switch (layer?.kind) {
    case undefined:
      throw new TypeError("what left is no TCP, UDP, SCTP or ICMP");
    case "icmp":
      return { protocol: PROTOCOL_NUMBERS.icmp, icmp: [layer.type, layer.code] };
    case "tcp":
      return { ...endsOf(layer), flags: layer.flags ?? "" };
    case "udp":
      return endsOf(layer);
    case "sctp":
      return { ...endsOf(layer), ...chunkName(frame) };
    default:
      return layer satisfies never;
  }
}

type Transport = Extract<Layer, { kind: keyof typeof PROTOCOL_NUMBERS }>;

function isTransport(layer: Layer): layer is Transport {
  return layer.kind in PROTOCOL_NUMBERS;
}

function endsOf({ kind, sourcePort, destinationPort }: Exclude<Transport, { kind: "icmp" }>): Partial<Outgoing> {
  return { protocol: PROTOCOL_NUMBERS[kind], sourcePort, destinationPort };
}

function chunkName(frame: Frame): Partial<Outgoing> {
  const chunk = frame.find((layer) => layer.kind === "chunk");
  const name = Object.entries(CHUNK).find(([, type]) => type === chunk?.type)?.[0];
  return name === undefined ? {} : { chunk: name };
}
