/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */
/* What the data plane asks of the control plane. */
#ifndef SLUICE_EVENTS_H
#define SLUICE_EVENTS_H

#include "clock.h"
#include "maps.h"

static __u32 last_event_tick;

/*
 * At most one event a tick from all processors together (give or take a race): whoever is asked looks at everything
 * once a second anyway, and a flood to an unresolved next hop must not keep it busy. Not inlined, so that struct event
 * is in the object's BTF.
 */
static __noinline void tell(const struct event *event)
{
	__u32 tick = tick_now();

	if (last_event_tick == tick)
		return;
	last_event_tick = tick;
	bpf_ringbuf_output(&events, (void *)event, sizeof(*event), 0);
}

GLOBAL int tell_next_hop_missing(__u32 real)
{
	struct event event = { .kind = EVENT_NEXT_HOP_MISSING, .subject = real };

	tell(&event);
	return 0;
}

GLOBAL int tell_client_neighbour_missing(__be32 address, __u32 ifindex)
{
	struct event event = { .kind = EVENT_CLIENT_NEIGHBOUR_MISSING, .ifindex = ifindex, .family = FAMILY_IPV4 };

	__builtin_memcpy(event.address.bytes, &address, sizeof(address));
	tell(&event);
	return 0;
}

#endif
