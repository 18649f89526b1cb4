/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */
/*
 * Every map of the data plane. The sizes here are only large enough to try the object out (`bpftool prog loadall`); the
 * control plane sets them before it loads, from its configuration's `limits`.
 */
#ifndef SLUICE_MAPS_H
#define SLUICE_MAPS_H

#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
#include "abi.h"

/*
 * A function of the rare ways. Not static, so the verifier checks it once and on its own instead of once for each state
 * that a caller reaches it in; its pointer arguments may then be NULL for all that the verifier knows.
 */
#define GLOBAL __noinline

#define DEFAULT_BUCKETS 1024

/*
 * Set before loading, constant afterwards, so the verifier and the JIT see numbers. A restart takes them from the
 * pinned `identity`: another seed would lose every connection.
 */
const volatile __u32 connection_buckets = DEFAULT_BUCKETS;
const volatile __u64 hash_seed[HASH_SEED_WORDS] = {
	0x243f6a8885a308d3, 0x13198a2e03707344, 0xa4093822299f31d0,
	0x082efa98ec4e6c89, 0x452821e638d01377, 0xbe5466cf34e90c6c,
};

/*
 * The connection table. Written by the XDP program and by `sweep`, under each bucket's lock; read by everyone.
 * Size: buckets. BPF_F_MMAPABLE for its page alignment alone (a bucket's parts are then cache lines): the kernel lets
 * no one mmap a map with locks.
 */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, DEFAULT_BUCKETS);
	__type(key, __u32);
	__type(value, struct bucket);
} connection_table SEC(".maps");

/* Which virtual service a packet is for. Written by the control plane; read when a packet has no connection. Size:
 * services. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1024);
	__type(key, struct service_key);
	__type(value, __u32); /* index into services */
} service_index SEC(".maps");

/* Addresses of all virtual services. Written by the control plane; read when a packet has no connection and no service.
 * Size: services. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1024);
	__type(key, struct vip_key);
	__type(value, struct vip);
} vips SEC(".maps");

/* Virtual services. Written by the control plane (through mmap: a service's ring is one 64-bit store). Size: services.
 */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 1024);
	__type(key, __u32);
	__type(value, struct service);
} services SEC(".maps");

/* Cursors of rr and wrr, by service. Written by the data plane. Size: services. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1024);
	__type(key, __u32);
	__type(value, struct cursor);
} cursors SEC(".maps");

/* The rings of all services, end to end. Written by the control plane (mmap), read when a connection opens. Size: ring
 * slots / 16. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 16384);
	__type(key, __u32);
	__type(value, struct ring_chunk);
} rings SEC(".maps");

/* Which real servers lblc and lblcr have given a destination address to. Written by the data plane; forgets the one
 * that was unused longest. Size: services, 4 each. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 16384);
	__type(key, struct destination_key);
	__type(value, struct destination);
} destinations SEC(".maps");

/* Real servers with their next hops. Written by the control plane (mmap), read for every packet. Size: real servers. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 4096);
	__type(key, __u32);
	__type(value, struct real_server);
} real_servers SEC(".maps");

/* Connections by real server, exact at every moment, and what bounds them. The control plane writes its fields through
 * mmap. Written by the data plane with atomics. Size:
 * real servers. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 4096);
	__type(key, __u32);
	__type(value, struct real_load);
} real_load SEC(".maps");

/* fullnat's local addresses. Written by the control plane; read when a fullnat connection opens and for its packets. An
 * element is not given to another address while a connection may name it. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, MAX_LOCAL_ADDRESSES);
	__type(key, __u32);
	__type(value, struct address);
} local_addresses SEC(".maps");

/* Which of them each real server's connections may come from. Written by the control plane (mmap); read when a fullnat
 * connection opens. Size: real servers. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 4096);
	__type(key, __u32);
	__type(value, struct local_pool);
} local_pools SEC(".maps");

/* RIP, RPORT and protocol of every nat real server in service. Written by the control plane; read with nat_icmp_send 1,
 * for a packet that nothing is known of. Size: real servers. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 4096);
	__type(key, struct service_key);
	__type(value, __u32); /* index of one that has it */
} nat_endpoints SEC(".maps");

/* Firewall marks. Written by the control plane (mmap), the half that does not hold at the time; read for a packet that
 * has no connection. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 2 * MARK_RULES);
	__type(key, __u32);
	__type(value, struct mark_rule);
} mark_rules SEC(".maps");

/* How long connections live, by set; real_server.timeouts names one. Written by the control plane (mmap). */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, TIMEOUT_SETS);
	__type(key, __u32);
	__type(value, struct timeouts);
} timeouts SEC(".maps");

/* What may change while the data plane runs. Written by the control plane (mmap). */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct settings);
} settings SEC(".maps");

/* What a restart needs to know. Written by the control plane once, before the programs are attached; not read by the
 * data plane. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct identity);
} identity SEC(".maps");

/* Interfaces that packets may leave by, ifindex to ifindex. Written by the control plane; read when a packet leaves by
 * another interface than it came. */
struct {
	__uint(type, BPF_MAP_TYPE_DEVMAP_HASH);
	__uint(max_entries, 256);
	__type(key, __u32);
	__type(value, __u32);
} egress SEC(".maps");

/* Next hops of replies, by a hash of the client, for a few milliseconds. Written and read by the data plane. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, CLIENT_HOPS);
	__type(key, __u32);
	__type(value, struct client_hop);
} client_hops SEC(".maps");

/* Traffic by real server. Written by the data plane. A service's traffic is the sum of its real servers', and
 * retired_counters. Size: real servers. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 4096);
	__type(key, __u32);
	__type(value, struct traffic);
} real_counters SEC(".maps");

/* Traffic by service of the real servers that it had and whose elements are given to others. Written by the control
 * plane alone. Size: services. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 1024);
	__type(key, __u32);
	__type(value, struct traffic);
} retired_counters SEC(".maps");

/* How many ICMP errors each processor has sent lately. Written by the data plane. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct icmp_budget);
} icmp_budget SEC(".maps");

/* Drops by reason. Written by the data plane. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, DROP_REASONS);
	__type(key, __u32); /* enum drop_reason; the kernel takes only plain integers for an array's key */
	__type(value, struct drop_counter);
} drops SEC(".maps");

/* What the data plane asks of the control plane: struct event. Nothing waits for it; a full buffer loses events, not
 * packets. */
struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 65536);
} events SEC(".maps");

#endif
