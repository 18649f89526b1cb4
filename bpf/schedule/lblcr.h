/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */
/*
 * lblcr, lblc with replication: a destination address has a set of real servers, and goes to the one of them with the
 * least overhead for its weight. When that one is crowded (is_crowded()), wlc picks one of all, which joins the set. A
 * set of several that did not change for a day loses its most loaded member. A set has at most DESTINATION_SERVERS; the
 * oldest leaves for a new one.
 *
 * Two processors that change one set at once may lose one of the changes: it is a memory of preferences, no more.
 */
#ifndef SLUICE_SCHEDULE_LBLCR_H
#define SLUICE_SCHEDULE_LBLCR_H

#include "../clock.h"
#include "locality.h"

/* IPVS's lblcr_expiration: 24 hours. */
#define LBLCR_EXPIRATION_TICKS ((__u32)(24ull * 3600 * 1000000000 >> TICK_SHIFT))

/* The walk through a set: its least and its most loaded member that are in service. */
struct replicas {
	const struct destination *set;
	struct walk least;
	__u64 most_overhead;
	__u32 most_weight; /* 0: none */
	__u32 most_position;
};

static long lblcr_consider(__u32 position, void *context)
{
	struct replicas *replicas = context;
	const struct destination *set = replicas->set;
	struct candidate member;
	__u64 overhead;

	barrier_var(position);
	if (position >= DESTINATION_SERVERS || !set)
		return 1;
	member = candidate(set->servers[position], replicas->least.service);
	overhead = connection_overhead(&member);
	if (!member.weight)
		return 0;
	walk_least_weighted(&replicas->least, &member, overhead);
	if (!replicas->most_weight || replicas->most_overhead * member.weight < overhead * replicas->most_weight) {
		replicas->most_weight = member.weight;
		replicas->most_overhead = overhead;
		replicas->most_position = position;
	}
	return 0;
}

/* Puts `real` at the head, unless it is a member; the last of a full set goes. */
static __always_inline void set_add(struct destination *set, __u32 real)
{
	for (__u32 i = 0; i < DESTINATION_SERVERS; i++)
		if (i < set->count && set->servers[i] == real)
			return;
	for (__u32 i = DESTINATION_SERVERS - 1; i > 0; i--)
		set->servers[i] = set->servers[i - 1];
	set->servers[0] = real;
	if (set->count < DESTINATION_SERVERS)
		set->count++;
	set->modified = tick_now();
}

static __always_inline void set_remove(struct destination *set, __u32 position)
{
	for (__u32 i = 0; i + 1 < DESTINATION_SERVERS; i++)
		if (i >= position)
			set->servers[i] = set->servers[i + 1];
	set->count--;
	set->modified = tick_now();
}

static const struct destination no_servers;

GLOBAL __u32 schedule_lblcr(const struct request *request)
{
	struct replicas replicas = {};
	struct destination_key key;
	struct destination *set;
	__u32 real;

	if (!request)
		return NO_REAL;
	destination_key(&key, request);
	set = bpf_map_lookup_elem(&destinations, &key);
	if (!set) {
		bpf_map_update_elem(&destinations, &key, &no_servers, BPF_NOEXIST);
		set = bpf_map_lookup_elem(&destinations, &key);
	}
	if (!set)
		return schedule_wlc(request);
	replicas.set = set;
	walk_begin(&replicas.least, request);
	bpf_loop(set->count, lblcr_consider, &replicas, 0);
	if (set->count > 1 && replicas.most_weight && tick_now() - set->modified > LBLCR_EXPIRATION_TICKS)
		set_remove(set, replicas.most_position);
	if (replicas.least.best.real != NO_REAL &&
	    !is_crowded(request, replicas.least.best.active, replicas.least.best.weight))
		return replicas.least.best.real;
	real = schedule_wlc(request);
	if (real != NO_REAL)
		set_add(set, real);
	return real;
}

#endif
