/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */
/* Putting entries into the connection table. */
#ifndef SLUICE_INSERT_H
#define SLUICE_INSERT_H

#include "remove.h"

#define NEARLY_FULL 13

/* How long a reverse entry may wait for the forward one that is inserted next: about a second. */
#define TWIN_GRACE_TICKS 256

/* Who may be thrown out of a full bucket, the lower the sooner. An ESTABLISHED connection never, and no template that
 * one names. */
enum eviction {
	EVICT_EXPIRED,
	EVICT_HALF_OPEN,
	EVICT_CLOSING,
	EVICT_OLDEST,
	EVICT_NEVER,
};

static __always_inline enum eviction eviction_of(enum connection_state state)
{
	switch (state) {
	case TCP_ESTABLISHED:
	case SCTP_ESTABLISHED:
		return EVICT_NEVER;
	case TCP_SYN_SENT:
	case TCP_SYN_RECV:
	case TCP_SYNACK:
	case SCTP_INIT1:
	case SCTP_INIT:
	case SCTP_COOKIE_SENT:
	case SCTP_COOKIE_REPLIED:
	case SCTP_COOKIE_WAIT:
	case SCTP_COOKIE:
	case SCTP_COOKIE_ECHOED:
		return EVICT_HALF_OPEN;
	case UDP_NORMAL:
	case ONE_PACKET:
	case TEMPLATE:
	case TEMPLATE_ASSURED:
		return EVICT_OLDEST;
	default:
		return EVICT_CLOSING;
	}
}

struct victim {
	__u32 location;
	__u32 left; /* ticks until it expires */
	enum eviction eviction;
	__u16 id;
};

static __always_inline void consider(struct victim *victim, struct connection *connection, __u32 location, __u32 now)
{
	struct connection *whole = whole_entry(connection, location);
	__u32 expires = whole ? whole->expires : connection->expires;
	enum eviction eviction = EVICT_NEVER;

	if (is_controlling(connection))
		return;
	if (is_over(expires, now))
		eviction = EVICT_EXPIRED;
	else if (whole)
		eviction = eviction_of(whole->state);
	if (eviction > victim->eviction || eviction == EVICT_NEVER)
		return;
	if (eviction == victim->eviction && expires - now >= victim->left)
		return;
	victim->eviction = eviction;
	victim->left = expires - now;
	victim->location = location;
	victim->id = connection->id;
}

/* The entry of this bucket that is the first to go, in `victim` if it goes before the one that is there. */
GLOBAL int bucket_victim(__u32 index, struct victim *victim)
{
	struct bucket *bucket = bpf_map_lookup_elem(&connection_table, &index);
	__u32 now = tick_now();

	if (!bucket || !victim)
		return 0;
	for (__u32 slot = 0; slot < BUCKET_SLOTS; slot++)
		if (bucket->tags[slot])
			consider(victim, &bucket->slots[slot], index << 4 | slot, now);
	return 0;
}

enum insertion {
	INSERTED,
	INSERT_EXISTS,
	INSERT_FULL,
	INSERT_CONTENDED,
};

/* The last word, with the id, goes last: who reads the id first and finds it again has read one connection. */
static __always_inline void slot_write(struct connection *slot, const struct connection *entry)
{
	word64 *to = (word64 *)slot;
	const word64 *from = (const word64 *)entry;

	_Static_assert(offsetof(struct connection, id) == 56, "the id is in the last word");
	for (int i = 0; i < 7; i++)
		to[i] = from[i];
	barrier();
	*(volatile word64 *)&to[7] = from[7];
}

/* Puts `entry` into one bucket, unless its flow is there or no slot is free. `load` is counted up but for a reverse
 * entry.
 */
static __always_inline enum insertion slot_insert(struct bucket *bucket, const struct connection *entry, __u64 hash,
						  struct real_load *load, __u32 *slot)
{
	enum insertion result = INSERT_FULL;
	struct place known = {};
	__u16 tag = flow_tag(hash);
	__u32 free = preferred_slot(hash);

