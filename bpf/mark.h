/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */
/*
 * Firewall marks. A packet on its way through XDP has no mark of the firewall's yet, so rules of our own give it one.
 * The rules are walked in their order, for packets without a connection alone: some 3 ns a rule.
 */
#ifndef SLUICE_MARK_H
#define SLUICE_MARK_H

#include <stdbool.h>
#include <bpf/bpf_endian.h>
#include "maps.h"
#include "packet.h"

struct marking {
	const struct flow *flow;
	__u32 first;
	__u32 mark;
};

static __always_inline bool is_within(const struct address *address, const struct address *prefix,
				      const struct address *mask)
{
	const word32 *a = (const word32 *)address, *p = (const word32 *)prefix, *m = (const word32 *)mask;

	return !(((a[0] & m[0]) ^ p[0]) | ((a[1] & m[1]) ^ p[1]) | ((a[2] & m[2]) ^ p[2]) | ((a[3] & m[3]) ^ p[3]));
}

static __always_inline bool is_between(__be16 port, const __u16 ports[2])
{
	__u16 value = bpf_ntohs(port);

	return value >= ports[0] && value <= ports[1];
}

static long try_rule(__u32 position, void *context)
{
	struct marking *marking = context;
	const struct flow *flow = marking->flow;
	__u32 index = marking->first + position;
	const struct mark_rule *rule = bpf_map_lookup_elem(&mark_rules, &index);

	if (!rule || !flow)
		return 1;
	if (rule->family != flow->family || (rule->protocol && rule->protocol != flow->protocol) ||
	    !is_within(&flow->destination, &rule->destination, &rule->destination_mask) ||
	    !is_within(&flow->source, &rule->source, &rule->source_mask) ||
	    !is_between(flow->destination_port, rule->destination_ports) ||
	    !is_between(flow->source_port, rule->source_ports))
		return 0;
	marking->mark = rule->mark;
	return 1;
}

/* The mark that the rules give to a packet of `flow`; 0: none. */
GLOBAL __u32 mark_of(const struct flow *flow)
{
	__u32 zero = 0;
	const struct settings *current = bpf_map_lookup_elem(&settings, &zero);

	if (!flow || !current)
		return 0;

	/* One load of the whole word: first and count belong together. */
	__u64 word = *(volatile const __u64 *)&current->mark_rules;
	struct marking marking = { .flow = flow, .first = word };

	if (word >> 32)
		bpf_loop(word >> 32, try_rule, &marking, 0);
	return marking.mark;
}

#endif
