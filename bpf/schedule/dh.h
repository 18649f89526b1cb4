/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */
/*
 * dh, destination hashing: the destination address, hashed, names one of 256 slots, which the control plane shares out
 * to the real servers in turn, whatever their weights. For services that stand for many addresses, caches mostly. The
 * hash is IPVS's own (ip_vs_dh_hashkey() in net/netfilter/ipvs/ip_vs_dh.c).
 */
#ifndef SLUICE_SCHEDULE_DH_H
#define SLUICE_SCHEDULE_DH_H

#include "sh.h"

GLOBAL __u32 schedule_dh(const struct request *request)
{
	__u32 real;

	if (!request || request->length < SH_SLOTS)
		return NO_REAL;
	real = ring_slot(request->chunk, sh_slot(folded(&request->flow.destination), 0));
	return is_available(real, request->service) ? real : NO_REAL;
}

#endif
