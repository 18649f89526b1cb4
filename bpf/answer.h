/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */
/*
 * What the data plane itself answers where a packet cannot go on: ICMP port unreachable, TCP's reset, and SCTP's ABORT.
 * Each goes back the way the packet came, by its MACs, and answers unicast alone.
 */
#ifndef SLUICE_ANSWER_H
#define SLUICE_ANSWER_H

#include "checksum.h"
#include "clock.h"
#include "counters.h"
#include "crc32c.h"
#include "packet.h"

#define ANSWER_TTL 64
#define ICMP_UNREACHABLE 3
#define ICMP_CODE_PORT 3
/* IPv4's least reassembly buffer (RFC 1812, section 4.3.2.3): an error is no longer. */
#define ICMP_ERROR_LENGTH 576
/* Errors are sent with the request's TOS at this precedence (RFC 1812, section 4.3.2.5; icmp_send() in
 * net/ipv4/icmp.c). */
#define TOS_INTERNETWORK_CONTROL 0xc0
#define TOS_MASK 0x1e

/* <linux/icmp.h> cannot be had without the C library's socket headers. */
struct icmp_error {
	__u8 type;
	__u8 code;
	__sum16 checksum;
	__be32 rest;
};

static __always_inline bool is_unicast(__be32 address)
{
	__u8 first = bpf_ntohl(address) >> 24;

	return first != 0 && first != 127 && first < 224;
}

static __always_inline void swap_macs(struct ethernet *ethernet)
{
	__u8 mac[ETH_ALEN];

	__builtin_memcpy(mac, ethernet->destination, ETH_ALEN);
	__builtin_memcpy(ethernet->destination, ethernet->source, ETH_ALEN);
	__builtin_memcpy(ethernet->source, mac, ETH_ALEN);
}

/* A header without options. */
static __always_inline void write_ipv4(struct iphdr *ip, __be32 source, __be32 destination, __u8 protocol, __u8 tos,
				       __u16 length)
{
	__u64 sum = 0;

	ip->version = 4;
	ip->ihl = sizeof(*ip) / 4;
	ip->tos = tos;
	ip->tot_len = bpf_htons(length);
	ip->id = bpf_get_prandom_u32();
	ip->frag_off = 0;
	ip->ttl = ANSWER_TTL;
	ip->protocol = protocol;
	ip->check = 0;
	ip->saddr = source;
	ip->daddr = destination;
	for (__u32 i = 0; i < sizeof(*ip) / 2; i++)
		sum += ((__u16 *)ip)[i];
	ip->check = ~checksum_fold(sum);
}

/* Whether this processor may send another ICMP error in this second (2^8 ticks, 1.07 s). */
static __always_inline bool may_send_icmp(void)
{
	__u32 zero = 0, second = tick_now() >> 8;
	const struct settings *current = bpf_map_lookup_elem(&settings, &zero);
	struct icmp_budget *budget = bpf_map_lookup_elem(&icmp_budget, &zero);

	if (!current || !budget)
		return false;
	if (budget->second != second) {
		budget->second = second;
		budget->sent = 0;
	}
	return budget->sent++ < current->icmp_rate;
}

struct icmp_sum {
	struct xdp_md *ctx;
	__u64 sum;
	__u32 length; /* of what is summed, behind the Ethernet and IP headers */
};

static long icmp_sum_word(__u32 word, void *context)
{
	struct icmp_sum *sum = context;
	void *end = (void *)(long)sum->ctx->data_end;
	__u32 at = (word & 255) * 4;
	__u8 *bytes = (void *)(long)sum->ctx->data + sizeof(struct ethernet) + sizeof(struct iphdr) + at;

	if (sum->length >= at + 4) {
		if ((void *)(bytes + 4) <= end)
			sum->sum += *(word32 *)bytes;
		return 0;
	}
	/* The last bytes, as if zeros followed. */
	for (__u32 i = 0; i < 3; i++)
		if (at + i < sum->length && (void *)(bytes + i + 1) <= end)
			sum->sum += bpf_htons(i & 1 ? bytes[i] : bytes[i] << 8);
	return 1;
}

/*
 * Answers an IPv4 packet with ICMP port unreachable (RFC 792, RFC 1812 section 4.3.2) from `source`, as much of it
 * quoted as fits into 576 bytes. What is not answered (more in a second than settings.icmp_rate, no unicast) is
 * dropped. Counted for `reason` in any case.
 */