	bpf_spin_lock(&bucket->lock);
	if (bucket_find(bucket, &entry->flow, tag, &known)) {
		result = INSERT_EXISTS;
	} else {
		if (bucket->tags[free])
			free ^= 1;
		barrier_var(free);
		if (free < BUCKET_SLOTS && bucket->tags[free]) {
			free = BUCKET_SLOTS;
			for (__u32 i = 0; i < BUCKET_SLOTS; i++) {
				if (!bucket->tags[i]) {
					free = i;
					break;
				}
			}
		}
		barrier_var(free);
		if (free < BUCKET_SLOTS) {
			if (entry->direction != DIRECTION_REVERSE)
				load_enter(load, entry->state);
			slot_write(&bucket->slots[free], entry);
			bucket->tags[free] = tag;
			bucket->used++;
			result = INSERTED;
		}
	}
	bpf_spin_unlock(&bucket->lock);
	*slot = free;
	return result;
}

/*
 * Puts `entry` into its first or its second bucket. Two processors may open one flow at once and choose different
 * buckets, so each looks into the other bucket after its own insertion, and its caller takes it back if the flow is
 * there too (INSERT_CONTENDED). Both see it at the worst, and then both do; the sender's next try succeeds. The one in
 * the second bucket shows itself in `lodgers` before it inserts, so that the other one knows where to look.
 */
GLOBAL int insert_into(struct connection *entry, bool into_second, __u32 *location)
{
	if (!entry || !location)
		return INSERT_FULL;

	__u64 hash = flow_hash(&entry->flow);
	__u32 first_index = first_bucket(hash), second_index = second_bucket(hash);
	__u32 real = entry->real, slot = 0;
	struct place known = {};
	__u16 tag = flow_tag(hash);
	struct bucket *first = bpf_map_lookup_elem(&connection_table, &first_index);
	struct bucket *second = bpf_map_lookup_elem(&connection_table, &second_index);
	struct real_load *load = bpf_map_lookup_elem(&real_load, &real);
	struct bucket *other = into_second ? first : second;
	enum insertion result;

	if (!first || !second || !load)
		return INSERT_FULL;
	if (into_second)
		__sync_fetch_and_add(&first->lodgers, 1);
	result = slot_insert(into_second ? second : first, entry, hash, load, &slot);
	if (result != INSERTED) {
		if (into_second)
			__sync_fetch_and_add(&first->lodgers, -1);
		return result;
	}
	*location = (into_second ? second_index : first_index) << 4 | (slot & 15);
	/* The atomic is a full barrier: our entry is to be seen before we look. */
	if (!__sync_fetch_and_add(&first->lodgers, 0) || !bucket_find(other, &entry->flow, tag, &known))
		return INSERTED;
	return INSERT_CONTENDED;
}

/* One attempt, without throwing anything out. */
static __always_inline int insert_once(struct connection *entry, __u32 *location)
{
	__u64 hash = flow_hash(&entry->flow);
	__u32 first_index = first_bucket(hash), second_index = second_bucket(hash);
	struct bucket *first = bpf_map_lookup_elem(&connection_table, &first_index);
	struct bucket *second = bpf_map_lookup_elem(&connection_table, &second_index);
	bool into_second;
	int result;

	if (!first || !second)
		return INSERT_FULL;
	into_second = first->used >= NEARLY_FULL && second->used < first->used;
	result = insert_into(entry, into_second, location);
	if (result == INSERT_FULL)
		result = insert_into(entry, !into_second, location);
	if (result == INSERT_CONTENDED)
		connection_remove(*location, entry->id);
	return result;
}

/* Inserts `entry`, throwing out at most one other connection for it; says where it went. */
GLOBAL int connection_insert(struct connection *entry, __u32 *location)
{
	if (!entry || !location)
		return INSERT_FULL;

	int result = insert_once(entry, location);

	if (result == INSERT_FULL) {
		__u64 hash = flow_hash(&entry->flow);
		struct victim victim = { .eviction = EVICT_NEVER, .left = ~0u };

		bucket_victim(first_bucket(hash), &victim);
		bucket_victim(second_bucket(hash), &victim);
		if (victim.eviction != EVICT_NEVER && connection_remove(victim.location, victim.id))
			result = insert_once(entry, location);
	}
	return result;
}

/* Tells a reverse entry where its forward one is. False if it was thrown out meanwhile. */
static __always_inline bool connection_name_twin(__u32 location, __u16 id, __u32 twin)
{
	struct bucket *bucket = bucket_at(location);
	struct connection *connection = connection_at(location);
	bool done = false;

	if (!bucket || !connection)
		return false;
	bpf_spin_lock(&bucket->lock);
	if (connection->id == id && connection->direction == DIRECTION_REVERSE) {
		connection->twin = twin;
		done = true;
	}
	bpf_spin_unlock(&bucket->lock);
	return done;
}

#endif
