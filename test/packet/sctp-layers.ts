/** SCTP (RFC 9260, section 3) for frame.ts: the common header is one layer, each chunk another. */
import { crc32c } from "./checksum.js";

/** Types of chunks (RFC 9260, section 3.2). */
export const CHUNK = {
  DATA: 0,
  INIT: 1,
  INIT_ACK: 2,
  SACK: 3,
  HEARTBEAT: 4,
  HEARTBEAT_ACK: 5,
  ABORT: 6,
  SHUTDOWN: 7,
  SHUTDOWN_ACK: 8,
  ERROR: 9,
  COOKIE_ECHO: 10,
  COOKIE_ACK: 11,
  ECNE: 12,
  CWR: 13,
  SHUTDOWN_COMPLETE: 14,
} as const;

export interface Sctp {
  readonly kind: "sctp";
  readonly sourcePort: number;
  readonly destinationPort: number;
  readonly verificationTag?: number;
  /** 0: none (RFC 9653). */
  readonly checksum?: number;
}

export interface Chunk {
  readonly kind: "chunk";
  readonly type: number;
  readonly chunkFlags?: number;
  /** Hex; filled up with zeros to whole words behind it. */
  readonly value?: string;
  /** With the chunk's own header of four bytes. */
  readonly length?: number;
}

const HEADER = 12;
const CHUNK_HEADER = 4;
const CHECKSUM_AT = 8;

function wholeWords(length: number): number {
  return (length + 3) & ~3;
}

/** The CRC over the packet, in which the checksum counts as zero. */
function checksumOf(packet: Uint8Array): number {
  const zeroed = Uint8Array.from(packet);
  zeroed.fill(0, CHECKSUM_AT, HEADER);
  return crc32c(zeroed);
}

export function buildSctp(layer: Sctp, inner: Uint8Array): Uint8Array {
  const packet = Buffer.concat([new Uint8Array(HEADER), inner]);
  packet.writeUInt16BE(layer.sourcePort, 0);
  packet.writeUInt16BE(layer.destinationPort, 2);
  packet.writeUInt32BE(layer.verificationTag ?? 0, 4);
  packet.writeUInt32LE(layer.checksum ?? checksumOf(packet), CHECKSUM_AT);
  return packet;
}

export function buildChunk(layer: Chunk, inner: Uint8Array): Uint8Array {
  const value = Buffer.from(layer.value ?? "", "hex");
  const length = CHUNK_HEADER + value.length;
  const chunk = Buffer.alloc(wholeWords(length));
  chunk.writeUInt8(layer.type, 0);
  chunk.writeUInt8(layer.chunkFlags ?? 0, 1);
  chunk.writeUInt16BE(layer.length ?? length, 2);
  chunk.set(value, CHUNK_HEADER);
  return Buffer.concat([chunk, inner]);
}

/** The first chunk of these bytes, and the bytes behind it; undefined if there is no whole one, filled up with zeros. */
function parseChunk(bytes: Buffer): { chunk: Chunk; rest: Buffer } | undefined {
  if (bytes.length < CHUNK_HEADER) return undefined;
  const length = bytes.readUInt16BE(2);
  const end = wholeWords(length);
  if (length < CHUNK_HEADER || end > bytes.length || bytes.subarray(length, end).some((byte) => byte !== 0)) {
    return undefined;
  }
  const chunkFlags = bytes.readUInt8(1);
  const value = bytes.toString("hex", CHUNK_HEADER, length);
  const chunk: Chunk = {
    kind: "chunk",
    type: bytes.readUInt8(0),
    ...(chunkFlags !== 0 && { chunkFlags }),
    ...(value !== "" && { value }),
  };
  return { chunk, rest: bytes.subarray(end) };
}

/** The header and the chunks, up to the first that is none; `rest` is what is left. */
export function parseSctp(packet: Uint8Array): { layers: (Sctp | Chunk)[]; rest: Uint8Array } | undefined {
  if (packet.length < HEADER) return undefined;
  const bytes = Buffer.from(packet.buffer, packet.byteOffset, packet.byteLength);
  const verificationTag = bytes.readUInt32BE(4);
  const checksum = bytes.readUInt32LE(CHECKSUM_AT);
  const header: Sctp = {
    kind: "sctp",
    sourcePort: bytes.readUInt16BE(0),
    destinationPort: bytes.readUInt16BE(2),
    ...(verificationTag !== 0 && { verificationTag }),
    ...(checksum !== checksumOf(bytes) && { checksum }),
  };
  const layers: (Sctp | Chunk)[] = [header];
  let rest = bytes.subarray(HEADER);
  for (let next = parseChunk(rest); next !== undefined; next = parseChunk(rest)) {
    layers.push(next.chunk);
    rest = next.rest;
  }
  return { layers, rest };
}
