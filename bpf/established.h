/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */
/* A client's packet of a connection that is in the table. */
#ifndef SLUICE_ESTABLISHED_H
#define SLUICE_ESTABLISHED_H

#include "connection.h"
#include "forward/forward.h"

/*
 * Fills `route` and takes the connection's state on. False if it is over, or if the packet is a
 * SYN that opens it afresh (TIME_WAIT and CLOSE, as IPVS's conn_reuse_mode 1 has it); it is then gone from the table.
 */
static __always_inline bool continues(struct connection *connection, const struct place *place, struct route *route,
				      __u32 protocol)
{
	enum connection_state state = connection->state;
	enum tcp_side side = connection->twin == NO_TWIN ? SIDE_CLIENT_ALONE : SIDE_CLIENT;
	__u32 expires = connection->expires;

	route->real = connection->real;
	route->service = connection->service;
	route->local_address = connection->local_address;
	route->local_port = connection->local_port;
	barrier();
	if (id_of(connection) != place->id)
		return false;
	if (is_over(expires, route->now)) {
		connection_remove(place->location, place->id);
		return false;
	}
	/* What nearly every packet is: a plain segment of an established connection, or UDP. */
	if (protocol != PROTOCOL_TCP ||
	    (state == TCP_ESTABLISHED && (route->tcp_flags & TCP_FLAGS_OF_STATES) == TCP_FLAG_ACK)) {
		refresh(connection, state, route->now);
		return true;
	}
	if ((route->tcp_flags & (TCP_FLAG_SYN | TCP_FLAG_RST)) == TCP_FLAG_SYN &&
	    (state == TCP_TIME_WAIT || state == TCP_CLOSE)) {
		connection_remove(place->location, place->id);
		return false;
	}
	if (next_state(state, side, route->tcp_flags) != state)
		connection_transition(place->location, place->id, route->tcp_flags, side);
	else
		refresh(connection, state, route->now);
	return true;
}

#endif
