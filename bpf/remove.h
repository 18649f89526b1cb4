/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */
/* Taking entries out of the connection table. */
#ifndef SLUICE_REMOVE_H
#define SLUICE_REMOVE_H

#include "connection.h"

/* What a removed entry named. */
struct removed {
	__u32 twin;
	__u32 template;
};

/* Takes one entry out, if the slot still holds `id` and it is no template that connections name. */
static __always_inline bool slot_remove(__u32 location, __u16 id, struct removed *removed)
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
	if (bucket->tags[slot] && connection->id == id && connection->real == real && !is_controlling(connection)) {
		if (connection->direction != DIRECTION_REVERSE)
			load_leave(load, connection->state);
		removed->twin = connection->twin;
		removed->template = connection->direction == DIRECTION_FORWARD ? connection->template : NOWHERE;
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

/* A connection that named the template is gone, or was not inserted after all. */
static __always_inline void release_template(__u32 location)
{
	struct connection *template = location == NOWHERE ? NULL : connection_at(location);

	if (template)
		__sync_fetch_and_add(&template->template, -1);
}

/* Ends a connection, given either of its entries: both go, and it leaves its real server's counts. Or a template that
 * no connection names. Returns 1 if it was still there. */
GLOBAL int connection_remove(__u32 location, __u16 id)
{
	struct removed removed = { .twin = NOWHERE, .template = NOWHERE };
	__u32 twin_location, template;

	if (!id || !slot_remove(location, id, &removed))
		return 0;
	twin_location = removed.twin;
	template = removed.template;
	if (twin_location != NOWHERE) {
		struct connection *twin = connection_at(twin_location);

		/* Of the two, only the forward one names a template. */
		if (twin && twin->twin == location && slot_remove(twin_location, id, &removed) && template == NOWHERE)
			template = removed.template;
	}
	release_template(template);
	return 1;
}

#endif
