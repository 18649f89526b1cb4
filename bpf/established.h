/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */
/* A client's packet of a connection that is in the table. */
#ifndef SLUICE_ESTABLISHED_H
#define SLUICE_ESTABLISHED_H

#include "answer.h"
#include "forward/forward.h"
#include "remove.h"

/*
 * Whether a SYN or INIT on this connection begins another one (ip_vs_in(), is_new_conn_expected() in
 * net/netfilter/ipvs/ip_vs_core.c). What persistence led stays where it is.
 */
static __always_inline bool is_reused(enum connection_state state, bool is_alone, __u32 template,
				      const struct real_server *real)
{
	__u32 zero = 0;
	const struct settings *current = bpf_map_lookup_elem(&settings, &zero);

	if (!current)
		return false;
	if (current->expire_nodest_conn && !real->weight)
		return true;
	if (!current->conn_reuse_mode || template != NOWHERE)
		return false;
	return state == TCP_TIME_WAIT || state == TCP_CLOSE || state == SCTP_CLOSED ||
	       (current->conn_reuse_mode & 2 && state == TCP_FIN_WAIT && is_alone);
}

enum continuation {
	CONTINUES,
	OPENS, /* it is over, and gone from the table: the packet may open it afresh */
	ENDS, /* its real server was removed */
};

/*
 * Fills `route` from the entry and takes the connection's state on; `*found` is its real server. With ENDS, the entry
 * is gone if a reset is to be sent.
 */
static __always_inline enum continuation continues(struct connection *connection, const struct place *place,
						   struct route *route, __u32 protocol,
						   const struct real_server **found)
{
	enum connection_state state = connection->state;
	__u32 expires = connection->expires, template = connection->template;
	bool is_alone = connection->twin == NOWHERE;
	enum side side = is_alone ? SIDE_CLIENT_ALONE : SIDE_CLIENT;
	const struct real_server *real;

	route->real = connection->real;
	route->local_address = connection->local_address;
	route->local_port = connection->local_port;
	barrier();
	if (id_of(connection) != place->id)
		return OPENS;
	real = bpf_map_lookup_elem(&real_servers, &route->real);
	if (!real)
		return OPENS;
	*found = real;
	if (is_over(expires, route->now)) {
		connection_remove(place->location, place->id);
		return OPENS;
	}
	if (real->state == REAL_ACTIVE && is_plain(protocol, state, route->event)) {
		refresh(connection, real, state, route->now);
		return CONTINUES;
	}
	if (is_beginning(protocol, route->event) && is_reused(state, is_alone, template, real)) {
		connection_remove(place->location, place->id);
		return OPENS;
	}
	if (real->state == REAL_RESET) {
		connection_remove(place->location, place->id);
		return protocol == PROTOCOL_UDP || is_beginning(protocol, route->event) ? OPENS : ENDS;
	}
	if (real->state != REAL_ACTIVE && real->state != REAL_DRAINING)
		return ENDS;
	if (protocol != PROTOCOL_UDP && next_state(state, side, route->event) != state)
		connection_transition(place->location, place->id, route->event, side);
	else
		refresh(connection, real, state, route->now);
	return CONTINUES;
}

/* A packet of a connection whose real server was removed. */
static __always_inline int end(struct xdp_md *ctx, const struct real_server *real, __u32 protocol)
{
	if (protocol == PROTOCOL_TCP && real && real->state == REAL_RESET)
		return answer_reset(ctx, DROP_REAL_SERVER_REMOVED);
	if (protocol == PROTOCOL_SCTP && real && real->state == REAL_RESET)
		return answer_abort(ctx, DROP_REAL_SERVER_REMOVED);
	return drop(ctx, DROP_REAL_SERVER_REMOVED);
}

#endif
