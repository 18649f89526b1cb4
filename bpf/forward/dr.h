/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */
/* dr, direct routing: only the MACs change, and the TTL as for any hop. The real server answers the client itself. */
#ifndef SLUICE_FORWARD_DR_H
#define SLUICE_FORWARD_DR_H

#include "forward.h"

static __always_inline int forward_dr(struct xdp_md *ctx, const struct packet *packet, const struct real_server *real,
				      const struct route *route)
{

	(void)ctx;
	(void)route;
	if (packet->length > real->mtu)
		return DROP_MTU_EXCEEDED;
	rewrite_hop(packet);
	rewrite_ethernet(packet->ethernet, real);
	return FORWARDED;
}

#endif
