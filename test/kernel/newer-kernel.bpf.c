// SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only
/*
 * An object that Linux 6.1 must refuse, to show that `make test-kernel` can fail: programs of type syscall are
 * sleepable, and 6.1 lets no sleepable program use a map with a bpf_spin_lock ("sleepable progs cannot use
 * bpf_spin_lock yet", check_map_prog_compatibility() in its kernel/bpf/verifier.c). 6.18 loads it.
 */
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

struct locked {
	struct bpf_spin_lock lock;
	__u32 count;
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct locked);
} locked SEC(".maps");

SEC("syscall") int lock_in_sleepable_program(void *context)
{
	(void)context;

	__u32 index = 0;
	struct locked *element = bpf_map_lookup_elem(&locked, &index);

	if (!element)
		return 1;
	bpf_spin_lock(&element->lock);
	element->count++;
	bpf_spin_unlock(&element->lock);
	return 0;
}

char _license[] SEC("license") = "Dual BSD/GPL";
