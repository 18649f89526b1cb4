/**
 * Frames as plain descriptions: a list of layers, outermost first. `build` makes the bytes, `parse` gives the description
 * back, and `build(parse(bytes))` is `bytes` for every input.
 *
 * Lengths, header lengths and checksums are not in a description while they are right, so two frames whose descriptions
 * are equal are equal, and a checksum that shows up in one is wrong (or is UDP's and SCTP's "none", 0). Giving such a field makes a
 * frame that is broken in just that way. Where a header contradicts itself or the frame's end, `parse` stops and gives
 * the rest as one payload layer.
 */
import { ipv4Bytes, ipv4Text, ipv6Bytes, ipv6Text, macBytes, macText } from "./addresses.js";
import { internetChecksum } from "./checksum.js";
import { buildChunk, buildSctp, type Chunk, parseSctp, type Sctp } from "./sctp-layers.js";

export const ETHERTYPE = { ipv4: 0x0800, arp: 0x0806, vlan: 0x8100, serviceVlan: 0x88a8, ipv6: 0x86dd } as const;
export const PROTOCOL = { icmp: 1, ipip: 4, tcp: 6, udp: 17, ipv6: 41, icmpv6: 58, sctp: 132 } as const;

export interface Ethernet {
  readonly kind: "ethernet";
  readonly destination: string;
  readonly source: string;
  /** Left out: that of the next layer. */
  readonly type?: number;
}

/** An 802.1Q or 802.1ad tag. */
export interface Vlan {
  readonly kind: "vlan";
  /** What announces the tag; left out: 0x8100. */
  readonly tpid?: number;
  readonly id: number;
  /** PCP and DEI, four bits; left out: 0. */
  readonly priority?: number;
  /** Left out: that of the next layer. */
  readonly type?: number;
}

/** ARP for IPv4 over Ethernet (RFC 826). */
export interface Arp {
  readonly kind: "arp";
  readonly operation: number;
  readonly senderMac: string;
  readonly senderAddress: string;
  readonly targetMac: string;
  readonly targetAddress: string;
}

export interface Ipv4 {
  readonly kind: "ipv4";
  readonly source: string;
  readonly destination: string;
  readonly tos?: number;
  readonly id?: number;
  readonly dontFragment?: boolean;
  readonly moreFragments?: boolean;
  /** Bytes, a multiple of eight. */
  readonly fragmentOffset?: number;
  readonly ttl?: number;
  /** Hex; a multiple of four bytes. */
  readonly options?: string;
  /** Left out: that of the next layer. */
  readonly protocol?: number;
  readonly version?: number;
  /** In 32-bit words. */
  readonly headerLength?: number;
  readonly totalLength?: number;
  readonly checksum?: number;
}

export interface Ipv6 {
  readonly kind: "ipv6";
  readonly source: string;
  readonly destination: string;
  readonly trafficClass?: number;
  readonly flowLabel?: number;
  readonly hopLimit?: number;
  /** Left out: that of the next layer. */
  readonly nextHeader?: number;
  readonly payloadLength?: number;
}

export interface Tcp {
  readonly kind: "tcp";
  readonly sourcePort: number;
  readonly destinationPort: number;
  readonly sequence?: number;
  readonly acknowledgement?: number;
  /** Letters of FSRPAUEC in that order (C: CWR); left out: none. */
  readonly flags?: string;
  /** The four bits before the flags. */
  readonly reserved?: number;
  readonly window?: number;
  readonly urgent?: number;
  /** Hex; a multiple of four bytes. */
  readonly options?: string;
  readonly dataOffset?: number;
  readonly checksum?: number;
}

export interface Udp {
  readonly kind: "udp";
  readonly sourcePort: number;
  readonly destinationPort: number;
  readonly length?: number;
  /** 0: none (RFC 768). */
  readonly checksum?: number;
}

export interface Icmp {
  readonly kind: "icmp";
  readonly type: number;
  readonly code: number;
  /** The second word: identifier and sequence number of an echo. */
  readonly rest?: number;
  readonly checksum?: number;
}

export interface Payload {
  readonly kind: "payload";
  /** Hex. */
  readonly bytes: string;
}

