import ipaddr from "ipaddr.js";
import { type AddressFamily, parseAddress } from "./address.js";
import { codeFor, requireForwarded } from "./read.js";
import type { Path, Violations } from "./violation.js";

export const ADDRESS_BITS: Readonly<Record<AddressFamily, number>> = { ipv4: 32, ipv6: 128 };

/** The addresses that have the first `prefixLength` bits of `address`. */
export interface Network {
  readonly family: AddressFamily;
  /** Canonical; the bits behind the prefix are 0. */
  readonly address: string;
  readonly prefixLength: number;
}

const NETWORK = /^([^/]+)(?:\/(0|[1-9]\d{0,2}))?$/;

/**
 * Reads `10.0.0.0/8`, `2001:db8::/32`, or an address, which is a network of its own. One of a family that is not forwarded is a violation,
 * but returned.
 */
export function readNetwork(input: unknown, path: Path, violations: Violations): Network | undefined {
  const allowed = "an IPv4 address or network, as in 10.0.0.0/8";
  const match = typeof input === "string" ? NETWORK.exec(input) : null;
  const parsed = match === null ? undefined : parseAddress(match[1] ?? "");
  const bits = parsed === undefined ? 0 : ADDRESS_BITS[parsed.family];
  const prefixLength = match?.[2] === undefined ? bits : Number(match[2]);
  if (parsed === undefined || prefixLength > bits) {
    violations.add(codeFor(input, "string", "NETWORK_MALFORMED"), path, input, allowed);
    return undefined;
  }
  const { family } = parsed;
  requireForwarded(family, input, path, allowed, violations);
  const address = networkAddress(family, parsed.address, prefixLength);
  if (address !== parsed.address) {
    const meant = `${address}/${String(prefixLength)}`;
    const problem = `is ${String(input)}, which has bits behind its prefix; it takes ${allowed}: did you mean ${meant}?`;
    violations.add("NETWORK_MALFORMED", path, input, allowed, problem);
    return undefined;
  }
  return { family, address, prefixLength };
}

function networkAddress(family: AddressFamily, address: string, prefixLength: number): string {
  const text = `${address}/${String(prefixLength)}`;
  return family === "ipv4"
    ? ipaddr.IPv4.networkAddressFromCIDR(text).toString()
    : ipaddr.IPv6.networkAddressFromCIDR(text).toRFC5952String();
}

/** The inverse of readNetwork; a network of one address is written as that address. */
export function formatNetwork({ family, address, prefixLength }: Network): string {
  return prefixLength === ADDRESS_BITS[family] ? address : `${address}/${String(prefixLength)}`;
}
