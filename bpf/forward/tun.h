/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */
/*
 * tun, IP in IP (RFC 2003): an outer header from the director to the real server goes around the packet. As IPVS fills
 * it: the inner TTL after its decrement, the inner DF, the inner TOS but ECN's CE becomes ECT(0) (RFC 6040 leaves CE to
 * the inside; ip_vs_tunnel_xmit()), and an id of 0 with DF, a random one without.
 */
#ifndef SLUICE_FORWARD_TUN_H
#define SLUICE_FORWARD_TUN_H

#include "forward.h"

#define ECN_MASK 3
#define ECN_CE 3
#define ECN_ECT_0 2

static __always_inline int forward_tun(struct xdp_md *ctx, const struct packet *packet, const struct real_server *real,
				       const struct route *route)
{
	__u16 length = packet->length + sizeof(struct iphdr);
	__be16 df = packet->ip->frag_off & bpf_htons(IPV4_DF);
	__u8 tos = packet->ip->tos;
	struct ethernet *ethernet;
	struct iphdr *outer;
	__u64 sum = 0;
	__u8 ttl;

	(void)route;
	if (length > real->mtu)
		return DROP_MTU_EXCEEDED;
	rewrite_hop(packet);
	ttl = packet->ip->ttl;
	if ((tos & ECN_MASK) == ECN_CE)
		tos = (tos & ~ECN_MASK) | ECN_ECT_0;

	if (bpf_xdp_adjust_head(ctx, -(int)sizeof(*outer)))
		return DROP_NO_HEADROOM;
	ethernet = (void *)(long)ctx->data;
	outer = (void *)(ethernet + 1);
	if ((void *)(outer + 1) > (void *)(long)ctx->data_end)
		return DROP_NO_HEADROOM;
	rewrite_ethernet(ethernet, real);
	ethernet->type = bpf_htons(ETH_P_IP);
	outer->version = 4;
	outer->ihl = sizeof(*outer) / 4;
	outer->tos = tos;
	outer->tot_len = bpf_htons(length);
	outer->id = df ? 0 : (__be16)bpf_get_prandom_u32();
	outer->frag_off = df;
	outer->ttl = ttl;
	outer->protocol = PROTOCOL_IPIP;
	outer->check = 0;
	outer->saddr = *ipv4_of(&real->director);
	outer->daddr = *ipv4_of(&real->address);
	for (__u32 i = 0; i < sizeof(*outer) / 2; i++)
		sum += ((__u16 *)outer)[i];
	outer->check = ~checksum_fold(sum);
	return FORWARDED;
}

#endif
