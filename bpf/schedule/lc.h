/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */
/* lc, least connection: the real server with the least overhead (connection_overhead()), whatever its weight above 0.
 * Ties: the first. */
#ifndef SLUICE_SCHEDULE_LC_H
#define SLUICE_SCHEDULE_LC_H

#include "request.h"

static long lc_consider(__u32 slot, void *context)
{
	struct walk *walk = context;
	struct candidate candidate = walk_candidate(walk, slot);
	__u64 overhead = connection_overhead(&candidate);

	if (candidate.weight && (walk->best.real == NO_REAL || overhead < walk->overhead)) {
		walk->best = candidate;
		walk->overhead = overhead;
	}
	return 0;
}

GLOBAL __u32 schedule_lc(const struct request *request)
{
	if (!request)
		return NO_REAL;

	struct walk walk;

	walk_begin(&walk, request);
	bpf_loop(request->length, lc_consider, &walk, 0);
	return walk.best.real;
}

#endif
