/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */
/*
 * rr, round robin: each new connection goes to the next real server of the ring. The ring holds every server with a
 * weight above 0 once. One atomic cursor a service serves all processors; when the ring changes, the cursor goes on.
 * One that is overloaded is passed over.
 */
#ifndef SLUICE_SCHEDULE_RR_H
#define SLUICE_SCHEDULE_RR_H

#include "request.h"

struct turns {
	__u32 chunk;
	__u32 length;
	__u32 service;
	__u32 real;
};

static long rr_turn(__u32 attempt, void *context)
{
	struct turns *turns = context;
	__u32 service = turns->service;
	struct cursor *cursor = bpf_map_lookup_elem(&cursors, &service);

	__u32 real;

	(void)attempt;
	if (!cursor || !turns->length)
		return 1;
	real = ring_slot(turns->chunk, __sync_fetch_and_add(&cursor->next, 1) % turns->length);
	if (!is_available(real, turns->service))
		return 0;
	turns->real = real;
	return 1;
}

GLOBAL __u32 schedule_rr(const struct request *request)
{
	struct turns turns;

	if (!request)
		return NO_REAL;
	turns.chunk = request->chunk;
	turns.length = request->length;
	turns.service = request->service;
	turns.real = NO_REAL;
	if (rr_turn(0, &turns))
		return turns.real;
	bpf_loop(request->length, rr_turn, &turns, 0);
	return turns.real;
}

#endif
