/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */
/*
 * mh, Maglev hashing: the client's address, hashed, names a slot of a table whose length is a prime, and which changes
 * little when the real servers do. The hash is IPVS's own (ip_vs_mh_hashkey() in net/netfilter/ipvs/ip_vs_mh.c), so
 * with the same table length both pick alike: SipHash-1-3 of one 32-bit word, cut to 32 bits, under a fixed key.
 */
#ifndef SLUICE_SCHEDULE_MH_H
#define SLUICE_SCHEDULE_MH_H

#include "table.h"

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

static long mh_try(__u32 attempt, void *context)
{
	struct fallback *fallback = context;
	__u32 offset = ((__u64)attempt + fallback->first) % fallback->length;
	__u32 real = ring_slot(fallback->chunk, mh_hash(fallback->word + offset) % fallback->length);

	if (!is_available(real, fallback->service))
		return 0;
	fallback->real = real;
	return 1;
}

GLOBAL __u32 schedule_mh(const struct request *request)
{
	struct fallback fallback;
	__u32 real;

	if (!request)
		return NO_REAL;
	fallback_begin(&fallback, request);
	fallback.first = mh_hash(fallback.word) % request->length;
	real = ring_slot(request->chunk, fallback.first);
	if (is_available(real, request->service))
		return real;
	if (!(request->flags & SCHEDULER_FALLBACK))
		return NO_REAL;
	bpf_loop(request->length, mh_try, &fallback, 0);
	return fallback.real;
}

#endif
