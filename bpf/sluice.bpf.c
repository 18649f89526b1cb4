// SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only
/* The packet's way through the director. */
#include "maps.h"
#include "packet.h"
#include "connection.h"
#include "service.h"
#include "established.h"
#include "open.h"
#include "reply.h"
#include "forward/methods.h"
#include "icmp.h"
#include "sweep.h"
#include "resolve_route.h"
#include "list_connections.h"

/* Fragments and broken packets to a VIP cannot be balanced; to any other address they are none of our business. */
GLOBAL int refuse(struct xdp_md *ctx, struct flow *flow, enum drop_reason reason)
{
	return flow && is_vip(flow) ? drop(ctx, reason) : XDP_PASS;
}

SEC("xdp") int sluice(struct xdp_md *ctx)
{
	struct route route;
	struct packet packet;

	/* parse() fills the flow. */
	__builtin_memset(&route.now, 0, sizeof(route) - offsetof(struct route, now));
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
	route.tcp_flags = packet.tcp_flags;

	struct place place = {};
	struct connection *connection = connection_find(&route.flow, flow_hash(&route.flow), &place);

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
