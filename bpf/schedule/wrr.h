/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */
/*
 * wrr, weighted round robin: rr over a ring that holds each real server as often as its weight says, interleaved
 * (weights 4, 3, 2 on servers A, B, C lie as AABABCABC). The control plane lays the ring out; here it is walked as rr
 * walks its own.
 */
#ifndef SLUICE_SCHEDULE_WRR_H
#define SLUICE_SCHEDULE_WRR_H

#include "rr.h"

static __always_inline __u32 schedule_wrr(const struct request *request)
{
	return schedule_rr(request);
}

#endif