/** What fills a short frame up to Ethernet's 60 bytes; in no header's length. Always the last layer. */
export interface Padding {
  readonly kind: "padding";
  /** Hex. */
  readonly bytes: string;
}

export type Layer = Ethernet | Vlan | Arp | Ipv4 | Ipv6 | Tcp | Udp | Sctp | Chunk | Icmp | Payload | Padding;
export type Frame = readonly Layer[];

const TCP_FLAGS = "FSRPAUEC";

function hexBytes(hex: string): Uint8Array {
  if (!/^([0-9a-f]{2})*$/.test(hex)) throw new TypeError(`${hex} is not hex`);
  return Uint8Array.from(Buffer.from(hex, "hex"));
}

function hexText(bytes: Uint8Array): string {
  return Buffer.from(bytes).toString("hex");
}

function concatenate(...parts: readonly Uint8Array[]): Uint8Array {
  return Uint8Array.from(Buffer.concat(parts));
}

/** A view of big-endian fields, as all of these headers have them. */
function fields(bytes: Uint8Array): DataView {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}

/** Payload in hex whose bytes count up, so that a misplaced one shows. */
export function counting(length: number): string {
  return hexText(Uint8Array.from({ length }, (_, i) => i & 0xff));
}

/** The frame filled up to 60 bytes (without FCS) as a network card does. */
export function padded(frame: Frame, fill = "00"): Frame {
  const missing = 60 - build(frame).length;
  return missing > 0 ? [...frame, { kind: "padding", bytes: fill.repeat(missing) }] : frame;
}

// ------------------------------------------------------------------------------------------------------- building

function etherTypeOf(layer: Layer | undefined): number {
  switch (layer?.kind) {
    case "ipv4":
      return ETHERTYPE.ipv4;
    case "ipv6":
      return ETHERTYPE.ipv6;
    case "arp":
      return ETHERTYPE.arp;
    case "vlan":
      return layer.tpid ?? ETHERTYPE.vlan;
    default:
      throw new TypeError(`no ethertype follows from ${layer?.kind ?? "nothing"}: give one`);
  }
}

function protocolOf(layer: Layer | undefined): number {
  switch (layer?.kind) {
    case "tcp":
    case "udp":
    case "sctp":
    case "icmp":
      return PROTOCOL[layer.kind];
    case "ipv4":
      return PROTOCOL.ipip;
    case "ipv6":
      return PROTOCOL.ipv6;
    default:
      throw new TypeError(`no protocol follows from ${layer?.kind ?? "nothing"}: give one`);
  }
}

/** RFC 9293, 3.1 and RFC 8200, 8.1. */
function pseudoHeader(ip: Ipv4 | Ipv6, protocol: number, length: number): Uint8Array {
  if (ip.kind === "ipv4") {
    const tail = new Uint8Array(4);
    tail[1] = protocol;
    fields(tail).setUint16(2, length);
    return concatenate(ipv4Bytes(ip.source), ipv4Bytes(ip.destination), tail);
  }
  const tail = new Uint8Array(8);
  fields(tail).setUint32(0, length);
  tail[7] = protocol;
  return concatenate(ipv6Bytes(ip.source), ipv6Bytes(ip.destination), tail);
}

function transportChecksum(ip: Ipv4 | Ipv6, layer: Tcp | Udp, zeroed: Uint8Array): number {
  const checksum = internetChecksum(pseudoHeader(ip, PROTOCOL[layer.kind], zeroed.length), zeroed);
  return layer.kind === "udp" && checksum === 0 ? 0xffff : checksum; // RFC 768: 0 would mean "none"
}

function enclosingIp(frame: Frame, index: number): Ipv4 | Ipv6 {
  const layer = frame[index - 1];
  if (layer?.kind !== "ipv4" && layer?.kind !== "ipv6") throw new TypeError("TCP and UDP follow an IP layer");
  return layer;
}

