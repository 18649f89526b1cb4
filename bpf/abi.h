/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */
/*
 * The one contract between the data plane and everything that looks at its maps: every struct, enum and constant that
 * both sides see. The TypeScript side is generated from the compiled object's BTF; nothing here is written a second
 * time.
 *
 * Byte order is in the type: __be16 and __be32 are as on the wire, all else is the host's. Addresses are byte arrays as
 * on the wire, so that `bpftool map dump` prints them readably; an IPv4 address is in the first four bytes, the other
 * twelve are zero. Padding is explicit, in fields whose names begin with `pad`.
 */
#ifndef SLUICE_ABI_H
#define SLUICE_ABI_H

#include <linux/types.h>
#include <linux/bpf.h>

/* Constants as enumerators, so that BTF carries them to the other side. */
enum abi : __u32 {
	ABI_VERSION = 2, /* raised whenever a pinned map of an older build could not be read by a newer one */
	/* Time in the table: CLOCK_MONOTONIC nanoseconds >> TICK_SHIFT, about 4.2 ms; wraps after 208 days, compared as
	 * a difference. */
	TICK_SHIFT = 22,
};

#define CACHE_LINE 64

/* A type that no map has, but the control plane needs all the same: the generator writes it out. */
#define exported __attribute__((btf_decl_tag("export")))

#define size_is(type, bytes) _Static_assert(sizeof(type) == (bytes), #type " is not " #bytes " bytes")

enum address_family : __u8 {
	FAMILY_NONE = 0,
	FAMILY_IPV4 = 2, /* AF_INET */
	FAMILY_IPV6 = 10, /* AF_INET6 */
};

enum protocol : __u8 {
	PROTOCOL_IP = 0, /* of a firewall mark's service: any */
	PROTOCOL_ICMP = 1,
	PROTOCOL_IPIP = 4,
	PROTOCOL_TCP = 6,
	PROTOCOL_UDP = 17,
	PROTOCOL_SCTP = 132,
};

enum forwarding_method : __u8 {
	METHOD_NAT,
	METHOD_DR,
	METHOD_TUN,
	METHOD_FULLNAT,
};

enum scheduler : __u8 {
	SCHEDULER_RR,
	SCHEDULER_WRR,
	SCHEDULER_MH,
	SCHEDULER_SH,
	SCHEDULER_DH,
	SCHEDULER_LC,
	SCHEDULER_WLC,
	SCHEDULER_SED,
	SCHEDULER_NQ,
	SCHEDULER_LBLC,
	SCHEDULER_LBLCR,
	SCHEDULER_FO,
	SCHEDULER_OVF,
	SCHEDULER_TWOS,
};

/* Bits of service.scheduler_flags; IPVS's sh-fallback and mh-fallback, sh-port and mh-port. */
enum scheduler_flag : __u8 {
	SCHEDULER_NO_FLAGS = 0,
	SCHEDULER_FALLBACK = 1, /* a client whose real server is quiesced gets another one instead of none */
	SCHEDULER_PORT = 2, /* the client's port counts, not its address alone */
	SCHEDULER_FALLBACK_AND_PORT = SCHEDULER_FALLBACK | SCHEDULER_PORT,
};

struct address {
	__u8 bytes[16];
} __attribute__((aligned(4)));
size_is(struct address, 16);

/* -------------------------------------------------------------------------------------------- virtual services */

/* Key of service_index. A firewall mark's service has the mark where others have the VIP, as the four bytes 0.0.0.mark
 * in network order, port 0 and PROTOCOL_IP. */
struct service_key {
	struct address vip;
	__u16 port; /* 0: any */
	enum protocol protocol;
	enum address_family family;
};
size_is(struct service_key, 20);

/* Key of vips: the addresses of all virtual services, for what is answered or judged by address alone (echo,
 * fragments). */
struct vip_key {
	struct address address;
	enum address_family family;
	__u8 pad[3];
};
size_is(struct vip_key, 20);

struct vip {
	__u32 services; /* how many virtual services have this address */
};

#define RING_CHUNK_SLOTS 16

/* The unit of the rings map: an array's stride is at least 8 bytes, so single u32 values would waste half of it. */
struct ring_chunk {
	__u32 slots[RING_CHUNK_SLOTS]; /* indexes into real_servers */
};
size_is(struct ring_chunk, CACHE_LINE);

