/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */
/*
 * ovf, overflow: all to the real server with the highest weight that has no more active connections than its weight;
 * the next one fills when it has (so each takes one more than its weight, as with IPVS). None where all are full. Ties:
 * the first.
 */
#ifndef SLUICE_SCHEDULE_OVF_H
#define SLUICE_SCHEDULE_OVF_H

#include "request.h"

static long ovf_consider(__u32 slot, void *context)
{
	struct walk *walk = context;
	struct candidate candidate = walk_candidate(walk, slot);

	if (candidate.active <= candidate.weight && candidate.weight > walk->best.weight)
		walk->best = candidate;
	return 0;
}

GLOBAL __u32 schedule_ovf(const struct request *request)
{
	if (!request)
		return NO_REAL;

	struct walk walk;

	walk_begin(&walk, request);
	bpf_loop(request->length, ovf_consider, &walk, 0);
	return walk.best.real;
}

#endif
