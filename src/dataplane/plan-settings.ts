/** The part of a plan that is about what holds for all services: settings and mark rules. */
import { type DesiredState, SETTING_NAMES } from "../model/index.js";
import type { Inventory } from "./inventory.js";
import { compileMarkRules, markRuleBytes, otherHalf } from "./mark-rules.js";
import { GRACE } from "./retire.js";
import { readMarkRuleRange, readSetting } from "./settings.js";
import type { Tables } from "./tables.js";
import type { PhasedWrites } from "./writes.js";

export function planSettings(tables: Tables, { settings }: DesiredState, writes: PhasedWrites): void {
  for (const name of SETTING_NAMES) {
    if (readSetting(tables.settings, name) !== settings[name]) {
      writes.change.push({ kind: "setting", name, value: settings[name] });
    }
  }
}

/** Returns whether the half that held until now is retired. */
export function planMarkRules(
  inventory: Inventory,
  tables: Tables,
  { marks }: DesiredState,
  writes: PhasedWrites,
): boolean {
  const rules = newRules(inventory, tables, marks);
  if (rules === undefined) {
    return false;
  }
  const first = otherHalf(tables.markRules, readMarkRuleRange(tables.settings));
  if (marks.length > 0) {
    writes.build.push({ kind: "mark rules", first, rules });
  }
  writes.open.push({ kind: "mark rule range", range: { first, count: marks.length } });
  return true;
}

/** Milliseconds until the rules of a desired state may be written; 0 where there is nothing to wait for. */
export function markRulesGraceLeft(inventory: Inventory, tables: Tables, { marks }: DesiredState, now: number): number {
  const left = inventory.markRulesRetiredAt + GRACE - now;
  return left > 0 && newRules(inventory, tables, marks) !== undefined ? left : 0;
}

/** Undefined where they hold already. */
function newRules(
  { published }: Inventory,
  { markRules, settings }: Tables,
  marks: DesiredState["marks"],
): Uint8Array | undefined {
  if (marks === published?.marks) {
    return undefined;
  }
  const rules = compileMarkRules(marks);
  const { first, count } = readMarkRuleRange(settings);
  const holding = markRuleBytes(markRules, first, count);
  return count === marks.length && Buffer.compare(holding, rules) === 0 ? undefined : rules;
}
