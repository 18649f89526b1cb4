import { isIPv6 } from "node:net";
import ipaddr from "ipaddr.js";

export const ADDRESS_FAMILIES = ["ipv4", "ipv6"] as const;
export type AddressFamily = (typeof ADDRESS_FAMILIES)[number];

/** An address in its one canonical spelling: dotted quad, or RFC 5952 for IPv6. */
export interface ParsedAddress {
  readonly family: AddressFamily;
  readonly address: string;
  /** Whether one host on a network can have it: not unspecified, loopback, link-local, multicast or broadcast. */
  readonly unicast: boolean;
}

// Leading zeros are refused: inet_aton reads them as octal, inet_pton refuses them, and people mean decimal.
const OCTET = "(0|[1-9]\\d?|1\\d\\d|2[0-4]\\d|25[0-5])";
const IPV4 = new RegExp(`^${OCTET}\\.${OCTET}\\.${OCTET}\\.${OCTET}$`);

/**
 * Reads an IPv4 or IPv6 address; undefined where the text is neither. Zones (`%eth0`) and IPv4-mapped addresses
 * (`::ffff:10.0.0.1`) are neither: no packet on the wire carries them.
 */
export function parseAddress(text: string): ParsedAddress | undefined {
  const ipv4 = IPV4.exec(text);
  if (ipv4 !== null) {
    const first = Number(ipv4[1]);
    // RFC 6890: 0/8 this network, 127/8 loopback, 169.254/16 link-local; 224/4 multicast (RFC 5771).
    const unicast =
      first !== 0 &&
      first !== 127 &&
      !(first >= 224 && first <= 239) &&
      !(first === 169 && ipv4[2] === "254") &&
      text !== "255.255.255.255";
    return { family: "ipv4", address: text, unicast };
  }
  if (!isIPv6(text) || text.includes("%")) {
    return undefined;
  }
  const ipv6 = ipaddr.IPv6.parse(text);
  if (ipv6.isIPv4MappedAddress()) {
    return undefined;
  }
  const range = ipv6.range();
  const unicast = range !== "unspecified" && range !== "loopback" && range !== "linkLocal" && range !== "multicast";
  return { family: "ipv6", address: ipv6.toRFC5952String(), unicast };
}
