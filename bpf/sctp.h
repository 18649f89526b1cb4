/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */
/*
 * SCTP's packets (RFC 9260, section 3), and which of a packet's chunks counts. The ports lie where UDP's do. The
 * checksum is crc32c.h's, what the chunks do sctp_states.h's.
 */
#ifndef SLUICE_SCTP_H
#define SLUICE_SCTP_H

#include <linux/types.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>
#include "abi.h"

struct sctp_header {
	__be16 source;
	__be16 destination;
	__be32 verification_tag;
	__u32 checksum; /* little-endian */
};
size_is(struct sctp_header, 12);

struct sctp_chunk {
	__u8 type;
	__u8 flags; /* of ABORT and SHUTDOWN COMPLETE: SCTP_FLAG_T */
	__be16 length; /* with this header, without what fills the chunk up to whole words */
};
size_is(struct sctp_chunk, 4);

/* The verification tag is the receiver's own turned back, not the sender's. */
#define SCTP_FLAG_T 1

/* What every packet has: a packet without a chunk is malformed, as is one whose first chunk is shorter than its header.
 */
struct sctp_packet {
	struct sctp_header header;
	struct sctp_chunk first;
};
size_is(struct sctp_packet, 16);

/* The chunks that move an association from state to state, by their type. All others count as SCTP_EVENT_DATA. */
enum sctp_event {
	SCTP_EVENT_DATA = 0,
	SCTP_EVENT_INIT = 1,
	SCTP_EVENT_INIT_ACK = 2,
	SCTP_EVENT_ABORT = 6,
	SCTP_EVENT_SHUTDOWN = 7,
	SCTP_EVENT_SHUTDOWN_ACK = 8,
	SCTP_EVENT_ERROR = 9,
	SCTP_EVENT_COOKIE_ECHO = 10,
	SCTP_EVENT_COOKIE_ACK = 11,
	SCTP_EVENT_SHUTDOWN_COMPLETE = 14,
};

#define SCTP_EVENTS                                                                                               \
	(1u << SCTP_EVENT_INIT | 1u << SCTP_EVENT_INIT_ACK | 1u << SCTP_EVENT_ABORT | 1u << SCTP_EVENT_SHUTDOWN | \
	 1u << SCTP_EVENT_SHUTDOWN_ACK | 1u << SCTP_EVENT_ERROR | 1u << SCTP_EVENT_COOKIE_ECHO |                  \
	 1u << SCTP_EVENT_COOKIE_ACK | 1u << SCTP_EVENT_SHUTDOWN_COMPLETE)

/*
 * The event of a packet of `length` bytes, whose headers lie before `end`. The first chunk decides, since what may be
 * bundled with others stands first where it matters; but an ABORT comes last (RFC 9260, section 3.3.7), so it is looked
 * for behind the COOKIE chunks, as set_sctp_state() does.
 */
static __always_inline enum sctp_event sctp_event(const struct sctp_packet *packet, __u32 length, const void *end)
{
	__u32 type = packet->first.type;

	if (type > SCTP_EVENT_SHUTDOWN_COMPLETE || !(SCTP_EVENTS >> type & 1))
		return SCTP_EVENT_DATA;
	if (type == SCTP_EVENT_COOKIE_ECHO || type == SCTP_EVENT_COOKIE_ACK) {
		__u32 second = sizeof(struct sctp_header) + ((bpf_ntohs(packet->first.length) + 3) & ~3u);

		if (second + sizeof(struct sctp_chunk) <= length) {
			const struct sctp_chunk *chunk;

			barrier_var(second);
			chunk = (const void *)packet + (second & 0x7ffc); /* no farther than the verifier follows */
			if ((const void *)(chunk + 1) <= end && chunk->type == SCTP_EVENT_ABORT)
				return SCTP_EVENT_ABORT;
		}
	}
	return type;
}

#endif
