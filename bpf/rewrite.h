/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */
/* Changes to an IPv4 packet's headers that keep its checksums in step. */
#ifndef SLUICE_REWRITE_H
#define SLUICE_REWRITE_H

#include "checksum.h"
#include "crc32c.h"
#include "packet.h"

/* What the checksums still have to be told; see checksum.h. Addresses count in the IP header and in the pseudo header,
 * ports in L4 alone. */
struct change {
	__u64 addresses;
	__u64 ports;
};

static __always_inline void rewrite_source(const struct packet *packet, struct change *change, __be32 address,
					   __be16 port)
{
	struct udphdr *l4 = packet->l4; /* TCP and SCTP have their ports in the same place */

	change->addresses = checksum_replace32(change->addresses, packet->ip->saddr, address);
	change->ports = checksum_replace16(change->ports, l4->source, port);
	packet->ip->saddr = address;
	l4->source = port;
}

static __always_inline void rewrite_destination(const struct packet *packet, struct change *change, __be32 address,
						__be16 port)
{
	struct udphdr *l4 = packet->l4;

	change->addresses = checksum_replace32(change->addresses, packet->ip->daddr, address);
	change->ports = checksum_replace16(change->ports, l4->dest, port);
	packet->ip->daddr = address;
	l4->dest = port;
}

/*
 * Of a packet of SCTP of `length` bytes that had the ports `before`, as they lie in the packet. SCTP's "no checksum"
 * (RFC 9653) stays that. Not inlined: the others shall not go around it.
 */
static __noinline int rewrite_sctp_checksum(struct sctp_header *sctp, const void *end, __u32 before, __u32 length)
{
	/* parse() has seen that; the verifier does not connect it with the protocol. */
	if ((void *)(sctp + 1) > end)
		return 0;
	before ^= *(word32 *)sctp;
	if (before && sctp->checksum)
		sctp->checksum ^= crc32c_change(before, length);
	return 0;
}

/* UDP's "no checksum" stays that, and a sum that comes out as 0 is sent as 0xffff (RFC 768). `flow` is as the packet
 * came. */
static __always_inline void rewrite_l4_checksum(const struct packet *packet, const struct change *change,
						const struct flow *flow)
{
	if (packet->protocol == PROTOCOL_TCP) {
		struct tcphdr *tcp = packet->l4;

		/* parse() has seen that; the verifier of Linux 6.1 does not connect it with the protocol. */
		if ((void *)(tcp + 1) > packet->end)
			return;
		tcp->check = checksum_apply(tcp->check, change->addresses + change->ports);
	} else if (packet->protocol == PROTOCOL_UDP) {
		struct udphdr *udp = packet->l4;
		__sum16 check = udp->check;

		if (check) {
			check = checksum_apply(check, change->addresses + change->ports);
			udp->check = check ? check : 0xffff;
		}
	} else {
		rewrite_sctp_checksum(packet->l4, packet->end, *(const word32 *)&flow->source_port,
				      packet->length - packet->ip->ihl * 4);
	}
}

static __always_inline void rewrite_ip_checksum(const struct packet *packet, const struct change *change)
{
	packet->ip->check = checksum_apply(packet->ip->check, change->addresses);
}

/* One hop less, as ip_decrease_ttl() in the kernel's include/net/ip.h. The caller has seen that the TTL is above 1. */
static __always_inline void rewrite_hop(const struct packet *packet)
{
	struct iphdr *ip = packet->ip;
	__u32 check = ip->check + bpf_htons(0x0100);

	ip->check = check + (check >= 0xffff);
	ip->ttl--;
}

#endif
