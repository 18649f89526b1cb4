/** The connections of the data plane as operators meet them: their states, and filters that select some of them. */
import { parseAddress } from "./address.js";
import { type Network, readNetwork } from "./network.js";
import { codeFor, type Fields, field, readChoice, readFields, requireForwarded } from "./read.js";
import { FORWARDING_METHODS, type ForwardingMethod } from "./real-server.js";
import { PROTOCOLS, type Protocol, parseServiceName, type ServiceKey } from "./service-key.js";
import { at, type Path, type Violations } from "./violation.js";

/** What a listing says of a connection's protocol; `ip` is the persistence template of a firewall mark, of any protocol. */
export const LISTED_PROTOCOLS = [...PROTOCOLS, "ip"] as const;
export type ListedProtocol = (typeof LISTED_PROTOCOLS)[number];

/** IPVS's names, as bpf/list_connections.h writes them. */
export const CONNECTION_STATES = [
  "NONE",
  "ESTABLISHED",
  "SYN_SENT",
  "SYN_RECV",
  "FIN_WAIT",
  "TIME_WAIT",
  "CLOSE",
  "CLOSE_WAIT",
  "LAST_ACK",
  "LISTEN",
  "SYNACK",
  "UDP",
  "INIT1",
  "INIT",
  "C-SENT",
  "C-REPLIED",
  "C-WAIT",
  "COOKIE",
  "C-ECHOED",
  "S-SENT",
  "S-RECEIVED",
  "S-ACK-SENT",
  "REJECTED",
  "CLOSED",
  "ONE_PACKET",
  "ASSURED",
] as const;
export type ConnectionState = (typeof CONNECTION_STATES)[number];

/** Whether persistence templates are listed: among the connections, not at all, or they alone. */
export const TEMPLATE_SELECTIONS = ["include", "exclude", "only"] as const;
export type TemplateSelection = (typeof TEMPLATE_SELECTIONS)[number];

/** An address, and a port unless any will do. */
export interface EndpointFilter {
  /** Canonical. */
  readonly address: string;
  readonly port: number | undefined;
}

export interface ClientFilter {
  readonly network: Network;
  readonly port: number | undefined;
}

/** Selects the connections that have all that is not undefined. */
export interface ConnectionFilter {
  readonly protocol: ListedProtocol | undefined;
  readonly state: ConnectionState | undefined;
  readonly client: ClientFilter | undefined;
  /** VIP, and VPORT. */
  readonly virtual: EndpointFilter | undefined;
  readonly real: EndpointFilter | undefined;
  /** fullnat's source. */
  readonly local: EndpointFilter | undefined;
  readonly method: ForwardingMethod | undefined;
  readonly templates: TemplateSelection;
}

const FIELDS = ["protocol", "state", "client", "virtual", "real", "local", "method", "templates"];

/** Reads the plain form, in which client, virtual, real and local are texts. What is left out selects nothing away. */
export function readConnectionFilter(
  input: unknown,
  path: Path | undefined,
  violations: Violations,
): ConnectionFilter | undefined {
  const before = violations.list.length;
  const fields = readFields(input, path, FIELDS, violations);
  if (fields === undefined) {
    return undefined;
  }
  const read = <T>(name: string, reader: (value: unknown, path: Path) => T | undefined): T | undefined => {
    const given = field(fields, name);
    return given === undefined ? undefined : reader(given, at(path, name));
  };
  const choice =
    <T extends string>(choices: readonly T[], code: Parameters<typeof readChoice>[3]) =>
    (value: unknown, where: Path): T | undefined =>
      readChoice(value, where, choices, code, violations);
  const endpoint = (value: unknown, where: Path): EndpointFilter | undefined =>
    readEndpointFilter(value, where, ENDPOINT_ALLOWED, violations);

  const protocol = read<Protocol>("protocol", choice(PROTOCOLS, "UNKNOWN_PROTOCOL"));
  const virtual = read("virtual", (value, where) => readVirtualFilter(value, where, violations));
  if (virtual?.protocol !== undefined && protocol !== undefined && virtual.protocol !== protocol) {
    addContradiction(fields, virtual.protocol, at(path, "protocol"), violations);
  }
  const filter = {
    protocol: virtual?.protocol ?? protocol,
    state: read("state", choice(CONNECTION_STATES, "UNKNOWN_STATE")),
    client: read("client", (value, where) => readClientFilter(value, where, violations)),
    virtual: virtual?.endpoint,
    real: read("real", endpoint),
    local: read("local", endpoint),
    method: read("method", choice(FORWARDING_METHODS, "UNKNOWN_METHOD")),
    templates: read("templates", choice(TEMPLATE_SELECTIONS, "UNKNOWN_TEMPLATE_SELECTION")) ?? "include",
  };
  return violations.list.length > before ? undefined : filter;
}