/*
 * Where a service's ring is. By scheduler it is the sequence of turns (rr, wrr), the table that a hash indexes (mh, sh,
 * dh), or the service's real servers in their order, quiesced ones too (all others). `chunk` is its first element of
 * the rings map, `length` counts slots. Published by one store of the aligned 64-bit word, so the data plane sees the
 * old ring or the new one. Length 0: no real server can take a connection.
 */
struct ring {
	__u32 chunk;
	__u32 length;
} __attribute__((aligned(8)));
size_is(struct ring, 8);

/* Value of services; written by the control plane alone. An element whose family is FAMILY_NONE is free. */
struct service {
	struct address vip; /* with port and protocol: as in struct service_key */
	__u16 port;
	enum protocol protocol;
	enum address_family family;
	enum scheduler scheduler;
	enum scheduler_flag scheduler_flags;
	__u8 one_packet; /* 1: every UDP packet is scheduled by itself */
	__u8 pad;
	struct ring ring;
	struct address persistence_mask; /* which bits of a client's address make it a client of its own */
	__u32 persistence; /* ticks that a template lives after the last connection it led; 0: no persistence */
	__u8 pad_to_line[12];
};
size_is(struct service, CACHE_LINE);

#define MARK_RULES 1024

/* A firewall mark for packets that begin a connection. The first rule that a packet matches gives it its mark. */
struct mark_rule {
	struct address source; /* bits outside the mask are zero */
	struct address source_mask;
	struct address destination;
	struct address destination_mask;
	__u16 source_ports[2]; /* first and last */
	__u16 destination_ports[2];
	__u32 mark; /* not 0 */
	enum protocol protocol; /* PROTOCOL_IP: any */
	enum address_family family;
	__u8 pad[2];
};
size_is(struct mark_rule, 80);

/* Which of mark_rules hold. Published by one store of the aligned 64-bit word, as a ring is. */
struct mark_rules {
	__u32 first;
	__u32 count;
} __attribute__((aligned(8)));
size_is(struct mark_rules, 8);

/* Value of cursors: where rr and wrr stand in a service's ring; written by the data plane with atomics. */
struct cursor {
	__u64 next; /* counts connections; taken modulo the ring's length */
	__u8 pad[56];
};
size_is(struct cursor, CACHE_LINE);

/* ------------------------------------------------------------------------------------------------ real servers */

enum real_server_state : __u8 {
	REAL_FREE = 0, /* the element is not in use */
	REAL_ACTIVE,
	REAL_REMOVED, /* taken out of its service; connections still name it, their packets are dropped */
	REAL_DRAINING, /* taken out of its service; the connections that name it go on until they close */
	REAL_RESET, /* taken out of its service; a connection that names it ends with its next packet: TCP is reset,
		       SCTP aborted; UDP, a SYN and an INIT are scheduled afresh */
};

/*
 * Value of real_servers: one real server of one virtual service, with its next hop; written by the control plane alone,
 * one cache line. The index is not given to another real server while a connection names it.
 */
struct real_server {
	struct address address;
	struct address director; /* this host's address towards it: source of tun's outer header, and of ICMP to it */
	__u32 ifindex; /* next hop: the interface; 0 while it is not resolved */
	__u8 destination_mac[6]; /* the two MACs lie as an Ethernet header has them */
	__u8 source_mac[6];
	__u16 mtu; /* of the way to it: largest IP packet in bytes */
	__u16 port; /* nat and fullnat: RPORT; dr and tun: the service's port; 0: the port that the client asked for */
	enum forwarding_method method;
	enum address_family family;
	enum real_server_state state;
	__u8 timeouts; /* index into timeouts */
	__u32 service; /* index into services */
	__u32 weight; /* 0: quiesced */
};
size_is(struct real_server, CACHE_LINE);

/*
 * Value of real_load: what the connection table holds of a real server. A real server that all four counts are 0 of is
 * named by nothing in the table.
 */
struct real_load {
	__u32 active; /* written by the data plane with atomics, as are the other counts; what live schedulers compare
		       */
	__u32 inactive;
	__u32 templates; /* of persistence */
	__u32 one_packet; /* address translations of one-packet scheduling, which are no connections */
	__u32 overloaded; /* written by the data plane: active + inactive has reached `upper`, and not gone below
			     `lower` since; see is_overloaded() */
	__u32 last_weight; /* written by the control plane, as is what follows: the last weight above 0, by which mh
			      goes on sharing its table out */
	__u32 upper; /* connections from which on it takes no new ones; 0: any number */
	__u32 lower; /* connections below which it takes new ones again; 0: three quarters of `upper` */
	__u8 pad[32];
};
size_is(struct real_load, CACHE_LINE);

