/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */
/*
 * sh, source hashing: the client's address, hashed, names one of 256 slots, which the control plane shares out to the
 * real servers in runs of their weights. The hash is IPVS's own (ip_vs_sh_hashkey() in net/netfilter/ipvs/ip_vs_sh.c;
 * hash_32() in include/linux/hash.h).
 */
#ifndef SLUICE_SCHEDULE_SH_H
#define SLUICE_SCHEDULE_SH_H

#include "table.h"

#define GOLDEN_RATIO_32 0x61C88647u
#define SH_SLOTS 256

static __always_inline __u32 sh_slot(__u32 word, __u32 offset)
{
	return (offset + (word * GOLDEN_RATIO_32 >> 24)) % SH_SLOTS;
}

static long sh_try(__u32 attempt, void *context)
{
	struct fallback *fallback = context;
	__u32 real = ring_slot(fallback->chunk, sh_slot(fallback->word, attempt + fallback->first));

	if (!is_available(real, fallback->service))
		return 0;
	fallback->real = real;
	return 1;
}

GLOBAL __u32 schedule_sh(const struct request *request)
{
	struct fallback fallback;
	__u32 real;

	if (!request || request->length < SH_SLOTS)
		return NO_REAL;
	fallback_begin(&fallback, request);
	fallback.first = sh_slot(fallback.word, 0);
	real = ring_slot(request->chunk, fallback.first);
	if (is_available(real, request->service))
		return real;
	if (!(request->flags & SCHEDULER_FALLBACK))
		return NO_REAL;
	bpf_loop(SH_SLOTS, sh_try, &fallback, 0);
	return fallback.real;
}

#endif
