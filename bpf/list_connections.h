/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */
/*
 * The iterator behind `cat /sys/fs/bpf/sluice/connections`: a line a connection, without stopping traffic. Columns:
 * protocol, state, seconds left, client, virtual service, local (fullnat) or -, real server, method. A persistence
 * template is listed from its clients' masked address, port 0; of a firewall mark, to 0.0.0.mark.
 */
#ifndef SLUICE_LIST_CONNECTIONS_H
#define SLUICE_LIST_CONNECTIONS_H

#include "connection.h"

/* The kernel's own, as far as they are used here; the loader relocates the fields. */
struct seq_file;
struct bpf_map;
struct bpf_iter_meta {
	struct seq_file *seq;
	__u64 session_id;
	__u64 seq_num;
} __attribute__((preserve_access_index));
struct bpf_iter__bpf_map_elem {
	struct bpf_iter_meta *meta;
	struct bpf_map *map;
	void *key;
	void *value;
} __attribute__((preserve_access_index));

static const char state_names[CONNECTION_STATES][16] = {
	[TCP_NONE] = "NONE",
	[TCP_ESTABLISHED] = "ESTABLISHED",
	[TCP_SYN_SENT] = "SYN_SENT",
	[TCP_SYN_RECV] = "SYN_RECV",
	[TCP_FIN_WAIT] = "FIN_WAIT",
	[TCP_TIME_WAIT] = "TIME_WAIT",
	[TCP_CLOSE] = "CLOSE",
	[TCP_CLOSE_WAIT] = "CLOSE_WAIT",
	[TCP_LAST_ACK] = "LAST_ACK",
	[TCP_LISTEN] = "LISTEN",
	[TCP_SYNACK] = "SYNACK",
	[UDP_NORMAL] = "UDP",
	[SCTP_NONE] = "NONE",
	[SCTP_INIT1] = "INIT1",
	[SCTP_INIT] = "INIT",
	[SCTP_COOKIE_SENT] = "C-SENT",
	[SCTP_COOKIE_REPLIED] = "C-REPLIED",
	[SCTP_COOKIE_WAIT] = "C-WAIT",
	[SCTP_COOKIE] = "COOKIE",
	[SCTP_COOKIE_ECHOED] = "C-ECHOED",
	[SCTP_ESTABLISHED] = "ESTABLISHED",
	[SCTP_SHUTDOWN_SENT] = "S-SENT",
	[SCTP_SHUTDOWN_RECEIVED] = "S-RECEIVED",
	[SCTP_SHUTDOWN_ACK_SENT] = "S-ACK-SENT",
	[SCTP_REJECTED] = "REJECTED",
	[SCTP_CLOSED] = "CLOSED",
	[ONE_PACKET] = "ONE_PACKET",
	[TEMPLATE] = "NONE",
	[TEMPLATE_ASSURED] = "ASSURED",
};

static const char method_names[4][8] = {
	[METHOD_NAT] = "nat",
	[METHOD_DR] = "dr",
	[METHOD_TUN] = "tun",
	[METHOD_FULLNAT] = "fullnat",
};

static __always_inline const char *protocol_name(enum protocol protocol)
{
	switch (protocol) {
	case PROTOCOL_TCP:
		return "tcp";
	case PROTOCOL_UDP:
		return "udp";
	case PROTOCOL_SCTP:
		return "sctp";
	default:
		return "ip"; /* the template of a firewall mark */
	}
}

/* `connection` is a copy: the slot may change under us, and is then listed as it was found or not at all. */
static __noinline int list_connection(struct seq_file *seq, struct connection *connection, __u32 now)
{
	__u32 state = connection->state, real_index = connection->real, local_index = connection->local_address;
	const struct real_server *real = bpf_map_lookup_elem(&real_servers, &real_index);
	const struct address *local = bpf_map_lookup_elem(&local_addresses, &local_index);
	__u32 client_port = bpf_ntohs(connection->flow.source_port);
	__u32 vip_port = bpf_ntohs(connection->flow.destination_port);
	__u32 local_port = bpf_ntohs(connection->local_port);
	__u32 seconds = ((__u64)(connection->expires - now) << TICK_SHIFT) / 1000000000;
	__u64 protocol = (__u64)protocol_name(connection->flow.protocol);

	if (!real || !local || state >= CONNECTION_STATES || real->state == REAL_RESET)
		return 0;
	if (is_over(connection->expires, now))
		seconds = 0;

	__u32 method = real->method, real_port = real->port ?: vip_port;

	if (method > METHOD_FULLNAT)
		return 0;
	/* One call a line: a call costs as much as all that it prints. */
	if (method == METHOD_FULLNAT && connection->direction == DIRECTION_FORWARD)
		BPF_SEQ_PRINTF(seq, "%s %-11s %6u %pI4:%u %pI4:%u %pI4:%u %pI4:%u %s\n", protocol, state_names[state],
			       seconds, &connection->flow.source, client_port, &connection->flow.destination, vip_port,
			       local, local_port, &real->address, real_port, method_names[method]);
	else
		BPF_SEQ_PRINTF(seq, "%s %-11s %6u %pI4:%u %pI4:%u - %pI4:%u %s\n", protocol, state_names[state],
			       seconds, &connection->flow.source, client_port, &connection->flow.destination, vip_port,
			       &real->address, real_port, method_names[method]);
	return 0;
}

SEC("iter/bpf_map_elem") int list_connections(struct bpf_iter__bpf_map_elem *ctx)
{
	struct seq_file *seq = ctx->meta->seq;
	__u32 *key = ctx->key;
	__u32 now = bpf_ktime_get_ns() >> TICK_SHIFT; /* the coarse clock is not for iterators */

	if (ctx->meta->seq_num == 0)
		BPF_SEQ_PRINTF(seq, "proto state seconds client virtual local real method\n");
	if (!key)
		return 0;

	__u32 index = *key;
	struct bucket *bucket = bpf_map_lookup_elem(&connection_table, &index);

	if (!bucket)
		return 0;
	for (__u32 slot = 0; slot < BUCKET_SLOTS; slot++) {
		struct connection copy;

		if (!bucket->tags[slot])
			continue;
		__u16 id = id_of(&bucket->slots[slot]);

		barrier();
		copy = bucket->slots[slot];
		barrier();
		if (!id || id_of(&bucket->slots[slot]) != id || copy.direction == DIRECTION_REVERSE ||
		    (is_over(copy.expires, now) && !is_controlling(&copy)))
			continue;
		list_connection(seq, &copy, now);
	}
	return 0;
}

#endif
