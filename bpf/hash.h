/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */
/* Where in the connection table a flow belongs. */
#ifndef SLUICE_HASH_H
#define SLUICE_HASH_H

#include "maps.h"
#include "packet.h"

/*
 * NH, the universal hash of UMAC (RFC 4418, section 5.2), keyed with the load's seed: two flows collide with a chance
 * of 2^-32 whoever chooses them, so nobody outside can aim at one bucket. One multiplication for IPv4's four words in
 * pairs, then a mixer, since buckets and tags are cut from the sum.
 */
static __always_inline __u64 nh(const struct flow *flow, int left, int right, __u64 key)
{
	const word32 *words = (const word32 *)flow;

	return (__u64)(__u32)(words[left] + (__u32)key) * (__u32)(words[right] + (__u32)(key >> 32));
}

static __always_inline __u64 mix(__u64 hash)
{
	hash ^= hash >> 32;
	hash *= 0x9fb21c651e98df25;
	hash ^= hash >> 28;
	return hash;
}

static __always_inline __u64 flow_hash(const struct flow *flow)
{
	/* Words: 0-3 source, 4-7 destination, 8 ports, 9 protocol, family and kind. */
	__u64 hash = nh(flow, 0, 4, hash_seed[0]) + nh(flow, 8, 9, hash_seed[1]);

	if (flow->family == FAMILY_IPV6)
		hash += nh(flow, 1, 5, hash_seed[2]) + nh(flow, 2, 6, hash_seed[3]) + nh(flow, 3, 7, hash_seed[4]);
	return mix(hash);
}

static __always_inline __u32 first_bucket(__u64 hash)
{
	return (hash >> 32) * connection_buckets >> 32;
}

/* Another bucket than the first; there are at least two. */
static __always_inline __u32 second_bucket(__u64 hash)
{
	__u32 second = (mix(hash ^ hash_seed[5]) >> 32) * (connection_buckets - 1) >> 32;

	return second + (second >= first_bucket(hash));
}

static __always_inline __u16 flow_tag(__u64 hash)
{
	return (__u16)hash ? (__u16)hash : 1;
}

/*
 * The slot that a flow takes if it is free; else its neighbour (slot ^ 1), else any. The two are looked into before the
 * bucket's tags. So an established flow waits for one cache line of the table; at the configured capacity about four of
 * five do, by calculation.
 */
static __always_inline __u32 preferred_slot(__u64 hash)
{
	return hash >> 16 & (BUCKET_SLOTS - 1);
}

#endif
