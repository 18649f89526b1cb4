/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */
/*
 * rr, round robin: each new connection goes to the next real server of the ring. The ring holds every server with a
 * weight above 0 once. One atomic cursor a service serves all processors; when the ring changes, the cursor goes on.
 */
#ifndef SLUICE_SCHEDULE_RR_H
#define SLUICE_SCHEDULE_RR_H

#include "request.h"

static __always_inline __u32 schedule_rr(const struct request *request)
{
	__u32 service = request->service;
	struct cursor *cursor = bpf_map_lookup_elem(&cursors, &service);

	return cursor ? ring_slot(request->chunk, __sync_fetch_and_add(&cursor->next, 1) % request->length) : NO_REAL;
}

#endif
