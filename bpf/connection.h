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
 * that was just given away, that lengthens a stranger's life once, no more.
 * - The counts in real_load change under the lock, with the entry that they count. So at any moment they equal what the
 * table holds, and nothing is below zero, whoever ends a connection: an expiry, an eviction, a new SYN.
 * - Twins are inserted reverse first. Each names the other by slot and shares its id, so removing one never takes a
 * stranger.
 */
#ifndef SLUICE_CONNECTION_H
#define SLUICE_CONNECTION_H

#include <stddef.h>
#include <stdbool.h>
#include "clock.h"
#include "maps.h"
#include "packet.h"

#define NEARLY_FULL 13

/* How long a reverse entry may wait for the forward one that is inserted next: about a second. */
#define TWIN_GRACE_TICKS 256

static __always_inline bool is_over(__u32 expires, __u32 now)
{
	return (__s32)(now - expires) >= 0;
}

/* --------------------------------------------------------------------------------------------------- hashing */

/*
 * NH, the universal hash of UMAC (RFC 4418, section 5.2), keyed with the load's seed: two flows collide with a chance
 * of 2^-32 whoever chooses them, so nobody outside can aim at one bucket. One multiplication for IPv4's four words in
 * pairs, then a mixer, since buckets and tags are cut from the sum.
 */
static __always_inline __u64 nh(const struct flow *flow, int left, int right, __u64 key)
{
	const word32 *words = (const word32 *)flow;

	return (__u64)(__u32)(words[left] + (__u32)key) * (__u32)(words[right] + (__u32)(key >> 32));
}

static __always_inline __u64 mix(__u64 hash)
{
	hash ^= hash >> 32;
	hash *= 0x9fb21c651e98df25;
	hash ^= hash >> 28;
	return hash;
}

static __always_inline __u64 flow_hash(const struct flow *flow)
{
	/* Words: 0-3 source, 4-7 destination, 8 ports, 9 protocol and family. */
	__u64 hash = nh(flow, 0, 4, hash_seed[0]) + nh(flow, 8, 9, hash_seed[1]);

	if (flow->family == FAMILY_IPV6)
		hash += nh(flow, 1, 5, hash_seed[2]) + nh(flow, 2, 6, hash_seed[3]) + nh(flow, 3, 7, hash_seed[4]);
	return mix(hash);
}

static __always_inline __u32 first_bucket(__u64 hash)
{
	return (hash >> 32) * connection_buckets >> 32;
}

/* Another bucket than the first; there are at least two. */
static __always_inline __u32 second_bucket(__u64 hash)
{
	__u32 second = (mix(hash ^ hash_seed[5]) >> 32) * (connection_buckets - 1) >> 32;

	return second + (second >= first_bucket(hash));
}

static __always_inline __u16 flow_tag(__u64 hash)
{
	return (__u16)hash ? (__u16)hash : 1;
}

/*
 * The slot that a flow takes if it is free; else its neighbour (slot ^ 1), else any. The two are looked into before the
 * bucket's tags. So an established flow waits for one cache line of the table; at the configured capacity about four of
 * five do, by calculation.
 */
static __always_inline __u32 preferred_slot(__u64 hash)
{
	return hash >> 16 & (BUCKET_SLOTS - 1);
}

/* --------------------------------------------------------------------------------------------------- finding */

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
	struct connection *twin = connection->twin == NO_TWIN ? NULL : connection_at(connection->twin);

	if (!twin || twin->twin != location || twin->id != connection->id || twin->direction == connection->direction)
		return NULL;
	return twin;
}

/* ------------------------------------------------------------------------------------------ states and timeouts */

/* Which row of IPVS's table: RST before SYN before FIN before ACK, as tcp_state_idx() has it. A segment with none of
 * them closes. */
enum tcp_event {
	TCP_EVENT_SYN,
	TCP_EVENT_FIN,
	TCP_EVENT_ACK,
	TCP_EVENT_RST,
	TCP_EVENTS,
};

/* Which side a packet came from, and whether the other side is seen at all. */
enum tcp_side {
	SIDE_CLIENT, /* nat, fullnat */
	SIDE_SERVER,
	SIDE_CLIENT_ALONE, /* dr, tun: replies do not pass here */
};

#define NO TCP_NONE
#define ES TCP_ESTABLISHED
#define SS TCP_SYN_SENT
#define SR TCP_SYN_RECV
#define FW TCP_FIN_WAIT
#define TW TCP_TIME_WAIT
#define CL TCP_CLOSE
#define CW TCP_CLOSE_WAIT
#define LA TCP_LAST_ACK
#define LI TCP_LISTEN
#define SA TCP_SYNACK
/* The state after a segment, by side, event and state before: IPVS's transitions (net/netfilter/ipvs/ip_vs_proto_tcp.c,
 * tcp_states). */
