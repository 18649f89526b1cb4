/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */
/* Which virtual service a packet is for. */
#ifndef SLUICE_SERVICE_H
#define SLUICE_SERVICE_H

#include <stdbool.h>
#include <stddef.h>
#include <bpf/bpf_endian.h>
#include "maps.h"

/*
 * The service of a client's packet, and its index in `*index`; NULL if none is for it. `index` points to the caller's
 * own stack: Linux 6.1 takes no key from behind a pointer argument.
 */
static __always_inline const struct service *service_find(const struct flow *flow, __u32 *index)
{
	struct service_key key = {
		.vip = flow->destination,
		.port = bpf_ntohs(flow->destination_port),
		.protocol = flow->protocol,
		.family = flow->family,
	};
	const __u32 *found = bpf_map_lookup_elem(&service_index, &key);

	if (!found)
		return NULL;
	*index = *found;
	return bpf_map_lookup_elem(&services, index);
}

static __always_inline bool is_vip(const struct flow *flow)
{
	struct vip_key key = { .address = flow->destination, .family = flow->family };

	return bpf_map_lookup_elem(&vips, &key);
}

#endif
