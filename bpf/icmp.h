/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */
/* ICMP echo to a VIP is answered here. All other ICMP is the host's. */
#ifndef SLUICE_ICMP_H
#define SLUICE_ICMP_H

#include "answer.h"
#include "service.h"

#define ICMP_ECHO_REPLY 0
#define ICMP_ECHO_REQUEST 8

/* <linux/icmp.h> cannot be had without the C library's socket headers. */
struct icmp_echo {
	__u8 type;
	__u8 code;
	__sum16 checksum;
	__be16 id;
	__be16 sequence;
};

/* Turns an echo request to a VIP into its reply (RFC 792; addresses swapped, all data kept) and sends it back; passes
 * everything else. */
GLOBAL int answer_echo(struct xdp_md *ctx, struct flow *flow)
{
	if (!flow)
		return XDP_PASS;

	void *end = (void *)(long)ctx->data_end;
	struct ethernet *ethernet = (void *)(long)ctx->data;
	struct iphdr *ip = (void *)(ethernet + 1);
	struct icmp_echo *icmp = (void *)(ip + 1);
	__sum16 check;
	__be32 vip;

	/* IP options (record route, timestamps) would have to be answered too: those packets are the host's. */
	if ((void *)(icmp + 1) > end || ip->ihl != 5 || icmp->type != ICMP_ECHO_REQUEST || icmp->code != 0)
		return XDP_PASS;
	if (bpf_ntohs(ip->tot_len) < sizeof(*ip) + sizeof(*icmp) || !is_unicast(ip->saddr) || !is_vip(flow))
		return XDP_PASS;

	check = checksum_apply(icmp->checksum, checksum_replace16(0, bpf_htons(ICMP_ECHO_REQUEST << 8),
								  bpf_htons(ICMP_ECHO_REPLY << 8)));
	icmp->checksum =
		check ? check :
			0xffff; /* a reply that is all zeros verifies with this one alone, any other with both */
	icmp->type = ICMP_ECHO_REPLY;
	ip->check =
		checksum_apply(ip->check, checksum_replace16(0, bpf_htons(ip->ttl << 8), bpf_htons(ANSWER_TTL << 8)));
	ip->ttl = ANSWER_TTL;
	vip = ip->daddr;
	ip->daddr = ip->saddr;
	ip->saddr = vip;
	swap_macs(ethernet);
	return XDP_TX;
}

#endif
