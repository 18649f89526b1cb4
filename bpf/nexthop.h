/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */
/* Leaving the director: to a real server by the next hop that the control plane keeps beside it, to a client by the
 * kernel's routes. */
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

/* Keeps what the kernel answered, for this tick. */
static __always_inline void keep_client_hop(struct client_hop *hop, const struct bpf_fib_lookup *answer,
					    const struct iphdr *ip, __u32 from_ifindex, __u32 tick)
{
	*ipv4_of(&hop->client) = ip->daddr;
	*ipv4_of(&hop->vip) = ip->saddr;
	hop->tick = tick;
	hop->from_ifindex = from_ifindex;
	hop->ifindex = answer->ifindex;
	__builtin_memcpy(hop->destination_mac, answer->dmac, ETH_ALEN);
	__builtin_memcpy(hop->source_mac, answer->smac, ETH_ALEN);
	hop->mtu = answer->mtu_result;
	hop->tos = ip->tos;
}

/*
 * Sends a translated reply on to its client, as the kernel's routing and neighbour tables say (bpf_fib_lookup), by the
 * addresses that the packet has now. The kernel is asked once a tick for each client: the lookup costs more than all
 * the rest of a reply, and replies come in bursts. So a change of route is followed after 4.2 ms, or a jiffy where that
 * is longer. A function of its own for its stack frame.
 */
GLOBAL int leave_to_client(struct xdp_md *ctx)
{
	struct ethernet *ethernet = (void *)(long)ctx->data;
	struct iphdr *ip = (void *)(ethernet + 1);
	struct bpf_fib_lookup lookup = {};
	struct client_hop *hop;
	__u32 slot, tick = tick_now();

	if ((void *)(ip + 1) > (void *)(long)ctx->data_end)
		return drop(ctx, DROP_MALFORMED);
	slot = (ip->daddr * 0x9e3779b1) >> 22;
	hop = bpf_map_lookup_elem(&client_hops, &slot);
	if (hop && hop->ifindex && hop->tick == tick && *ipv4_of(&hop->client) == ip->daddr &&
	    *ipv4_of(&hop->vip) == ip->saddr && hop->from_ifindex == ctx->ingress_ifindex && hop->tos == ip->tos) {
		if (bpf_ntohs(ip->tot_len) > hop->mtu)
			return drop(ctx, DROP_MTU_EXCEEDED);
		ethernet_macs(ethernet, hop->destination_mac);
		return leave(ctx, hop->ifindex);
	}

	lookup.family = AF_INET;
	lookup.l4_protocol = ip->protocol;
	lookup.tot_len = bpf_ntohs(ip->tot_len);
	lookup.ifindex = ctx->ingress_ifindex;
	lookup.tos = ip->tos;
	lookup.ipv4_src = ip->saddr;
	lookup.ipv4_dst = ip->daddr;

	switch (bpf_fib_lookup(ctx, &lookup, sizeof(lookup), 0)) {
	case BPF_FIB_LKUP_RET_SUCCESS:
		if (hop)
			keep_client_hop(hop, &lookup, ip, ctx->ingress_ifindex, tick);
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