GLOBAL int answer_unreachable(struct xdp_md *ctx, __be32 source, enum drop_reason reason)
{
	const __u32 headers = sizeof(struct iphdr) + sizeof(struct icmp_error);
	struct ethernet *ethernet = (void *)(long)ctx->data;
	struct iphdr *ip = (void *)(ethernet + 1);
	struct icmp_sum sum = { .ctx = ctx };
	struct ethernet saved;
	struct icmp_error *icmp;
	__be32 destination;
	__u32 quoted;
	__u8 tos;

	drop(ctx, reason);
	if ((void *)(ip + 1) > (void *)(long)ctx->data_end || !is_unicast(ip->saddr) || !is_unicast(source) ||
	    !may_send_icmp())
		return XDP_DROP;
	saved = *ethernet;
	destination = ip->saddr;
	tos = (ip->tos & TOS_MASK) | TOS_INTERNETWORK_CONTROL;
	quoted = bpf_ntohs(ip->tot_len);
	if (quoted > ICMP_ERROR_LENGTH - headers)
		quoted = ICMP_ERROR_LENGTH - headers;

	__u32 length = ctx->data_end - ctx->data;

	if (bpf_xdp_adjust_head(ctx, -(int)headers) ||
	    bpf_xdp_adjust_tail(ctx, (int)(sizeof(*ethernet) + quoted) - (int)length))
		return XDP_DROP;
	ethernet = (void *)(long)ctx->data;
	ip = (void *)(ethernet + 1);
	icmp = (void *)(ip + 1);
	if ((void *)(icmp + 1) > (void *)(long)ctx->data_end)
		return XDP_DROP;
	*ethernet = saved;
	swap_macs(ethernet);
	write_ipv4(ip, source, destination, PROTOCOL_ICMP, tos, headers + quoted);
	icmp->type = ICMP_UNREACHABLE;
	icmp->code = ICMP_CODE_PORT;
	icmp->checksum = 0;
	icmp->rest = 0;
	sum.length = sizeof(*icmp) + quoted;
	bpf_loop((sum.length + 3) / 4, icmp_sum_word, &sum, 0);
	ethernet = (void *)(long)ctx->data;
	icmp = (void *)ethernet + sizeof(*ethernet) + sizeof(*ip);
	if ((void *)(icmp + 1) > (void *)(long)ctx->data_end)
		return XDP_DROP;
	icmp->checksum = ~checksum_fold(sum.sum);
	return XDP_TX;
}

/*
 * Answers a TCP segment with the reset that a host without the connection sends (RFC 9293, section 3.10.7.1); a reset
 * with nothing. Counted for `reason`.
 */
GLOBAL int answer_reset(struct xdp_md *ctx, enum drop_reason reason)
{
	struct ethernet *ethernet = (void *)(long)ctx->data;
	void *end = (void *)(long)ctx->data_end;
	struct iphdr *ip = (void *)(ethernet + 1);
	__be32 source, destination, sequence, acknowledged;
	__be16 source_port, destination_port;
	struct tcphdr *tcp;
	__u32 length;
	__u64 sum;
	bool ack;
	__u8 tos;

	drop(ctx, reason);
	if ((void *)(ip + 1) > end)
		return XDP_DROP;
	tcp = (void *)ip + ip->ihl * 4;
	if ((void *)(tcp + 1) > end || tcp->rst || !is_unicast(ip->saddr))
		return XDP_DROP;
	length = bpf_ntohs(ip->tot_len) - ip->ihl * 4 - tcp->doff * 4 + tcp->syn + tcp->fin;
	ack = tcp->ack;
	sequence = ack ? tcp->ack_seq : 0;
	acknowledged = ack ? 0 : bpf_htonl(bpf_ntohl(tcp->seq) + length);
	source = ip->daddr;
	destination = ip->saddr;
	source_port = tcp->dest;
	destination_port = tcp->source;
	tos = ip->tos;

	length = sizeof(*ethernet) + sizeof(*ip) + sizeof(*tcp);
	if (bpf_xdp_adjust_tail(ctx, (int)length - (int)(ctx->data_end - ctx->data)))
		return XDP_DROP;
	ethernet = (void *)(long)ctx->data;
	ip = (void *)(ethernet + 1);
	tcp = (void *)(ip + 1);
	if ((void *)(tcp + 1) > (void *)(long)ctx->data_end)
		return XDP_DROP;
	swap_macs(ethernet);
	write_ipv4(ip, source, destination, PROTOCOL_TCP, tos, sizeof(*ip) + sizeof(*tcp));
	__builtin_memset(tcp, 0, sizeof(*tcp));
	tcp->source = source_port;
	tcp->dest = destination_port;
	tcp->seq = sequence;
	tcp->ack_seq = acknowledged;
	tcp->doff = sizeof(*tcp) / 4;
	tcp->rst = 1;
	tcp->ack = !ack;
	sum = (__u64)source + destination + bpf_htons(PROTOCOL_TCP) + bpf_htons(sizeof(*tcp));
	for (__u32 i = 0; i < sizeof(*tcp) / 2; i++)
		sum += ((__u16 *)tcp)[i];
	tcp->check = ~checksum_fold(sum);
	return XDP_TX;
}

