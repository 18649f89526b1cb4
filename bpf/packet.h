/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */
/*
 * Parsing. A packet is taken apart once, into a flow and the few pointers that the ways onward write through.
 *
 * parse() reads nothing beyond data_end, changes nothing, and says what kind of packet it is. The pointers of struct
 * packet are valid for PACKET_FLOW alone, and until the first helper that moves the packet's head.
 */
#ifndef SLUICE_PACKET_H
#define SLUICE_PACKET_H

#include <linux/if_ether.h>
#include <linux/ip.h>
#include <linux/tcp.h>
#include <linux/udp.h>
#include <bpf/bpf_endian.h>
#include "abi.h"
#include "sctp.h"

#define IPV4_DF 0x4000
#define IPV4_MF 0x2000
#define IPV4_OFFSET 0x1fff

#define TCP_FLAG_FIN 0x01
#define TCP_FLAG_SYN 0x02
#define TCP_FLAG_RST 0x04
#define TCP_FLAG_ACK 0x10
/* Those that move a connection from state to state. */
#define TCP_FLAGS_OF_STATES (TCP_FLAG_FIN | TCP_FLAG_SYN | TCP_FLAG_RST | TCP_FLAG_ACK)

enum packet_kind {
	PACKET_FOREIGN, /* nothing that a virtual service could be for */
	PACKET_FLOW, /* whole header of TCP, UDP or SCTP over IPv4 */
	PACKET_ICMP, /* whole, over IPv4 */
	PACKET_FRAGMENT, /* any fragment of those over IPv4, the first one too */
	PACKET_MALFORMED, /* IPv4 whose lengths contradict each other or that is too short for those */
};

/* A field of a packet or a map, read in one piece whatever its declared type and alignment are. */
typedef __u32 __attribute__((may_alias)) word32;
typedef __u64 __attribute__((may_alias)) word64;

/* As struct ethhdr, which is packed and therefore read and written a byte at a time. */
struct ethernet {
	__u8 destination[ETH_ALEN];
	__u8 source[ETH_ALEN];
	__be16 type;
};
size_is(struct ethernet, ETH_HLEN);

/* Writes both MACs at once, destination and source, from where they lie as an Ethernet header has them, 4-aligned. */
static __always_inline void ethernet_macs(struct ethernet *ethernet, const void *macs)
{
	word32 *to = (word32 *)ethernet;
	const word32 *from = macs;

	to[0] = from[0];
	to[1] = from[1];
	to[2] = from[2];
}

/* Which side of a connection a packet came from, and whether the other side is seen at all. */
enum side {
	SIDE_CLIENT, /* nat, fullnat */
	SIDE_SERVER,
	SIDE_CLIENT_ALONE, /* dr, tun: replies do not pass here */
};

struct packet {
	struct ethernet *ethernet;
	struct iphdr *ip;
	void *l4; /* behind the IP options */
	void *end; /* of the frame */
	__u16 length; /* of the IP packet in bytes, without what the link padded */
	__u8 event; /* what counts for the connection's state: TCP's flags, SCTP's enum sctp_event, 0 for UDP */
	__u32 protocol; /* as the flow's */
};

/*
 * Fills a flow in whole 64-bit words, since it is read in those at once: a load that spans two smaller stores waits
 * until both are in the cache. `ports` are both of them as they lie in the packet.
 */
static __always_inline void flow_ipv4(struct flow *flow, __be32 source, __be32 destination, __u32 ports,
				      enum protocol protocol)
{
	word64 *words = (word64 *)flow;

#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
	words[0] = source;
	words[2] = destination;
	words[4] = ports | (__u64)protocol << 32 | (__u64)FAMILY_IPV4 << 40;
#else
	words[0] = (__u64)source << 32;
	words[2] = (__u64)destination << 32;
	words[4] = (__u64)ports << 32 | (__u64)protocol << 24 | (__u64)FAMILY_IPV4 << 16;
#endif
	words[1] = 0;
	words[3] = 0;
}

/* 32 bits of an IPv4 address in a struct address, as on the wire. */
static __always_inline __be32 *ipv4_of(const struct address *address)
{
	return (__be32 *)address->bytes;
}

/* `flow` is filled for all kinds but PACKET_FOREIGN, its ports for PACKET_FLOW alone. */
static __always_inline enum packet_kind parse(struct xdp_md *ctx, struct packet *packet, struct flow *flow)
{
	void *data = (void *)(long)ctx->data;
	void *end = (void *)(long)ctx->data_end;
	struct ethernet *ethernet = data;
	struct iphdr *ip = data + sizeof(*ethernet);

	if ((void *)(ip + 1) > end)
		return PACKET_FOREIGN;
	/* Group addresses: no unicast packet of ours arrives so, and the host may need it. */
	if (ethernet->type != bpf_htons(ETH_P_IP) || ethernet->destination[0] & 1)
		return PACKET_FOREIGN;
	if (ip->version != 4 || ip->ihl < 5)
		return PACKET_FOREIGN;

	__u32 protocol = ip->protocol;
	__u32 header = ip->ihl * 4;
	__u32 length = bpf_ntohs(ip->tot_len);
	void *l4 = (void *)ip + header;

	packet->ethernet = ethernet;
	packet->ip = ip;
	packet->l4 = l4;
	packet->end = end;
	packet->length = length;
	packet->event = 0;

	enum packet_kind whole = PACKET_FLOW;
	__u32 ports = 0;

	if (length < header || length > (__u64)(end - (void *)ip))
		whole = PACKET_MALFORMED;
	else if (ip->frag_off & bpf_htons(IPV4_MF | IPV4_OFFSET))
		whole = PACKET_FRAGMENT;

	if (protocol == PROTOCOL_TCP) {
		struct tcphdr *tcp = l4;

		if (whole == PACKET_FLOW && ((void *)(tcp + 1) > end || length < header + sizeof(*tcp)))
			whole = PACKET_MALFORMED;
		if (whole != PACKET_FLOW)
			goto not_whole;
		packet->event = ((__u8 *)tcp)[13];
		ports = *(word32 *)tcp;
	} else if (protocol == PROTOCOL_UDP) {
		struct udphdr *udp = l4;

		if (whole == PACKET_FLOW && ((void *)(udp + 1) > end || length < header + sizeof(*udp)))
			whole = PACKET_MALFORMED;
		if (whole != PACKET_FLOW)
			goto not_whole;
		ports = *(word32 *)udp;
	} else if (protocol == PROTOCOL_SCTP) {
		struct sctp_packet *sctp = l4;

		if (whole == PACKET_FLOW && ((void *)(sctp + 1) > end || length < header + sizeof(*sctp) ||
					     bpf_ntohs(sctp->first.length) < sizeof(sctp->first)))
			whole = PACKET_MALFORMED;
		if (whole != PACKET_FLOW)
			goto not_whole;
		packet->event = sctp_event(sctp, length - header, end);
		ports = *(word32 *)sctp;
	} else {
		/* Fragments of ICMP are the host's to put together; it answers them itself where it has the VIP. */
		if (protocol != PROTOCOL_ICMP || whole != PACKET_FLOW)
			return PACKET_FOREIGN;
		whole = PACKET_ICMP;
		goto not_whole;
	}
	flow_ipv4(flow, ip->saddr, ip->daddr, ports, protocol);
	packet->protocol = protocol;
	return PACKET_FLOW;

not_whole:
	flow_ipv4(flow, ip->saddr, ip->daddr, 0, protocol);
	return whole;
}

#endif
