/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */
/*
 * sed, shortest expected delay: the real server with the least (active + 1) / weight, that is, as if the new connection
 * were there already. Ties: the first.
 */
#ifndef SLUICE_SCHEDULE_SED_H
#define SLUICE_SCHEDULE_SED_H

#include "request.h"

static long sed_consider(__u32 slot, void *context)
{
	struct walk *walk = context;
	struct candidate candidate = walk_candidate(walk, slot);

	if (candidate.weight)
		walk_least_weighted(walk, &candidate, (__u64)candidate.active + 1);
	return 0;
}

GLOBAL __u32 schedule_sed(const struct request *request)
{
	if (!request)
		return NO_REAL;

	struct walk walk;

	walk_begin(&walk, request);
	bpf_loop(request->length, sed_consider, &walk, 0);
	return walk.best.real;
}

#endif
