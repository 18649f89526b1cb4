// SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only
/*
 * The least that forwarding a packet can cost: what the figures of the data plane are read against. They run behind the
 * same prelude in the same rounds.
 */
#include <linux/bpf.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>

/* Nothing at all: what the prelude and the kernel's loop cost. */
SEC("xdp") int reference_transmit(struct xdp_md *ctx __attribute__((unused)))
{
	return XDP_TX;
}

/* The floor for nat, dr and fullnat. In words of 16 bits, as the kernel's own samples/bpf do it: bytes would be slower.
 */
SEC("xdp") int reference_swap_macs(struct xdp_md *ctx)
{
	__u16 *macs = (void *)(long)ctx->data;
	__u16 destination[3];

	if ((void *)macs + sizeof(struct ethhdr) > (void *)(long)ctx->data_end)
		return XDP_ABORTED;
	destination[0] = macs[0];
	destination[1] = macs[1];
	destination[2] = macs[2];
	macs[0] = macs[3];
	macs[1] = macs[4];
	macs[2] = macs[5];
	macs[3] = destination[0];
	macs[4] = destination[1];
	macs[5] = destination[2];
	return XDP_TX;
}

#define OUTER_BYTES (sizeof(struct ethhdr) + sizeof(struct iphdr))

/* Aligned to 8 so that the compiler copies words; the packet itself may lie anywhere. */
struct outer {
	struct ethhdr ethernet;
	struct iphdr ip;
} __attribute__((packed, aligned(8)));

/* The floor for tun: the same outer headers on every packet, nothing looked up and nothing computed. */
SEC("xdp") int reference_push_ipip(struct xdp_md *ctx)
{
	static const struct outer outer = {
		.ethernet = {
			.h_dest = { 0x02, 0, 0, 0, 0, 0x02 },
			.h_source = { 0x02, 0, 0, 0, 0, 0x01 },
			.h_proto = bpf_htons(ETH_P_IP),
		},
		.ip = {
			.version = 4,
			.ihl = 5,
			.tot_len = bpf_htons(70),
			.ttl = 64,
			.protocol = IPPROTO_IPIP,
			.check = bpf_htons(0x66b2),
			.saddr = bpf_htonl(0x0a000001),
			.daddr = bpf_htonl(0x0a000002),
		},
	};
	struct outer *to;

	if (bpf_xdp_adjust_head(ctx, -(int)sizeof(struct iphdr)))
		return XDP_ABORTED;
	to = (void *)(long)ctx->data;
	if ((void *)to + OUTER_BYTES > (void *)(long)ctx->data_end)
		return XDP_ABORTED;
	__builtin_memcpy(to, &outer, OUTER_BYTES);
	return XDP_TX;
}

/* The far end of a veth for live frames: its presence makes the near end deliver, and nothing comes back. */
SEC("xdp") int reference_drop(struct xdp_md *ctx __attribute__((unused)))
{
	return XDP_DROP;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