function buildIpv4(layer: Ipv4, next: Layer | undefined, inner: Uint8Array): Uint8Array {
  const options = hexBytes(layer.options ?? "");
  const header = concatenate(new Uint8Array(20), options);
  const view = fields(header);
  view.setUint8(0, ((layer.version ?? 4) << 4) | (layer.headerLength ?? header.length / 4));
  view.setUint8(1, layer.tos ?? 0);
  view.setUint16(2, layer.totalLength ?? header.length + inner.length);
  view.setUint16(4, layer.id ?? 0);
  view.setUint16(
    6,
    (layer.dontFragment ? 0x4000 : 0) | (layer.moreFragments ? 0x2000 : 0) | ((layer.fragmentOffset ?? 0) >> 3),
  );
  view.setUint8(8, layer.ttl ?? 64);
  view.setUint8(9, layer.protocol ?? protocolOf(next));
  header.set(ipv4Bytes(layer.source), 12);
  header.set(ipv4Bytes(layer.destination), 16);
  view.setUint16(10, layer.checksum ?? internetChecksum(header));
  return concatenate(header, inner);
}

function buildIpv6(layer: Ipv6, next: Layer | undefined, inner: Uint8Array): Uint8Array {
  const header = new Uint8Array(40);
  const view = fields(header);
  view.setUint32(0, ((6 << 28) | ((layer.trafficClass ?? 0) << 20) | (layer.flowLabel ?? 0)) >>> 0);
  view.setUint16(4, layer.payloadLength ?? inner.length);
  view.setUint8(6, layer.nextHeader ?? protocolOf(next));
  view.setUint8(7, layer.hopLimit ?? 64);
  header.set(ipv6Bytes(layer.source), 8);
  header.set(ipv6Bytes(layer.destination), 24);
  return concatenate(header, inner);
}

function buildTcp(layer: Tcp, ip: Ipv4 | Ipv6, inner: Uint8Array): Uint8Array {
  const header = concatenate(new Uint8Array(20), hexBytes(layer.options ?? ""));
  const view = fields(header);
  const flags = Array.from(layer.flags ?? "").reduce((bits, letter) => {
    if (!TCP_FLAGS.includes(letter)) throw new TypeError(`${letter} is no TCP flag`);
    return bits | (1 << TCP_FLAGS.indexOf(letter));
  }, 0);
  view.setUint16(0, layer.sourcePort);
  view.setUint16(2, layer.destinationPort);
  view.setUint32(4, layer.sequence ?? 0);
  view.setUint32(8, layer.acknowledgement ?? 0);
  view.setUint8(12, ((layer.dataOffset ?? header.length / 4) << 4) | (layer.reserved ?? 0));
  view.setUint8(13, flags);
  view.setUint16(14, layer.window ?? 0);
  view.setUint16(18, layer.urgent ?? 0);
  const segment = concatenate(header, inner);
  fields(segment).setUint16(16, layer.checksum ?? transportChecksum(ip, layer, segment));
  return segment;
}

function buildUdp(layer: Udp, ip: Ipv4 | Ipv6, inner: Uint8Array): Uint8Array {
  const datagram = concatenate(new Uint8Array(8), inner);
  const view = fields(datagram);
  view.setUint16(0, layer.sourcePort);
  view.setUint16(2, layer.destinationPort);
  view.setUint16(4, layer.length ?? datagram.length);
  view.setUint16(6, layer.checksum ?? transportChecksum(ip, layer, datagram));
  return datagram;
}

function buildIcmp(layer: Icmp, inner: Uint8Array): Uint8Array {
  const message = concatenate(new Uint8Array(8), inner);
  const view = fields(message);
  view.setUint8(0, layer.type);
  view.setUint8(1, layer.code);
  view.setUint32(4, layer.rest ?? 0);
  view.setUint16(2, layer.checksum ?? internetChecksum(message));
  return message;
}

function buildArp(layer: Arp, inner: Uint8Array): Uint8Array {
  const head = hexBytes("0001080006040000");
  fields(head).setUint16(6, layer.operation);
  return concatenate(
    head,
    macBytes(layer.senderMac),
    ipv4Bytes(layer.senderAddress),
    macBytes(layer.targetMac),
    ipv4Bytes(layer.targetAddress),
    inner,
  );
}