static const __u8 tcp_transitions[4][TCP_EVENTS][16] = {
	/* clang-format off */
	[SIDE_CLIENT] = {    /* NO  ES  SS  SR  FW  TW  CL  CW  LA  LI  SA */
		[TCP_EVENT_SYN] = { SR, ES, ES, SR, SR, SR, SR, SR, SR, SR, SR },
		[TCP_EVENT_FIN] = { CL, CW, SS, TW, TW, TW, CL, CW, LA, LI, TW },
		[TCP_EVENT_ACK] = { CL, ES, SS, ES, FW, TW, CL, CW, CL, LI, ES },
		[TCP_EVENT_RST] = { CL, CL, CL, SR, CL, CL, CL, CL, LA, LI, SR },
	},
	[SIDE_SERVER] = {
		[TCP_EVENT_SYN] = { SS, ES, SS, SR, SS, SS, SS, SS, SS, LI, SR },
		[TCP_EVENT_FIN] = { TW, FW, SS, TW, FW, TW, CL, TW, LA, LI, TW },
		[TCP_EVENT_ACK] = { ES, ES, SS, ES, FW, TW, CL, CW, LA, ES, ES },
		[TCP_EVENT_RST] = { CL, CL, SS, CL, CL, TW, CL, CL, CL, CL, CL },
	},
	[SIDE_CLIENT_ALONE] = {
		[TCP_EVENT_SYN] = { SR, ES, ES, SR, SR, SR, SR, SR, SR, SR, SR },
		[TCP_EVENT_FIN] = { CL, FW, SS, TW, FW, TW, CL, CW, LA, LI, TW },
		[TCP_EVENT_ACK] = { CL, ES, SS, ES, FW, TW, CL, CW, CL, LI, ES },
		[TCP_EVENT_RST] = { CL, CL, CL, SR, CL, CL, CL, CL, LA, LI, CL },
	},
	/* clang-format on */
};
#undef NO
#undef ES
#undef SS
#undef SR
#undef FW
#undef TW
#undef CL
#undef CW
#undef LA
#undef LI
#undef SA

static __always_inline enum connection_state next_state(enum connection_state state, enum tcp_side side, __u8 tcp_flags)
{
	enum tcp_event event;
	__u32 row = side;

	barrier_var(row); /* bounded where it is used: the verifier forgets a bound that was spilled */
	if (tcp_flags & TCP_FLAG_RST)
		event = TCP_EVENT_RST;
	else if (tcp_flags & TCP_FLAG_SYN)
		event = TCP_EVENT_SYN;
	else if (tcp_flags & TCP_FLAG_FIN)
		event = TCP_EVENT_FIN;
	else if (tcp_flags & TCP_FLAG_ACK)
		event = TCP_EVENT_ACK;
	else
		return TCP_CLOSE;
	return tcp_transitions[row & 3][event][state & 15];
}

/* Which of the two counts a connection is in (tcp_state_active_table in ip_vs_proto_tcp.c); UDP is always inactive. */
static __always_inline bool is_active(enum connection_state state)
{
	return (1u << state) & (1u << TCP_ESTABLISHED | 1u << TCP_SYN_SENT | 1u << TCP_SYN_RECV | 1u << TCP_SYNACK);
}

static __always_inline void load_add(struct real_load *load, enum connection_state state, __s32 change)
{
	__sync_fetch_and_add(is_active(state) ? &load->active : &load->inactive, change);
}

/* Ticks that a connection in `state` lives on without a packet. */
static __always_inline __u32 state_timeout(enum connection_state state)
{
	__u32 zero = 0, index = state & 15;
	const struct settings *current = bpf_map_lookup_elem(&settings, &zero);

	barrier_var(index);
	return current && index < CONNECTION_STATES ? current->timeouts[index] : 0;
}

/* A packet of the connection came. Not written for less than 16 ticks (67 ms): the line stays shared between
 * processors. */
static __always_inline void refresh(struct connection *connection, enum connection_state state, __u32 now)
{
	__u32 expires = now + state_timeout(state);

	if (expires - connection->expires >= 16)
		connection->expires = expires;
}

/*
 * Takes the connection whose forward entry is at `location` through the segment's transition, under the bucket's lock,
 * with its real server's counts. Nothing happens if the slot is another's by now.
 */
