import { readChoice, readList } from "./read.js";
import { at, type Path, type Violations } from "./violation.js";

/** IPVS's, under their names (ipvsadm(8), --scheduler); the default first. */
export const SCHEDULERS = [
  "mh",
  "rr",
  "wrr",
  "lc",
  "wlc",
  "sh",
  "dh",
  "sed",
  "nq",
  "lblc",
  "lblcr",
  "fo",
  "ovf",
  "twos",
] as const;
export type SchedulerName = (typeof SCHEDULERS)[number];

/** As ipvsadm's --sched-flags. Each is named after the scheduler that has it. */
export const SCHEDULER_FLAGS = ["sh-fallback", "sh-port", "mh-fallback", "mh-port"] as const;
export type SchedulerFlag = (typeof SCHEDULER_FLAGS)[number];

/** What a service has that names no flags: a quiesced real server's clients are served by others. (IPVS's default is none.) */
const DEFAULT_FLAGS: Readonly<Partial<Record<SchedulerName, readonly SchedulerFlag[]>>> = {
  mh: ["mh-fallback"],
  sh: ["sh-fallback"],
};

/** Slots of a Maglev table: the primes that IPVS offers (net/netfilter/ipvs/ip_vs_mh.c, primes[]). */
export const TABLE_SIZES = [251, 509, 1021, 2039, 4093, 8191, 16381, 32749, 65521, 131071] as const;
export function readScheduler(input: unknown, path: Path, violations: Violations): SchedulerName | undefined {
  if (input === undefined) {
    return "mh";
  }
  return readChoice(input, path, SCHEDULERS, "UNKNOWN_SCHEDULER", violations);
}

export function readSchedulerFlags(
  input: unknown,
  scheduler: SchedulerName | undefined,
  path: Path,
  violations: Violations,
): readonly SchedulerFlag[] {
  if (input === undefined) {
    return scheduler === undefined ? [] : (DEFAULT_FLAGS[scheduler] ?? []);
  }
  const flags = new Set<SchedulerFlag>();
  for (const [index, item] of (readList(input, path, "scheduler flags", violations) ?? []).entries()) {
    const flag = readChoice(item, at(path, index), SCHEDULER_FLAGS, "UNKNOWN_SCHEDULER_FLAG", violations);
    if (flag === undefined) {
      continue;
    }
    flags.add(flag);
    const owner = flag.startsWith("mh") ? "mh" : "sh";
    if (scheduler !== undefined && owner !== scheduler) {
      const own = SCHEDULER_FLAGS.filter((name) => name.startsWith(`${scheduler}-`));
      const allowed = own.length > 0 ? `some of ${own.join(", ")} with ${scheduler}` : `no flags with ${scheduler}`;
      const problem = `is ${flag}, which belongs to the scheduler ${owner}, not to ${scheduler}; it takes ${allowed}`;
      violations.add("SCHEDULER_FLAG_NOT_APPLICABLE", at(path, index), flag, allowed, problem);
    }
  }
  return SCHEDULER_FLAGS.filter((flag) => flags.has(flag));
}

export function readTableSize(
  input: unknown,
  scheduler: SchedulerName | undefined,
  path: Path,
  violations: Violations,
): number | undefined {
  if (input === undefined) {
    return undefined;
  }
  if (scheduler !== undefined && scheduler !== "mh") {
    const allowed = "no value unless the scheduler is mh";
    violations.add(
      "TABLE_SIZE_NOT_APPLICABLE",
      path,
      input,
      allowed,
      `belongs to the scheduler mh, not to ${scheduler}`,
    );
    return undefined;
  }
  const size = TABLE_SIZES.find((s) => s === input);
  if (size === undefined) {
    const code = typeof input === "number" ? "TABLE_SIZE_UNKNOWN" : "WRONG_TYPE";
    violations.add(code, path, input, `one of ${TABLE_SIZES.join(", ")}`);
  }
  return size;
}

/** Whether there are flags for it at all. */
export function hasSchedulerFlags(scheduler: SchedulerName): boolean {
  return DEFAULT_FLAGS[scheduler] !== undefined;
}
