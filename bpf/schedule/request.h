/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */
/*
 * What the schedulers share. Each is one function of the same signature, that returns the index of a real server or
 * NO_REAL. The caller refuses one whose weight is 0 or that is not in service any more; those that may not take one
 * that is overloaded see to that themselves.
 *
 * Those that compare the real servers as they are now (lc, wlc, sed, nq, fo, ovf, twos, lblc, lblcr) walk through all
 * of them once, two cache lines each, and no lock. So opening a connection costs them time in proportion to the number
 * of real servers; the others cost the same for any number.
 */
#ifndef SLUICE_SCHEDULE_REQUEST_H
#define SLUICE_SCHEDULE_REQUEST_H

#include <bpf/bpf_endian.h>
#include "../load.h"

#define NO_REAL 0xffffffffu

/* A new connection that wants a real server. */
struct request {
	struct flow flow;
	__u32 service; /* index into services */
	__u32 chunk; /* the service's ring */
	__u32 length; /* its slots; not 0 */
	enum scheduler_flag flags;
	__u8 pad[3];
};

/* What is in slot `slot` of the ring that begins at `chunk`. The slot is below the ring's length. */
static __always_inline __u32 ring_slot(__u32 chunk, __u32 slot)
{
	const struct ring_chunk *found;

	chunk += slot / RING_CHUNK_SLOTS;
	found = bpf_map_lookup_elem(&rings, &chunk);
	return found ? found->slots[slot % RING_CHUNK_SLOTS] : NO_REAL;
}

/* A real server as a scheduler sees it. */
struct candidate {
	__u32 real; /* index into real_servers, or NO_REAL */
	__u32 weight; /* 0: quiesced, and also where it is not in service or takes no more connections */
	__u32 active;
	__u32 inactive;
};

static __always_inline struct candidate candidate(__u32 index, __u32 service)
{
	struct candidate result = { .real = index };
	const struct real_server *real = bpf_map_lookup_elem(&real_servers, &index);
	const struct real_load *load = bpf_map_lookup_elem(&real_load, &index);

	if (!real || !load || real->state != REAL_ACTIVE || real->service != service)
		return result;
	result.weight = is_overloaded(load) ? 0 : real->weight;
	result.active = load->active;
	result.inactive = load->inactive;
	return result;
}

static __always_inline bool is_available(__u32 index, __u32 service)
{
	const struct real_server *real = bpf_map_lookup_elem(&real_servers, &index);
	const struct real_load *load = bpf_map_lookup_elem(&real_load, &index);

	return real && load && real->state == REAL_ACTIVE && real->service == service && real->weight &&
	       !is_overloaded(load);
}

/* What lc and wlc compare: an active connection counts as 256 inactive ones (ip_vs_dest_conn_overhead() in
 * include/net/ip_vs.h). */
static __always_inline __u64 connection_overhead(const struct candidate *candidate)
{
	return ((__u64)candidate->active << 8) + candidate->inactive;
}

/* The walk of a live scheduler over a ring, and the best real server so far. */
struct walk {
	__u32 chunk;
	__u32 service;
	struct candidate best;
	__u64 overhead; /* of the best */
};

static __always_inline void walk_begin(struct walk *walk, const struct request *request)
{
	walk->chunk = request->chunk;
	walk->service = request->service;
	walk->best = (struct candidate){ .real = NO_REAL };
	walk->overhead = 0;
}

/* Takes `candidate` if it is the first, or has less overhead for its weight than the best: ties go to who comes first.
 */
static __always_inline void walk_least_weighted(struct walk *walk, const struct candidate *candidate, __u64 overhead)
{
	if (walk->best.real != NO_REAL && walk->overhead * candidate->weight <= overhead * walk->best.weight)
		return;
	walk->best = *candidate;
	walk->overhead = overhead;
}

static __always_inline struct candidate walk_candidate(const struct walk *walk, __u32 slot)
{
	return candidate(ring_slot(walk->chunk, slot), walk->service);
}

/* An address as the hashes of IPVS take it: IPv6 folded by xor of its four words. Host's byte order. */
static __always_inline __u32 folded(const struct address *address)
{
	const __be32 *words = (const __be32 *)address->bytes;

	return bpf_ntohl(words[0] ^ words[1] ^ words[2] ^ words[3]);
}

#endif