/* The checksum of 16 bytes of zeros, to which the words of a packet that long are added. */
#define CRC32C_OF_16_ZEROS 0x42709aeau

/*
 * Answers an SCTP packet as a host without the association does, with ABORT, or with SHUTDOWN COMPLETE where the other
 * side has shut down; with the tag that the packet came with and the T bit to say so (RFC 9260, section 8.4). What ends
 * an association, and COOKIE ACK, is not answered. Counted for `reason`.
 */
GLOBAL int answer_abort(struct xdp_md *ctx, enum drop_reason reason)
{
	struct ethernet *ethernet = (void *)(long)ctx->data;
	void *end = (void *)(long)ctx->data_end;
	struct iphdr *ip = (void *)(ethernet + 1);
	__be16 source_port, destination_port;
	__be32 source, destination, tag;
	struct sctp_packet *sctp;
	__u32 ports, chunk, length;
	__u8 tos, type;

	drop(ctx, reason);
	if ((void *)(ip + 1) > end)
		return XDP_DROP;
	sctp = (void *)ip + ip->ihl * 4;
	if ((void *)(sctp + 1) > end || !is_unicast(ip->saddr))
		return XDP_DROP;
	length = bpf_ntohs(ip->tot_len) - ip->ihl * 4;
	switch (sctp_event(sctp, length, end)) {
	case SCTP_EVENT_ABORT:
	case SCTP_EVENT_SHUTDOWN_COMPLETE:
	case SCTP_EVENT_COOKIE_ACK:
		return XDP_DROP;
	case SCTP_EVENT_SHUTDOWN_ACK:
		type = SCTP_EVENT_SHUTDOWN_COMPLETE;
		break;
	default:
		type = SCTP_EVENT_ABORT;
	}
	source = ip->daddr;
	destination = ip->saddr;
	tos = ip->tos;
	tag = sctp->header.verification_tag;
	source_port = sctp->header.destination;
	destination_port = sctp->header.source;

	length = sizeof(*ethernet) + sizeof(*ip) + sizeof(*sctp);
	if (bpf_xdp_adjust_tail(ctx, (int)length - (int)(ctx->data_end - ctx->data)))
		return XDP_DROP;
	ethernet = (void *)(long)ctx->data;
	ip = (void *)(ethernet + 1);
	sctp = (void *)(ip + 1);
	if ((void *)(sctp + 1) > (void *)(long)ctx->data_end)
		return XDP_DROP;
	swap_macs(ethernet);
	write_ipv4(ip, source, destination, PROTOCOL_SCTP, tos, sizeof(*ip) + sizeof(*sctp));
	sctp->header.source = source_port;
	sctp->header.destination = destination_port;
	sctp->header.verification_tag = tag;
	sctp->first.type = type;
	sctp->first.flags = SCTP_FLAG_T;
	sctp->first.length = bpf_htons(sizeof(sctp->first));
	ports = *(word32 *)sctp;
	chunk = *(word32 *)&sctp->first;
	sctp->header.checksum = crc32c_word(CRC32C_OF_16_ZEROS) ^ crc32c_change(ports, sizeof(*sctp)) ^
				crc32c_change(tag, sizeof(*sctp) - offsetof(struct sctp_header, verification_tag)) ^
				crc32c_change(chunk, sizeof(sctp->first));
	return XDP_TX;
}

#endif
