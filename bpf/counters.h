/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */
/* Per-CPU counters. No atomics: an XDP program is not interrupted by another on its processor. */
#ifndef SLUICE_COUNTERS_H
#define SLUICE_COUNTERS_H

#include "maps.h"

/* `bytes`: length of the IP packet, as it came. */
static __always_inline void count_in(__u32 service, __u32 real, __u16 bytes)
{
	struct traffic *of_service = bpf_map_lookup_elem(&service_counters, &service);
	struct traffic *of_real = bpf_map_lookup_elem(&real_counters, &real);

	if (of_service) {
		of_service->in_packets++;
		of_service->in_bytes += bytes;
	}
	if (of_real) {
		of_real->in_packets++;
		of_real->in_bytes += bytes;
	}
}

static __always_inline void count_out(__u32 service, __u32 real, __u16 bytes)
{
	struct traffic *of_service = bpf_map_lookup_elem(&service_counters, &service);
	struct traffic *of_real = bpf_map_lookup_elem(&real_counters, &real);

	if (of_service) {
		of_service->out_packets++;
		of_service->out_bytes += bytes;
	}
	if (of_real) {
		of_real->out_packets++;
		of_real->out_bytes += bytes;
	}
}

static __always_inline void count_connection(__u32 service, __u32 real)
{
	struct traffic *of_service = bpf_map_lookup_elem(&service_counters, &service);
	struct traffic *of_real = bpf_map_lookup_elem(&real_counters, &real);

	if (of_service)
		of_service->connections++;
	if (of_real)
		of_real->connections++;
}

/* The only way to drop a packet. */
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
