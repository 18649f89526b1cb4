/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */
/*
 * Internet checksums (RFC 1071), changed in step with what they cover (RFC 1624, equation 3). A change is the sum, in
 * 64 bits and not folded, of the complement of each 16- or 32-bit word taken out and of each word put in, all as they
 * lie in memory: one's complement sums do not mind the byte order.
 */
#ifndef SLUICE_CHECKSUM_H
#define SLUICE_CHECKSUM_H

#include <linux/types.h>
#include <bpf/bpf_helpers.h>

static __always_inline __u64 checksum_replace32(__u64 change, __be32 from, __be32 to)
{
	return change + (__u32)~from + to;
}

static __always_inline __u64 checksum_replace16(__u64 change, __be16 from, __be16 to)
{
	return change + (__u16)~from + to;
}

static __always_inline __u16 checksum_fold(__u64 sum)
{
	sum = (sum & 0xffffffff) + (sum >> 32);
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	return sum;
}

/* A right checksum stays right, a wrong one stays wrong. */
static __always_inline __sum16 checksum_apply(__sum16 check, __u64 change)
{
	return (__u16)~checksum_fold((__u16)~check + change);
}

#endif
