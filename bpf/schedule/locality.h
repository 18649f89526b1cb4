/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */
/* What the locality-based schedulers share (lblc, lblcr): the memory of which real servers a destination address was
 * given to. */
#ifndef SLUICE_SCHEDULE_LOCALITY_H
#define SLUICE_SCHEDULE_LOCALITY_H

#include "wlc.h"

static __always_inline void destination_key(struct destination_key *key, const struct request *request)
{
	__builtin_memset(key, 0, sizeof(*key));
	key->address = request->flow.destination;
	key->service = request->service;
	key->family = request->flow.family;
}

struct idle_search {
	__u32 chunk;
	__u32 service;
	bool found;
};

static long find_half_idle(__u32 slot, void *context)
{
	struct idle_search *search = context;
	struct candidate other = candidate(ring_slot(search->chunk, slot), search->service);

	search->found = (__u64)other.active * 2 < other.weight;
	return search->found;
}

/*
 * More active connections than its weight, while another real server has less than half of its own (is_overloaded() in
 * ip_vs_lblc.c). Answers 0 or 1.
 */
GLOBAL int is_crowded(const struct request *request, __u32 active, __u32 weight)
{
	if (!request || active <= weight)
		return 0;

	struct idle_search search = { .chunk = request->chunk, .service = request->service };

	bpf_loop(request->length, find_half_idle, &search, 0);
	return search.found;
}

#endif
