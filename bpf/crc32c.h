/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */
/*
 * SCTP's checksum (RFC 9260, appendix A: CRC-32C over the packet, the checksum itself taken as zero), changed in step
 * with the ports. There is no pseudo header, so addresses do not matter.
 *
 * A CRC is linear: the difference of two packets' sums is the sum, begun and ended with 0, of their difference. Here
 * that is the first word of the packet, with nothing but zeros behind it, so it comes to one product of polynomials:
 * the ports' difference times x to the packet's length in bits. Powers of x come from a table, so the time does not
 * grow with the packet. What is right stays right, and what is wrong stays wrong by the same bits.
 */
#ifndef SLUICE_CRC32C_H
#define SLUICE_CRC32C_H

#include <linux/types.h>
#include <bpf/bpf_helpers.h>
#include "crc32c_tables.h"
#include "maps.h"

/*
 * The product of two polynomials over GF(2), which have no carries, by integer multiplication: of each factor only
 * every fourth bit is taken at a time, at most eight of them, so that no sum of products reaches beyond the four bits
 * of its place, and its lowest bit is the sum without carries.
 */
static __always_inline __u64 carryless_product(__u32 a, __u32 b)
{
	__u64 product = 0;

	for (__u32 lane = 0; lane < 4; lane++) {
		__u64 sum = 0;

		for (__u32 i = 0; i < 4; i++)
			sum ^= (__u64)(a & 0x11111111u << i) * (b & 0x11111111u << ((lane - i) & 3));
		product |= sum & 0x1111111111111111ull << lane;
	}
	return product;
}

/* The product modulo CRC-32C's polynomial. Bit 31 of a factor is x^0, and bit 0 is x^31. */
static __always_inline __u32 crc32c_product(__u32 a, __u32 b)
{
	__u64 product = carryless_product(a, b) << 1; /* bit 63 is x^0 */
	__u32 remainder = product >> 32;

	for (__u32 place = 0; place < 8; place++)
		remainder ^= crc32c_nibbles[place][product >> 4 * place & 15];
	return remainder;
}

/* SCTP goes against the network's byte order here. */
static __always_inline __u32 crc32c_word(__u32 in_memory)
{
#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
	return in_memory;
#else
	return __builtin_bswap32(in_memory);
#endif
}

/*
 * What is to be added (exclusive or) to a checksum, when a word changes by `difference` that begins `length` bytes
 * before the packet's end, 4 to 65535 of them; both as they lie in memory. Some 16 ns below 2048 bytes in whole words,
 * as all but jumbo packets of SCTP are, and 25 ns otherwise, with the call; measured where swapping two MACs takes 28.
 */
GLOBAL __u32 crc32c_change(__u32 difference, __u32 length)
{
	__u32 rest = (length >> 11 & 31) << 2 | (length & 3);
	__u32 change = crc32c_product(crc32c_word(difference), crc32c_words[length >> 2 & 511]);

	if (rest) {
		barrier_var(rest); /* bounded where it is used: the verifier forgets a bound that was spilled */
		change = crc32c_product(change, crc32c_rests[rest & 127]);
	}
	return crc32c_word(change);
}

#endif