function buildLayer(frame: Frame, index: number, inner: Uint8Array): Uint8Array {
  const layer = frame[index];
  const next = frame[index + 1];
  switch (layer?.kind) {
    case undefined:
      return inner;
    case "ethernet": {
      const type = new Uint8Array(2);
      fields(type).setUint16(0, layer.type ?? etherTypeOf(next));
      return concatenate(macBytes(layer.destination), macBytes(layer.source), type, inner);
    }
    case "vlan": {
      const tag = new Uint8Array(4);
      fields(tag).setUint16(0, ((layer.priority ?? 0) << 12) | layer.id);
      fields(tag).setUint16(2, layer.type ?? etherTypeOf(next));
      return concatenate(tag, inner);
    }
    case "arp":
      return buildArp(layer, inner);
    case "ipv4":
      return buildIpv4(layer, next, inner);
    case "ipv6":
      return buildIpv6(layer, next, inner);
    case "tcp":
      return buildTcp(layer, enclosingIp(frame, index), inner);
    case "udp":
      return buildUdp(layer, enclosingIp(frame, index), inner);
    case "sctp":
      return buildSctp(layer, inner);
    case "chunk":
      return buildChunk(layer, inner);
    case "icmp":
      return buildIcmp(layer, inner);
    case "payload":
      return concatenate(hexBytes(layer.bytes), inner);
    case "padding":
      throw new TypeError("padding is the last layer");
    default:
      return layer satisfies never;
  }
}

export function build(frame: Frame): Uint8Array {
  const last = frame.at(-1);
  const layers = last?.kind === "padding" ? frame.slice(0, -1) : frame;
  let bytes: Uint8Array = new Uint8Array(0);
  for (let index = layers.length - 1; index >= 0; index--) bytes = buildLayer(layers, index, bytes);
  return last?.kind === "padding" ? concatenate(bytes, hexBytes(last.bytes)) : bytes;
}

// -------------------------------------------------------------------------------------------------------- parsing

function payload(bytes: Uint8Array): Layer[] {
  return bytes.length === 0 ? [] : [{ kind: "payload", bytes: hexText(bytes) }];
}

/** Drops the members of a description that are what a description without them means. */
function withoutDefaults<T extends object>(layer: T, defaults: Partial<T>): T {
  return Object.fromEntries(
    Object.entries(layer).filter(([name, value]) => value !== undefined && value !== defaults[name as keyof T]),
  ) as T;
}

function parseEtherPayload(type: number, bytes: Uint8Array): Layer[] | undefined {
  switch (type) {
    case ETHERTYPE.vlan:
    case ETHERTYPE.serviceVlan:
      return parseVlan(type, bytes);
    case ETHERTYPE.arp:
      return parseArp(bytes);
    case ETHERTYPE.ipv4:
      return parseIpv4(bytes);
    case ETHERTYPE.ipv6:
      return parseIpv6(bytes);
    default:
      return undefined;
  }
}

/** The layers after an ethertype; `type` is given back where no layer says it. */
function afterEtherType(type: number, bytes: Uint8Array): { type?: number; rest: Layer[] } {
  const rest = parseEtherPayload(type, bytes);
  return rest === undefined ? { type, rest: payload(bytes) } : { rest };
}

function parseVlan(tpid: number, bytes: Uint8Array): Layer[] | undefined {
  if (bytes.length < 4) return undefined;
  const view = fields(bytes);
  const tag = view.getUint16(0);
  const { type, rest } = afterEtherType(view.getUint16(2), bytes.subarray(4));
  const vlan: Vlan = { kind: "vlan", tpid, id: tag & 0xfff, priority: tag >> 12, ...(type !== undefined && { type }) };
  return [withoutDefaults(vlan, { tpid: ETHERTYPE.vlan, priority: 0 }), ...rest];
}

function parseArp(bytes: Uint8Array): Layer[] | undefined {
  if (bytes.length < 28 || hexText(bytes.subarray(0, 6)) !== "000108000604") return undefined;
  const arp: Arp = {
    kind: "arp",
    operation: fields(bytes).getUint16(6),
    senderMac: macText(bytes.subarray(8, 14)),
    senderAddress: ipv4Text(bytes.subarray(14, 18)),
    targetMac: macText(bytes.subarray(18, 24)),
    targetAddress: ipv4Text(bytes.subarray(24, 28)),
  };
  return [arp, ...padding(bytes.subarray(28))];
}

