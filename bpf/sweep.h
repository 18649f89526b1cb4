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

static __always_inline bool is_forward_and_over(const struct connection *connection, __u32 now)
{
	return connection->direction == DIRECTION_FORWARD && is_over(connection->expires, now);
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

/* What is removed from one bucket: in a map, since the verifier follows each value on the stack through all 2^16 ways
 * of which slots it was. */
struct swept {
	__u32 slots; /* bits: those that are to go, then those that went */
	__u32 reals[BUCKET_SLOTS];
	__u32 templates[BUCKET_SLOTS];
	__u32 twins[BUCKET_SLOTS];
	__u32 homes[BUCKET_SLOTS]; /* first buckets */
	__u16 ids[BUCKET_SLOTS];
	__u8 states[BUCKET_SLOTS];
};

/* Written and read by the program sweep. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct swept);
} swept_here SEC(".maps");

/* What is left to do for a connection whose forward entry was in `slot`: its real server's count, its template, its
 * other entry, its first bucket. */
GLOBAL int forget(__u32 slot, __u32 index)
{
	__u32 zero = 0;
	struct swept *swept = bpf_map_lookup_elem(&swept_here, &zero);
	struct removed other;
	struct real_load *load;
	__u32 real, home, twin_location;

	if (!swept || slot >= BUCKET_SLOTS)
		return 0;
	real = swept->reals[slot];
	home = swept->homes[slot];
	twin_location = swept->twins[slot];
	load = bpf_map_lookup_elem(&real_load, &real);
	if (load)
		load_leave(load, swept->states[slot]);
	release_template(swept->templates[slot]);
	if (twin_location != NOWHERE) {
		struct connection *twin = connection_at(twin_location);

		if (twin && twin->twin == (index << 4 | slot))
			slot_remove(twin_location, swept->ids[slot], &other);
	}
	if (home != index) {
		struct bucket *first = bpf_map_lookup_elem(&connection_table, &home);

		if (first)
			__sync_fetch_and_add(&first->lodgers, -1);
	}
	return 0;
}

/*
 * Removes the expired connections whose forward entries are among `slots` (bits) of one bucket, under its lock taken
 * once: to take it is half of what a removal costs. Their counts fall right after it, so for a moment they are above
 * what the table holds, never below.
 */
GLOBAL int sweep_expired(__u32 index, __u32 slots, struct sweep *sweep)
{
	struct bucket *bucket = bpf_map_lookup_elem(&connection_table, &index);
	__u32 zero = 0;
	struct swept *swept = bpf_map_lookup_elem(&swept_here, &zero);
	__u32 now;

	if (!bucket || !swept || !sweep)
		return 0;
	now = sweep->now;
	swept->slots = 0;
	bpf_spin_lock(&bucket->lock);
	for (__u32 slot = 0; slot < BUCKET_SLOTS; slot++) {
		struct connection *connection = &bucket->slots[slot];

		if (!(slots >> slot & 1) || !bucket->tags[slot] || !is_forward_and_over(connection, now))
			continue;
		swept->reals[slot] = connection->real;
		swept->templates[slot] = connection->template;
		swept->twins[slot] = connection->twin;
		swept->ids[slot] = connection->id;
		swept->states[slot] = connection->state;
		swept->homes[slot] = first_bucket(flow_hash(&connection->flow));
		swept->slots |= 1u << slot;
		bucket->tags[slot] = 0;
		bucket->used--;
		connection->id = 0;
	}
	bpf_spin_unlock(&bucket->lock);
	for (__u32 slot = 0; slot < BUCKET_SLOTS; slot++) {
		if (swept->slots >> slot & 1) {
			forget(slot, index);
			sweep->request.removed++;
		}
	}
	return 0;
}

/* Has the processor fetch the lines of an entry that is looked at later: those of a bucket's entries all at once,
 * instead of one wait after the other. */
static __always_inline void fetch(__u32 location)
{
	struct bucket *bucket = bucket_at(location);
	struct connection *connection = connection_at(location);

	if (bucket && connection) {
		(void)*(const volatile __u16 *)bucket->tags;
		(void)id_of(connection);
	}
}

static long sweep_bucket(__u32 offset, void *context)
{
	struct sweep *sweep = context;
	__u32 index = sweep->request.first + offset, zero = 0, expired;
	struct bucket *bucket = bpf_map_lookup_elem(&connection_table, &index);
	struct swept *swept = bpf_map_lookup_elem(&swept_here, &zero);

	if (!bucket || !swept || (offset && bpf_ktime_get_ns() >= sweep->until))
		return 1;
	sweep->done++;
	swept->slots = 0;
	for (__u32 slot = 0; slot < BUCKET_SLOTS; slot++) {
		const struct connection *connection = &bucket->slots[slot];

		if (!bucket->tags[slot] || !is_over(connection->expires, sweep->now))
			continue;
		if (is_forward_and_over(connection, sweep->now))
			swept->slots |= 1u << slot;
		if (connection->twin != NOWHERE)
			fetch(connection->twin);
	}
	expired = swept->slots;
	for (__u32 slot = 0; slot < BUCKET_SLOTS; slot++)
		if (bucket->tags[slot] && !(expired >> slot & 1))
			sweep_slot(index << 4 | slot, sweep);
	if (expired)
		sweep_expired(index, expired, sweep);
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
