/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */
/*
 * lblc, locality-based least connection: a destination address keeps its real server until that is quiesced or crowded
 * (is_crowded()); then, and at first, wlc picks one. For services that stand for many addresses, caches mostly.
 */
#ifndef SLUICE_SCHEDULE_LBLC_H
#define SLUICE_SCHEDULE_LBLC_H

#include "locality.h"

GLOBAL __u32 schedule_lblc(const struct request *request)
{
	if (!request)
		return NO_REAL;

	struct destination_key key;
	struct destination *known, new = { .count = 1 };

	destination_key(&key, request);
	known = bpf_map_lookup_elem(&destinations, &key);
	if (known) {
		/* Overloaded or not, as with IPVS. */
		__u32 kept = known->servers[0];
		const struct real_server *real = bpf_map_lookup_elem(&real_servers, &kept);
		const struct real_load *load = bpf_map_lookup_elem(&real_load, &kept);

		if (real && load && real->state == REAL_ACTIVE && real->service == request->service && real->weight &&
		    !is_crowded(request, load->active, real->weight))
			return kept;
	}
	new.servers[0] = schedule_wlc(request);
	if (new.servers[0] != NO_REAL)
		bpf_map_update_elem(&destinations, &key, &new, BPF_ANY);
	return new.servers[0];
}

#endif
