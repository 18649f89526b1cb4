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

/* Where the programs are that this one goes on with. Filled when the object is loaded. */
struct {
	__uint(type, BPF_MAP_TYPE_PROG_ARRAY);
	__uint(max_entries, WAYS);
	__uint(key_size, sizeof(__u32));
	__array(values, int(void *));
} ways SEC(".maps") = {
	.values = { [WAY_OPEN] = (void *)&open_connection },
};

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
	route.event = packet.event;

	struct place place = {};
	struct connection *connection = connection_find(&route.flow, flow_hash(&route.flow), &place);
	const struct real_server *real = NULL;

	if (connection && connection->direction == DIRECTION_REVERSE) {
		int verdict = reply(ctx, &packet, &route.flow, connection, &place, route.now);

		if (verdict != NO_CONNECTION)
			return verdict;
	} else if (connection) {
		switch (continues(connection, &place, &route, packet.protocol, &real)) {
		case CONTINUES:
			if (real)
				return forward(ctx, &packet, &route, real);
			break;
		case ENDS:
			return end(ctx, real, packet.protocol);
		case OPENS:
			break;
		}
	}
	bpf_tail_call(ctx, &ways, WAY_OPEN);
	/* Only between the two moments in which an upgrade replaces the programs. */
	return XDP_PASS;
}

char dual_license[] SEC("license") = "Dual BSD/GPL";
