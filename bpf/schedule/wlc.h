/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */
/* wlc, weighted least connection: the real server with the least overhead (connection_overhead()) for its weight. Ties:
 * the first. */
#ifndef SLUICE_SCHEDULE_WLC_H
#define SLUICE_SCHEDULE_WLC_H

#include "request.h"

static long wlc_consider(__u32 slot, void *context)
{
	struct walk *walk = context;
	struct candidate candidate = walk_candidate(walk, slot);

	if (candidate.weight)
		walk_least_weighted(walk, &candidate, connection_overhead(&candidate));
	return 0;
}

GLOBAL __u32 schedule_wlc(const struct request *request)
{
	if (!request)
		return NO_REAL;

	struct walk walk;

	walk_begin(&walk, request);
	bpf_loop(request->length, wlc_consider, &walk, 0);
	return walk.best.real;
}

#endif