/*
 * Value of local_pools, by real server: the LIPs and LPORTs that its fullnat connections come from. The ring's slots
 * are indexes into local_addresses. Length 0: there are none.
 */
struct local_pool {
	struct ring ring;
	__u16 first_port; /* both ends included */
	__u16 last_port;
	__u8 pad[4];
};
size_is(struct local_pool, 16);

/* Key of destinations. */
struct destination_key {
	struct address address; /* where the client's packet goes */
	__u32 service; /* index into services */
	enum address_family family;
	__u8 pad[3];
};
size_is(struct destination_key, 24);

#define DESTINATION_SERVERS 16

/* Value of destinations: the real servers that lblc (one) and lblcr (several) have given a destination address to. */
struct destination {
	__u32 modified; /* tick at which a server was last added or taken out */
	__u32 count;
	__u32 servers[DESTINATION_SERVERS]; /* indexes into real_servers, the last added first */
};
size_is(struct destination, 72);

/* ------------------------------------------------------------------------------------------------- connections */

/* What a flow is the key of, so that no packet finds what is not meant for packets. */
enum flow_kind : __u16 {
	FLOW_OF_PACKETS = 0, /* what a packet's flow has */
	FLOW_OF_TEMPLATE = 1,
	FLOW_OF_ONE_PACKET = 0x8000, /* and the low 15 bits of the real server's index: one client may have a
					translation for each */
};

/*
 * A 5-tuple as one packet carries it: from source to destination. A template's is from the masked client, port 0, to
 * what its service's key has.
 */
struct flow {
	struct address source;
	struct address destination;
	__be16 source_port;
	__be16 destination_port;
	enum protocol protocol;
	enum address_family family;
	__u16 kind; /* enum flow_kind */
} __attribute__((aligned(8)));
size_is(struct flow, 40);

/*
 * IPVS's states under IPVS's names (net/netfilter/ipvs/ip_vs_proto_tcp.c, ip_vs_proto_sctp.c), one for UDP, and those
 * of the entries that are no connections.
 */
enum connection_state : __u8 {
	TCP_NONE,
	TCP_ESTABLISHED,
	TCP_SYN_SENT,
	TCP_SYN_RECV,
	TCP_FIN_WAIT,
	TCP_TIME_WAIT,
	TCP_CLOSE,
	TCP_CLOSE_WAIT,
	TCP_LAST_ACK,
	TCP_LISTEN,
	TCP_SYNACK,
	UDP_NORMAL,
	SCTP_NONE,
	SCTP_INIT1,
	SCTP_INIT,
	SCTP_COOKIE_SENT,
	SCTP_COOKIE_REPLIED,
	SCTP_COOKIE_WAIT,
	SCTP_COOKIE,
	SCTP_COOKIE_ECHOED,
	SCTP_ESTABLISHED,
	SCTP_SHUTDOWN_SENT,
	SCTP_SHUTDOWN_RECEIVED,
	SCTP_SHUTDOWN_ACK_SENT,
	SCTP_REJECTED,
	SCTP_CLOSED,
	ONE_PACKET,
	TEMPLATE,
	TEMPLATE_ASSURED, /* one of its connections was established */
	CONNECTION_STATES, /* how many there are; at most 32 */
};

enum connection_direction : __u8 {
	DIRECTION_FORWARD, /* its flow is client to VIP; holds the state of the connection */
	DIRECTION_REVERSE, /* its flow is real server to client (nat) or to local address (fullnat); only names its twin
			    */
	DIRECTION_NONE, /* a persistence template */
};

#define BUCKET_SLOTS 16
#define NOWHERE 0xffffffffu

/*
 * One direction of a connection, or a persistence template. A connection by nat or fullnat has two entries, each
 * other's twin; one by dr or tun has the forward one. Written under its bucket's lock, but for `expires`, which any
 * packet of the connection may move ahead, and a template's `controlled`.
 */
struct connection {
	struct flow flow;
	__u32 expires; /* tick from which on the connection counts as absent; reverse: until when it may be without a
			  twin */
	__u32 real; /* index into real_servers */
	__u32 template; /* forward: where the template is that led it, bucket << 4 | slot, or NOWHERE. A template's own:
			   `controlled`, how many connections name it, with atomics; while there are any it stays */
	__u32 twin; /* bucket << 4 | slot, or NOWHERE */
	__u16 id; /* the same in both twins, drawn anew for each connection; 0 once it is removed */
	enum connection_state state; /* not of a reverse one */
	enum connection_direction direction;
	__u16 local_address; /* fullnat: index into local_addresses */
	__be16 local_port; /* fullnat: LPORT */
};
size_is(struct connection, CACHE_LINE);

