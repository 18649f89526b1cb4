/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */
/*
 * What the forwarding methods share. Each is one function of the same signature, that changes a client's packet for its
 * real server and returns FORWARDED or the reason for which it has to be dropped; it has then not been changed.
 */
#ifndef SLUICE_FORWARD_H
#define SLUICE_FORWARD_H

#include "../maps.h"
#include "../rewrite.h"

#define FORWARDED (-1)
/* What the opening functions return, or the reason to drop. */
#define OPENED (-1)

/* Where a packet of a connection goes: what the established way read from its entry, or the opening way has just
 * decided. */
struct route {
	struct flow flow; /* as the packet came; of one-packet scheduling its entry's */
	__u32 now; /* tick */
	__u32 real;
	__u16 local_address;
	__be16 local_port;
	__u8 event; /* as in struct packet */
	__u8 pad[3];
};
size_is(struct route, 56);

/* RPORT: the real server's own, or the one that the client asked for. */
static __always_inline __be16 real_port(const struct real_server *real, const struct flow *flow)
{
	return real->port ? bpf_htons(real->port) : flow->destination_port;
}

static __always_inline void rewrite_ethernet(struct ethernet *ethernet, const struct real_server *real)
{
	ethernet_macs(ethernet, real->destination_mac);
}

#endif
