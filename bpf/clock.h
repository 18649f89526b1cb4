/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */
/* The time of the connection table. */
#ifndef SLUICE_CLOCK_H
#define SLUICE_CLOCK_H

#include "abi.h"
#include <bpf/bpf_helpers.h>

/* The jiffy in the low half, its tick in the high one; both in one word, so that no reader sees halves of two. */
static volatile __u64 tick_of_jiffy;

/*
 * Now, in ticks. The coarse clock moves with the jiffies only, and to read those is one load where the clock is a call
 * of 10 ns: so it is asked once a jiffy, by whichever processor comes first.
 */
static __always_inline __u32 tick_now(void)
{
	__u64 known = tick_of_jiffy;
	__u32 jiffy = bpf_jiffies64();

	if ((__u32)known != jiffy) {
		known = (bpf_ktime_get_coarse_ns() >> TICK_SHIFT) << 32 | jiffy;
		tick_of_jiffy = known;
	}
	return known >> 32;
}

#endif
