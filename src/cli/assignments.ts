import { InvalidArgumentError } from "commander";
import { camel, type Settings, type Timeouts, timeoutsMessage } from "../api/client.js";
import {
  nearest,
  parseDuration,
  SETTING_NAMES,
  type SettingName,
  TIMEOUT_NAMES,
  type TimeoutName,
} from "../model/index.js";
import { integerArgument } from "./arguments.js";

/** `NAME=VALUE`; the value is undefined for `NAME=default`. */
export interface Assignment<Name extends string> {
  readonly name: Name;
  readonly value: number | undefined;
}

/** Reads `conn_reuse_mode=0`, gathered over several arguments. */
export function settingAssignment(
  text: string,
  before: readonly Assignment<SettingName>[] | undefined,
): readonly Assignment<SettingName>[] {
  return [...(before ?? []), assignment(text, SETTING_NAMES, integerArgument)];
}

/** Reads `udp=30s`, gathered over several arguments or options. The value is in seconds. */
export function timeoutAssignment(
  text: string,
  before: readonly Assignment<TimeoutName>[] | undefined,
): readonly Assignment<TimeoutName>[] {
  return [...(before ?? []), assignment(text, TIMEOUT_NAMES, durationArgument)];
}

/** Seconds of `360s`, `15m` or `1h`. */
export function durationArgument(text: string): number {
  const seconds = parseDuration(text);
  if (seconds === undefined) {
    throw new InvalidArgumentError("A duration has its unit, as in 360s, 15m or 1h.");
  }
  return seconds;
}

function assignment<Name extends string>(
  text: string,
  names: readonly Name[],
  read: (value: string) => number,
): Assignment<Name> {
  const [, word = text, value] = /^([^=]*)=(.*)$/.exec(text) ?? [];
  const name = names.find((known) => known === word);
  if (name === undefined) {
    const meant = nearest(word, names);
    const advice = meant === undefined ? `There are ${names.join(", ")}` : `Did you mean ${meant}?`;
    throw new InvalidArgumentError(`There is no ${word || "empty name"}. ${advice}`);
  }
  if (value === undefined) {
    throw new InvalidArgumentError(`It takes ${name}=VALUE, or ${name}=default.`);
  }
  return { name, value: value === "default" ? undefined : read(value) };
}

/** Settings to update with; what is set to its default is absent, for the mask to name. */
export function assignedSettings(assignments: readonly Assignment<SettingName>[]): Settings {
  const message: Settings = { name: "", marks: [], fullnatPools: [] };
  for (const { name, value } of assignments) {
    message[camel(name)] = value;
  }
  return message;
}

/** The same for timeouts. */
export function assignedTimeouts(assignments: readonly Assignment<TimeoutName>[]): Timeouts {
  return timeoutsMessage(
    Object.fromEntries(assignments.flatMap(({ name, value }) => (value === undefined ? [] : [[name, value]]))),
  );
}

/** The fields of an update mask that stand for timeouts. */
export function timeoutMask(assignments: readonly Assignment<TimeoutName>[]): string[] {
  return assignments.map(({ name }) => `timeouts.${name}`);
}
