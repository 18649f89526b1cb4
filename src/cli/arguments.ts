import { InvalidArgumentError } from "commander";
import {
  FORWARDING_METHODS,
  type ForwardingMethod,
  parseAddress,
  parseRealServerName,
  parseServiceName,
  type RealServerKey,
  SCHEDULER_FLAGS,
  type SchedulerFlag,
  type ServiceKey,
} from "../model/index.js";

/*
 * Readers of command-line arguments. They refuse what cannot be understood; whether it is allowed is for the daemon to say.
 */

export function serviceArgument(text: string): ServiceKey {
  const key = parseServiceName(text);
  if (key === undefined) {
    throw new InvalidArgumentError("A service is PROTOCOL:ADDRESS:PORT, as tcp:10.0.0.100:80, or fwmark:MARK.");
  }
  return key;
}

export function realServerArgument(text: string): RealServerKey {
  const key = parseRealServerName(text);
  if (key === undefined) {
    throw new InvalidArgumentError("A real server is ADDRESS:PORT, as 10.1.0.11:8080.");
  }
  return key;
}

export function integerArgument(text: string): number {
  // What a protobuf int32 can hold, so that the daemon gets to see and judge it.
  if (!/^-?\d{1,10}$/.test(text) || Math.abs(Number(text)) >= 2 ** 31) {
    throw new InvalidArgumentError("It takes a whole number.");
  }
  return Number(text);
}

export function markArgument(text: string): number {
  // What a protobuf uint32 can hold.
  if (!/^\d{1,10}$/.test(text) || Number(text) >= 2 ** 32) {
    throw new InvalidArgumentError("It takes a mark from 1 to 4294967295.");
  }
  return Number(text);
}

/** `80`, `1024-32767`. */
export function portRangeArgument(text: string): { readonly first: number; readonly last: number } {
  const [, first, last = first] = /^(\d{1,9})(?:-(\d{1,9}))?$/.exec(text) ?? [];
  if (first === undefined) {
    throw new InvalidArgumentError("It takes a port, or FIRST-LAST.");
  }
  return { first: Number(first), last: Number(last) };
}

/** Words with commas between them. */
export function listArgument(text: string): readonly string[] {
  return text.split(",");
}

/** `mh-fallback,mh-port`; `none` for the empty set. */
export function schedulerFlagsArgument(text: string): readonly SchedulerFlag[] {
  const words = text === "none" ? [] : text.split(",");
  return words.map((word) => {
    const flag = SCHEDULER_FLAGS.find((name) => name === word);
    if (flag === undefined) {
      throw new InvalidArgumentError(`It takes some of ${SCHEDULER_FLAGS.join(", ")}, separated by commas, or none.`);
    }
    return flag;
  });
}

export interface RealServerSpecification {
  readonly address: string;
  readonly port: number | undefined;
  readonly method: ForwardingMethod;
  readonly weight: number | undefined;
  readonly upperThreshold: number | undefined;
  readonly lowerThreshold: number | undefined;
}

/** `ADDRESS[:PORT],METHOD[,WEIGHT[,UPPER[,LOWER]]]`, gathered over several options of the same name. */
export function realServerSpecification(
  text: string,
  before: readonly RealServerSpecification[] | undefined,
): readonly RealServerSpecification[] {
  const [endpoint = "", word, ...numbers] = text.split(",");
  const key = parseRealServerName(endpoint);
  const address = key?.address ?? parseAddress(endpoint)?.address;
  const method = FORWARDING_METHODS.find((m) => m === word);
  if (address === undefined || method === undefined || numbers.length > 3) {
    const methods = FORWARDING_METHODS.join(", ");
    throw new InvalidArgumentError(
      `It takes ADDRESS[:PORT],METHOD[,WEIGHT[,UPPER[,LOWER]]] with a METHOD of ${methods}.`,
    );
  }
  const [weight, upperThreshold, lowerThreshold] = numbers.map(integerArgument);
  return [...(before ?? []), { address, port: key?.port, method, weight, upperThreshold, lowerThreshold }];
}
