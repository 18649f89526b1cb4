/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */
/*
 * Program sweep: takes what is expired out of a slice of the connection table. Nothing depends on it but memory and
 * counts: the packet's way treats what is expired as absent. See struct sweep_request for how it is run.
 */
#ifndef SLUICE_SWEEP_H
#define SLUICE_SWEEP_H

#include "remove.h"

/* A template that has outlived its time, because connections name it, gets a minute more each time (ip_vs_conn_expire()
 * in net/netfilter/ipvs/ip_vs_conn.c). */
#define TEMPLATE_STEP_TICKS ((__u32)(60ull * 1000000000 >> TICK_SHIFT))

/*
 * How long the sweep takes a reverse entry's word for it that its connection is there, where it has seen that each of
 * the two names the other. Who removes either of such two removes both, so this is for memory alone: to look at the
 * other one is to wait for a line of the table from anywhere.
 */
#define TWIN_TRUST_TICKS ((__u32)(60ull * 1000000000 >> TICK_SHIFT))

struct sweep {
	struct sweep_request request;
	__u32 now;
	__u32 done; /* buckets */
	__u64 until; /* bpf_ktime_get_ns() */
};

/* Whether the connection of an entry, or a template, is over. `whole` stands for it. */
static __always_inline bool is_to_go(const struct connection *connection, const struct connection *whole,
				     const struct sweep *sweep)
{
	__u32 index = connection->real;
	const struct real_server *real;

	if (is_over(whole ? whole->expires : connection->expires, sweep->now))
		return true;
	if (!sweep->request.resets)
		return false;
	real = bpf_map_lookup_elem(&real_servers, &index);
	return real && real->state == REAL_RESET;
}

/* Without the lock, as refresh(): if the slot was just given away, a stranger's life is lengthened once. */
static __always_inline void move_ahead(struct connection *connection, __u32 expires)
{
	if ((__s32)(expires - connection->expires) > 0)
		connection->expires = expires;
}

GLOBAL int sweep_slot(__u32 location, struct sweep *sweep)
{
	if (!sweep)
		return 0;

	struct connection *connection = connection_at(location);
	struct connection *whole;

	if (!connection)
		return 0;
	/* Of a reverse entry, `expires` is its own alone: see TWIN_GRACE_TICKS. It goes with its forward one. */
	if (connection->direction == DIRECTION_REVERSE && !is_over(connection->expires, sweep->now)) {
		sweep->request.entries++;
		return 0;
	}
	__u16 id = id_of(connection);

	whole = whole_entry(connection, location);
	if (is_to_go(connection, whole, sweep) && connection_remove(location, id)) {
		if (whole)
			sweep->request.removed++;
		else
			sweep->request.orphans++;
		return 0;
	}
	if (is_controlling(connection) && is_over(connection->expires, sweep->now))
		connection->expires = sweep->now + TEMPLATE_STEP_TICKS;
	else if (connection->direction == DIRECTION_REVERSE)
		move_ahead(connection, sweep->now + TWIN_TRUST_TICKS);
	sweep->request.entries++;
	return 0;
}

static long sweep_bucket(__u32 offset, void *context)
{
	struct sweep *sweep = context;
	__u32 index = sweep->request.first + offset;
	struct bucket *bucket = bpf_map_lookup_elem(&connection_table, &index);

	if (!bucket || (offset && bpf_ktime_get_ns() >= sweep->until))
		return 1;
	sweep->done++;
	for (__u32 slot = 0; slot < BUCKET_SLOTS; slot++)
		if (bucket->tags[slot])
			sweep_slot(index << 4 | slot, sweep);
	return 0;
}

SEC("xdp") int sweep(struct xdp_md *ctx)
{
	struct sweep_request *request = (void *)(long)ctx->data;
	struct sweep sweep = {};

	if ((void *)(request + 1) > (void *)(long)ctx->data_end)
		return XDP_ABORTED;
	sweep.request.first = request->first;
	sweep.request.count = request->count;
	sweep.request.resets = request->resets;
	sweep.request.longest = request->longest;
	sweep.now = tick_now();
	sweep.until = bpf_ktime_get_ns() + sweep.request.longest;
	bpf_loop(sweep.request.count, sweep_bucket, &sweep, 0);
	sweep.request.count = sweep.done;
	request = (void *)(long)ctx->data;
	if ((void *)(request + 1) > (void *)(long)ctx->data_end)
		return XDP_ABORTED;
	*request = sweep.request;
	return XDP_PASS;
}

#endif
