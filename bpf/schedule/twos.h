/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */
/*
 * twos, the power of two choices (Mitzenmacher): two real servers are drawn at random, each in proportion to its
 * weight. The one with less overhead (connection_overhead()) for its weight wins, the first drawn where both have the
 * same. The same one may be drawn twice.
 */
#ifndef SLUICE_SCHEDULE_TWOS_H
#define SLUICE_SCHEDULE_TWOS_H

#include "request.h"

struct twos {
	struct walk walk;
	__u32 total; /* weight of all; 65,536 servers of 65,535 each have less than 2^32 */
	__u32 drawn[2]; /* how much weight goes by before each choice is met; TWOS_CHOSEN when it has been */
	struct candidate chosen[2];
};

#define TWOS_CHOSEN (~0u)

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

	for (int i = 0; i < 2; i++) {
		if (twos->drawn[i] == TWOS_CHOSEN)
			continue;
		if (twos->drawn[i] < candidate.weight) {
			twos->chosen[i] = candidate;
			twos->drawn[i] = TWOS_CHOSEN;
		} else {
			twos->drawn[i] -= candidate.weight;
		}
	}
	return twos->drawn[0] == TWOS_CHOSEN && twos->drawn[1] == TWOS_CHOSEN;
}

GLOBAL __u32 schedule_twos(const struct request *request)
{
	struct twos twos = {};

	if (!request)
		return NO_REAL;
	walk_begin(&twos.walk, request);
	bpf_loop(request->length, twos_weigh, &twos, 0);
	if (!twos.total)
		return NO_REAL;
	twos.drawn[0] = bpf_get_prandom_u32() % twos.total;
	twos.drawn[1] = bpf_get_prandom_u32() % twos.total;
	twos.chosen[0].real = twos.chosen[1].real = NO_REAL;
	bpf_loop(request->length, twos_consider, &twos, 0);
	if (twos.chosen[1].real != NO_REAL && connection_overhead(&twos.chosen[1]) * twos.chosen[0].weight <
						      connection_overhead(&twos.chosen[0]) * twos.chosen[1].weight)
		return twos.chosen[1].real;
	return twos.chosen[0].real;
}

#endif
