/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */
/*
 * The connection table: a set-associative array, both directions of a connection in the one table.
 *
 * A flow has two candidate buckets. It goes into the first until that is nearly full, then into the emptier of the two,
 * and the first then counts it as a lodger elsewhere. So an established flow is seldom looked for in two places, and
 * one that is not in the table almost never. With 16 slots and the switch at 13, the table takes in 76 % of its slots
 * without refusing one flow in a million (simulated and tested); the control plane sizes it so.
 *
 * Who may do what:
 * - A writer holds the lock of the one bucket that it changes, never two. Under the lock nothing may be called (the
 *   verifier's rule), so everything there is inlined and every time and pointer was fetched before.
 * - A reader takes no lock. It reads `id`, checks the key, copies what it needs, and checks `id` again: a slot that was
 *   given to another connection meanwhile has another id. `expires` alone is moved ahead without the lock; on a slot
 *   that was just given away, that lengthens a stranger's life once, no more.
 * - The counts in real_load change under the lock, with the entry that they count. So at any moment they equal what the
 *   table holds, and nothing is below zero, whoever ends a connection: an expiry, an eviction, a new SYN. The sweep
 *   alone takes connections off a moment later.
 * - Twins are inserted reverse first. Each names the other by slot and shares its id, so removing one never takes a
 *   stranger.
 * - A persistence template counts the connections that name it, and stays while there are any; so they may name it by
 *   its slot alone.
 *
 * Here: finding, and what a packet does to the entry that it finds. hash.h says where a flow belongs; insert.h,
 * remove.h.
 */
#ifndef SLUICE_CONNECTION_H
#define SLUICE_CONNECTION_H

#include <stddef.h>
#include <stdbool.h>
#include "clock.h"
#include "hash.h"
#include "load.h"
#include "state.h"

static __always_inline bool is_over(__u32 expires, __u32 now)
{
	return (__s32)(now - expires) >= 0;
}

static __always_inline bool same_flow(const struct flow *a, const struct flow *b)
{
	const word64 *x = (const word64 *)a, *y = (const word64 *)b;

	return !((x[0] ^ y[0]) | (x[1] ^ y[1]) | (x[2] ^ y[2]) | (x[3] ^ y[3]) | (x[4] ^ y[4]));
}

/*
 * The top bit of each 16-bit lane of the result is set where that lane of `word` equals `pattern`'s (and, rarely, in
 * the lane above one). The other bits mean nothing.
 */
static __always_inline __u64 equal_lanes(__u64 word, __u64 pattern)
{
	__u64 x = word ^ pattern;

	return (x - 0x0001000100010001) & ~x;
}

/*
 * The slots of a bucket whose tag is `tag`, as a set of bits: bit 16 * lane + word for slot 4 * word + lane.
 * Branchless: which slot a flow is in cannot be predicted.
 */
static __always_inline __u64 tag_candidates(const struct bucket *bucket, __u16 tag)
{
	const word64 *tags = (const word64 *)bucket->tags;
	__u64 pattern = tag * 0x0001000100010001, tops = 0x8000800080008000;

	barrier_var(tops); /* one constant in a register, instead of four in the code */
	return (equal_lanes(tags[0], pattern) & tops) >> 15 | (equal_lanes(tags[1], pattern) & tops) >> 14 |
	       (equal_lanes(tags[2], pattern) & tops) >> 13 | (equal_lanes(tags[3], pattern) & tops) >> 12;
}

/* Position of the lowest set bit, by a de Bruijn sequence; BPF has no instruction for it. */
static const __u8 lowest_bit_position[64] = {
	0,  1,  2,  53, 3,  7,  54, 27, 4,  38, 41, 8,  34, 55, 48, 28, 62, 5,  39, 46, 44, 42,
	22, 9,  24, 35, 59, 56, 49, 18, 29, 11, 63, 52, 6,  26, 37, 40, 33, 47, 61, 45, 43, 21,
	23, 58, 17, 10, 51, 25, 36, 32, 60, 20, 57, 16, 50, 31, 19, 15, 30, 14, 13, 12,
};

static __always_inline __u32 lowest_candidate_slot(__u64 candidates)
{
	__u32 bit = lowest_bit_position[((candidates & -candidates) * 0x022fdd63cc95386dULL) >> 58];

	return (bit & 3) << 2 | bit >> 4;
}

/* Which entry a lookup found. `id` was read before the key: as long as the slot still has it, all that was read since
 * is one connection's. */
struct place {
	__u32 location; /* bucket << 4 | slot */
	__u16 id;
};

static __always_inline __u16 id_of(const struct connection *connection)
{
	return *(volatile const __u16 *)&connection->id;
}

/* The slot's entry if it is that of `flow`, expired or not, else NULL. `place->location` is the slot alone. */
static __always_inline struct connection *slot_find(struct bucket *bucket, const struct flow *flow, __u32 slot,
						    struct place *place)
{
	struct connection *connection;
	__u16 id;

	barrier_var(slot);
	if (slot >= BUCKET_SLOTS)
		return NULL;
	connection = &bucket->slots[slot];
	id = id_of(connection);
	barrier();
	if (!id || !same_flow(&connection->flow, flow))
		return NULL;
	place->location = slot;
	place->id = id;
	return connection;
}

/* The entry of `flow` in this one bucket, or NULL. Expired entries are found as well. `place->location` is the slot
 * alone. */
static __always_inline struct connection *bucket_find(struct bucket *bucket, const struct flow *flow, __u16 tag,
						      struct place *place)
{
	__u64 candidates = tag_candidates(bucket, tag);

