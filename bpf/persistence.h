/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */
/*
 * Persistence: all connections of a client, or of a network of clients, go to the real server that its first one got,
 * for as long as its template lives (ip_vs_sched_persist() in net/netfilter/ipvs/ip_vs_core.c). A template lives for
 * the service's time after the last connection that it led was opened, and while there are connections that it led.
 */
#ifndef SLUICE_PERSISTENCE_H
#define SLUICE_PERSISTENCE_H

#include "insert.h"
#include "opening.h"
#include "schedule/schedule.h"

static __always_inline void template_flow(struct flow *flow, const struct service *service, const struct flow *client)
{
	const word32 *address = (const word32 *)&client->source, *mask = (const word32 *)&service->persistence_mask;
	word32 *masked = (word32 *)&flow->source;

	for (int i = 0; i < 4; i++)
		masked[i] = address[i] & mask[i];
	flow->destination = service->vip;
	flow->source_port = 0;
	flow->destination_port = bpf_htons(service->port);
	flow->protocol = service->protocol;
	flow->family = client->family;
	flow->kind = FLOW_OF_TEMPLATE;
}

/* Whether a template may lead another connection to its real server (ip_vs_check_template() in ip_vs_conn.c): it may be
 * overloaded, and quiesced unless settings.expire_quiescent_template says otherwise. */
static __always_inline bool may_lead(__u32 index, __u32 service)
{
	__u32 zero = 0;
	const struct real_server *real = bpf_map_lookup_elem(&real_servers, &index);
	const struct settings *current = bpf_map_lookup_elem(&settings, &zero);

	return real && current && real->state == REAL_ACTIVE && real->service == service &&
	       (real->weight || !current->expire_quiescent_template);
}

/* A template that is to lead one connection more, and where. */
struct leading {
	__u32 service;
	__u32 ticks;
	__u32 real; /* in: the one that was scheduled, or NO_REAL if none was yet; out: the one to go to */
	__u32 location; /* out: the template */
};

/*
 * Lets the template at `location` lead a connection: to its own real server, or to `leading->real` where it may not
 * lead there any more. 0 if the slot is another's by now, or if a real server has to be scheduled first.
 */
GLOBAL int template_join(__u32 location, __u16 id, struct leading *leading)
{
	struct bucket *bucket = bucket_at(location);
	struct connection *template = connection_at(location);
	__u32 now = tick_now();
	int joined = 0;

	if (!bucket || !template || !leading)
		return 0;

	__u32 old = template->real, new = leading->real, ticks = leading->ticks;

	if (may_lead(old, leading->service))
		new = old;

	struct real_load *old_load = bpf_map_lookup_elem(&real_load, &old);
	struct real_load *new_load = bpf_map_lookup_elem(&real_load, &new);

	if (!old_load || !new_load)
		return 0;
	bpf_spin_lock(&bucket->lock);
	if (template->id == id && template->real == old && template->direction == DIRECTION_NONE) {
		if (new != old) {
			__sync_fetch_and_add(&old_load->templates, -1);
			__sync_fetch_and_add(&new_load->templates, 1);
			template->real = new;
			template->state = TEMPLATE;
		}
		__sync_fetch_and_add(&template->template, 1);
		/* Never sooner: one that has outlived its time keeps what is left of its minute (sweep.h). */
		if ((__s32)(now + ticks - template->expires) > 0)
			template->expires = now + ticks;
		joined = 1;
	}
	bpf_spin_unlock(&bucket->lock);
	leading->real = new;
	leading->location = location;
	return joined;
}

/* One step: joins a template, or sees to it that the next step can. Returns OPENED, a drop_reason, or
 * DROP_TABLE_CONTENDED for a step more. */
GLOBAL int lead_step(struct leading *leading)
{
	struct opening *opening = opening_here();
	struct place place = {};
	__u32 index;

	if (!opening || !leading)
		return DROP_NO_REAL_SERVER;
	index = leading->service;

	const struct service *service = bpf_map_lookup_elem(&services, &index);
	struct connection *entry = &opening->entry, *found;
	__u32 now = opening->route.now;

	if (!service)
		return DROP_NO_REAL_SERVER;
	template_flow(&entry->flow, service, &opening->route.flow);
	leading->ticks = service->persistence;
	found = connection_find(&entry->flow, flow_hash(&entry->flow), &place);
	if (found && is_over(found->expires, now) && connection_remove(place.location, place.id))
		found = NULL;
	if (found && template_join(place.location, place.id, leading))
		return OPENED;
	if (leading->real == NO_REAL)
		leading->real = schedule(leading->service);
	if (leading->real == NO_REAL)
		return DROP_NO_REAL_SERVER;
	if (found)
		return DROP_TABLE_CONTENDED;
	entry->expires = now + leading->ticks;
	entry->real = leading->real;
	entry->template = 0;
	entry->twin = NOWHERE;
	entry->id = bpf_get_prandom_u32() | 1;
	entry->state = TEMPLATE;
	entry->direction = DIRECTION_NONE;
	entry->local_address = 0;
	entry->local_port = 0;
	return connection_insert(entry, &leading->location) == INSERT_FULL ? DROP_TABLE_FULL : DROP_TABLE_CONTENDED;
}

/*
 * Where the service's persistence leads a new connection: `leading->real`, with `leading->location` naming the
 * template, which counts the connection from now on. Returns OPENED or a drop_reason.
 */
static __always_inline int lead(struct leading *leading)
{
	int result = lead_step(leading);

	/* A template is inserted by one step and joined by the next; another processor may come between once. */
	if (result == DROP_TABLE_CONTENDED)
		result = lead_step(leading);
	if (result == DROP_TABLE_CONTENDED)
		result = lead_step(leading);
	return result;
}

#endif
