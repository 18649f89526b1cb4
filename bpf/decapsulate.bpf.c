// SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only
/*
 * The real server's end of the tunnel method: takes the director's outer header off before the stack sees the packet.
 *
 * It stands in for the kernel's ipip module where that does not exist. Being XDP, it runs before the skb is made: GRO,
 * checksum verification and rp_filter all see the inner packet on the interface it arrived on, as if it had never been
 * wrapped (with a tunl0, rp_filter has to be switched off). In generic mode the skb exists already, and a checksum the
 * card computed over the whole packet (CHECKSUM_COMPLETE) stays right, since an intact IPv4 header sums to zero.
 *
 * A packet is unwrapped only if its outer destination is one of this host's tunnel addresses and its inner destination
 * one of the virtual addresses it serves. Everything else reaches the stack byte for byte as it came. The one packet
 * that is dropped is the one RFC 6040 says to drop.
 *
 * Minimum kernel: 5.18 (xdp.frags, which lets native mode load on interfaces with jumbo frames).
 */
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/ip.h>
#include <stdbool.h>

#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#include "abi.h"

/* Key of tunnel_addresses and virtual_addresses. */
struct host_address {
	struct address address;
	enum address_family family;
	__u8 pad[3];
};
size_is(struct host_address, 20);

/* What became of a packet. An index of `outcomes`; the order is part of the pinned map, so new ones go at the end. */
enum decapsulation_outcome : __u32 {
	DECAPSULATION_UNWRAPPED,
	DECAPSULATION_PASSED_NOT_A_TUNNEL, /* no outer header of a kind we know */
	DECAPSULATION_PASSED_MALFORMED, /* truncated, IP options, or a wrong outer checksum: the stack's to judge */
	DECAPSULATION_PASSED_FRAGMENT, /* the outer packet is a fragment: it cannot be unwrapped on its own */
	DECAPSULATION_PASSED_OTHER_TUNNEL_ADDRESS, /* outer destination is not a tunnel address of ours */
	DECAPSULATION_PASSED_OTHER_VIRTUAL_ADDRESS, /* inner destination is not a virtual address of ours */
	DECAPSULATION_PASSED_NO_ROOM, /* the driver could not move the start of the packet */
	DECAPSULATION_DROPPED_CONGESTION, /* outer says CE, inner cannot carry it (RFC 6040, section 4.2) */
	DECAPSULATION_OUTCOMES
};

/* Value of outcomes. `sluice real-server` writes `outcome` once, so that a dump prints the name. */
struct outcome_counter {
	enum decapsulation_outcome outcome;
	__u32 pad;
	__u64 packets;
	__u64 bytes; /* of the frames as they arrived, Ethernet header included */
};
size_is(struct outcome_counter, 24);

/* Addresses that directors send tunnelled packets to. `sluice real-server` writes, the program reads. Value: always 1.
 */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 256);
	__type(key, struct host_address);
	__type(value, __u32);
} tunnel_addresses SEC(".maps");

/* VIPs that this host serves. `sluice real-server` writes, the program reads. Value: always 1. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 65536);
	__uint(map_flags, BPF_F_NO_PREALLOC); /* room for many, memory for those there are */
	__type(key, struct host_address);
	__type(value, __u32);
} virtual_addresses SEC(".maps");

/* One counter an outcome, at that index. The program writes, `sluice real-server status` reads. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, DECAPSULATION_OUTCOMES);
	__type(key, __u32);
	__type(value, struct outcome_counter);
} outcomes SEC(".maps");

/* The outer header, once it is known to be one that we take off. */
struct tunnel {
	__u32 header_bytes; /* from the outer IP header's first byte to the inner one's */
	__be16 inner_ethernet_type; /* what the inner packet is */
	__u8 congestion; /* the outer header's ECN bits */
};

#define ECN_MASK 0x3
#define ECN_ECT_1 0x1
#define ECN_ECT_0 0x2
#define ECN_CE 0x3

#define IPV4_FRAGMENT 0x3fff /* more-fragments flag and offset, host byte order (RFC 791) */

static __always_inline struct host_address ipv4_address(__be32 address)
{
	struct host_address key = {};

	key.family = FAMILY_IPV4;
	__builtin_memcpy(key.address.bytes, &address, sizeof(address));
	return key;
}

static __always_inline bool ipv4_checksum_is_right(struct iphdr *header)
{
	/* Over a header with its checksum in place the folded sum is all ones (RFC 1071). */
	__u64 sum = bpf_csum_diff(NULL, 0, (__be32 *)header, sizeof(*header), 0);

	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	return sum == 0xffff;
}

/*
 * Reads an outer IPv4 header at `cursor`. Returns DECAPSULATION_UNWRAPPED with `tunnel` filled if it is one to take
 * off, or the reason why not. A further encapsulation (GRE, GUE) is a further case of the protocol, with its own header
 * after this one added to header_bytes.
 */
