/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */
/* The packet that starts a connection: find its service, pick a real server, put the connection into the table. */
#ifndef SLUICE_OPEN_H
#define SLUICE_OPEN_H

#include "connection.h"
#include "forward/forward.h"
#include "nexthop.h"
#include "schedule/schedule.h"
#include "service.h"

#define OPENED (-1)

/* The flow of the replies: from the real server to where it believes the request came from. */
static __always_inline void reply_flow(struct flow *reply, const struct real_server *real, const struct flow *flow)
{
	reply->source = real->address;
	reply->source_port = bpf_htons(real->port);
	reply->destination = flow->source;
	reply->destination_port = flow->source_port;
	reply->protocol = flow->protocol;
	reply->family = real->family;
}

/* Inserts the reverse entry of a connection, in the place of one with the same flow whose connection is over. Returns
 * enum insertion. */
GLOBAL int insert_reverse(struct connection *reverse, __u32 *location, __u32 now)
{
	if (!reverse || !location)
		return INSERT_FULL;

	struct place place = {};
	struct connection *old = connection_find(&reverse->flow, flow_hash(&reverse->flow), &place);

	if (old) {
		struct connection *forward = forward_entry(old, place.location);

		if (!is_over(forward ? forward->expires : old->expires, now))
			return INSERT_EXISTS;
		connection_remove(place.location, place.id);
	}
	return connection_insert(reverse, location);
}

/* nat: the reply flow is what it is. Returns OPENED or a drop_reason. */
static __always_inline int take_reply_flow(struct connection *reverse, const struct route *route, __u32 *location)
{
	switch (insert_reverse(reverse, location, route->now)) {
	case INSERTED:
		return OPENED;
	case INSERT_EXISTS:
		return DROP_REPLY_FLOW_TAKEN;
	case INSERT_CONTENDED:
		return DROP_TABLE_CONTENDED;
	default:
		return DROP_TABLE_FULL;
	}
}

/*
 * fullnat: a local port is taken by inserting the reverse entry with it. That the flow is unique is the allocation, so
 * a LIP:LPORT serves as many connections as there are real servers. A bounded number of ports is tried, from a random
 * one on. Returns OPENED or a drop_reason.
 */
static __always_inline int take_local_port(struct connection *reverse, struct route *route, __u32 *location)
{
	__u32 zero = 0;
	const struct settings *current = bpf_map_lookup_elem(&settings, &zero);

	if (!current || !current->local_addresses)
		return DROP_NO_LOCAL_ADDRESS;

	__u32 ports = current->local_port_last - current->local_port_first + 1;
	__u32 index = bpf_get_prandom_u32() % current->local_addresses;
	__u32 first = bpf_get_prandom_u32();
	const struct address *local = bpf_map_lookup_elem(&local_addresses, &index);

	if (!local || !ports)
		return DROP_NO_LOCAL_ADDRESS;
	reverse->flow.destination = *local;
	route->local_address = index;
	for (__u32 i = 0; i < LOCAL_PORT_TRIES; i++) {
		route->local_port = bpf_htons(current->local_port_first + (first + i) % ports);
		reverse->flow.destination_port = route->local_port;
		switch (insert_reverse(reverse, location, route->now)) {
		case INSERTED:
			return OPENED;
		case INSERT_FULL:
			return DROP_TABLE_FULL;
		default:
			continue;
		}
	}
	return DROP_LOCAL_PORTS_EXHAUSTED;
}

/* Puts the connection that `route` describes into the table, reverse entry first. Returns OPENED or a drop_reason. */
GLOBAL int insert_connection(const struct real_server *real, struct route *route)
{
	if (!real || !route)
		return DROP_TABLE_FULL;

	bool has_reverse = real->method == METHOD_NAT || real->method == METHOD_FULLNAT;
	enum tcp_side side = has_reverse ? SIDE_CLIENT : SIDE_CLIENT_ALONE;
	enum connection_state state = UDP_NORMAL;
	__u32 twin = NO_TWIN, location = 0;
	struct connection entry = {
		.real = route->real,
		.service = route->service,
		.twin = NO_TWIN,
		.id = bpf_get_prandom_u32() | 1,
	};

	if (has_reverse) {
		int result;

		entry.direction = DIRECTION_REVERSE;
		entry.expires = route->now + TWIN_GRACE_TICKS;
		reply_flow(&entry.flow, real, &route->flow);
		if (real->method == METHOD_NAT)
			result = take_reply_flow(&entry, route, &twin);
		else
			result = take_local_port(&entry, route, &twin);
		if (result != OPENED)
			return result;
	}

	if (route->flow.protocol == PROTOCOL_TCP)
		state = next_state(TCP_NONE, side, route->tcp_flags);
	entry.flow = route->flow;
	entry.direction = DIRECTION_FORWARD;
	entry.expires = route->now + state_timeout(state);
	entry.state = state;
	entry.twin = twin;
	entry.local_address = route->local_address;
	entry.local_port = route->local_port;

	int inserted = connection_insert(&entry, &location);

	if (inserted == INSERTED && (!has_reverse || connection_name_twin(twin, entry.id, location)))
		return OPENED;
	if (inserted == INSERTED)
		connection_remove(location, entry.id);
	else if (has_reverse)
		connection_remove(twin, entry.id);
	return inserted == INSERT_FULL ? DROP_TABLE_FULL : DROP_TABLE_CONTENDED;
}

/* Picks the real server for a packet without a connection. Returns as open() does. */
GLOBAL int open_pick(struct xdp_md *ctx, struct route *route)
{
	if (!route)
		return XDP_PASS;

	__u32 index; /* one variable for both keys: the stack is short here */
	const struct service *service = service_find(&route->flow, &index);
	const struct real_server *real;

	if (!service)
		return XDP_PASS;
	if (route->flow.protocol == PROTOCOL_TCP && (route->tcp_flags & (TCP_FLAG_SYN | TCP_FLAG_RST)) != TCP_FLAG_SYN)
		return XDP_PASS;

	route->service = index;
	route->real = index = schedule(service, index, &route->flow);
	real = bpf_map_lookup_elem(&real_servers, &index);
	if (!real || real->state != REAL_ACTIVE || real->service != route->service || !real->weight)
		return drop(ctx, DROP_NO_REAL_SERVER);
	if (!real->ifindex) {
		tell_next_hop_missing(route->real);
		return drop(ctx, DROP_NEXT_HOP_UNRESOLVED);
	}
	return OPENED;
}

/*
 * A packet without a connection. Returns OPENED with `route` filled, or an XDP verdict: XDP_PASS for what no service is
 * for, and for TCP segments that do not open a connection (the host answers them with a reset, as with IPVS). Inlined:
 * the calls below are deep, and all their frames together may take 512 bytes.
 */
static __always_inline int open(struct xdp_md *ctx, struct route *route)
{
	int result = open_pick(ctx, route);

	if (result != OPENED)
		return result;

	const struct real_server *real = bpf_map_lookup_elem(&real_servers, &route->real);

	if (!real)
		return drop(ctx, DROP_NO_REAL_SERVER);
	result = insert_connection(real, route);
	if (result != OPENED)
		return drop(ctx, result);
	count_connection(route->service, route->real);
	return OPENED;
}

#endif
