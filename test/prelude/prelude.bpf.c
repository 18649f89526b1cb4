// SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only
/*
 * What stands before a program that is run many times over one packet. BPF_PROG_TEST_RUN repeats without restoring the
 * packet, so from the second time on a program that rewrites or encapsulates would see its own output, and one flow
 * only. The prelude takes off what was put on, writes the headers anew, chooses the flow, and tail-calls the program in
 * slot 0 of prelude_programs. It costs the same for every program behind it: figures are read as differences.
 *
 * It takes a frame that has grown or shrunk to have done so at its head, as encapsulation does.
 */
#include <linux/bpf.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/tcp.h>
#include <linux/udp.h>
#include "prelude.h"

/* The program under test. Written by the test. */
struct {
	__uint(type, BPF_MAP_TYPE_PROG_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u32);
} prelude_programs SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct prelude_settings);
} prelude_settings SEC(".maps");

/* The flows. Written by the test through mmap, which sets the size as well. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct prelude_flow);
} prelude_flows SEC(".maps");

/* IPv4 without options: what stands where in `headers`. */
#define IP_OFFSET sizeof(struct ethhdr)
#define TRANSPORT_OFFSET (IP_OFFSET + sizeof(struct iphdr))

/* RFC 1624, equation 3, for one 32-bit word of the sum. */
static __always_inline __be16 checksum_replace(__be16 checksum, __be32 from, __be32 to)
{
	__u64 sum = (__u16)~checksum + (__u64)(__u32)~from + to;

	sum = (sum & 0xffffffff) + (sum >> 32);
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	return (__be16)~sum;
}

static __always_inline void write_known_flow(void *frame, const struct prelude_flow *flow)
{
	struct iphdr *ip = frame + IP_OFFSET;
	struct tcphdr *tcp = frame + TRANSPORT_OFFSET;
	struct udphdr *udp = frame + TRANSPORT_OFFSET;
	__u64 *addresses = frame + IP_OFFSET + offsetof(struct iphdr, saddr);
	__u32 *ports = frame + TRANSPORT_OFFSET;

	*addresses = flow->addresses;
	ip->check = flow->ip_checksum;
	if (ip->protocol == IPPROTO_TCP) {
		*ports = flow->ports;
		tcp->check = flow->checksum;
	} else if (ip->protocol == IPPROTO_UDP) {
		*ports = flow->ports;
		udp->check = flow->checksum;
	}
}

static __always_inline void write_new_flow(void *frame, __u32 number)
{
	struct iphdr *ip = frame + IP_OFFSET;
	struct tcphdr *tcp = frame + TRANSPORT_OFFSET;
	struct udphdr *udp = frame + TRANSPORT_OFFSET;
	__u32 mixed = number * 0x9e3779b1; /* odd, so every number has its own */
	__be32 address = bpf_htonl(bpf_ntohl(ip->saddr) + (mixed >> 15));
	__be16 port = bpf_htons(0x8000 | (mixed & 0x7fff));
	__be32 from = ip->saddr;

	ip->saddr = address;
	ip->check = checksum_replace(ip->check, from, address);
	if (ip->protocol == IPPROTO_TCP) {
		tcp->check = checksum_replace(tcp->check, from, address);
		tcp->check = checksum_replace(tcp->check, tcp->source, port);
		tcp->source = port;
	} else if (ip->protocol == IPPROTO_UDP) {
		udp->check = checksum_replace(udp->check, from, address);
		udp->check = checksum_replace(udp->check, udp->source, port);
		udp->source = port;
	}
}

SEC("xdp") int prelude(struct xdp_md *ctx)
{
	__u32 zero = 0;
	struct prelude_settings *settings = bpf_map_lookup_elem(&prelude_settings, &zero);
	const struct prelude_flow *flow;
	__u32 number;
	__u64 *to;
	long grown;

	if (!settings)
		return XDP_ABORTED;

	grown = (void *)(long)ctx->data_end - (void *)(long)ctx->data - settings->length;
	if (grown && bpf_xdp_adjust_head(ctx, grown))
		return XDP_ABORTED;

	to = (void *)(long)ctx->data;
	if ((void *)to + PRELUDE_HEADERS > (void *)(long)ctx->data_end)
		return XDP_ABORTED;
	for (int i = 0; i < PRELUDE_HEADERS / 8; i++)
		to[i] = settings->headers[i];

	number = settings->next;
	if (settings->flows) {
		flow = bpf_map_lookup_elem(&prelude_flows, &number);
		if (!flow)
			return XDP_ABORTED;
		write_known_flow(to, flow);
		settings->next = number + 1 < settings->flows ? number + 1 : 0;
	} else {
		write_new_flow(to, number);
		settings->next = number + 1;
	}

	bpf_tail_call_static(ctx, &prelude_programs, 0);
	return XDP_ABORTED;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
