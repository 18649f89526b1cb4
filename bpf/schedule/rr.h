/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */
/*
 * rr, round robin: each new connection goes to the next real server of the ring. The ring holds every server with a weight above
 * 0 once. One atomic cursor a service serves all processors; when the ring changes, the cursor goes on.
 */
#ifndef SLUICE_SCHEDULE_RR_H
#define SLUICE_SCHEDULE_RR_H

#include "../maps.h"

/* Slot of the ring, below `length`, which is not 0. */
static __always_inline __u32 schedule_rr(__u32 service, const struct flow *flow, __u32 length)
{
	struct cursor *cursor = bpf_map_lookup_elem(&cursors, &service);

	(void)flow;
	return cursor ? __sync_fetch_and_add(&cursor->next, 1) % length : 0;
}

#endif
