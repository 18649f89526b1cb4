/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */
/* A client's packet on its way to its real server, by that server's forwarding method. */
#ifndef SLUICE_FORWARD_METHODS_H
#define SLUICE_FORWARD_METHODS_H

#include "../nexthop.h"
#include "dr.h"
#include "fullnat.h"
#include "nat.h"
#include "tun.h"

static __always_inline int forward(struct xdp_md *ctx, const struct packet *packet, const struct route *route,
				   const struct real_server *real)
{
	__u16 length = packet->length;
	__u32 ifindex = real->ifindex;
	int result, verdict;

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
	count_in(route->real, length);
	return verdict;
}

#endif
