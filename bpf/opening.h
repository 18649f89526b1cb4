/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */
/*
 * What the ways of opening a connection work on. It lies in a map of its own and not on the stack, of which all
 * functions of a call chain together have 512 bytes: each processor opens one connection at a time.
 */
#ifndef SLUICE_OPENING_H
#define SLUICE_OPENING_H

#include "forward/forward.h"
#include "schedule/request.h"

struct opening {
	struct route route;
	struct connection entry; /* the one that is being inserted */
	struct request request; /* to the scheduler */
};

/* Written and read by the program open_connection. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct opening);
} openings SEC(".maps");

/* NULL for the verifier alone. */
static __always_inline struct opening *opening_here(void)
{
	__u32 zero = 0;

	return bpf_map_lookup_elem(&openings, &zero);
}

#endif
