/** Whether this process may do what a data plane takes. Without it every probe of the kernel fails as if the kernel lacked all. */
import { readFileSync } from "node:fs";
import { DataPlaneError } from "./error.js";

/** Bits of include/uapi/linux/capability.h. */
const CAPABILITIES = { CAP_NET_ADMIN: 12n, CAP_PERFMON: 38n, CAP_BPF: 39n } as const;
/** Stands for all of them (kernel/bpf/syscall.c, bpf_token_capable). */
const CAP_SYS_ADMIN = 21n;

/**
 * @param status as /proc/self/status
 * @throws DataPlaneError PERMISSION_DENIED, naming the capabilities that are missing
 */
export function requirePermission(status = readFileSync("/proc/self/status", "utf8")): void {
  const effective = BigInt(`0x${/^CapEff:\s*([0-9a-f]+)$/m.exec(status)?.[1] ?? "0"}`);
  const has = (bit: bigint): boolean => ((effective >> bit) & 1n) === 1n;
  const missing = Object.entries(CAPABILITIES)
    .filter(([, bit]) => !has(bit) && !has(CAP_SYS_ADMIN))
    .map(([name]) => name);
  if (missing.length > 0) {
    throw new DataPlaneError(
      "PERMISSION_DENIED",
      `this process may not load BPF programs: it lacks ${missing.join(", ")}`,
      {
        remedy: `run it as root, or give it ${Object.keys(CAPABILITIES).join(", ")}`,
      },
    );
  }
}
