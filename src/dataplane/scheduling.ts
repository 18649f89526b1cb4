/**
 * How services pick, as their records say it, and how one goes over from one scheduler and ring to another under traffic.
 */
import type { SchedulerFlag as FlagName, SchedulerName, VirtualService } from "../model/index.js";
import type { Scheduling } from "./service-record.js";
import { Scheduler, SchedulerFlag } from "./sluice.bpf.js";

const SCHEDULERS: Readonly<Record<SchedulerName, Scheduler>> = {
  rr: Scheduler.SCHEDULER_RR,
  wrr: Scheduler.SCHEDULER_WRR,
  mh: Scheduler.SCHEDULER_MH,
  sh: Scheduler.SCHEDULER_SH,
  dh: Scheduler.SCHEDULER_DH,
  lc: Scheduler.SCHEDULER_LC,
  wlc: Scheduler.SCHEDULER_WLC,
  sed: Scheduler.SCHEDULER_SED,
  nq: Scheduler.SCHEDULER_NQ,
  lblc: Scheduler.SCHEDULER_LBLC,
  lblcr: Scheduler.SCHEDULER_LBLCR,
  fo: Scheduler.SCHEDULER_FO,
  ovf: Scheduler.SCHEDULER_OVF,
  twos: Scheduler.SCHEDULER_TWOS,
};

const FLAGS: Readonly<Record<FlagName, SchedulerFlag>> = {
  "sh-fallback": SchedulerFlag.SCHEDULER_FALLBACK,
  "mh-fallback": SchedulerFlag.SCHEDULER_FALLBACK,
  "sh-port": SchedulerFlag.SCHEDULER_PORT,
  "mh-port": SchedulerFlag.SCHEDULER_PORT,
};

export function schedulingOf(service: Pick<VirtualService, "scheduler" | "schedulerFlags">): Scheduling {
  const bits = service.schedulerFlags.reduce((sum, flag) => sum | FLAGS[flag], 0);
  return { scheduler: SCHEDULERS[service.scheduler], flags: bits as SchedulerFlag };
}

function sameScheduling(a: Scheduling, b: Scheduling): boolean {
  return a.scheduler === b.scheduler && a.flags === b.flags;
}

type RingKind = "sequence" | "maglev" | "buckets" | "list";

function ringKind(scheduler: Scheduler): RingKind {
  switch (scheduler) {
    case Scheduler.SCHEDULER_RR:
    case Scheduler.SCHEDULER_WRR:
      return "sequence";
    case Scheduler.SCHEDULER_MH:
      return "maglev";
    case Scheduler.SCHEDULER_SH:
    case Scheduler.SCHEDULER_DH:
      return "buckets";
    default:
      return "list";
  }
}

/**
 * Whether a scheduler picks rightly from the ring of another one. Live schedulers do from any, as they weigh each real server that they meet. A
 * sequence holds nobody who is quiesced, so mh may index it like a table; rr and wrr would send connections to the quiesced ones that
 * the other rings hold; sh and dh need their number of buckets.
 */
function reads(scheduler: Scheduler, ringOf: Scheduler): boolean {
  const kind = ringKind(scheduler);
  const ring = ringKind(ringOf);
  return kind === "list" || kind === ring || (kind === "maglev" && ring !== "list");
}

export interface Transition {
  /** What to write before the new ring, if anything. */
  readonly before: Scheduling | undefined;
  /** What to write after it, if anything. */
  readonly after: Scheduling | undefined;
}

/**
 * Ring and scheduler are two writes. Between them the one that picks must be able to read both rings: the former scheduler, the new one, or
 * where neither can, wlc for a moment.
 */
export function transition(from: Scheduling, to: Scheduling): Transition {
  if (sameScheduling(from, to)) {
    return { before: undefined, after: undefined };
  }
  if (reads(to.scheduler, from.scheduler)) {
    return { before: to, after: undefined };
  }
  if (reads(from.scheduler, to.scheduler)) {
    return { before: undefined, after: to };
  }
  return { before: { scheduler: Scheduler.SCHEDULER_WLC, flags: SchedulerFlag.SCHEDULER_NO_FLAGS }, after: to };
}
