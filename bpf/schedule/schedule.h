/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */
/* Picking a real server for a new connection, by the service's scheduler. */
#ifndef SLUICE_SCHEDULE_H
#define SLUICE_SCHEDULE_H

#include "../opening.h"
#include "dh.h"
#include "fo.h"
#include "lblc.h"
#include "lblcr.h"
#include "lc.h"
#include "mh.h"
#include "nq.h"
#include "ovf.h"
#include "rr.h"
#include "sed.h"
#include "sh.h"
#include "twos.h"
#include "wlc.h"
#include "wrr.h"

static __always_inline __u32 schedule_by(enum scheduler scheduler, const struct request *request)
{
	switch (scheduler) {
	case SCHEDULER_RR:
		return schedule_rr(request);
	case SCHEDULER_WRR:
		return schedule_wrr(request);
	case SCHEDULER_MH:
		return schedule_mh(request);
	case SCHEDULER_SH:
		return schedule_sh(request);
	case SCHEDULER_DH:
		return schedule_dh(request);
	case SCHEDULER_LC:
		return schedule_lc(request);
	case SCHEDULER_WLC:
		return schedule_wlc(request);
	case SCHEDULER_SED:
		return schedule_sed(request);
	case SCHEDULER_NQ:
		return schedule_nq(request);
	case SCHEDULER_LBLC:
		return schedule_lblc(request);
	case SCHEDULER_LBLCR:
		return schedule_lblcr(request);
	case SCHEDULER_FO:
		return schedule_fo(request);
	case SCHEDULER_OVF:
		return schedule_ovf(request);
	case SCHEDULER_TWOS:
		return schedule_twos(request);
	default:
		return NO_REAL;
	}
}

/* A real server of the service for the connection that is being opened: index into real_servers, or NO_REAL. */
GLOBAL __u32 schedule(__u32 service)
{
	const struct service *found = bpf_map_lookup_elem(&services, &service);
	struct opening *opening = opening_here();

	if (!opening || !found)
		return NO_REAL;

	/* One load of the whole word: chunk and length belong together. */
	__u64 word = *(volatile const __u64 *)&found->ring;
	struct request *request = &opening->request;
	const struct real_server *real;
	__u32 index;

	request->flow = opening->route.flow;
	request->service = service;
	request->chunk = word;
	request->length = word >> 32;
	request->flags = found->scheduler_flags;
	if (!request->length)
		return NO_REAL;
	index = schedule_by(found->scheduler, request);
	real = bpf_map_lookup_elem(&real_servers, &index);
	return real && real->state == REAL_ACTIVE && real->service == service && real->weight ? index : NO_REAL;
}

#endif
