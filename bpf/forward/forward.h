/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */
/*
 * What the forwarding methods share. Each is one function of the same signature, that changes a client's packet for its real server
 * and returns FORWARDED or the reason for which it has to be dropped; it has then not been changed.
 */
#ifndef SLUICE_FORWARD_H
#define SLUICE_FORWARD_H

#include <stddef.h>
#include "../maps.h"
#include "../rewrite.h"

#define FORWARDED (-1)

/* Where a packet of a connection goes: what the established way read from its entry, or the opening way has just decided. */
struct route {
	struct flow flow; /* as the packet came */
	__u32 now; /* tick */
	__u32 real;
	__u32 service;
	__u16 local_address;
	__be16 local_port;
	__u8 tcp_flags;
};

/* Both MACs at once: they lie in real_server as in the header. */
static __always_inline void rewrite_ethernet(struct ethernet *ethernet, const struct real_server *real)
{
	word32 *to = (word32 *)ethernet;
	const word32 *from = (const word32 *)real->destination_mac;

	_Static_assert(offsetof(struct real_server, source_mac) ==
			       offsetof(struct real_server, destination_mac) + ETH_ALEN,
		       "the MACs lie as in an Ethernet header");
	to[0] = from[0];
	to[1] = from[1];
	to[2] = from[2];
}

#endif
