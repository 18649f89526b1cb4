/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */
/* The packet that starts a connection: find its service, pick a real server, put the connection into the table. */
#ifndef SLUICE_OPEN_H
#define SLUICE_OPEN_H

#include "answer.h"
#include "forward/methods.h"
#include "persistence.h"
#include "service.h"

/* The flow of the replies: from the real server to where it believes the request came from. */
static __always_inline void reply_flow(struct flow *reply, const struct real_server *real, const struct flow *flow)
{
	reply->source = real->address;
	reply->source_port = real_port(real, flow);
	reply->destination = flow->source;
	reply->destination_port = flow->source_port;
	reply->protocol = flow->protocol;
	reply->family = real->family;
	reply->kind = FLOW_OF_PACKETS;
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
		struct connection *forward = whole_entry(old, place.location);

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
 * a LIP:LPORT serves as many connections as there are real servers. A bounded number of ports is tried, each of a local
 * address drawn at random. Returns OPENED or a drop_reason.
 */
static __always_inline int take_local_port(struct connection *reverse, struct route *route, __u32 *location)
{
	__u32 real = route->real;
	const struct local_pool *pool = bpf_map_lookup_elem(&local_pools, &real);

	if (!pool)
		return DROP_NO_LOCAL_ADDRESS;

	/* One load of the whole word: chunk and length belong together. */
	__u64 word = *(volatile const __u64 *)&pool->ring;
	__u32 addresses = word >> 32, ports = pool->last_port - pool->first_port + 1;

	if (!addresses || !ports)
		return DROP_NO_LOCAL_ADDRESS;
	for (__u32 i = 0; i < LOCAL_PORT_TRIES; i++) {
		__u32 random = bpf_get_prandom_u32();
		__u32 index = ring_slot(word, (random >> 16) % addresses);
		const struct address *local = bpf_map_lookup_elem(&local_addresses, &index);

		if (!local)
			return DROP_NO_LOCAL_ADDRESS;
		route->local_address = index;
		route->local_port = bpf_htons(pool->first_port + (random & 0xffff) % ports);
		reverse->flow.destination = *local;
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

/*
 * Puts the connection that is being opened into the table, reverse entry first, or a one-packet translation. It names
 * `template` (or NOWHERE), which is released if it cannot. Returns OPENED or a drop_reason.
 */
GLOBAL int insert_connection(const struct real_server *real, __u32 template)
{
	struct opening *opening = opening_here();

	if (!real || !opening)
		return DROP_TABLE_FULL;

	bool has_reverse = real->method == METHOD_NAT || real->method == METHOD_FULLNAT;
	enum side side = has_reverse ? SIDE_CLIENT : SIDE_CLIENT_ALONE;
	struct route *route = &opening->route;
	struct connection *entry = &opening->entry;
	enum connection_state state = route->flow.kind ? ONE_PACKET : UDP_NORMAL;
	__u32 twin = NOWHERE, location = 0;
	__u16 id = bpf_get_prandom_u32() | 1;
	int inserted;

	entry->real = route->real;
	entry->template = NOWHERE;
	entry->twin = NOWHERE;
	entry->id = id;
	entry->state = 0;
	entry->local_address = 0;
	entry->local_port = 0;
	if (has_reverse) {
		int result;

		entry->direction = DIRECTION_REVERSE;
		entry->expires = route->now + TWIN_GRACE_TICKS;
		reply_flow(&entry->flow, real, &route->flow);
		if (real->method == METHOD_NAT)
			result = take_reply_flow(entry, route, &twin);
		else
			result = take_local_port(entry, route, &twin);
		if (result != OPENED) {
			release_template(template);
			return result;
		}
	}

	if (route->flow.protocol == PROTOCOL_TCP)
		state = tcp_next_state(TCP_NONE, side, route->event);
	else if (route->flow.protocol == PROTOCOL_SCTP)
		state = sctp_next_state(SCTP_NONE, side, route->event);
	entry->flow = route->flow;
	entry->direction = DIRECTION_FORWARD;
	entry->expires = route->now + state_timeout(real, state);
	entry->state = state;
	entry->template = template;
	entry->twin = twin;
	entry->local_address = route->local_address;
	entry->local_port = route->local_port;
	inserted = connection_insert(entry, &location);
	if (inserted == INSERTED && (!has_reverse || connection_name_twin(twin, id, location))) {
		if (is_established(state))
			assure_template(template);
		return OPENED;
	}
	if (inserted == INSERTED) {
		connection_remove(location, id); /* releases the template, too */
		return DROP_TABLE_CONTENDED;
	}
	if (has_reverse)
		connection_remove(twin, id);
	if (inserted != INSERT_CONTENDED) /* else it was in the table for a moment, and has released it on leaving */
		release_template(template);
	return inserted == INSERT_FULL ? DROP_TABLE_FULL : DROP_TABLE_CONTENDED;
}

/*
 * One-packet scheduling by a method that translates addresses: finds the translation that the packet's reply will need,
 * or inserts it. (IPVS keeps none, and leaves such replies as they are.) Returns OPENED or a drop_reason.
 */
GLOBAL int translate_one_packet(const struct real_server *real)
{
	struct opening *opening = opening_here();
	struct place place = {};
	struct connection *found;
	struct route *route;

	if (!real || !opening)
		return DROP_NO_REAL_SERVER;
	route = &opening->route;
	route->flow.kind = FLOW_OF_ONE_PACKET | (route->real & (FLOW_OF_ONE_PACKET - 1));
	found = connection_find(&route->flow, flow_hash(&route->flow), &place);
	if (found && found->real == route->real && connection_twin(found, place.location) &&
	    !is_over(found->expires, route->now)) {
		route->local_address = found->local_address;
		route->local_port = found->local_port;
		refresh(found, real, ONE_PACKET, route->now);
		if (id_of(found) == place.id)
			return OPENED;
	} else if (found) {
		connection_remove(place.location, place.id);
	}
	return insert_connection(real, NOWHERE);
}

/* Whether a packet of a service, without a connection, opens one (tcp_conn_schedule() in
 * net/netfilter/ipvs/ip_vs_proto_tcp.c, sctp_conn_schedule() in ip_vs_proto_sctp.c). */
static __always_inline bool is_opening(const struct route *route)
{
	__u32 zero = 0, protocol = route->flow.protocol;
	const struct settings *current = bpf_map_lookup_elem(&settings, &zero);

	if (protocol == PROTOCOL_UDP)
		return true;
	if (is_reset(protocol, route->event))
		return false;
	if (is_beginning(protocol, route->event))
		return true;
	return current && (protocol == PROTOCOL_TCP ? current->sloppy_tcp : current->sloppy_sctp);
}

/* A packet that nothing is known of. With settings.nat_icmp_send, one from a nat real server's port is answered with
 * ICMP port unreachable, unless it is a reset (ip_vs_out() in net/netfilter/ipvs/ip_vs_core.c). */
GLOBAL int unserved(struct xdp_md *ctx)
{
	__u32 zero = 0, index;
	const struct settings *current = bpf_map_lookup_elem(&settings, &zero);
	const struct opening *opening = opening_here();

	if (!opening || !current || !current->nat_icmp_send ||
	    is_reset(opening->route.flow.protocol, opening->route.event))
		return XDP_PASS;

	struct service_key key = {
		.vip = opening->route.flow.source,
		.port = bpf_ntohs(opening->route.flow.source_port),
		.protocol = opening->route.flow.protocol,
		.family = opening->route.flow.family,
	};
	const __u32 *found = bpf_map_lookup_elem(&nat_endpoints, &key);

	if (!found)
		return XDP_PASS;
	index = *found;

	const struct real_server *real = bpf_map_lookup_elem(&real_servers, &index);

	/* This host may have asked for it itself, as health checks do. */
	if (!real || *ipv4_of(&opening->route.flow.destination) == *ipv4_of(&real->director))
		return XDP_PASS;
	return answer_unreachable(ctx, *ipv4_of(&real->director), DROP_REPLY_WITHOUT_CONNECTION);
}

/* Picks the real server and puts the connection into the table. Returns OPENED or a drop_reason. */
GLOBAL int open_for(__u32 index)
{
	const struct service *service = bpf_map_lookup_elem(&services, &index);
	struct leading leading = { .service = index, .real = NO_REAL, .location = NOWHERE };
	struct opening *opening = opening_here();
	const struct real_server *real;
	int result = OPENED;

	if (!opening || !service)
		return DROP_NO_REAL_SERVER;

	bool one_packet = service->one_packet && opening->route.flow.protocol == PROTOCOL_UDP;

	if (service->persistence)
		result = lead(&leading);
	else
		leading.real = schedule(index);
	if (result != OPENED)
		return result;
	opening->route.real = index = leading.real;
	real = bpf_map_lookup_elem(&real_servers, &index);
	if (!real)
		return DROP_NO_REAL_SERVER;
	if (!real->ifindex) {
		release_template(leading.location);
		tell_next_hop_missing(index);
		return DROP_NEXT_HOP_UNRESOLVED;
	}
	if (one_packet) {
		release_template(leading.location); /* it has led the packet, and there is no connection to count */
		if (real->method == METHOD_NAT || real->method == METHOD_FULLNAT)
			result = translate_one_packet(real);
	} else {
		result = insert_connection(real, leading.location);
	}
	if (result == OPENED)
		count_connection(leading.real);
	return result;
}

/*
 * Program open_connection: a packet without a connection, by tail call, so that the ways of opening have the stack for
 * themselves. It passes what no service is for, and what does not open a connection of TCP or SCTP: the host answers
 * them with a reset, as with IPVS.
 */
SEC("xdp") int open_connection(struct xdp_md *ctx)
{
	struct opening *opening = opening_here();
	const struct real_server *real;
	struct packet packet;
	struct route *route;
	__u32 service, index;
	int result;

	if (!opening)
		return XDP_PASS;
	route = &opening->route;
	if (parse(ctx, &packet, &route->flow) != PACKET_FLOW)
		return XDP_PASS;
	route->now = tick_now();
	route->event = packet.event;
	route->local_address = 0;
	route->local_port = 0;
	service = service_find(&route->flow);
	if (service == NO_SERVICE)
		return unserved(ctx);
	if (!is_opening(route))
		return XDP_PASS;
	result = open_for(service);
	if (result == DROP_NO_REAL_SERVER)
		return answer_unreachable(ctx, *ipv4_of(&route->flow.destination), result);
	if (result != OPENED)
		return drop(ctx, result);
	index = route->real;
	real = bpf_map_lookup_elem(&real_servers, &index);
	return real ? forward(ctx, &packet, route, real) : drop(ctx, DROP_NO_REAL_SERVER);
}

#endif