GLOBAL int connection_transition(__u32 location, __u16 id, __u8 tcp_flags, enum tcp_side side)
{
	struct bucket *bucket = bucket_at(location);
	struct connection *connection = connection_at(location);
	__u32 now = tick_now(), zero = 0;
	const struct settings *current = bpf_map_lookup_elem(&settings, &zero);

	if (!bucket || !connection || !current)
		return 0;

	__u32 real = connection->real;
	struct real_load *load = bpf_map_lookup_elem(&real_load, &real);

	if (!load)
		return 0;
	bpf_spin_lock(&bucket->lock);
	if (connection->id == id && connection->real == real && connection->direction == DIRECTION_FORWARD) {
		enum connection_state before = connection->state;
		enum connection_state after = next_state(before, side, tcp_flags);
		__u32 index = after & 15;

		if (is_active(before) != is_active(after)) {
			load_add(load, after, 1);
			load_add(load, before, -1);
		}
		connection->state = after;
		barrier_var(index);
		if (index < CONNECTION_STATES)
			connection->expires = now + current->timeouts[index];
	}
	bpf_spin_unlock(&bucket->lock);
	return 0;
}

/* -------------------------------------------------------------------------------------------------- removing */

/* Takes one entry out, if the slot still holds `id`. `*twin` is what it named as its twin. */
static __always_inline bool slot_remove(__u32 location, __u16 id, __u32 *twin)
{
	struct bucket *bucket = bucket_at(location);
	struct connection *connection = connection_at(location);
	__u32 slot = location & 15, home = 0;
	bool done = false;

	barrier_var(slot);
	if (!bucket || !connection || slot >= BUCKET_SLOTS)
		return false;

	__u32 real = connection->real;
	struct real_load *load = bpf_map_lookup_elem(&real_load, &real);

	if (!load)
		return false;
	bpf_spin_lock(&bucket->lock);
	if (bucket->tags[slot] && connection->id == id && connection->real == real) {
		if (connection->direction == DIRECTION_FORWARD)
			load_add(load, connection->state, -1);
		*twin = connection->twin;
		home = first_bucket(flow_hash(&connection->flow));
		done = true;
		bucket->tags[slot] = 0;
		bucket->used--;
		connection->id = 0;
	}
	bpf_spin_unlock(&bucket->lock);
	if (done && home != location >> 4) {
		bucket = bpf_map_lookup_elem(&connection_table, &home);
		if (bucket)
			__sync_fetch_and_add(&bucket->lodgers, -1);
	}
	return done;
}

/* Ends a connection, given either of its entries: both go, and it leaves its real server's counts. Returns 1 if it was
 * still there. */
GLOBAL int connection_remove(__u32 location, __u16 id)
{
	__u32 twin_location = NO_TWIN, back;

	if (!id || !slot_remove(location, id, &twin_location))
		return 0;
	if (twin_location != NO_TWIN) {
		struct connection *twin = connection_at(twin_location);

		if (twin && twin->twin == location)
			slot_remove(twin_location, id, &back);
	}
	return 1;
}

/* ------------------------------------------------------------------------------------------------- inserting */

/* Who may be thrown out of a full bucket, the lower the sooner. An ESTABLISHED TCP connection never. */
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
		return EVICT_NEVER;
	case TCP_SYN_SENT:
	case TCP_SYN_RECV:
	case TCP_SYNACK:
		return EVICT_HALF_OPEN;
	case UDP_NORMAL:
		return EVICT_OLDEST;
	default:
		return EVICT_CLOSING;
	}
}

/* The entry that stands for the whole connection: the forward one. NULL: a reverse entry whose forward one is gone or
 * not there yet. */
static __always_inline struct connection *forward_entry(struct connection *connection, __u32 location)
{
	return connection->direction == DIRECTION_FORWARD ? connection : connection_twin(connection, location);
}

struct victim {
	__u32 location;
	__u32 left; /* ticks until it expires */
	enum eviction eviction;
	__u16 id;
};

static __always_inline void consider(struct victim *victim, struct connection *connection, __u32 location, __u32 now)
{
	struct connection *forward = forward_entry(connection, location);
	__u32 expires = forward ? forward->expires : connection->expires;
	enum eviction eviction = EVICT_NEVER;

	if (is_over(expires, now))
		eviction = EVICT_EXPIRED;
	else if (forward)
		eviction = eviction_of(forward->state);
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

/* Puts `entry` into one bucket, unless its flow is there or no slot is free. `load` is counted up for a forward entry.
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
			if (entry->direction == DIRECTION_FORWARD)
				load_add(load, entry->state, 1);
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
