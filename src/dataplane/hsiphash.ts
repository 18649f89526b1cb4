/**
 * The kernel's hsiphash() of one 32-bit word on a 64-bit machine: SipHash-1-3 with a 128-bit key, of which the low 32
 * bits are returned (lib/siphash.c, hsiphash_1u32). Both halves of each 64-bit lane are kept as 32-bit integers, because
 * BigInt is a hundred times slower and a large configuration hashes several hundred thousand words.
 */

// The constants of SipHash, "somepseudorandomlygeneratedbytes", as [high, low].
const STATE = {
  v0: [0x736f6d65, 0x70736575],
  v1: [0x646f7261, 0x6e646f6d],
  v2: [0x6c796765, 0x6e657261],
  v3: [0x74656462, 0x79746573],
} as const;

/**
 * @param word 32 bits
 * @param key each of the two 64-bit words of the key: ip_vs_mh.c's keys repeat one word, which is below 2^32
 * @returns 32 bits, unsigned
 */
export function hsiphash(word: number, key: number): number {
  // High and low halves of the four lanes, after the key is mixed in.
  let h0: number = STATE.v0[0];
  let l0 = STATE.v0[1] ^ key;
  let h1: number = STATE.v1[0];
  let l1 = STATE.v1[1] ^ key;
  let h2: number = STATE.v2[0];
  let l2 = STATE.v2[1] ^ key;
  let h3: number = STATE.v3[0];
  let l3 = STATE.v3[1] ^ key;

  // The only block: the length in bytes (4) on top, the word below.
  const lengthHigh = 4 << 24;
  h3 ^= lengthHigh;
  l3 ^= word;

  for (let round = 0; round < 4; round++) {
    if (round === 1) {
      // One compression round is done; three finalisation rounds follow.
      h0 ^= lengthHigh;
      l0 ^= word;
      l2 ^= 0xff;
    }
    let low: number;
    let turned: number;
    // v0 += v1; v1 = rol(v1, 13) ^ v0; v0 = rol(v0, 32)
    low = (l0 >>> 0) + (l1 >>> 0);
    h0 = (h0 + h1 + (low > 0xffffffff ? 1 : 0)) | 0;
    l0 = low | 0;
    turned = (h1 << 13) | (l1 >>> 19);
    l1 = ((l1 << 13) | (h1 >>> 19)) ^ l0;
    h1 = turned ^ h0;
    turned = h0;
    h0 = l0;
    l0 = turned;
    // v2 += v3; v3 = rol(v3, 16) ^ v2
    low = (l2 >>> 0) + (l3 >>> 0);
    h2 = (h2 + h3 + (low > 0xffffffff ? 1 : 0)) | 0;
    l2 = low | 0;
    turned = (h3 << 16) | (l3 >>> 16);
    l3 = ((l3 << 16) | (h3 >>> 16)) ^ l2;
    h3 = turned ^ h2;
    // v0 += v3; v3 = rol(v3, 21) ^ v0
    low = (l0 >>> 0) + (l3 >>> 0);
    h0 = (h0 + h3 + (low > 0xffffffff ? 1 : 0)) | 0;
    l0 = low | 0;
    turned = (h3 << 21) | (l3 >>> 11);
    l3 = ((l3 << 21) | (h3 >>> 11)) ^ l0;
    h3 = turned ^ h0;
    // v2 += v1; v1 = rol(v1, 17) ^ v2; v2 = rol(v2, 32)
    low = (l2 >>> 0) + (l1 >>> 0);
    h2 = (h2 + h1 + (low > 0xffffffff ? 1 : 0)) | 0;
    l2 = low | 0;
    turned = (h1 << 17) | (l1 >>> 15);
    l1 = ((l1 << 17) | (h1 >>> 15)) ^ l2;
    h1 = turned ^ h2;
    turned = h2;
    h2 = l2;
    l2 = turned;
  }
  return (l0 ^ l1 ^ l2 ^ l3) >>> 0;
}
