/**
 * The Internet checksum (RFC 1071), computed from scratch over whole byte ranges: never updated incrementally, never
 * folded early, so that it has nothing in common with the way the data plane gets its sums.
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
