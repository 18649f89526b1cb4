/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */
/* What the prelude and the tests that drive it both see: through BTF, the tests read the structs from the object. */
#ifndef SLUICE_PRELUDE_H
#define SLUICE_PRELUDE_H

#include <linux/types.h>

/* Headers that are written anew before every run. A frame is at least this long; what follows is left as it is. */
#define PRELUDE_HEADERS 64

/*
 * One flow, with the checksums that its headers then have: the prelude computes none for flows of the table. The pairs
 * are written in one store each, so that the program behind may read them together or apart without waiting for two
 * stores.
 */
struct prelude_flow {
	__u64 addresses; /* as on the wire: source, destination */
	__u32 ports; /* as on the wire: source, destination */
	__be16 ip_checksum;
	__be16 checksum; /* of TCP or UDP; an ICMP echo's own does not depend on its addresses */
};
_Static_assert(sizeof(struct prelude_flow) == 16, "four flows to a cache line");

/* The one element of prelude_settings: writing it starts a run. */
struct prelude_settings {
	/* Ethernet, IPv4 without options, then TCP, UDP or ICMP, checksums right. */
	__u64 headers[PRELUDE_HEADERS / 8]; /* as bytes; the type is for copying */
	__u32 length; /* of the frame in bytes, as it is given to test_run */

	/*
	 * How many elements of prelude_flows are used in turn, from the first: whoever wants a random order shuffles
	 * them. The walk itself is sequential, so that the prelude hardly ever waits for memory. 0: every packet is a
	 * flow that was never seen. Then `next` counts: the source is the address in `headers` plus its upper 17 bits
	 * after mixing, the source port 32768 plus the lower 15, which repeats after 2^32 packets.
	 */
	__u32 flows;
	__u32 next; /* where to begin; the prelude moves it on */
	__u32 pad;
};
_Static_assert(sizeof(struct prelude_settings) == 80, "padding is explicit");

#endif
