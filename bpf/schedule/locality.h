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
	__u32 index = ring_slot(search->chunk, slot);
	const struct real_server *real = bpf_map_lookup_elem(&real_servers, &index);
	const struct real_load *load = bpf_map_lookup_elem(&real_load, &index);

	if (!real || !load || real->state != REAL_ACTIVE || real->service != search->service ||
	    (__u64)load->active * 2 >= real->weight)
		return 0;
	search->found = true;
	return 1;
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
