import { type Persistence, type ServiceTimeouts, TIMEOUT_NAMES, type TimeoutName } from "../model/index.js";
import type { Duration } from "./gen/google/protobuf/duration.js";
import type { Timeouts as TimeoutsMessage } from "./gen/sluice/v1/timeouts.js";
import type { Persistence as PersistenceMessage } from "./gen/sluice/v1/virtual_service.js";

type Camel<Name extends string> = Name extends `${infer Head}_${infer Tail}`
  ? `${Head}${Capitalize<Camel<Tail>>}`
  : Name;

/** A field's name as the generated messages have it. */
export function camel<Name extends string>(name: Name): Camel<Name> {
  return name.replaceAll(/_(.)/g, (_, letter: string) => letter.toUpperCase()) as Camel<Name>;
}

export function durationMessage(seconds: number): Duration {
  return { seconds: BigInt(seconds), nanos: 0 };
}

/** In the spelling of YAML. Parts of a second stay, for the model to refuse. */
export function durationText(message: Duration | undefined): string | undefined {
  if (message === undefined) {
    return undefined;
  }
  const { seconds, nanos } = message;
  return nanos === 0 ? `${String(seconds)}s` : `${String(Number(seconds) + nanos / 1e9)}s`;
}

export function timeoutsMessage(timeouts: ServiceTimeouts): TimeoutsMessage {
  const message: TimeoutsMessage = {};
  for (const [name, seconds] of Object.entries(timeouts)) {
    message[camel(name as TimeoutName)] = durationMessage(seconds);
  }
  return message;
}

/** The plain form, with undefined for what is absent. */
export function plainTimeoutsOf(
  message: TimeoutsMessage | undefined,
): Readonly<Record<string, string | undefined>> | undefined {
  return message === undefined
    ? undefined
    : Object.fromEntries(TIMEOUT_NAMES.map((name) => [name, durationText(message[camel(name)])]));
}

export function persistenceMessage({ timeout, netmask }: Persistence): PersistenceMessage {
  return { timeout: durationMessage(timeout), netmask: String(netmask) };
}

/** The plain form, in which IPv6's prefix length is a number. */
export function plainPersistenceOf(
  message: PersistenceMessage | undefined,
): { readonly timeout: string | undefined; readonly netmask: string | number | undefined } | undefined {
  if (message === undefined) {
    return undefined;
  }
  const { timeout, netmask } = message;
  const mask = /^\d+$/.test(netmask) ? Number(netmask) : netmask;
  return { timeout: durationText(timeout), netmask: mask === "" ? undefined : mask };
}
