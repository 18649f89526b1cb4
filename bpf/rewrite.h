/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */
/* Changes to an IPv4 packet's headers that keep its checksums in step. */
#ifndef SLUICE_REWRITE_H
#define SLUICE_REWRITE_H

#include "checksum.h"
#include "packet.h"

/* What the checksums still have to be told; see checksum.h. Addresses count in the IP header and in the pseudo header, ports in L4 alone. */
struct change {
	__u64 addresses;
	__u64 ports;
};

static __always_inline void rewrite_source(const struct packet *packet, struct change *change, __be32 address,
					   __be16 port)
{
	struct udphdr *l4 = packet->l4; /* TCP has its ports in the same place */

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

/* UDP's "no checksum" stays that, and a sum that comes out as 0 is sent as 0xffff (RFC 768). */
static __always_inline void rewrite_l4_checksum(const struct packet *packet, const struct change *change)
{
	if (packet->protocol == PROTOCOL_TCP) {
		struct tcphdr *tcp = packet->l4;

		tcp->check = checksum_apply(tcp->check, change->addresses + change->ports);
	} else {
		struct udphdr *udp = packet->l4;
		__sum16 check = udp->check;

		if (check) {
			check = checksum_apply(check, change->addresses + change->ports);
			udp->check = check ? check : 0xffff;
		}
	}
}

/* One hop less, and the header's checksum for that and for what was rewritten before. The caller has seen that the TTL is above 1. */
static __always_inline void rewrite_hop(const struct packet *packet, const struct change *change)
{
	struct iphdr *ip = packet->ip;
	__be16 before = bpf_htons(ip->ttl << 8 | ip->protocol);
	__be16 after = bpf_htons((ip->ttl - 1) << 8 | ip->protocol);

	ip->check = checksum_apply(ip->check, checksum_replace16(change->addresses, before, after));
	ip->ttl--;
}

#endif
