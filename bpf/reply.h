/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */
/* The way back: a packet from a real server by nat or fullnat becomes one from VIP:VPORT to CIP:CPORT again. */
#ifndef SLUICE_REPLY_H
#define SLUICE_REPLY_H

#include "connection.h"
#include "nexthop.h"
#include "rewrite.h"

/* What reply() returns for a packet whose connection is over: one like any other. */
#define NO_CONNECTION (-1)

static __always_inline int reply(struct xdp_md *ctx, const struct packet *packet, const struct flow *flow,
				 const struct connection *reverse, const struct place *place, __u32 now)
{
	struct connection *connection = connection_twin(reverse, place->location);
	struct change change = {};
	int verdict;

	if (!connection || is_over(connection->expires, now))
		return NO_CONNECTION;

	/* The two ends of the connection are the client's own flow, turned round. */
	__be32 vip = *ipv4_of(&connection->flow.destination), client = *ipv4_of(&connection->flow.source);
	__be16 vip_port = connection->flow.destination_port, client_port = connection->flow.source_port;
	__u32 index = connection->real;
	const struct real_server *real = bpf_map_lookup_elem(&real_servers, &index);
	enum connection_state state = connection->state;
	__u32 forward_location = reverse->twin, template = connection->template;

	barrier();
	if (!real || id_of(connection) != place->id || id_of(reverse) != place->id)
		return NO_CONNECTION;
	/* Of a removed real server, whose connections are over. */
	if (real->state == REAL_RESET)
		return NO_CONNECTION;
	if (packet->ip->ttl <= 1)
		return drop(ctx, DROP_TTL_EXCEEDED);
	if (packet->protocol != PROTOCOL_UDP && next_state(state, SIDE_SERVER, packet->event) != state)
		connection_transition(forward_location, place->id, packet->event, SIDE_SERVER);
	else
		refresh(connection, real, state, now);
	/* UDP's is established with its first reply (udp_state_transition() in net/netfilter/ipvs/ip_vs_proto_udp.c).
	 */
	if (template != NOWHERE && packet->protocol == PROTOCOL_UDP)
		assure_template(template);

	rewrite_source(packet, &change, vip, vip_port);
	rewrite_destination(packet, &change, client, client_port);
	rewrite_l4_checksum(packet, &change, flow);
	rewrite_ip_checksum(packet, &change);
	rewrite_hop(packet);
	verdict = leave_to_client(ctx);
	if (verdict != XDP_DROP)
		count_out(index, packet->length);
	return verdict;
}

#endif
