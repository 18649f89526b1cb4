// SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only
/* The packet's way through the director. */
#include "maps.h"
#include "packet.h"
#include "connection.h"
#include "service.h"
#include "open.h"
#include "forward/nat.h"
#include "forward/dr.h"
#include "forward/tun.h"
#include "forward/fullnat.h"
#include "reply.h"
#include "icmp.h"
#include "sweep.h"
#include "resolve_route.h"
#include "list_connections.h"

/* Fragments and broken packets to a VIP cannot be balanced; to any other address they are none of our business. */
GLOBAL int refuse(struct xdp_md *ctx, struct flow *flow, enum drop_reason reason)
{
	return flow && is_vip(flow) ? drop(ctx, reason) : XDP_PASS;
}

/*
 * A client's packet of a known connection: fills `route` and takes the connection's state on. False if it is over, or if the packet is a
 * SYN that opens it afresh (TIME_WAIT and CLOSE, as IPVS's conn_reuse_mode 1 has it); it is then gone from the table.
 */
static __always_inline bool continues(struct connection *connection, const struct place *place, struct route *route,
				      __u32 protocol)
{
	enum connection_state state = connection->state;
	enum tcp_side side = connection->twin == NO_TWIN ? SIDE_CLIENT_ALONE : SIDE_CLIENT;
	__u32 expires = connection->expires;

	route->real = connection->real;
	route->service = connection->service;
	route->local_address = connection->local_address;
	route->local_port = connection->local_port;
	barrier();
	if (id_of(connection) != place->id)
		return false;
	if (is_over(expires, route->now) || ((route->tcp_flags & (TCP_FLAG_SYN | TCP_FLAG_RST)) == TCP_FLAG_SYN &&
					     (state == TCP_TIME_WAIT || state == TCP_CLOSE))) {
		connection_remove(place->location, place->id);
		return false;
	}
	if (protocol == PROTOCOL_TCP && next_state(state, side, route->tcp_flags) != state)
		connection_transition(place->location, place->id, route->tcp_flags, side);
	else
		refresh(connection, state, route->now);
	return true;
}

static __always_inline int forward(struct xdp_md *ctx, const struct packet *packet, const struct route *route)
{
	const struct real_server *real = bpf_map_lookup_elem(&real_servers, &route->real);
	__u16 length = packet->length;
	int result, verdict;

	if (!real || real->state != REAL_ACTIVE)
		return drop(ctx, DROP_REAL_SERVER_REMOVED);

	__u32 ifindex = real->ifindex;

	if (!ifindex) {
		tell_next_hop_missing(route->real);
		return drop(ctx, DROP_NEXT_HOP_UNRESOLVED);
	}
	if (packet->ip->ttl <= 1)
		return drop(ctx, DROP_TTL_EXCEEDED);
	/* First of all, so that what is dropped is dropped as it came. */
	verdict = leave(ctx, ifindex);
	if (verdict == XDP_DROP)
		return verdict;
	switch (real->method) {
	case METHOD_NAT:
		result = forward_nat(ctx, packet, real, route);
		break;
	case METHOD_DR:
		result = forward_dr(ctx, packet, real, route);
		break;
	case METHOD_TUN:
		result = forward_tun(ctx, packet, real, route);
		break;
	case METHOD_FULLNAT:
		result = forward_fullnat(ctx, packet, real, route);
		break;
	default:
		result = DROP_REAL_SERVER_REMOVED;
	}
	if (result != FORWARDED)
		return drop(ctx, result);
	count_in(route->service, route->real, length);
	return verdict;
}

SEC("xdp") int sluice(struct xdp_md *ctx)
{
	struct route route = {};
	struct packet packet;

	switch (parse(ctx, &packet, &route.flow)) {
	case PACKET_FOREIGN:
		return XDP_PASS;
	case PACKET_ICMP:
		return answer_echo(ctx, &route.flow);
	case PACKET_FRAGMENT:
		return refuse(ctx, &route.flow, DROP_FRAGMENT);
	case PACKET_MALFORMED:
		return refuse(ctx, &route.flow, DROP_MALFORMED);
	case PACKET_FLOW:
		break;
	}
	route.now = tick_now();
	route.hash = flow_hash(&route.flow);
	route.tcp_flags = packet.tcp_flags;

	struct place place = {};
	struct connection *connection = connection_find(&route.flow, route.hash, &place);

	if (connection && connection->direction == DIRECTION_REVERSE)
		return reply(ctx, &packet, connection, &place, route.now);
	if (!connection || !continues(connection, &place, &route, packet.protocol)) {
		int verdict = open(ctx, &route);

		if (verdict != OPENED)
			return verdict;
	}
	return forward(ctx, &packet, &route);
}

char dual_license[] SEC("license") = "Dual BSD/GPL";
