/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */
/*
 * What the hashing schedulers with a fallback share (mh, sh): a table that a hash of the client indexes. The table
 * keeps the slots of a quiesced real server, so that its clients come back to it later. Until then they are refused, or
 * with SCHEDULER_FALLBACK hashed anew with one offset after another until a slot has a server that takes connections,
 * at most as often as the table has slots.
 */
#ifndef SLUICE_SCHEDULE_TABLE_H
#define SLUICE_SCHEDULE_TABLE_H

#include "request.h"

/* What is hashed of a client: its address, and its port with SCHEDULER_PORT. */
static __always_inline __u32 client_word(const struct request *request)
{
	__u32 port = request->flags & SCHEDULER_PORT ? bpf_ntohs(request->flow.source_port) : 0;

	return port + folded(&request->flow.source);
}

struct fallback {
	__u32 chunk;
	__u32 length;
	__u32 service;
	__u32 word; /* client_word() */
	__u32 first; /* slot of the quiesced real server */
	__u32 real; /* the one that was found, or NO_REAL */
};

static __always_inline void fallback_begin(struct fallback *fallback, const struct request *request)
{
	fallback->chunk = request->chunk;
	fallback->length = request->length;
	fallback->service = request->service;
	fallback->word = client_word(request);
	fallback->real = NO_REAL;
}

#endif