/*
 * A bucket of the connection table. tags[i] is 0 where slots[i] is free, else 16 bits of the flow's hash. `lodgers`
 * counts entries elsewhere whose first bucket is this one: while it is 0, a flow that is not here is nowhere. With a
 * header and 16 slots a bucket has an odd number of cache lines, so the headers of all buckets spread over all sets of
 * a cache.
 */
struct bucket {
	__u16 tags[BUCKET_SLOTS];
	struct bpf_spin_lock lock;
	__u32 used;
	__u32 lodgers; /* atomic, not under the lock */
	__u8 pad[20];
	struct connection slots[BUCKET_SLOTS];
};
size_is(struct bucket, CACHE_LINE * (1 + BUCKET_SLOTS));

/* ---------------------------------------------------------------------------------------------------- counters */

/* Value of real_counters, per CPU, and of retired_counters. Bytes are IP packet lengths, as IPVS counts them. */
struct traffic {
	__u64 connections;
	__u64 in_packets; /* from clients */
	__u64 in_bytes;
	__u64 out_packets; /* replies of nat and fullnat; those of dr and tun do not pass here */
	__u64 out_bytes;
};
size_is(struct traffic, 40);

/*
 * Why a packet of a virtual service was dropped, or let through to the local stack although it belongs to one: indexes
 * into drops. The names are shown to operators in lower case without the prefix.
 */
enum drop_reason : __u32 {
	DROP_FRAGMENT, /* a fragment to a VIP */
	DROP_MALFORMED, /* to a VIP, header cut short or lengths that contradict each other */
	DROP_NO_REAL_SERVER, /* no real server with a weight above 0 */
	DROP_REAL_SERVER_REMOVED, /* of a connection whose real server was removed */
	DROP_NEXT_HOP_UNRESOLVED, /* no route or no neighbour to the real server yet */
	DROP_TABLE_FULL, /* no connection could make room */
	DROP_TABLE_CONTENDED, /* two processors opened the same connection at once; the sender's next try succeeds */
	DROP_REPLY_FLOW_TAKEN, /* nat: another VIP's connection has the same reply flow */
	DROP_LOCAL_PORTS_EXHAUSTED, /* fullnat: every port that was tried is taken */
	DROP_NO_LOCAL_ADDRESS, /* fullnat: no local address is configured */
	DROP_TTL_EXCEEDED, /* the TTL does not allow another hop */
	DROP_MTU_EXCEEDED, /* the packet does not fit the way, with the outer header where there is one */
	DROP_NO_ROUTE_TO_CLIENT, /* a reply that the kernel's routing table would not forward */
	DROP_NEIGHBOUR_UNRESOLVED, /* a reply whose next hop has no known MAC yet */
	DROP_EGRESS_UNKNOWN, /* the way leads over an interface that is not in egress */
	DROP_NO_HEADROOM, /* the driver leaves no room for an outer header */
	DROP_REPLY_WITHOUT_CONNECTION, /* from a nat real server, with nat_icmp_send 1 */
	DROP_REASONS, /* how many there are */
};

/* Value of drops, per CPU, at index drop_reason. The control plane writes `reason` once, so that a dump prints the
 * name. */
struct drop_counter {
	enum drop_reason reason;
	__u32 pad;
	__u64 packets;
	__u64 bytes; /* frame lengths */
};

/* ---------------------------------------------------------------------------------------------------- next hops */

#define CLIENT_HOPS 1024

/* Value of client_hops: the kernel's answer for the replies to one client, good for the tick in which it was given. */
struct client_hop {
	struct address client;
	struct address vip;
	__u32 tick;
	__u32 from_ifindex;
	__u32 ifindex; /* 0: empty */
	__u8 destination_mac[6]; /* the two MACs lie as an Ethernet header has them */
	__u8 source_mac[6];
	__u16 mtu;
	__u8 tos;
	__u8 pad;
	__u8 pad_to_line[4];
};
size_is(struct client_hop, CACHE_LINE);

/* ---------------------------------------------------------------------------------------------------- settings */

#define LOCAL_PORT_TRIES 64
#define MAX_LOCAL_ADDRESSES 4096

#define TIMEOUT_SETS 256

/* Value of timeouts. Set 0 is for every service that names no timeouts of its own. */
struct timeouts {
	__u32 ticks[CONNECTION_STATES]; /* by connection_state; not used for templates */
};

