/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */
/* Which virtual service a packet is for. */
#ifndef SLUICE_SERVICE_H
#define SLUICE_SERVICE_H

#include <stdbool.h>
#include <stddef.h>
#include <bpf/bpf_endian.h>
#include "mark.h"

#define NO_SERVICE 0xffffffffu

/*
 * The index of the service that a client's packet is for, or NO_SERVICE: by its firewall mark, by address and port, by
 * address alone (IPVS's order: ip_vs_service_find() in net/netfilter/ipvs/ip_vs_ctl.c).
 */
GLOBAL __u32 service_find(const struct flow *flow)
{
	if (!flow)
		return NO_SERVICE;

	struct service_key key = { .family = flow->family };
	__u32 mark = mark_of(flow);
	const __u32 *found;

	if (mark) {
		*ipv4_of(&key.vip) = bpf_htonl(mark);
		found = bpf_map_lookup_elem(&service_index, &key);
		if (found)
			return *found;
	}
	key.vip = flow->destination;
	key.protocol = flow->protocol;
	key.port = bpf_ntohs(flow->destination_port);
	found = bpf_map_lookup_elem(&service_index, &key);
	if (!found) {
		key.port = 0;
		found = bpf_map_lookup_elem(&service_index, &key);
	}
	return found ? *found : NO_SERVICE;
}

static __always_inline bool is_vip(const struct flow *flow)
{
	struct vip_key key = { .address = flow->destination, .family = flow->family };

	return bpf_map_lookup_elem(&vips, &key);
}

#endif
