/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */
/* Program resolve_route: asks the kernel's routing and neighbour tables for the control plane. See struct
 * route_request. */
#ifndef SLUICE_RESOLVE_ROUTE_H
#define SLUICE_RESOLVE_ROUTE_H

#include "nexthop.h"

/* Newer than some headers that this is compiled with (Linux 6.7, and stable kernels since). */
#define FIB_LOOKUP_SRC (1U << 4)

static __always_inline enum route_verdict route_verdict(long kernel)
{
	switch (kernel) {
	case BPF_FIB_LKUP_RET_SUCCESS:
		return ROUTE_RESOLVED;
	case BPF_FIB_LKUP_RET_NO_NEIGH:
		return ROUTE_NO_NEIGHBOUR;
	case BPF_FIB_LKUP_RET_FWD_DISABLED:
		return ROUTE_NOT_FORWARDING;
	default:
		return ROUTE_NONE;
	}
}

/* Not inlined, so that struct route_request is in the object's BTF. */
static __noinline int answer_route(struct xdp_md *ctx, struct route_request *request)
{
	struct bpf_fib_lookup lookup = {};
	long verdict;

	if (request->family != FAMILY_IPV4)
		return XDP_ABORTED;
	lookup.family = AF_INET;
	lookup.ifindex = request->from_ifindex;
	lookup.ipv4_dst = *ipv4_of(&request->destination);
	verdict = bpf_fib_lookup(ctx, &lookup, sizeof(lookup), FIB_LOOKUP_SRC);
	if (verdict < 0) {
		/* A kernel that does not know the flag; it cannot tell the source address. */
		__builtin_memset(&lookup, 0, sizeof(lookup));
		lookup.family = AF_INET;
		lookup.ifindex = request->from_ifindex;
		lookup.ipv4_dst = *ipv4_of(&request->destination);
		verdict = bpf_fib_lookup(ctx, &lookup, sizeof(lookup), 0);
	}
	request->verdict = verdict < 0 ? ROUTE_NONE : route_verdict(verdict);
	request->kernel_verdict = verdict;
	request->ifindex = lookup.ifindex;
	*ipv4_of(&request->gateway) = lookup.ipv4_dst;
	*ipv4_of(&request->source) = lookup.ipv4_src;
	__builtin_memcpy(request->destination_mac, lookup.dmac, ETH_ALEN);
	__builtin_memcpy(request->source_mac, lookup.smac, ETH_ALEN);
	request->mtu = lookup.mtu_result;
	return XDP_PASS;
}

SEC("xdp") int resolve_route(struct xdp_md *ctx)
{
	struct route_request *request = (void *)(long)ctx->data;

	if ((void *)(request + 1) > (void *)(long)ctx->data_end)
		return XDP_ABORTED;
	return answer_route(ctx, request);
}

#endif
