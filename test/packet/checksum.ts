/**
 * The Internet checksum (RFC 1071) and SCTP's CRC-32C (RFC 9260), computed from scratch over whole byte ranges: never
 * updated incrementally, never folded early, so that they have nothing in common with the way the data plane gets its
 * sums.
 */

/** The 16-bit one's complement sum of the parts end to end. A last odd byte is the high half of a word (RFC 1071, 1). */
export function onesComplementSum(...parts: readonly Uint8Array[]): number {
  let sum = 0; // at most 65535 for every two bytes: exact in a double for any packet there is
  let high = true;
  for (const part of parts) {
    for (const byte of part) {
      sum += high ? byte * 256 : byte;
      high = !high;
    }
  }
  while (sum > 0xffff) sum = Math.floor(sum / 0x10000) + (sum % 0x10000);
  return sum;
}

/** What belongs in a checksum field that is zero in `parts`. */
export function internetChecksum(...parts: readonly Uint8Array[]): number {
  return 0xffff - onesComplementSum(...parts);
}

/** CRC-32C a bit at a time (RFC 9260, appendix A): the number that an SCTP packet has with its lowest byte first. */
export function crc32c(bytes: Uint8Array): number {
  let remainder = 0xffffffff;
  for (const byte of bytes) {
    remainder ^= byte;
    for (let bit = 0; bit < 8; bit++) remainder = remainder & 1 ? (remainder >>> 1) ^ 0x82f63b78 : remainder >>> 1;
  }
  return ~remainder >>> 0;
}
