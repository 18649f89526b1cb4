/** What the data plane needs of the kernel, asked for by trying it out, never by the kernel's version. */
import { existsSync, readFileSync } from "node:fs";
import { probe } from "libbpf-ts";
import { DataPlaneError } from "./error.js";

interface Requirement {
  readonly feature: string;
  /** The kernel version that brought it, and the option that it is built in by where that is a choice; for the message alone. */
  readonly since: string;
  readonly present: () => boolean;
}

/** Where the kernel shows it. A copy elsewhere, which libbpf would take as well, is of no use: iterators attach by the kernel's. */
const KERNEL_BTF = "/sys/kernel/btf/vmlinux";

const REQUIREMENTS: readonly Requirement[] = [
  { feature: "XDP programs", since: "4.8", present: () => probe.programType("xdp") },
  { feature: `its own BTF, ${KERNEL_BTF}`, since: "5.4, built with CONFIG_DEBUG_INFO_BTF", present: hasBtf },
  { feature: "BPF iterators over maps", since: "5.9", present: hasMapIterator },
  { feature: "maps of type devmap_hash", since: "5.4", present: () => probe.mapType("devmap_hash") },
  { feature: "maps of type ringbuf", since: "5.8", present: () => probe.mapType("ringbuf") },
  helper("bpf_fib_lookup", "4.18"),
  helper("bpf_spin_lock", "5.1"),
  helper("bpf_ktime_get_coarse_ns", "5.11"),
  helper("bpf_loop", "5.17"),
];

function helper(name: string, since: string): Requirement {
  return { feature: `the helper ${name} in XDP programs`, since, present: () => probe.helper("xdp", name) };
}

function hasBtf(): boolean {
  return existsSync(KERNEL_BTF);
}

/**
 * libbpf's own probe for programs of type tracing goes by a BTF id that not every kernel has. Without BTF nobody can say, and
 * that lack is the one to tell of.
 */
function hasMapIterator(): boolean {
  return !hasBtf() || readFileSync(KERNEL_BTF).includes("\0bpf_iter_bpf_map_elem\0");
}

/** @throws DataPlaneError KERNEL_FEATURE_MISSING, naming all that are missing */
export function requireKernelFeatures(requirements: readonly Requirement[] = REQUIREMENTS): void {
  const missing = requirements.filter(({ present }) => !present());
  if (missing.length > 0) {
    const list = missing.map(({ feature, since }) => `${feature} (Linux ${since})`).join(", ");
    throw new DataPlaneError("KERNEL_FEATURE_MISSING", `this kernel lacks ${list}`, {
      remedy: "run Linux 6.1 or later, built with CONFIG_DEBUG_INFO_BTF",
    });
  }
}
