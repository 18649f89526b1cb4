/** The one element of the settings map: what may change while the data plane runs. */
import type { SettingName } from "../model/index.js";
import { layout } from "./sluice.bpf.js";
import type { ArrayMemory } from "./tables.js";

const offsets = layout.Settings.offsets;

/** Which of mark_rules hold. */
export interface MarkRuleRange {
  readonly first: number;
  readonly count: number;
}

export function readSetting(settings: ArrayMemory, name: SettingName): number {
  return name === "icmp_rate" ? settings.u32[offsets.icmp_rate / 4]! : settings.bytes[offsets[name]]!;
}

export function writeSetting(settings: ArrayMemory, name: SettingName, value: number): void {
  if (name === "icmp_rate") {
    Atomics.store(settings.u32, offsets.icmp_rate / 4, value);
  } else {
    Atomics.store(settings.bytes, offsets[name], value);
  }
}

const range = layout.MarkRules.offsets;

// First and count side by side, to be stored as the one word that the data plane reads.
const word = new BigUint64Array(1);
const fields = new Uint32Array(word.buffer);

export function readMarkRuleRange(settings: ArrayMemory): MarkRuleRange {
  const at = offsets.mark_rules;
  return { first: settings.u32[(at + range.first) / 4]!, count: settings.u32[(at + range.count) / 4]! };
}

/** By one aligned 64-bit store. */
export function writeMarkRuleRange(settings: ArrayMemory, { first, count }: MarkRuleRange): void {
  fields[range.first / 4] = first;
  fields[range.count / 4] = count;
  Atomics.store(settings.u64, offsets.mark_rules / 8, word[0]!);
}
