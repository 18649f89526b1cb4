/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */
/*
 * What real servers are counted by: real_load. The counts change under the lock of the bucket whose entry they count,
 * so at any moment they equal what the table holds.
 */
#ifndef SLUICE_LOAD_H
#define SLUICE_LOAD_H

#include <stdbool.h>
#include "maps.h"

/* Which of the two counts a connection is in (tcp_state_active_table in ip_vs_proto_tcp.c); UDP is always inactive, of
 * SCTP's states only ESTABLISHED is active. */
static __always_inline bool is_active(enum connection_state state)
{
	return (1u << state) & (1u << TCP_ESTABLISHED | 1u << TCP_SYN_SENT | 1u << TCP_SYN_RECV | 1u << TCP_SYNACK |
				1u << SCTP_ESTABLISHED);
}

static __always_inline bool is_template(enum connection_state state)
{
	return state == TEMPLATE || state == TEMPLATE_ASSURED;
}

static __always_inline __u32 *load_count(struct real_load *load, enum connection_state state)
{
	if (is_template(state))
		return &load->templates;
	if (state == ONE_PACKET)
		return &load->one_packet;
	return is_active(state) ? &load->active : &load->inactive;
}

/* A connection goes from one state to another. */
static __always_inline void load_move(struct real_load *load, enum connection_state before, enum connection_state after)
{
	if (is_active(before) == is_active(after))
		return;
	__sync_fetch_and_add(load_count(load, after), 1);
	__sync_fetch_and_add(load_count(load, before), -1);
}

static __always_inline void load_enter(struct real_load *load, enum connection_state state)
{
	__sync_fetch_and_add(load_count(load, state), 1);
	if (load->upper && load->active + load->inactive >= load->upper)
		load->overloaded = 1;
}

/* Whether the connections have become few enough to take new ones again (ip_vs_unbind_dest() in
 * net/netfilter/ipvs/ip_vs_conn.c). */
static __always_inline bool load_is_low(const struct real_load *load)
{
	__u64 connections = load->active + load->inactive;

	if (load->lower)
		return connections < load->lower;
	return !load->upper || connections * 4 < (__u64)load->upper * 3;
}

static __always_inline void load_leave(struct real_load *load, enum connection_state state)
{
	__sync_fetch_and_add(load_count(load, state), -1);
	if (load->overloaded && load_is_low(load))
		load->overloaded = 0;
}

/*
 * Whether a real server is to get no new connections for now. It has no more than that when `overloaded` is set: of two
 * processors, one may have seen the last connection come and the other one see it go, and the first be the last to
 * write.
 */
static __always_inline bool is_overloaded(const struct real_load *load)
{
	return load->overloaded && !load_is_low(load);
}

#endif