	for (int i = 0; i < BUCKET_SLOTS && candidates; i++) {
		struct connection *connection = slot_find(bucket, flow, lowest_candidate_slot(candidates), place);

		if (connection)
			return connection;
		candidates &= candidates - 1;
	}
	return NULL;
}

/* The entry of `flow`, expired or not, and where it is; NULL if there is none. */
static __always_inline struct connection *connection_find(const struct flow *flow, __u64 hash, struct place *place)
{
	__u32 index = first_bucket(hash), slot;
	__u16 tag = flow_tag(hash);
	struct bucket *bucket = bpf_map_lookup_elem(&connection_table, &index);
	struct connection *connection;

	if (!bucket)
		return NULL;
	slot = preferred_slot(hash);
	barrier_var(slot);
	/* On their way already when they turn out to be needed: a wrong guess is known only when the first line has
	 * come. */
	(void)id_of(&bucket->slots[(slot ^ 1) & (BUCKET_SLOTS - 1)]);
	(void)*(const volatile __u16 *)bucket->tags;
	connection = slot_find(bucket, flow, slot, place);
	if (!connection)
		connection = slot_find(bucket, flow, slot ^ 1, place);
	if (!connection)
		connection = bucket_find(bucket, flow, tag, place);
	if (!connection && bucket->lodgers) {
		index = second_bucket(hash);
		bucket = bpf_map_lookup_elem(&connection_table, &index);
		if (!bucket)
			return NULL;
		connection = bucket_find(bucket, flow, tag, place);
	}
	place->location |= index << 4;
	return connection;
}

static __always_inline struct bucket *bucket_at(__u32 location)
{
	__u32 index = location >> 4;

	return bpf_map_lookup_elem(&connection_table, &index);
}

/* The slot that `location` names, whatever is in it now. */
static __always_inline struct connection *connection_at(__u32 location)
{
	struct bucket *bucket = bucket_at(location);
	__u32 slot = location & 15;

	barrier_var(slot);
	if (!bucket || slot >= BUCKET_SLOTS)
		return NULL;
	return &bucket->slots[slot];
}

/* The twin of the entry at `location`, or NULL if it is gone. */
static __always_inline struct connection *connection_twin(const struct connection *connection, __u32 location)
{
	struct connection *twin = connection->twin == NOWHERE ? NULL : connection_at(connection->twin);

	if (!twin || twin->twin != location || twin->id != connection->id || twin->direction == connection->direction)
		return NULL;
	return twin;
}

/* The entry that stands for the whole connection: the forward one; a template for itself. NULL: a reverse entry whose
 * forward one is gone or not there yet. */
static __always_inline struct connection *whole_entry(struct connection *connection, __u32 location)
{
	return connection->direction == DIRECTION_REVERSE ? connection_twin(connection, location) : connection;
}

/* A template that is named lives on. */
static __always_inline bool is_controlling(const struct connection *connection)
{
	return connection->direction == DIRECTION_NONE && connection->template;
}

/* --------------------------------------------------------------------------------------------- states and time */

/* Ticks that a connection to `real` in `state` lives on without a packet. */
static __always_inline __u32 state_timeout(const struct real_server *real, enum connection_state state)
{
	__u32 set = real->timeouts, index = state & 31;
	const struct timeouts *found = bpf_map_lookup_elem(&timeouts, &set);

	barrier_var(index);
	return found && index < CONNECTION_STATES ? found->ticks[index] : 0;
}

/* A packet of the connection came. Not written for less than 16 ticks (67 ms): the line stays shared between
 * processors. */
static __always_inline void refresh(struct connection *connection, const struct real_server *real,
				    enum connection_state state, __u32 now)
{
	__u32 expires = now + state_timeout(real, state);

	if (expires - connection->expires >= 16)
		connection->expires = expires;
}

/* Of a template, once one of the connections that it led is established. */
static __always_inline void assure_template(__u32 location)
{
	struct connection *template = location == NOWHERE ? NULL : connection_at(location);

	if (template && template->direction == DIRECTION_NONE)
		template->state = TEMPLATE_ASSURED;
}

/*
 * Takes the connection whose forward entry is at `location` through the packet's transition, under the bucket's lock,
 * with its real server's counts. Nothing happens if the slot is another's by now.
 */
GLOBAL int connection_transition(__u32 location, __u16 id, __u8 event, enum side side)
{
	struct bucket *bucket = bucket_at(location);
	struct connection *connection = connection_at(location);
	enum connection_state after = TCP_NONE;
	__u32 now = tick_now(), template = NOWHERE;

	if (!bucket || !connection)
		return 0;

	__u32 index = connection->real;
	struct real_load *load = bpf_map_lookup_elem(&real_load, &index);
	const struct real_server *real = bpf_map_lookup_elem(&real_servers, &index);

	if (!load || !real)
		return 0;

	__u32 set = real->timeouts;
	const struct timeouts *current = bpf_map_lookup_elem(&timeouts, &set);

	if (!current)
		return 0;
	bpf_spin_lock(&bucket->lock);
	if (connection->id == id && connection->real == index && connection->direction == DIRECTION_FORWARD) {
		enum connection_state before = connection->state;
		__u32 row;

		after = next_state(before, side, event);
		row = after & 31;
		load_move(load, before, after);
		connection->state = after;
		template = connection->template;
		barrier_var(row);
		if (row < CONNECTION_STATES)
			connection->expires = now + current->ticks[row];
	}
	bpf_spin_unlock(&bucket->lock);
	if (is_established(after))
		assure_template(template);
	return 0;
}

#endif
