/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */
/* fo, weighted failover: all to the real server with the highest weight. Ties: the first. */
#ifndef SLUICE_SCHEDULE_FO_H
#define SLUICE_SCHEDULE_FO_H

#include "request.h"

static long fo_consider(__u32 slot, void *context)
{
	struct walk *walk = context;
	struct candidate candidate = walk_candidate(walk, slot);

	if (candidate.weight > walk->best.weight)
		walk->best = candidate;
	return 0;
}

GLOBAL __u32 schedule_fo(const struct request *request)
{
	if (!request)
		return NO_REAL;

	struct walk walk;

	walk_begin(&walk, request);
	bpf_loop(request->length, fo_consider, &walk, 0);
	return walk.best.real;
}

#endif