function padding(bytes: Uint8Array): Layer[] {
  return bytes.length === 0 ? [] : [{ kind: "padding", bytes: hexText(bytes) }];
}

function parseIpv4(bytes: Uint8Array): Layer[] | undefined {
  if (bytes.length < 20) return undefined;
  const view = fields(bytes);
  const headerLength = (view.getUint8(0) & 0xf) * 4;
  const totalLength = view.getUint16(2);
  const reserved = view.getUint16(6) & 0x8000; // no layer can say this bit (RFC 791: must be zero)
  if (view.getUint8(0) >> 4 !== 4 || headerLength < 20 || totalLength < headerLength || totalLength > bytes.length) {
    return undefined;
  }
  if (reserved) return undefined;
  const protocol = view.getUint8(9);
  const fragment = view.getUint16(6) & 0x3fff;
  const addresses = { source: ipv4Text(bytes.subarray(12, 16)), destination: ipv4Text(bytes.subarray(16, 20)) };
  const inner = bytes.subarray(headerLength, totalLength);
  const rest = fragment === 0 ? parseTransport(protocol, { kind: "ipv4", ...addresses }, inner) : undefined;
  const zeroed = Uint8Array.from(bytes.subarray(0, headerLength));
  zeroed.fill(0, 10, 12);
  const checksum = view.getUint16(10);
  const layer: Ipv4 = {
    kind: "ipv4",
    ...addresses,
    tos: view.getUint8(1),
    id: view.getUint16(4),
    dontFragment: (view.getUint16(6) & 0x4000) !== 0,
    moreFragments: (view.getUint16(6) & 0x2000) !== 0,
    fragmentOffset: (view.getUint16(6) & 0x1fff) * 8,
    ttl: view.getUint8(8),
    options: hexText(bytes.subarray(20, headerLength)),
    ...(rest === undefined && { protocol }),
    ...(checksum !== internetChecksum(zeroed) && { checksum }),
  };
  const shown = withoutDefaults(layer, {
    tos: 0,
    id: 0,
    dontFragment: false,
    moreFragments: false,
    fragmentOffset: 0,
    ttl: 64,
    options: "",
  });
  return [shown, ...(rest ?? payload(inner)), ...padding(bytes.subarray(totalLength))];
}

function parseIpv6(bytes: Uint8Array): Layer[] | undefined {
  if (bytes.length < 40) return undefined;
  const view = fields(bytes);
  const end = 40 + view.getUint16(4);
  if (view.getUint8(0) >> 4 !== 6 || end > bytes.length) return undefined;
  const nextHeader = view.getUint8(6);
  const addresses = { source: ipv6Text(bytes.subarray(8, 24)), destination: ipv6Text(bytes.subarray(24, 40)) };
  const inner = bytes.subarray(40, end);
  const rest = parseTransport(nextHeader, { kind: "ipv6", ...addresses }, inner);
  const layer: Ipv6 = {
    kind: "ipv6",
    ...addresses,
    trafficClass: (view.getUint16(0) >> 4) & 0xff,
    flowLabel: view.getUint32(0) & 0xfffff,
    hopLimit: view.getUint8(7),
    ...(rest === undefined && { nextHeader }),
  };
  const shown = withoutDefaults(layer, { trafficClass: 0, flowLabel: 0, hopLimit: 64 });
  return [shown, ...(rest ?? payload(inner)), ...padding(bytes.subarray(end))];
}

function parseTransport(protocol: number, ip: Ipv4 | Ipv6, bytes: Uint8Array): Layer[] | undefined {
  switch (protocol) {
    case PROTOCOL.tcp:
      return parseTcp(ip, bytes);
    case PROTOCOL.udp:
      return parseUdp(ip, bytes);
    case PROTOCOL.sctp: {
      const sctp = parseSctp(bytes);
      return sctp && [...sctp.layers, ...payload(sctp.rest)];
    }
    case PROTOCOL.icmp:
      return parseIcmp(bytes);
    case PROTOCOL.ipip:
      return inside(parseIpv4(bytes));
    case PROTOCOL.ipv6:
      return inside(parseIpv6(bytes));
    default:
      return undefined;
  }
}

