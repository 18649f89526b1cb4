/**
 * SipHash-c-d (Aumasson and Bernstein, 2012) as the paper words it, over bytes and in big integers: slow, and written
 * without a look at the data plane's or the control plane's.
 */
const MASK = 0xffffffffffffffffn;

function rotate(value: bigint, bits: bigint): bigint {
  return ((value << bits) | (value >> (64n - bits))) & MASK;
}

export function sipHash(
  compressions: number,
  finalisations: number,
  key: readonly [bigint, bigint],
  data: Uint8Array,
): bigint {
  let [v0, v1, v2, v3] = [
    key[0] ^ 0x736f6d6570736575n,
    key[1] ^ 0x646f72616e646f6dn,
    key[0] ^ 0x6c7967656e657261n,
    key[1] ^ 0x7465646279746573n,
  ];
  const rounds = (count: number): void => {
    for (let round = 0; round < count; round++) {
      v0 = (v0 + v1) & MASK;
      v1 = rotate(v1, 13n) ^ v0;
      v0 = rotate(v0, 32n);
      v2 = (v2 + v3) & MASK;
      v3 = rotate(v3, 16n) ^ v2;
      v0 = (v0 + v3) & MASK;
      v3 = rotate(v3, 21n) ^ v0;
      v2 = (v2 + v1) & MASK;
      v1 = rotate(v1, 17n) ^ v2;
      v2 = rotate(v2, 32n);
    }
  };
  // Little-endian words; the last one is filled up with zeros and has the length in its top byte.
  const whole = new Uint8Array(Math.floor(data.length / 8) * 8 + 8);
  whole.set(data);
  whole[whole.length - 1] = data.length & 0xff;
  const words = new DataView(whole.buffer);
  for (let at = 0; at < whole.length; at += 8) {
    const word = words.getBigUint64(at, true);
    v3 ^= word;
    rounds(compressions);
    v0 ^= word;
  }
  v2 ^= 0xffn;
  rounds(finalisations);
  return v0 ^ v1 ^ v2 ^ v3;
}

/** Which slot of an mh ring a client gets: ip_vs_mh_hashkey() without mh-port, for a ring of `length` slots. */
export function mhSlot(client: Uint8Array, length: number): number {
  const key = 2654435761n; // ip_vs_mh_init_svc()'s hash1: both halves of the key
  const word = Uint8Array.from(client).reverse(); // the address as a number, little-endian in memory
  return Number(sipHash(1, 3, [key, key], word) & 0xffffffffn) % length;
}
