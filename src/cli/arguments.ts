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
    throw new InvalidArgumentError("A service is PROTOCOL:ADDRESS:PORT, as tcp:10.0.0.100:80.");
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
  if (!/^-?\d{1,9}$/.test(text)) {
    throw new InvalidArgumentError("It takes a whole number.");
  }
  return Number(text);
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
}

/** `ADDRESS[:PORT],METHOD[,WEIGHT]`, gathered over several options of the same name. */
export function realServerSpecification(
  text: string,
  before: readonly RealServerSpecification[] | undefined,
): readonly RealServerSpecification[] {
  const [endpoint = "", word, weight, ...rest] = text.split(",");
  const key = parseRealServerName(endpoint);
  const address = key?.address ?? parseAddress(endpoint)?.address;
  const method = FORWARDING_METHODS.find((m) => m === word);
  if (address === undefined || method === undefined || rest.length > 0) {
    const methods = FORWARDING_METHODS.join(", ");
    throw new InvalidArgumentError(`It takes ADDRESS[:PORT],METHOD[,WEIGHT] with a METHOD of ${methods}.`);
  }
  const one = { address, port: key?.port, method, weight: weight === undefined ? undefined : integerArgument(weight) };
  return [...(before ?? []), one];
}
