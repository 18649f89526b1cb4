/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */
/* nat: the destination VIP:VPORT becomes RIP:RPORT. The reply comes back through here (reply.h). */
#ifndef SLUICE_FORWARD_NAT_H
#define SLUICE_FORWARD_NAT_H

#include "forward.h"

static __always_inline int forward_nat(struct xdp_md *ctx, const struct packet *packet, const struct real_server *real,
				       const struct route *route)
{
	struct change change = {};

	(void)ctx;
	if (packet->length > real->mtu)
		return DROP_MTU_EXCEEDED;
	rewrite_destination(packet, &change, *ipv4_of(&real->address), real_port(real, &route->flow));
	rewrite_l4_checksum(packet, &change, &route->flow);
	rewrite_ip_checksum(packet, &change);
	rewrite_hop(packet);
	rewrite_ethernet(packet->ethernet, real);
	return FORWARDED;
}

#endif
