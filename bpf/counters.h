/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */
/* Per-CPU counters. No atomics: an XDP program is not interrupted by another on its processor. */
#ifndef SLUICE_COUNTERS_H
#define SLUICE_COUNTERS_H

#include "maps.h"

/* A client's packet. `bytes`: length of the IP packet, as it came. */
static __always_inline void count_in(__u32 real, __u16 bytes)
{
	struct traffic *traffic = bpf_map_lookup_elem(&real_counters, &real);

	if (traffic) {
		traffic->in_packets++;
		traffic->in_bytes += bytes;
	}
}

/* A reply. `bytes` as above. */
static __always_inline void count_out(__u32 real, __u16 bytes)
{
	struct traffic *traffic = bpf_map_lookup_elem(&real_counters, &real);

	if (traffic) {
		traffic->out_packets++;
		traffic->out_bytes += bytes;
	}
}

static __always_inline void count_connection(__u32 real)
{
	struct traffic *traffic = bpf_map_lookup_elem(&real_counters, &real);

	if (traffic)
		traffic->connections++;
}

/* The only way to drop a packet; one that is answered by the data plane itself is counted by it, too. */
GLOBAL int drop(struct xdp_md *ctx, enum drop_reason reason)
{
	__u32 index = reason;
	struct drop_counter *counter = bpf_map_lookup_elem(&drops, &index);

	if (counter) {
		counter->packets++;
		counter->bytes += ctx->data_end - ctx->data;
	}
	return XDP_DROP;
}

#endif
