/** Addresses as the maps have them: 16 bytes in network order, an IPv4 address in the first four. */
import ipaddr from "ipaddr.js";
import { AddressFamily } from "./sluice.bpf.js";

export interface Address {
  readonly family: AddressFamily;
  readonly bytes: Uint8Array;
}

export const ADDRESS_BYTES = 16;

/** @param text a canonical address, as the model has it */
export function parseAddress(text: string): Address {
  const bytes = new Uint8Array(ADDRESS_BYTES);
  if (text.includes(":")) {
    bytes.set(ipaddr.IPv6.parse(text).toByteArray());
    return { family: AddressFamily.FAMILY_IPV6, bytes };
  }
  const word = parseIpv4(text);
  bytes[0] = word >>> 24;
  bytes[1] = word >>> 16;
  bytes[2] = word >>> 8;
  bytes[3] = word;
  return { family: AddressFamily.FAMILY_IPV4, bytes };
}

/** By hand, as a large configuration has a hundred thousand of them. */
function parseIpv4(text: string): number {
  let word = 0;
  let octet = 0;
  for (let at = 0; at < text.length; at++) {
    const character = text.charCodeAt(at);
    if (character === DOT) {
      word = (word << 8) | octet;
      octet = 0;
    } else {
      octet = octet * 10 + (character - ZERO);
    }
  }
  return ((word << 8) | octet) >>> 0;
}

const DOT = 0x2e;
const ZERO = 0x30;

/** The canonical text; the inverse of parseAddress. */
export function formatAddress({ family, bytes }: Address): string {
  return family === AddressFamily.FAMILY_IPV6
    ? new ipaddr.IPv6([...bytes.subarray(0, ADDRESS_BYTES)]).toRFC5952String()
    : bytes.subarray(0, 4).join(".");
}

/**
 * The 32 bits that IPVS hashes for an address: an IPv4 address itself, the xor of an IPv6 address's four words
 * (ip_vs_mh_hashkey in net/netfilter/ipvs/ip_vs_mh.c), in host order.
 *
 * @param text a canonical address
 */
export function foldAddress(text: string): number {
  if (!text.includes(":")) {
    return parseIpv4(text);
  }
  const words = new DataView(parseAddress(text).bytes.buffer);
  return (words.getUint32(0) ^ words.getUint32(4) ^ words.getUint32(8) ^ words.getUint32(12)) >>> 0;
}

export function isUnspecified(bytes: Uint8Array): boolean {
  return bytes.every((byte) => byte === 0);
}

/** The first `length` bits, of an address of either family. */
export function prefixMask(length: number): Uint8Array {
  return Uint8Array.from(
    { length: ADDRESS_BYTES },
    (_, index) => 0xff00 >> Math.min(8, Math.max(0, length - index * 8)),
  );
}
