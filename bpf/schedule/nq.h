/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */
/* nq, never queue: the first real server without an active connection; where each has one, as sed. */
#ifndef SLUICE_SCHEDULE_NQ_H
#define SLUICE_SCHEDULE_NQ_H

#include "request.h"

static long nq_consider(__u32 slot, void *context)
{
	struct walk *walk = context;
	struct candidate candidate = walk_candidate(walk, slot);

	if (!candidate.weight)
		return 0;
	if (!candidate.active) {
		walk->best = candidate;
		return 1;
	}
	walk_least_weighted(walk, &candidate, (__u64)candidate.active + 1);
	return 0;
}

GLOBAL __u32 schedule_nq(const struct request *request)
{
	if (!request)
		return NO_REAL;

	struct walk walk;

	walk_begin(&walk, request);
	bpf_loop(request->length, nq_consider, &walk, 0);
	return walk.best.real;
}

#endif