/** A packet in a packet; one that is followed by something its length does not cover is left as bytes, since padding ends a frame. */
function inside(layers: Layer[] | undefined): Layer[] | undefined {
  return layers?.at(-1)?.kind === "padding" ? undefined : layers;
}

function parseTcp(ip: Ipv4 | Ipv6, bytes: Uint8Array): Layer[] | undefined {
  if (bytes.length < 20) return undefined;
  const view = fields(bytes);
  const headerLength = (view.getUint8(12) >> 4) * 4;
  if (headerLength < 20 || headerLength > bytes.length) return undefined;
  const layer: Tcp = {
    kind: "tcp",
    sourcePort: view.getUint16(0),
    destinationPort: view.getUint16(2),
    sequence: view.getUint32(4),
    acknowledgement: view.getUint32(8),
    flags: Array.from(TCP_FLAGS)
      .filter((_, bit) => view.getUint8(13) & (1 << bit))
      .join(""),
    reserved: view.getUint8(12) & 0xf,
    window: view.getUint16(14),
    urgent: view.getUint16(18),
    options: hexText(bytes.subarray(20, headerLength)),
    ...wrongChecksum(ip, { kind: "tcp", sourcePort: 0, destinationPort: 0 }, bytes, 16),
  };
  const shown = withoutDefaults(layer, {
    sequence: 0,
    acknowledgement: 0,
    flags: "",
    reserved: 0,
    window: 0,
    urgent: 0,
    options: "",
  });
  return [shown, ...payload(bytes.subarray(headerLength))];
}

function wrongChecksum(ip: Ipv4 | Ipv6, layer: Tcp | Udp, bytes: Uint8Array, at: number): { checksum?: number } {
  const zeroed = Uint8Array.from(bytes);
  zeroed.fill(0, at, at + 2);
  const checksum = fields(bytes).getUint16(at);
  return checksum === transportChecksum(ip, layer, zeroed) ? {} : { checksum };
}

function parseUdp(ip: Ipv4 | Ipv6, bytes: Uint8Array): Layer[] | undefined {
  if (bytes.length < 8) return undefined;
  const view = fields(bytes);
  if (view.getUint16(4) !== bytes.length) return undefined;
  const ports = { kind: "udp", sourcePort: view.getUint16(0), destinationPort: view.getUint16(2) } as const;
  return [{ ...ports, ...wrongChecksum(ip, ports, bytes, 6) }, ...payload(bytes.subarray(8))];
}

function parseIcmp(bytes: Uint8Array): Layer[] | undefined {
  if (bytes.length < 8) return undefined;
  const view = fields(bytes);
  const zeroed = Uint8Array.from(bytes);
  zeroed.fill(0, 2, 4);
  const checksum = view.getUint16(2);
  const layer: Icmp = {
    kind: "icmp",
    type: view.getUint8(0),
    code: view.getUint8(1),
    rest: view.getUint32(4),
    ...(checksum !== internetChecksum(zeroed) && { checksum }),
  };
  return [withoutDefaults(layer, { rest: 0 }), ...payload(bytes.subarray(8))];
}

export function parse(bytes: Uint8Array): Layer[] {
  if (bytes.length < 14) return payload(bytes);
  const { type, rest } = afterEtherType(fields(bytes).getUint16(12), bytes.subarray(14));
  const ethernet: Ethernet = {
    kind: "ethernet",
    destination: macText(bytes.subarray(0, 6)),
    source: macText(bytes.subarray(6, 12)),
    ...(type !== undefined && { type }),
  };
  return [ethernet, ...rest];
}

/** The layers whose checksum does not hold; UDP's and SCTP's "none" is not among them. */
export function wrongChecksums(frame: Frame): Layer[] {
  return frame.filter(
    (layer) => "checksum" in layer && !((layer.kind === "udp" || layer.kind === "sctp") && layer.checksum === 0),
  );
}
