/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */
/*
 * mh, Maglev hashing: the client's address, hashed, names a slot of a ring whose length is a prime, and which changes little when
 * the real servers do. The hash is IPVS's own (ip_vs_mh_hashkey() in net/netfilter/ipvs/ip_vs_mh.c), so with the same ring
 * length both pick alike: SipHash-1-3 of one 32-bit word, cut to 32 bits, under a fixed key.
 */
#ifndef SLUICE_SCHEDULE_MH_H
#define SLUICE_SCHEDULE_MH_H

#include <bpf/bpf_endian.h>
#include "../maps.h"

#define MH_KEY 2654435761ull

static __always_inline __u64 rotate_left(__u64 value, int bits)
{
	return value << bits | value >> (64 - bits);
}

static __always_inline void sip_round(__u64 v[4])
{
	v[0] += v[1];
	v[1] = rotate_left(v[1], 13) ^ v[0];
	v[0] = rotate_left(v[0], 32);
	v[2] += v[3];
	v[3] = rotate_left(v[3], 16) ^ v[2];
	v[0] += v[3];
	v[3] = rotate_left(v[3], 21) ^ v[0];
	v[2] += v[1];
	v[1] = rotate_left(v[1], 17) ^ v[2];
	v[2] = rotate_left(v[2], 32);
}

static __always_inline __u32 mh_hash(__u32 word)
{
	__u64 block = 4ull << 56 | word;
	__u64 v[4] = {
		0x736f6d6570736575 ^ MH_KEY,
		0x646f72616e646f6d ^ MH_KEY,
		0x6c7967656e657261 ^ MH_KEY,
		0x7465646279746573 ^ MH_KEY,
	};

	v[3] ^= block;
	sip_round(v);
	v[0] ^= block;
	v[2] ^= 0xff;
	sip_round(v);
	sip_round(v);
	sip_round(v);
	return v[0] ^ v[1] ^ v[2] ^ v[3];
}

/* Slot of the ring, below `length`, which is not 0. An IPv6 address is folded by xor of its four words, as IPVS folds it. */
static __always_inline __u32 schedule_mh(__u32 service, const struct flow *flow, __u32 length)
{
	const __be32 *words = (const __be32 *)flow->source.bytes;

	(void)service;
	return mh_hash(bpf_ntohl(words[0] ^ words[1] ^ words[2] ^ words[3])) % length;
}

#endif
