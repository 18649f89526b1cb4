/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */
/* The states of a TCP connection, as IPVS follows them. */
#ifndef SLUICE_TCP_H
#define SLUICE_TCP_H

#include "packet.h"

/* Which row of IPVS's table: RST before SYN before FIN before ACK, as tcp_state_idx() has it. A segment with none of
 * them closes. */
enum tcp_event {
	TCP_EVENT_SYN,
	TCP_EVENT_FIN,
	TCP_EVENT_ACK,
	TCP_EVENT_RST,
	TCP_EVENTS,
};

#define NO TCP_NONE
#define ES TCP_ESTABLISHED
#define SS TCP_SYN_SENT
#define SR TCP_SYN_RECV
#define FW TCP_FIN_WAIT
#define TW TCP_TIME_WAIT
#define CL TCP_CLOSE
#define CW TCP_CLOSE_WAIT
#define LA TCP_LAST_ACK
#define LI TCP_LISTEN
#define SA TCP_SYNACK
/* The state after a segment, by side, event and state before: IPVS's transitions (net/netfilter/ipvs/ip_vs_proto_tcp.c,
 * tcp_states). */
static const __u8 tcp_transitions[4][TCP_EVENTS][16] = {
	/* clang-format off */
	[SIDE_CLIENT] = {    /* NO  ES  SS  SR  FW  TW  CL  CW  LA  LI  SA */
		[TCP_EVENT_SYN] = { SR, ES, ES, SR, SR, SR, SR, SR, SR, SR, SR },
		[TCP_EVENT_FIN] = { CL, CW, SS, TW, TW, TW, CL, CW, LA, LI, TW },
		[TCP_EVENT_ACK] = { ES, ES, SS, ES, FW, TW, CL, CW, CL, LI, ES },
		[TCP_EVENT_RST] = { CL, CL, CL, SR, CL, CL, CL, CL, LA, LI, SR },
	},
	[SIDE_SERVER] = {
		[TCP_EVENT_SYN] = { SS, ES, SS, SR, SS, SS, SS, SS, SS, LI, SR },
		[TCP_EVENT_FIN] = { TW, FW, SS, TW, FW, TW, CL, TW, LA, LI, TW },
		[TCP_EVENT_ACK] = { ES, ES, SS, ES, FW, TW, CL, CW, LA, ES, ES },
		[TCP_EVENT_RST] = { CL, CL, SS, CL, CL, TW, CL, CL, CL, CL, CL },
	},
	[SIDE_CLIENT_ALONE] = {
		[TCP_EVENT_SYN] = { SR, ES, ES, SR, SR, SR, SR, SR, SR, SR, SR },
		[TCP_EVENT_FIN] = { CL, FW, SS, TW, FW, TW, CL, CW, LA, LI, TW },
		[TCP_EVENT_ACK] = { ES, ES, SS, ES, FW, TW, CL, CW, CL, LI, ES },
		[TCP_EVENT_RST] = { CL, CL, CL, SR, CL, CL, CL, CL, LA, LI, CL },
	},
	/* clang-format on */
};
#undef NO
#undef ES
#undef SS
#undef SR
#undef FW
#undef TW
#undef CL
#undef CW
#undef LA
#undef LI
#undef SA

static __always_inline enum connection_state tcp_next_state(enum connection_state state, enum side side, __u8 tcp_flags)
{
	enum tcp_event event;
	__u32 row = side;

	barrier_var(row); /* bounded where it is used: the verifier forgets a bound that was spilled */
	if (tcp_flags & TCP_FLAG_RST)
		event = TCP_EVENT_RST;
	else if (tcp_flags & TCP_FLAG_SYN)
		event = TCP_EVENT_SYN;
	else if (tcp_flags & TCP_FLAG_FIN)
		event = TCP_EVENT_FIN;
	else if (tcp_flags & TCP_FLAG_ACK)
		event = TCP_EVENT_ACK;
	else
		return TCP_CLOSE;
	return tcp_transitions[row & 3][event][state & 15];
}

#endif
