/**
 * Flows for the prelude: which 5-tuples its packets have, by the million, so kept in columns and not as objects.
 */
import type { Codec } from "libbpf-ts";
import { onesComplementSum } from "../packet/checksum.js";

/** Host byte order throughout. All columns have the same length. */
export interface Flows {
  readonly source: Uint32Array;
  readonly destination: Uint32Array;
  readonly sourcePort: Uint16Array;
  readonly destinationPort: Uint16Array;
}

export function emptyFlows(count: number): Flows {
  return {
    source: new Uint32Array(count),
    destination: new Uint32Array(count),
    sourcePort: new Uint16Array(count),
    destinationPort: new Uint16Array(count),
  };
}

/** A generator of the same numbers in every run (xorshift32): a function that gives integers of 0..below-1. */
export function randomIntegers(seed: number): (below: number) => number {
  let state = seed | 1;
  return (below) => {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    return Math.floor(((state >>> 0) / 0x1_0000_0000) * below);
  };
}

/**
 * `count` different clients of one service in random order, so that a walk through them touches memory as traffic does.
 * Clients are of 198.18.0.0/15 (RFC 2544, for benchmarks), at most 2^32.
 */
export function clientFlows(count: number, destination: number, destinationPort: number, seed = 1): Flows {
  const flows = emptyFlows(count);
  for (let i = 0; i < count; i++) {
    const mixed = Math.imul(i, 0x9e3779b1) >>> 0; // odd, so every number has its own
    flows.source[i] = 0xc612_0000 + (mixed >>> 15);
    flows.sourcePort[i] = 0x8000 | (mixed & 0x7fff);
  }
  flows.destination.fill(destination);
  flows.destinationPort.fill(destinationPort);
  shuffle(flows, seed);
  return flows;
}

/** Fisher and Yates, in place. */
export function shuffle(flows: Flows, seed: number): void {
  const random = randomIntegers(seed);
  for (let i = flows.source.length - 1; i > 0; i--) {
    const other = random(i + 1);
    for (const column of [flows.source, flows.destination, flows.sourcePort, flows.destinationPort]) {
      const held = column[i] ?? 0;
      column[i] = column[other] ?? 0;
      column[other] = held;
    }
  }
}

/** Every `step`th flow. */
export function everyNth(flows: Flows, step: number): Flows {
  const some = <A extends Uint32Array | Uint16Array>(column: A): A => column.filter((_, i) => i % step === 0) as A;
  return {
    source: some(flows.source),
    destination: some(flows.destination),
    sourcePort: some(flows.sourcePort),
    destinationPort: some(flows.destinationPort),
  };
}

const ETHERNET = 14;
const IPV4 = 20;
const TRANSPORT = ETHERNET + IPV4;
const PROTOCOL_TCP = 6;
const PROTOCOL_UDP = 17;

/** The sums of a frame's headers without what differs between flows. */
function sumsWithoutFlow(frame: Uint8Array): { ip: number; transport: number; protocol: number } {
  const view = new DataView(frame.buffer, frame.byteOffset, frame.byteLength);
  if (view.getUint16(12) !== 0x0800 || view.getUint8(ETHERNET) !== 0x45) {
    throw new TypeError("the prelude's frames are IPv4 without options");
  }
  const ip = frame.slice(ETHERNET, TRANSPORT);
  ip.fill(0, 10, 20); // checksum and addresses
  const protocol = view.getUint8(ETHERNET + 9);
  const transport = frame.slice(TRANSPORT, ETHERNET + view.getUint16(ETHERNET + 2));
  const pseudo = Uint8Array.of(0, protocol, transport.length >> 8, transport.length & 0xff);
  if (protocol === PROTOCOL_TCP) {
    transport.fill(0, 0, 4);
    transport.fill(0, 16, 18);
  } else if (protocol === PROTOCOL_UDP) {
    transport.fill(0, 0, 4);
    transport.fill(0, 6, 8);
  }
  return { ip: onesComplementSum(ip), transport: onesComplementSum(pseudo, transport), protocol };
}

function checksumOf(sum: number): number {
  const folded = (sum & 0xffff) + (sum >>> 16);
  return ~(folded + (folded >>> 16)) & 0xffff;
}

/** Writes the flows as elements of prelude_flows, with the checksums that `frame`'s headers have with each of them. */
export function encodeFlows(flows: Flows, frame: Uint8Array, codec: Codec<unknown>, into: Uint8Array): void {
  const sums = sumsWithoutFlow(frame);
  const view = new DataView(into.buffer, into.byteOffset, into.byteLength);
  const addressesAt = codec.offsetOf("addresses");
  const portsAt = codec.offsetOf("ports");
  const ipChecksumAt = codec.offsetOf("ip_checksum");
  const checksumAt = codec.offsetOf("checksum");
  for (let i = 0; i < flows.source.length; i++) {
    const at = i * codec.size;
    const source = flows.source[i] ?? 0;
    const destination = flows.destination[i] ?? 0;
    const sourcePort = flows.sourcePort[i] ?? 0;
    const destinationPort = flows.destinationPort[i] ?? 0;
    const addresses = (source >>> 16) + (source & 0xffff) + (destination >>> 16) + (destination & 0xffff);
    view.setUint32(at + addressesAt, source);
    view.setUint32(at + addressesAt + 4, destination);
    view.setUint16(at + portsAt, sourcePort);
    view.setUint16(at + portsAt + 2, destinationPort);
    view.setUint16(at + ipChecksumAt, checksumOf(sums.ip + addresses));
    const checksum = checksumOf(sums.transport + addresses + sourcePort + destinationPort);
    // RFC 768: a UDP sum of 0 is sent as 0xffff.
    view.setUint16(at + checksumAt, checksum === 0 && sums.protocol === PROTOCOL_UDP ? 0xffff : checksum);
  }
}
