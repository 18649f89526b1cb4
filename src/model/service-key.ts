import type { AddressFamily } from "./address.js";
import { type Endpoint, endpointName, parseEndpoint } from "./endpoint.js";
import {
  type Fields,
  field,
  type IntegerRange,
  readChoice,
  readFamily,
  readInteger,
  readUnicastAddress,
} from "./read.js";
import { at, type Path, type Violations } from "./violation.js";

export const PROTOCOLS = ["tcp", "udp", "sctp"] as const;
export type Protocol = (typeof PROTOCOLS)[number];

/** What packets to an address and port of a protocol belong to. */
export interface AddressServiceKey extends Endpoint {
  readonly protocol: Protocol;
  /** VIP, canonical. */
  readonly address: string;
  /** VPORT; 0: every port that no other service of this address has. */
  readonly port: number;
  readonly fwmark?: never;
  readonly family?: never;
}

/** What packets with a firewall mark belong to (see MarkRule), of whatever protocol, address and port. */
export interface MarkServiceKey {
  /** 1..4294967295. */
  readonly fwmark: number;
  readonly family: AddressFamily;
  readonly protocol?: never;
  readonly address?: never;
  readonly port?: never;
}

/** Identifies a service. `fwmark` tells which of the two it is. */
export type ServiceKey = AddressServiceKey | MarkServiceKey;

/** Alone or with these: fields by which a plain service is identified. */
export const KEY_FIELDS = ["protocol", "address", "port", "fwmark", "family"];

const MARK_PREFIXES: Readonly<Record<AddressFamily, string>> = { ipv4: "fwmark:", ipv6: "fwmark6:" };
const MAX_FWMARK = 2 ** 32 - 1;

/** `tcp:10.0.0.100:80`, `udp:[2001:db8::1]:53`, `fwmark:1`, `fwmark6:1`. */
export function serviceName(service: ServiceKey): string {
  return service.fwmark === undefined
    ? `${service.protocol}:${endpointName(service)}`
    : MARK_PREFIXES[service.family] + String(service.fwmark);
}

/** The inverse of serviceName; undefined where the text names none. */
export function parseServiceName(name: string): ServiceKey | undefined {
  const mark = /^fwmark(6?):([1-9]\d{0,9})$/.exec(name);
  if (mark !== null) {
    const fwmark = Number(mark[2]);
    return fwmark > MAX_FWMARK ? undefined : { fwmark, family: mark[1] === "6" ? "ipv6" : "ipv4" };
  }
  const protocol = PROTOCOLS.find((p) => name.startsWith(`${p}:`));
  const endpoint = protocol === undefined ? undefined : parseEndpoint(name.slice(protocol.length + 1));
  return protocol === undefined || endpoint === undefined ? undefined : { protocol, ...endpoint };
}

/** The part of a service that identifies it. */
export function serviceKey(service: ServiceKey): ServiceKey {
  return service.fwmark === undefined
    ? { protocol: service.protocol, address: service.address, port: service.port }
    : { fwmark: service.fwmark, family: service.family };
}

export const FWMARK: IntegerRange = { min: 1, max: MAX_FWMARK, code: "FWMARK_OUT_OF_RANGE", noun: "a mark" };
const ANY_PORT: IntegerRange = { min: 0, max: 65535, code: "PORT_OUT_OF_RANGE", noun: "a port" };

/** Reads `protocol`, `address` and `port`, or `fwmark` and, unless it is ipv4, `family`. */
export function readServiceKey(fields: Fields, path: Path | undefined, violations: Violations): ServiceKey | undefined {
  const given = (name: string): unknown => field(fields, name);
  if (given("fwmark") !== undefined) {
    for (const name of ["protocol", "address", "port"]) {
      if (given(name) !== undefined) {
        const allowed = "no value beside fwmark, which identifies the service alone";
        violations.add("FWMARK_NOT_ALONE", at(path, name), given(name), allowed);
      }
    }
    const fwmark = readInteger(given("fwmark"), at(path, "fwmark"), FWMARK, violations);
    const family = given("family") === undefined ? "ipv4" : readFamily(given("family"), at(path, "family"), violations);
    return fwmark === undefined || family === undefined ? undefined : { fwmark, family };
  }
  if (given("family") !== undefined) {
    const allowed = "no value without fwmark: an address has its family";
    violations.add("FAMILY_NOT_APPLICABLE", at(path, "family"), given("family"), allowed);
  }
  const protocol = readChoice(given("protocol"), at(path, "protocol"), PROTOCOLS, "UNKNOWN_PROTOCOL", violations);
  const address = readUnicastAddress(given("address"), at(path, "address"), violations);
  const port = readInteger(given("port"), at(path, "port"), ANY_PORT, violations);
  return protocol === undefined || address === undefined || port === undefined
    ? undefined
    : { protocol, address, port };
}
