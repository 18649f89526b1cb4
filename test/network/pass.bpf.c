// SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only
/*
 * Lets everything through. On the far end of a veth whose near end answers with XDP_TX: the kernel wakes that end up
 * only if it has an XDP program (drivers/net/veth.c, veth_xdp_flush); switching GRO on, enough for redirects, is not.
 */
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

SEC("xdp") int pass(struct xdp_md *context)
{
	(void)context;
	return XDP_PASS;
}

char dual_license[] SEC("license") = "Dual BSD/GPL";