/** How many of them are wanted: 0 or left out is all. */
export function readListingLimit(input: number, path: Path, violations: Violations): number {
  if (input < 0) {
    violations.add("LISTING_LIMIT_NEGATIVE", path, input, "0 or more");
  }
  return input <= 0 ? Number.POSITIVE_INFINITY : input;
}

function addContradiction(fields: Fields, protocol: ListedProtocol, path: Path, violations: Violations): void {
  const allowed = protocol === "ip" ? "no value beside a firewall mark" : `${protocol}, or no value`;
  const given = field(fields, "protocol");
  const problem = `is ${String(given)}, and virtual is ${String(field(fields, "virtual"))}; it takes ${allowed}`;
  violations.add("PROTOCOL_CONTRADICTED", path, given, allowed, problem);
}

const ENDPOINT_ALLOWED = "an IPv4 address, with a port or without, as in 10.1.0.11:8080";
const VIRTUAL_ALLOWED =
  "an IPv4 address, with a port or without, or a service's name, as in 10.0.0.100:80 or tcp:10.0.0.100:80";
const CLIENT_ALLOWED = "an IPv4 address or network, with a port or without, as in 10.0.0.2:37028 or 10.0.0.0/24";

/** `10.0.0.2`, `10.0.0.2:80`, `[2001:db8::2]:80`, `2001:db8::2`: the part before the port, and the port. */
const WITH_PORT = /^(?:([^:[\]]+)|\[([^[\]]+)\])(?::(0|[1-9]\d{0,4}))?$/;

function splitPort(text: string): { readonly host: string; readonly port: number | undefined } | undefined {
  const match = WITH_PORT.exec(text);
  if (match === null) {
    return parseAddress(text)?.family === "ipv6" ? { host: text, port: undefined } : undefined;
  }
  const port = match[3] === undefined ? undefined : Number(match[3]);
  return port !== undefined && port > 65535 ? undefined : { host: match[1] ?? match[2] ?? "", port };
}

function readEndpointFilter(
  input: unknown,
  path: Path,
  allowed: string,
  violations: Violations,
): EndpointFilter | undefined {
  const split = typeof input === "string" ? splitPort(input) : undefined;
  const parsed = split === undefined ? undefined : parseAddress(split.host);
  if (split === undefined || parsed === undefined) {
    violations.add(codeFor(input, "string", "ENDPOINT_MALFORMED"), path, input, allowed);
    return undefined;
  }
  requireForwarded(parsed.family, input, path, allowed, violations);
  return { address: parsed.address, port: split.port };
}

function readClientFilter(input: unknown, path: Path, violations: Violations): ClientFilter | undefined {
  const split = typeof input === "string" ? splitPort(input) : undefined;
  if (split === undefined) {
    violations.add(codeFor(input, "string", "ENDPOINT_MALFORMED"), path, input, CLIENT_ALLOWED);
    return undefined;
  }
  const network = readNetwork(split.host, path, violations);
  return network === undefined ? undefined : { network, port: split.port };
}

interface VirtualFilter {
  readonly protocol: ListedProtocol | undefined;
  readonly endpoint: EndpointFilter;
}

function readVirtualFilter(input: unknown, path: Path, violations: Violations): VirtualFilter | undefined {
  const service = typeof input === "string" ? parseServiceName(input) : undefined;
  if (service !== undefined) {
    return readServiceFilter(service, input, path, violations);
  }
  const endpoint = readEndpointFilter(input, path, VIRTUAL_ALLOWED, violations);
  return endpoint === undefined ? undefined : { protocol: undefined, endpoint };
}

function readServiceFilter(service: ServiceKey, input: unknown, path: Path, violations: Violations): VirtualFilter {
  if (service.fwmark !== undefined) {
    requireForwarded(service.family, input, path, VIRTUAL_ALLOWED, violations);
    return { protocol: "ip", endpoint: { address: markAddress(service.fwmark), port: 0 } };
  }
  const family = parseAddress(service.address)?.family ?? "ipv4";
  requireForwarded(family, input, path, VIRTUAL_ALLOWED, violations);
  const port = service.port === 0 ? undefined : service.port;
  return { protocol: service.protocol, endpoint: { address: service.address, port } };
}

/** The templates of a firewall mark have its four bytes in the place of the VIP. */
function markAddress(fwmark: number): string {
  return [24, 16, 8, 0].map((shift) => (fwmark >>> shift) & 0xff).join(".");
}
