// The ledger of what a process holds of BPF: descriptors and mappings, as the kernel sees them.
import { readdirSync, readFileSync, readlinkSync } from "node:fs";
import { setImmediate } from "node:timers/promises";
import type { Test } from "tap";

function descriptors(): string[] {
  return readdirSync("/proc/self/fd").flatMap((fd) => {
    try {
      const target = readlinkSync(`/proc/self/fd/${fd}`);
      return /bpf|btf/.test(target) ? [target] : [];
    } catch {
      // The descriptor that readdir itself used.
      return [];
    }
  });
}

function mappings(): string[] {
  return readFileSync("/proc/self/maps", "utf8")
    .split("\n")
    .flatMap((line) => (line.includes("bpf-map") ? [line.replace(/^.* /, "mapped ")] : []));
}

function held(): string[] {
  return [...descriptors(), ...mappings()].sort();
}

/** A subtest that fails if it leaves more, or less, of BPF open than it found. */
export function balanced(parent: Test, name: string, body: (t: Test) => Promise<void> | void) {
  return parent.test(name, async (t) => {
    const before = held();
    await body(t);
    // A mapping ends with its ArrayBuffer's finalizer, one turn of the event loop after close().
    await setImmediate();
    await setImmediate();
    t.same(held(), before, "every handle that was opened is closed");
  });
}
