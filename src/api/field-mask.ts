import { at, Violations } from "../model/index.js";

/** Fields by what an update may do with them, under the names that field masks use. */
export interface UpdatableFields {
  readonly mutable: readonly string[];
  /** Of mutable ones, the names of the fields in them that may be changed by themselves: `timeouts.udp`. */
  readonly parts: Readonly<Record<string, readonly string[]>>;
  /** Part of the name: allowed in a mask, as long as they stay what they are. */
  readonly immutable: readonly string[];
}

type Plain = Readonly<Record<string, unknown>>;

/** The fields to take over (AIP-134): those of the mask, all of them for `*`, those that are set where there is no mask. */
export function readMask(
  updateMask: readonly string[] | undefined,
  fields: UpdatableFields,
  update: Plain,
): ReadonlySet<string> {
  const set = Object.keys(update).filter((name) => isSet(update[name]));
  if (updateMask === undefined || updateMask.length === 0) {
    return new Set(set.flatMap((name) => setParts(name, fields, update)));
  }
  if (updateMask.length === 1 && updateMask[0] === "*") {
    return new Set([...fields.mutable, ...set]);
  }
  const parts = Object.entries(fields.parts).flatMap(([name, inner]) => inner.map((part) => `${name}.${part}`));
  const known = [...fields.mutable, ...fields.immutable];
  const violations = new Violations();
  for (const path of updateMask.filter((path) => !known.includes(path) && !parts.includes(path))) {
    const examples = Object.entries(fields.parts).map(([name, [part = ""]]) => `, parts as ${name}.${part}`);
    const allowed = `*, or some of ${known.join(", ")}${examples.join("")}`;
    violations.add("UNKNOWN_FIELD", at(undefined, "update_mask"), path, allowed);
  }
  violations.throwIfAny();
  return new Set(updateMask);
}

function isSet(value: unknown): boolean {
  return value !== undefined && !(Array.isArray(value) && value.length === 0);
}

/** What is set in a field that has parts, or the field itself. */
function setParts(name: string, fields: UpdatableFields, update: Plain): string[] {
  const value = update[name];
  const parts = (fields.parts[name] ?? []).filter((part) => isSet(partOf(value, part)));
  return parts.length === 0 ? [name] : parts.map((part) => `${name}.${part}`);
}

function partOf(value: unknown, part: string): unknown {
  return typeof value === "object" && value !== null ? (value as Plain)[part] : undefined;
}

/** `current` with the fields that the mask names as in `update`. */
export function applyMask(
  current: object,
  update: Plain,
  mask: ReadonlySet<string>,
  fields: UpdatableFields,
): Record<string, unknown> {
  const plain: Record<string, unknown> = { ...current };
  for (const name of fields.mutable) {
    if (mask.has(name)) {
      plain[name] = update[name];
      continue;
    }
    for (const part of fields.parts[name] ?? []) {
      const value = partOf(update[name], part);
      // What is not there has no parts to take away.
      if (mask.has(`${name}.${part}`) && (value !== undefined || plain[name] !== undefined)) {
        plain[name] = { ...(plain[name] as object | undefined), [part]: value };
      }
    }
  }
  return plain;
}
