import { type Endpoint, endpointName, parseEndpoint } from "./endpoint.js";
import { field, type IntegerRange, readChoice, readFields, readInteger, readUnicastAddress } from "./read.js";
import type { ServiceKey } from "./service-key.js";
import { at, type Path, type Violations } from "./violation.js";

/** How a packet reaches the real server; see docs/architecture.md. */
export const FORWARDING_METHODS = ["nat", "dr", "tun", "fullnat"] as const;
export type ForwardingMethod = (typeof FORWARDING_METHODS)[number];

/** As ipvsadm's -w. */
export const DEFAULT_WEIGHT = 1;
export const MAX_WEIGHT = 65535;

/** Identified within its service by address and port. */
export interface RealServer {
  /** RIP, canonical. */
  readonly address: string;
  /**
   * RPORT. With dr and tun always the service's port. 0: the port that the client asked for, as always in a service of every port, and in one of a
   * firewall mark where the real server has none of its own.
   */
  readonly port: number;
  readonly method: ForwardingMethod;
  /** 0..65535; 0 means quiesced: no new connections, those there are stay. */
  readonly weight: number;
  /** Connections, active and inactive, from which on it takes no new ones; 0: any number. */
  readonly upperThreshold: number;
  /** Connections below which it takes new ones again; 0: three quarters of the upper threshold. At most the upper one. */
  readonly lowerThreshold: number;
}

export type RealServerKey = Endpoint;

/** `10.1.0.11:8080`, `[2001:db8::11]:8080`. */
export function realServerName(realServer: RealServerKey): string {
  return endpointName(realServer);
}

/** The inverse of realServerName; undefined where the text names none. Other spellings of an address become canonical. */
export function parseRealServerName(name: string): RealServerKey | undefined {
  return parseEndpoint(name);
}

const PORT: IntegerRange = { min: 1, max: 65535, code: "PORT_OUT_OF_RANGE", noun: "a port" };
const ANY_PORT: IntegerRange = { ...PORT, min: 0 };
const WEIGHT: IntegerRange = { min: 0, max: MAX_WEIGHT, code: "WEIGHT_OUT_OF_RANGE", noun: "a weight" };
/** ipvsadm's range. */
const THRESHOLD: IntegerRange = {
  min: 0,
  max: 2 ** 31 - 1,
  code: "THRESHOLD_OUT_OF_RANGE",
  noun: "a number of connections",
};

const REAL_SERVER_FIELDS = ["address", "port", "method", "weight", "upper_threshold", "lower_threshold"];

/**
 * Reads a real server from its plain form. `service` says what an omitted port stands for and which ports it can have; undefined where the
 * service itself could not be read.
 */
export function readRealServer(
  input: unknown,
  service: ServiceKey | undefined,
  path: Path | undefined,
  violations: Violations,
): RealServer | undefined {
  const before = violations.list.length;
  const fields = readFields(input, path, REAL_SERVER_FIELDS, violations);
  if (fields === undefined) {
    return undefined;
  }
  const integer = (name: string, range: IntegerRange, otherwise: number): number => {
    const given = field(fields, name);
    return given === undefined ? otherwise : (readInteger(given, at(path, name), range, violations) ?? otherwise);
  };
  const address = readUnicastAddress(field(fields, "address"), at(path, "address"), violations);
  const givenMethod = field(fields, "method");
  const method = readChoice(givenMethod, at(path, "method"), FORWARDING_METHODS, "UNKNOWN_METHOD", violations);
  const port = readPort(field(fields, "port"), service, method, at(path, "port"), violations);
  const weight = integer("weight", WEIGHT, DEFAULT_WEIGHT);
  const upperThreshold = integer("upper_threshold", THRESHOLD, 0);
  const lowerThreshold = integer("lower_threshold", THRESHOLD, 0);
  if (violations.list.length === before && lowerThreshold > upperThreshold) {
    const allowed =
      upperThreshold === 0
        ? "0 where there is no upper_threshold"
        : `at most the upper_threshold, ${String(upperThreshold)}`;
    violations.add("LOWER_THRESHOLD_TOO_HIGH", at(path, "lower_threshold"), lowerThreshold, allowed);
  }
  if (violations.list.length > before || address === undefined || method === undefined || port === undefined) {
    return undefined;
  }
  return { address, port, method, weight, upperThreshold, lowerThreshold };
}

/** What is forwarded by dr and tun keeps its port, and so does what comes to any port or by a mark, unless there is one to map to. */
function readPort(
  input: unknown,
  service: ServiceKey | undefined,
  method: ForwardingMethod | undefined,
  path: Path,
  violations: Violations,
): number | undefined {
  const servicePort = service?.port ?? (service === undefined ? undefined : 0);
  if (input === undefined) {
    return servicePort;
  }
  const port = readInteger(input, path, servicePort === 0 ? ANY_PORT : PORT, violations);
  if (port === undefined || service === undefined || port === servicePort) {
    return port;
  }
  const keeps = method === "dr" || method === "tun";
  let allowed: string;
  if (service.port === 0) {
    allowed = "0 or nothing in a service of every port";
  } else if (!keeps) {
    return port;
  } else if (servicePort === 0) {
    allowed = `0 or nothing with ${method} in a service of a mark`;
  } else {
    allowed = `the service's port ${String(servicePort)} or nothing with ${method}`;
  }
  const problem = `is ${String(port)}, but the packet's port cannot be mapped; it takes ${allowed}`;
  violations.add("PORT_MAPPING_IMPOSSIBLE", path, port, allowed, problem);
  return undefined;
}

/** The plain form: what YAML and JSON carry, and what readRealServer reads. */
export interface PlainRealServer {
  readonly address: string;
  readonly port: number;
  readonly method: ForwardingMethod;
  readonly weight: number;
  /** Only where there is one; so the next. */
  readonly upper_threshold?: number;
  readonly lower_threshold?: number;
}

export function plainRealServer(realServer: RealServer): PlainRealServer {
  const { address, port, method, weight, upperThreshold, lowerThreshold } = realServer;
  return {
    address,
    port,
    method,
    weight,
    ...(upperThreshold === 0 ? {} : { upper_threshold: upperThreshold }),
    ...(lowerThreshold === 0 ? {} : { lower_threshold: lowerThreshold }),
  };
}

export function sameRealServer(a: RealServer, b: RealServer): boolean {
  return (
    a === b ||
    (a.address === b.address &&
      a.port === b.port &&
      a.method === b.method &&
      a.weight === b.weight &&
      a.upperThreshold === b.upperThreshold &&
      a.lowerThreshold === b.lowerThreshold)
  );
}