/* Value of settings, one element. What may change while the data plane runs; written by the control plane alone. The
 * names are those of net.ipv4.vs in the kernel's Documentation/networking/ipvs-sysctl.rst. */
struct settings {
	struct mark_rules mark_rules;
	__u32 icmp_rate; /* ICMP errors a second, at most, from each processor; 0: none */
	__u8 conn_reuse_mode; /* 0: a SYN goes to the connection's old server; bit 0: scheduled afresh in TIME_WAIT and
				 CLOSE; bit 1: in FIN_WAIT too, by dr and tun */
	__u8 expire_nodest_conn; /* of a quiesced real server: a new SYN is scheduled afresh; of a removed one: see
				    REAL_RESET */
	__u8 expire_quiescent_template; /* templates do not lead to quiesced real servers */
	__u8 nat_icmp_send; /* ICMP port unreachable to a nat real server whose packet has no connection */
	__u8 sloppy_tcp; /* any segment but a reset opens a connection */
	__u8 sloppy_sctp;
	__u8 pad[42];
};
size_is(struct settings, CACHE_LINE);

/* Value of icmp_budget, per CPU. */
struct icmp_budget {
	__u32 second; /* ticks >> 8 */
	__u32 sent; /* ICMP errors in it, those that were too many included */
};

/* Which program a tail call goes to: indexes into ways. */
enum way : __u32 {
	WAY_OPEN,
	WAYS, /* how many there are */
};

/* Keys of the connection table's hash: 32 bits for each 32 bits of a flow, and 64 for the second bucket. */
#define HASH_SEED_WORDS 6

/* Value of identity, one element: what a restart needs to know to adopt the pinned maps. Written once, at load. */
struct identity {
	enum abi abi_version;
	__u32 buckets; /* of connection_table */
	__u64 hash_seed[HASH_SEED_WORDS];
};
size_is(struct identity, 56);

/* ------------------------------------------------------------------------------- events and maintenance programs */

enum event_kind : __u32 {
	EVENT_NEXT_HOP_MISSING = 1, /* subject: index into real_servers */
	EVENT_CLIENT_NEIGHBOUR_MISSING, /* address: the next hop that a reply needed */
};

/* A record of the events ring buffer. At most one of a kind and subject a second is worth acting on. */
struct event {
	enum event_kind kind;
	__u32 subject;
	struct address address;
	__u32 ifindex;
	enum address_family family;
	__u8 pad[3];
} exported;
size_is(struct event, 32);

/*
 * The maintenance programs are run by test_run, with their request as the packet; the answer replaces it. They are XDP
 * programs because every program of type syscall is sleepable, and Linux 6.1 lets no sleepable program take a
 * bpf_spin_lock.
 */

/* Program sweep: remove what is over from a slice of buckets. */
struct sweep_request {
	__u32 first; /* bucket */
	__u32 count; /* answer: buckets that there was time for, one at least */
	__u32 removed; /* answer: connections removed */
	__u32 orphans; /* answer: reverse entries without a forward one removed */
	__u32 entries; /* answer: entries that were left in place, reverse ones of connections that went later, too */
	__u32 resets; /* 1: what names a real server that is REAL_RESET goes too, and not only what is expired */
	__u32 longest; /* nanoseconds after which no other bucket is begun */
	__u32 pad;
} exported;
size_is(struct sweep_request, 32);

enum route_verdict : __u32 {
	ROUTE_RESOLVED,
	ROUTE_NO_NEIGHBOUR, /* ifindex and gateway are known, the MAC is not */
	ROUTE_NONE, /* unreachable, prohibited, or local */
	ROUTE_NOT_FORWARDING, /* forwarding is off on the interface that was asked from */
};

/* Program resolve_route: how the kernel would forward to an address. */
struct route_request {
	struct address destination;
	enum address_family family;
	__u8 pad[3];
	__u32 from_ifindex; /* an interface of ours: the lookup is done as for a packet that came in there */
	enum route_verdict verdict; /* answer, as is all below */
	__u32 ifindex;
	struct address gateway; /* the next hop's own address: the destination where it is on link */
	struct address
		source; /* the address this host would use towards it; zero where the kernel cannot tell (before 6.7) */
	__u8 destination_mac[6];
	__u8 source_mac[6];
	__u16 mtu;
	__u16 kernel_verdict; /* BPF_FIB_LKUP_RET_* */
} exported;
size_is(struct route_request, 80);

#endif
