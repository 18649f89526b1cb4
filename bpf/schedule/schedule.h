/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */
/* Picking a real server for a new connection: the service's scheduler names a slot of its ring, the slot names the server. */
#ifndef SLUICE_SCHEDULE_H
#define SLUICE_SCHEDULE_H

#include "mh.h"
#include "rr.h"
#include "wrr.h"

#define NO_REAL 0xffffffffu

/* Index into real_servers, or NO_REAL. */
static __always_inline __u32 schedule(const struct service *service, __u32 index, const struct flow *flow)
{
	/* One load of the whole word: chunk and length belong together. */
	__u64 word = *(volatile const __u64 *)&service->ring;
	__u32 chunk = word, length = word >> 32, slot;
	const struct ring_chunk *found;

	if (!length)
		return NO_REAL;
	switch (service->scheduler) {
	case SCHEDULER_RR:
		slot = schedule_rr(index, flow, length);
		break;
	case SCHEDULER_WRR:
		slot = schedule_wrr(index, flow, length);
		break;
	case SCHEDULER_MH:
		slot = schedule_mh(index, flow, length);
		break;
	default:
		return NO_REAL;
	}
	chunk += slot / RING_CHUNK_SLOTS;
	found = bpf_map_lookup_elem(&rings, &chunk);
	return found ? found->slots[slot % RING_CHUNK_SLOTS] : NO_REAL;
}

#endif
