/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */
/* The states of an SCTP association, as IPVS follows them (net/netfilter/ipvs/ip_vs_proto_sctp.c). */
#ifndef SLUICE_SCTP_STATES_H
#define SLUICE_SCTP_STATES_H

#include "packet.h"

#define __ 0
#define I1 SCTP_INIT1
#define IN SCTP_INIT
#define CS SCTP_COOKIE_SENT
#define CR SCTP_COOKIE_REPLIED
#define CW SCTP_COOKIE_WAIT
#define CO SCTP_COOKIE
#define CE SCTP_COOKIE_ECHOED
#define ES SCTP_ESTABLISHED
#define SS SCTP_SHUTDOWN_SENT
#define SR SCTP_SHUTDOWN_RECEIVED
#define SA SCTP_SHUTDOWN_ACK_SENT
#define RJ SCTP_REJECTED
#define CL SCTP_CLOSED
/*
 * The state after a packet, by side, event and state before; __ where it stays as it was. The states are those of the
 * real server. The client sets an association up by way of INIT1 (it has sent INIT; INIT: more than once), COOKIE_SENT
 * (INIT ACK was the answer) and COOKIE_REPLIED (it has sent the cookie back); the server by way of COOKIE_WAIT, COOKIE
 * and COOKIE_ECHOED.
 */
static const __u8 sctp_transitions[4][16][16] = {
	/* clang-format off */
	[SIDE_CLIENT] = {                        /* NO  I1  IN  CS  CR  CW  CO  CE  ES  SS  SR  SA  RJ  CL */
		[SCTP_EVENT_DATA] =              { ES, __, __, __, __, __, __, __, __, __, __, __, __, __ },
		[SCTP_EVENT_INIT] =              { I1, IN, __, __, __, __, __, __, __, __, __, __, IN, IN },
		[SCTP_EVENT_INIT_ACK] =          { CW, CW, CW, __, __, CO, __, __, __, __, __, __, __, __ },
		[SCTP_EVENT_COOKIE_ECHO] =       { CR, IN, __, CR, __, __, __, __, __, __, __, __, __, __ },
		[SCTP_EVENT_COOKIE_ACK] =        { ES, __, __, __, __, __, __, ES, __, __, __, __, __, __ },
		[SCTP_EVENT_SHUTDOWN] =          { SR, __, __, __, __, __, __, __, SR, __, __, __, __, __ },
		[SCTP_EVENT_SHUTDOWN_ACK] =      { CL, IN, __, __, __, __, __, __, __, CL, __, CL, __, __ },
		[SCTP_EVENT_SHUTDOWN_COMPLETE] = { CL, CL, CL, __, __, __, __, __, __, __, __, CL, __, __ },
		[SCTP_EVENT_ERROR] =             { CL, __, __, __, __, __, __, CL, __, __, __, __, __, __ },
		[SCTP_EVENT_ABORT] =             { CL, CL, CL, CL, CL, RJ, CL, CL, CL, CL, CL, CL, CL, CL },
	},
	[SIDE_SERVER] = {
		[SCTP_EVENT_DATA] =              { ES, __, __, __, __, __, __, __, __, __, __, __, __, __ },
		[SCTP_EVENT_INIT] =              { CW, CW, CW, CW, CW, CW, CW, CW, __, CW, CW, CW, CW, CW },
		[SCTP_EVENT_INIT_ACK] =          { CS, CS, CS, __, __, __, __, __, __, __, __, __, __, __ },
		[SCTP_EVENT_COOKIE_ECHO] =       { CE, CE, CE, CE, CE, CE, CE, __, __, __, __, __, __, __ },
		[SCTP_EVENT_COOKIE_ACK] =        { ES, ES, ES, ES, ES, ES, ES, ES, __, __, __, __, __, __ },
		[SCTP_EVENT_SHUTDOWN] =          { SS, SS, SS, SS, SS, SS, SS, SS, SS, __, __, __, __, __ },
		[SCTP_EVENT_SHUTDOWN_ACK] =      { SA, SA, SA, SA, SA, __, __, __, __, SA, SA, __, __, __ },
		[SCTP_EVENT_SHUTDOWN_COMPLETE] = { CL, __, __, __, __, __, __, __, __, __, __, __, __, __ },
		[SCTP_EVENT_ERROR] =             { CL, CL, CL, CL, CL, __, __, __, __, __, __, __, __, __ },
		[SCTP_EVENT_ABORT] =             { CL, RJ, CL, CL, CL, CL, CL, CL, CL, CL, CL, CL, CL, CL },
	},
	[SIDE_CLIENT_ALONE] = {
		[SCTP_EVENT_DATA] =              { ES, __, __, __, __, ES, __, __, __, __, __, __, __, __ },
		[SCTP_EVENT_INIT] =              { I1, IN, __, IN, IN, IN, __, __, __, __, __, __, IN, IN },
		[SCTP_EVENT_INIT_ACK] =          { CE, CE, CE, CE, CE, CE, __, __, __, __, __, __, __, __ },
		[SCTP_EVENT_COOKIE_ECHO] =       { ES, ES, ES, ES, ES, ES, __, __, __, __, __, __, __, __ },
		[SCTP_EVENT_COOKIE_ACK] =        { ES, __, __, ES, ES, __, ES, ES, __, __, __, __, __, __ },
		[SCTP_EVENT_SHUTDOWN] =          { SR, __, __, __, __, __, __, __, SR, __, __, __, __, __ },
		[SCTP_EVENT_SHUTDOWN_ACK] =      { CL, IN, __, __, __, __, __, __, CL, CL, __, CL, __, __ },
		[SCTP_EVENT_SHUTDOWN_COMPLETE] = { CL, CL, CL, CL, CL, __, __, __, __, __, CL, CL, __, __ },
		[SCTP_EVENT_ERROR] =             { CL, __, __, __, __, __, __, __, __, __, __, __, __, __ },
		[SCTP_EVENT_ABORT] =             { CL, CL, CL, CL, CL, RJ, CL, CL, CL, CL, CL, CL, CL, CL },
	},
	/* clang-format on */
};
#undef __
#undef I1
#undef IN
#undef CS
#undef CR
#undef CW
#undef CO
#undef CE
#undef ES
#undef SS
#undef SR
#undef SA
#undef RJ
#undef CL

static __always_inline enum connection_state sctp_next_state(enum connection_state state, enum side side,
							     enum sctp_event event)
{
	__u32 column = state - SCTP_NONE, row = event, table = side;
	__u8 next;

	barrier_var(table); /* bounded where they are used: the verifier forgets a bound that was spilled */
	barrier_var(row);
	barrier_var(column);
	next = sctp_transitions[table & 3][row & 15][column & 15];
	return next ? next : state;
}

#endif
