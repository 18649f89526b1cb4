/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */
/*
 * twos, the power of two choices (Mitzenmacher): two real servers at random, each in proportion to its weight; the one with less
 * overhead (connection_overhead()) for its weight wins. The same one may be drawn twice.
 */
#ifndef SLUICE_SCHEDULE_TWOS_H
#define SLUICE_SCHEDULE_TWOS_H

#include "request.h"

struct twos {
	struct walk walk;
	__u64 total; /* weight of all */
	__u64 drawn[2]; /* how much weight goes by before each choice, below the total */
};

static long twos_weigh(__u32 slot, void *context)
{
	struct twos *twos = context;

	twos->total += walk_candidate(&twos->walk, slot).weight;
	return 0;
}

static long twos_consider(__u32 slot, void *context)
{
	struct twos *twos = context;
	struct candidate candidate = walk_candidate(&twos->walk, slot);
	bool chosen = false;

	if (!candidate.weight)
		return 0;
	for (int i = 0; i < 2; i++) {
		/* A choice that is made stays at the total, which no server's weight can reach. */
		if (twos->drawn[i] < candidate.weight) {
			chosen = true;
			twos->drawn[i] = twos->total;
		}
		if (twos->drawn[i] != twos->total)
			twos->drawn[i] -= candidate.weight;
	}
	if (chosen)
		walk_least_weighted(&twos->walk, &candidate, connection_overhead(&candidate));
	return 0;
}

GLOBAL __u32 schedule_twos(const struct request *request)
{
	if (!request)
		return NO_REAL;

	struct twos twos = {};

	walk_begin(&twos.walk, request);
	bpf_loop(request->length, twos_weigh, &twos, 0);
	if (!twos.total)
		return NO_REAL;
	twos.drawn[0] = bpf_get_prandom_u32() % twos.total;
	twos.drawn[1] = bpf_get_prandom_u32() % twos.total;
	bpf_loop(request->length, twos_consider, &twos, 0);
	return twos.walk.best.real;
}

#endif
