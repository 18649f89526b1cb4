import { parseAddress } from "./address.js";

/** An address and a port on it. */
export interface Endpoint {
  /** Canonical. */
  readonly address: string;
  /** 0..65535; what 0 stands for is said where there may be one. */
  readonly port: number;
}

/** `10.1.0.11:8080`, `[2001:db8::11]:8080`. */
export function endpointName({ address, port }: Endpoint): string {
  return address.includes(":") ? `[${address}]:${String(port)}` : `${address}:${String(port)}`;
}

const ENDPOINT = /^(?:([^[\]:]+)|\[([^[\]]+)\]):(0|[1-9]\d{0,4})$/;

/** The inverse of endpointName; undefined where the text names none. Other spellings of an address become canonical. */
export function parseEndpoint(name: string): Endpoint | undefined {
  const match = ENDPOINT.exec(name);
  if (match === null) {
    return undefined;
  }
  const parsed = parseAddress(match[1] ?? match[2] ?? "");
  const port = Number(match[3]);
  // Brackets belong to IPv6, and only to it.
  if (parsed === undefined || (parsed.family === "ipv6") !== (match[2] !== undefined) || port > 65535) {
    return undefined;
  }
  return { address: parsed.address, port };
}
