/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */
/*
 * fullnat: the source CIP:CPORT becomes LIP:LPORT and the destination VIP:VPORT becomes RIP:RPORT, so that the reply
 * comes back to the director whatever the real server's routes are.
 */
#ifndef SLUICE_FORWARD_FULLNAT_H
#define SLUICE_FORWARD_FULLNAT_H

#include "forward.h"

static __always_inline int forward_fullnat(struct xdp_md *ctx, const struct packet *packet,
					   const struct real_server *real, const struct route *route)
{
	struct change change = {};
	__u32 index = route->local_address;
	const struct address *local = bpf_map_lookup_elem(&local_addresses, &index);

	(void)ctx;
	if (!local)
		return DROP_NO_LOCAL_ADDRESS;
	if (packet->length > real->mtu)
		return DROP_MTU_EXCEEDED;
	rewrite_source(packet, &change, *ipv4_of(local), route->local_port);
	rewrite_destination(packet, &change, *ipv4_of(&real->address), real_port(real, &route->flow));
	rewrite_l4_checksum(packet, &change, &route->flow);
	rewrite_ip_checksum(packet, &change);
	rewrite_hop(packet);
	rewrite_ethernet(packet->ethernet, real);
	return FORWARDED;
}

#endif
