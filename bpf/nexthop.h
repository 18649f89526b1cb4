/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */
/* Leaving the director: to a real server by the next hop that the control plane keeps beside it, to a client by the kernel's routes. */
#ifndef SLUICE_NEXTHOP_H
#define SLUICE_NEXTHOP_H

#include "counters.h"
#include "events.h"
#include "packet.h"

#define AF_INET 2

/* The packet goes out on `ifindex`: back where it came from, or over to another interface. */
static __always_inline int leave(struct xdp_md *ctx, __u32 ifindex)
{
	if (ifindex == ctx->ingress_ifindex)
		return XDP_TX;
	if (bpf_redirect_map(&egress, ifindex, XDP_DROP) == XDP_REDIRECT)
		return XDP_REDIRECT;
	return drop(ctx, DROP_EGRESS_UNKNOWN);
}

/*
 * Sends a translated reply on to its client, as the kernel's routing and neighbour tables say (bpf_fib_lookup); they are asked for
 * each packet, so a change of route is followed at once. The lookup is by the addresses that the packet has now. A function
 * of its own for its stack frame.
 */
GLOBAL int leave_to_client(struct xdp_md *ctx)
{
	struct ethernet *ethernet = (void *)(long)ctx->data;
	struct iphdr *ip = (void *)(ethernet + 1);
	struct bpf_fib_lookup lookup = {};

	if ((void *)(ip + 1) > (void *)(long)ctx->data_end)
		return drop(ctx, DROP_MALFORMED);
	lookup.family = AF_INET;
	lookup.l4_protocol = ip->protocol;
	lookup.tot_len = bpf_ntohs(ip->tot_len);
	lookup.ifindex = ctx->ingress_ifindex;
	lookup.tos = ip->tos;
	lookup.ipv4_src = ip->saddr;
	lookup.ipv4_dst = ip->daddr;

	switch (bpf_fib_lookup(ctx, &lookup, sizeof(lookup), 0)) {
	case BPF_FIB_LKUP_RET_SUCCESS:
		__builtin_memcpy(ethernet->destination, lookup.dmac, ETH_ALEN);
		__builtin_memcpy(ethernet->source, lookup.smac, ETH_ALEN);
		return leave(ctx, lookup.ifindex);
	case BPF_FIB_LKUP_RET_NO_NEIGH:
		tell_client_neighbour_missing(lookup.ipv4_dst, lookup.ifindex);
		return drop(ctx, DROP_NEIGHBOUR_UNRESOLVED);
	case BPF_FIB_LKUP_RET_FRAG_NEEDED:
		return drop(ctx, DROP_MTU_EXCEEDED);
	default:
		return drop(ctx, DROP_NO_ROUTE_TO_CLIENT);
	}
}

#endif
