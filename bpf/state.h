/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */
/* What a packet means for its connection, whatever the protocol; `event` is struct packet's. */
#ifndef SLUICE_STATE_H
#define SLUICE_STATE_H

#include <stdbool.h>
#include "sctp_states.h"
#include "tcp.h"

/* The state after the packet; TCP_NONE and SCTP_NONE are those before the first. Not for UDP. */
static __always_inline enum connection_state next_state(enum connection_state state, enum side side, __u8 event)
{
	return state < SCTP_NONE ? tcp_next_state(state, side, event) : sctp_next_state(state, side, event);
}

/* Whether it leaves the connection in the state that it is in. So do nearly all: UDP, a plain segment of TCP, data of
 * SCTP. */
static __always_inline bool is_plain(__u32 protocol, enum connection_state state, __u8 event)
{
	if (protocol == PROTOCOL_TCP)
		return state == TCP_ESTABLISHED && (event & TCP_FLAGS_OF_STATES) == TCP_FLAG_ACK;
	return protocol == PROTOCOL_UDP || (state == SCTP_ESTABLISHED && event == SCTP_EVENT_DATA);
}

/* Whether the client begins a connection with it, as is_new_conn() in net/netfilter/ipvs/ip_vs_core.c. Of UDP none
 * does. */
static __always_inline bool is_beginning(__u32 protocol, __u8 event)
{
	if (protocol == PROTOCOL_TCP)
		return event & TCP_FLAG_SYN;
	return protocol == PROTOCOL_SCTP && event == SCTP_EVENT_INIT;
}

/* Whether it ends a connection at once, and is not to be answered. */
static __always_inline bool is_reset(__u32 protocol, __u8 event)
{
	if (protocol == PROTOCOL_TCP)
		return event & TCP_FLAG_RST;
	return protocol == PROTOCOL_SCTP && event == SCTP_EVENT_ABORT;
}

static __always_inline bool is_established(enum connection_state state)
{
	return state == TCP_ESTABLISHED || state == SCTP_ESTABLISHED;
}

#endif
