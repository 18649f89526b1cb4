/** Elements of real_load: what the data plane counts of a real server, and what bounds it. */
import { layout } from "./sluice.bpf.js";
import type { ArrayMemory } from "./tables.js";

/** What the connection table holds of a real server. */
export interface Load {
  readonly active: number;
  readonly inactive: number;
  readonly templates: number;
  /** Translations of one-packet scheduling. */
  readonly onePacket: number;
}

/** Connections from which on a real server takes no new ones, and below which it takes them again; 0: see struct real_load. */
export interface Thresholds {
  readonly upper: number;
  readonly lower: number;
}

export const NO_THRESHOLDS: Thresholds = { upper: 0, lower: 0 };

const offsets = layout.RealLoad.offsets;

export function readLoad(realLoad: ArrayMemory, index: number): Load {
  const word = (offset: number): number => realLoad.u32[(index * realLoad.stride + offset) / 4]!;
  return {
    active: word(offsets.active),
    inactive: word(offsets.inactive),
    templates: word(offsets.templates),
    onePacket: word(offsets.one_packet),
  };
}

/** Whether nothing in the table names the real server. */
export function isUnnamed({ active, inactive, templates, onePacket }: Load): boolean {
  return active === 0 && inactive === 0 && templates === 0 && onePacket === 0;
}

/** Each connection and translation of a fullnat real server holds a pair of a local address and a local port. */
export function localPortsInUse({ active, inactive, onePacket }: Load): number {
  return active + inactive + onePacket;
}

/** Whether the data plane gives it no new connections: is_overloaded() in bpf/load.h. */
export function isOverloaded(realLoad: ArrayMemory, index: number): boolean {
  if (realLoad.u32[(index * realLoad.stride + offsets.overloaded) / 4] === 0) {
    return false;
  }
  const { active, inactive } = readLoad(realLoad, index);
  const { upper, lower } = readThresholds(realLoad, index);
  const connections = active + inactive;
  return lower > 0 ? connections >= lower : upper > 0 && connections * 4 >= upper * 3;
}

export function readThresholds(realLoad: ArrayMemory, index: number): Thresholds {
  const base = index * realLoad.stride;
  const upper = realLoad.u32[(base + offsets.upper) / 4]!;
  return upper === 0 ? NO_THRESHOLDS : { upper, lower: realLoad.u32[(base + offsets.lower) / 4]! };
}

/**
 * The lower one is at no moment above the upper one. A real server that may have more connections than before is no longer overloaded
 * (__ip_vs_update_dest() in net/netfilter/ipvs/ip_vs_ctl.c); whether it is again, the data plane says when the next one comes.
 */
export function writeThresholds(realLoad: ArrayMemory, index: number, { upper, lower }: Thresholds): void {
  const base = index * realLoad.stride;
  const store = (offset: number, value: number): void => {
    Atomics.store(realLoad.u32, (base + offset) / 4, value);
  };
  const before = readThresholds(realLoad, index).upper;
  if (upper > before) {
    store(offsets.upper, upper);
    store(offsets.lower, lower);
  } else {
    store(offsets.lower, lower);
    store(offsets.upper, upper);
  }
  if (upper === 0 || upper > before) {
    store(offsets.overloaded, 0);
  }
}

/** The last weight above 0, which mh goes by. */
export function readLastWeight(realLoad: ArrayMemory, index: number): number {
  return realLoad.u32[(index * realLoad.stride + offsets.last_weight) / 4]!;
}

export function writeLastWeight(realLoad: ArrayMemory, index: number, weight: number): void {
  realLoad.u32[(index * realLoad.stride + offsets.last_weight) / 4] = weight;
}