static __always_inline enum decapsulation_outcome read_ipv4_tunnel(void *cursor, void *end, struct tunnel *tunnel)
{
	struct iphdr *outer = cursor;

	if ((void *)(outer + 1) > end)
		return DECAPSULATION_PASSED_NOT_A_TUNNEL;
	switch (outer->protocol) {
	case PROTOCOL_IPIP:
		tunnel->header_bytes = sizeof(*outer);
		tunnel->inner_ethernet_type = bpf_htons(ETH_P_IP);
		break;
	default:
		return DECAPSULATION_PASSED_NOT_A_TUNNEL;
	}

	struct host_address destination = ipv4_address(outer->daddr);

	if (!bpf_map_lookup_elem(&tunnel_addresses, &destination))
		return DECAPSULATION_PASSED_OTHER_TUNNEL_ADDRESS;
	if (outer->version != 4 || outer->ihl != sizeof(*outer) / 4 || !ipv4_checksum_is_right(outer))
		return DECAPSULATION_PASSED_MALFORMED;
	if (outer->frag_off & bpf_htons(IPV4_FRAGMENT))
		return DECAPSULATION_PASSED_FRAGMENT;
	tunnel->congestion = outer->tos & ECN_MASK;
	return DECAPSULATION_UNWRAPPED;
}

/*
 * Reads the inner IPv4 header at `cursor` and decides whether the packet is for us, before anything is changed.
 * Returns the ECN bits that the inner header is to have in `congestion` (RFC 6040, figure 4).
 */
static __always_inline enum decapsulation_outcome check_inner_ipv4(void *cursor, void *end, __u8 outer_congestion,
								   __u8 *congestion)
{
	struct iphdr *inner = cursor;

	if ((void *)(inner + 1) > end || inner->version != 4)
		return DECAPSULATION_PASSED_MALFORMED;

	struct host_address destination = ipv4_address(inner->daddr);

	if (!bpf_map_lookup_elem(&virtual_addresses, &destination))
		return DECAPSULATION_PASSED_OTHER_VIRTUAL_ADDRESS;

	*congestion = inner->tos & ECN_MASK;
	if (outer_congestion == ECN_CE) {
		if (*congestion == 0)
			return DECAPSULATION_DROPPED_CONGESTION;
		*congestion = ECN_CE;
	} else if (outer_congestion == ECN_ECT_1 && *congestion == ECN_ECT_0) {
		*congestion = ECN_ECT_1;
	}
	return DECAPSULATION_UNWRAPPED;
}

/* Writes the ECN bits of an IPv4 header and brings its checksum up to date (RFC 1624, equation 3). */
static __always_inline void set_ipv4_congestion(struct iphdr *header, __u8 congestion)
{
	/* The first 16-bit word of the header: version, length, and the byte with the ECN bits, last on the wire. */
	__be16 *word = (__be16 *)header;
	__be16 before = *word;
	__be16 after = (before & ~bpf_htons(ECN_MASK)) | bpf_htons(congestion);

	if (before == after)
		return;
	*word = after;

	__u32 sum = (__u16)~header->check + (__u16)~before + (__u32)after;

	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	header->check = ~sum;
}

static __always_inline enum decapsulation_outcome unwrap(struct xdp_md *context)
{
	void *data = (void *)(long)context->data;
	void *end = (void *)(long)context->data_end;
	struct ethhdr *ethernet = data;
	struct tunnel tunnel = {};
	enum decapsulation_outcome outcome;
	__u8 congestion;

	if ((void *)(ethernet + 1) > end)
		return DECAPSULATION_PASSED_NOT_A_TUNNEL;
	switch (ethernet->h_proto) {
	case bpf_htons(ETH_P_IP):
		outcome = read_ipv4_tunnel(ethernet + 1, end, &tunnel);
		break;
	default:
		return DECAPSULATION_PASSED_NOT_A_TUNNEL;
	}
	if (outcome != DECAPSULATION_UNWRAPPED)
		return outcome;

	void *inner = (void *)(ethernet + 1) + tunnel.header_bytes;

	outcome = check_inner_ipv4(inner, end, tunnel.congestion, &congestion);
	if (outcome != DECAPSULATION_UNWRAPPED)
		return outcome;

	/* The Ethernet header moves up against the inner packet: same MACs, so the stack still takes it for its own. */
	struct ethhdr moved = *ethernet;

	moved.h_proto = tunnel.inner_ethernet_type;
	if (bpf_xdp_adjust_head(context, tunnel.header_bytes))
		return DECAPSULATION_PASSED_NO_ROOM;

	data = (void *)(long)context->data;
	end = (void *)(long)context->data_end;
	ethernet = data;

	struct iphdr *header = (void *)(ethernet + 1);

	/* Both were within the packet before, which only the verifier has forgotten. */
	if ((void *)(header + 1) > end)
		return DECAPSULATION_PASSED_MALFORMED;
	*ethernet = moved;
	set_ipv4_congestion(header, congestion);
	return DECAPSULATION_UNWRAPPED;
}

SEC("xdp.frags") int decapsulate(struct xdp_md *context)
{
	__u64 bytes = bpf_xdp_get_buff_len(context);
	enum decapsulation_outcome outcome = unwrap(context);
	struct outcome_counter *counter = bpf_map_lookup_elem(&outcomes, &outcome);

	if (counter) {
		counter->packets++;
		counter->bytes += bytes;
	}
	return outcome == DECAPSULATION_DROPPED_CONGESTION ? XDP_DROP : XDP_PASS;
}

char _license[] SEC("license") = "Dual BSD/GPL";
