/**
 * Traces of the kernel's IPVS: what was done to a director, packet by packet, and what came of it. Files of this format are
 * JSON; see `make replay`. A reader takes one apart and refuses what it does not know, so that nothing is skipped in silence.
 */

export type Side = "c" | "r";

/** A packet as a trace tells it: put in on the side of the clients (c) or of the real servers (r). */
export interface PacketEvent {
  readonly kind: "packet";
  readonly side: Side;
  readonly protocol: string;
  /** TCP's flags by their letters. */
  readonly flags: string;
  /** SCTP's chunk by its name: INIT_ACK. */
  readonly chunk?: string;
  readonly source: string;
  readonly sourcePort: number;
  readonly destination: string;
  readonly destinationPort: number;
  /** Bytes of payload. */
  readonly length: number;
  readonly out: readonly Outgoing[];
  /** Number of the real server that got it. */
  readonly picked: number | undefined;
  /** [active, inactive] of every real server, those added last first. */
  readonly counts: readonly (readonly [number, number])[] | undefined;
}

/** A packet as a trace has it byte for byte, and what came out, in hex from the Ethernet header on. */
export interface FrameEvent {
  readonly kind: "frame";
  readonly side: Side;
  readonly bytes: string;
  readonly out: readonly { readonly side: Side; readonly bytes: string }[];
}

/** A packet that came out. */
export interface Outgoing {
  readonly side: Side;
  /** Whose MAC it went to. */
  readonly real?: number;
  readonly source?: string;
  readonly sourcePort?: number;
  readonly destination?: string;
  readonly destinationPort?: number;
  readonly protocol?: number;
  readonly flags?: string;
  readonly chunk?: string;
  readonly ttl?: number;
  /** ICMP's type and code. */
  readonly icmp?: readonly [number, number];
  /** Hex: it is ARP, and all else is missing. */
  readonly arp?: string;
}

export interface ListedConnection {
  /** In lower case; "ip" for a template of a firewall mark. */
  readonly protocol: string;
  /** "ADDRESS PORT", as are virtual and real. */
  readonly client: string;
  readonly virtual: string;
  readonly real: string;
  readonly state: string;
  /** How long it still lives. */
  readonly seconds: number;
}

/** One service with its real servers in the kernel's order, the last added first. */
export interface ListedService {
  /** "TCP 10.0.0.100:80 rr", "FWM 1 dh" */
  readonly title: string;
  readonly realServers: readonly ListedRealServer[];
}

export type ListedRealServer = readonly [
  name: string,
  method: string,
  weight: number,
  active: number,
  inactive: number,
];

export type TraceEvent =
  | { readonly kind: "ipvsadm"; readonly line: string; readonly status: number }
  | { readonly kind: "shell"; readonly command: string }
  | { readonly kind: "sysctl"; readonly name: string; readonly value: number }
  | { readonly kind: "sleep"; readonly seconds: number }
  | PacketEvent
  | FrameEvent
  | { readonly kind: "snapshot"; readonly services: readonly ListedService[] }
  | { readonly kind: "connections"; readonly connections: readonly ListedConnection[] }
  | ListingEvent;

/** What `ipvsadm -L -n` prints, a line each without what is above the first service; `persistent`: with --persistent-conn. */
export interface ListingEvent {
  readonly kind: "listing";
  readonly persistent: boolean;
  readonly lines: readonly string[];
  /** Listed at the same moment. */
  readonly connections: readonly ListedConnection[];
}

export interface Trace {
  readonly name: string;
  readonly events: readonly TraceEvent[];
}

/** What happened after each of a path's packets, for paths through the states of one connection. */
export interface StatePath {
  /** "c:S", "r:SA": side and TCP flags; "c:x" for UDP; "c:INIT" for SCTP. */
  readonly steps: readonly string[];
  readonly state: string;
  /** Seconds. */
  readonly timeout: number;
  readonly activeChange: number;
  readonly inactiveChange: number;
  readonly packetsOut: number;
}

export interface StateTrace {
  /** "tcp-nat": protocol and method. */
  readonly name: string;
  readonly paths: readonly StatePath[];
}

export class TraceError extends Error {
  readonly code = "TRACE_MALFORMED";

  constructor(path: string, value: unknown, allowed: string) {
    super(`${path} is ${value === undefined ? "missing" : JSON.stringify(value)}; it takes ${allowed}`);
    this.name = "TraceError";
  }
}

/** Reads a trace, of packets or of states. @throws TraceError */
export function readTrace(text: string): Trace | StateTrace {
  const trace = record(parseJson(text), "the trace");
  const name = string(trace["name"], "name");
  const events = list(trace["events"], "events");
  if (trace["transitions"] !== undefined) {
    return { name, paths: events.map((event, index) => readPath(event, `events[${index}]`)) };
  }
  return {
    name,
    events: [...events.map((event, index) => readEvent(event, `events[${index}]`)), ...readFinal(trace["final"])],
  };
}

/** What was listed after the last event. */
function readFinal(input: unknown): TraceEvent[] {
  if (input === undefined) return [];
  const final = record(input, "final");
  const connections = final["conns"] === undefined ? [] : readConnections(final["conns"], "final.conns");
  const listing = (command: string, persistent: boolean): TraceEvent[] => {
    const text = final[command];
    const path = `final["${command}"]`;
    return text === undefined ? [] : [{ kind: "listing", persistent, lines: readListing(text, path), connections }];
  };
  return [
    ...listing("ipvsadm -L -n", false),
    ...listing("ipvsadm -L -n --persistent-conn", true),
    ...(final["conns"] === undefined ? [] : [{ kind: "connections" as const, connections }]),
  ];
}

/** Version, size of the connection table and columns are above the services. */
const LISTING_HEAD = 3;

function readListing(input: unknown, path: string): readonly string[] {
  const lines = string(input, path).trimEnd().split("\n").slice(LISTING_HEAD);
  return lines.map((line) => line.trim().replaceAll(/ +/g, " "));
}

function readEvent(input: unknown, path: string): TraceEvent {
  const event = record(input, path);
  switch (event["op"]) {
    case "ipvsadm":
      return {
        kind: "ipvsadm",
        line: string(event["args"], `${path}.args`),
        status: number(event["rc"], `${path}.rc`),
      };
    case "sh":
      return { kind: "shell", command: string(event["cmd"], `${path}.cmd`) };
    case "sysctl":
      return {
        kind: "sysctl",
        name: string(event["key"], `${path}.key`),
        value: number(event["value"], `${path}.value`),
      };
    case "sleep":
      return { kind: "sleep", seconds: number(event["s"], `${path}.s`) };
    case "pkt":
      return event["in_hex"] === undefined ? readPacket(event, path) : readFrame(event, path);
    case "snapshot":
      return {
        kind: "snapshot",
        services: list(event["services"], `${path}.services`).map((service, index) =>
          readService(service, `${path}.services[${index}]`),
        ),
      };
    case "conns":
      return { kind: "connections", connections: readConnections(event["conns"], `${path}.conns`) };
    default:
      throw new TraceError(`${path}.op`, event["op"], "ipvsadm, sh, sysctl, sleep, pkt, snapshot or conns");
  }
}

function readPacket(event: Readonly<Record<string, unknown>>, path: string): PacketEvent {
  const counts = event["ai"];
  return {
    kind: "packet",
    side: side(event["side"], `${path}.side`),
    protocol: string(event["proto"], `${path}.proto`),
    flags: event["flags"] === undefined ? "" : string(event["flags"], `${path}.flags`),
    ...(event["chunk"] !== undefined && { chunk: string(event["chunk"], `${path}.chunk`) }),
    source: string(event["src"], `${path}.src`),
    sourcePort: event["sport"] === undefined ? 0 : number(event["sport"], `${path}.sport`),
    destination: string(event["dst"], `${path}.dst`),
    destinationPort: event["dport"] === undefined ? 0 : number(event["dport"], `${path}.dport`),
    length: event["datalen"] === undefined ? 0 : number(event["datalen"], `${path}.datalen`),
    out: list(event["out"], `${path}.out`).map((out, index) => readOutgoing(out, `${path}.out[${index}]`)),
    picked: optionalNumber(event["picked"], `${path}.picked`),
    counts:
      counts === undefined || counts === null
        ? undefined
        : list(counts, `${path}.ai`).map((pair, index) => readPair(pair, `${path}.ai[${index}]`)),
  };
}

function readFrame(event: Readonly<Record<string, unknown>>, path: string): FrameEvent {
  return {
    kind: "frame",
    side: side(event["side"], `${path}.side`),
    bytes: hex(event["in_hex"], `${path}.in_hex`),
    out: list(event["out"], `${path}.out`).map((input, index) => {
      const out = record(input, `${path}.out[${index}]`);
      return {
        side: side(out["side"], `${path}.out[${index}].side`),
        bytes: hex(out["hex"], `${path}.out[${index}].hex`),
      };
    }),
  };
}

function readOutgoing(input: unknown, path: string): Outgoing {
  const out = record(input, path);
  const numbers = {
    real: optionalNumber(out["to_real"], `${path}.to_real`),
    sourcePort: optionalNumber(out["sport"], `${path}.sport`),
    destinationPort: optionalNumber(out["dport"], `${path}.dport`),
    protocol: optionalNumber(out["proto"], `${path}.proto`),
    ttl: optionalNumber(out["ttl"], `${path}.ttl`),
  };
  return {
    side: side(out["side"], `${path}.side`),
    ...Object.fromEntries(Object.entries(numbers).filter(([, value]) => value !== undefined)),
    ...(out["src"] !== undefined && { source: string(out["src"], `${path}.src`) }),
    ...(out["dst"] !== undefined && { destination: string(out["dst"], `${path}.dst`) }),
    ...(out["flags"] !== undefined && { flags: string(out["flags"], `${path}.flags`) }),
    ...(out["chunk"] !== undefined && { chunk: string(out["chunk"], `${path}.chunk`) }),
    ...(out["arp"] !== undefined && { arp: string(out["arp"], `${path}.arp`) }),
    ...(out["icmp"] !== undefined && { icmp: readPair(out["icmp"], `${path}.icmp`) }),
  };
}

function readConnections(input: unknown, path: string): ListedConnection[] {
  return list(input, path).map((connection, index) => readConnection(connection, `${path}[${index}]`));
}

function readConnection(input: unknown, path: string): ListedConnection {
  const connection = record(input, path);
  return {
    protocol: string(connection["proto"], `${path}.proto`).toLowerCase(),
    client: string(connection["c"], `${path}.c`),
    virtual: string(connection["v"], `${path}.v`),
    real: string(connection["d"], `${path}.d`),
    state: string(connection["state"], `${path}.state`),
    seconds: number(connection["expires"], `${path}.expires`),
  };
}

function readService(input: unknown, path: string): ListedService {
  const [title, realServers] = list(input, path);
  return {
    title: string(title, `${path}[0]`),
    realServers: list(realServers, `${path}[1]`).map((server, index) => {
      const at = `${path}[1][${index}]`;
      const [name, method, weight, active, inactive] = list(server, at);
      return [
        string(name, `${at}[0]`),
        string(method, `${at}[1]`),
        number(weight, `${at}[2]`),
        number(active, `${at}[3]`),
        number(inactive, `${at}[4]`),
      ] as const;
    }),
  };
}

function readPath(input: unknown, path: string): StatePath {
  const event = record(input, path);
  const [, state, timeout, active, inactive, out] = list(event["r"], `${path}.r`);
  return {
    steps: string(event["path"], `${path}.path`).split(" "),
    state: string(state, `${path}.r[1]`),
    timeout: number(timeout, `${path}.r[2]`),
    activeChange: number(active, `${path}.r[3]`),
    inactiveChange: number(inactive, `${path}.r[4]`),
    packetsOut: number(out, `${path}.r[5]`),
  };
}

// --------------------------------------------------------------------------------------------------- plain values

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch (error) {
    throw new TraceError("the file", String(error), "JSON");
  }
}

function record(input: unknown, path: string): Readonly<Record<string, unknown>> {
  if (typeof input !== "object" || input === null || Array.isArray(input)) {
    throw new TraceError(path, input, "an object");
  }
  return input as Readonly<Record<string, unknown>>;
}

function list(input: unknown, path: string): readonly unknown[] {
  if (!Array.isArray(input)) throw new TraceError(path, input, "a list");
  return input;
}

function string(input: unknown, path: string): string {
  if (typeof input !== "string") throw new TraceError(path, input, "a text");
  return input;
}

function hex(input: unknown, path: string): string {
  const text = string(input, path);
  if (!/^([0-9a-f]{2})+$/.test(text)) throw new TraceError(path, input, "bytes in hex");
  return text;
}

function number(input: unknown, path: string): number {
  if (typeof input !== "number") throw new TraceError(path, input, "a number");
  return input;
}

function optionalNumber(input: unknown, path: string): number | undefined {
  return input === undefined || input === null ? undefined : number(input, path);
}

function side(input: unknown, path: string): Side {
  if (input !== "c" && input !== "r") throw new TraceError(path, input, "c or r");
  return input;
}

function readPair(input: unknown, path: string): readonly [number, number] {
  const [first, second, ...more] = list(input, path);
  if (more.length > 0) throw new TraceError(path, input, "two numbers");
  return [number(first, `${path}[0]`), number(second, `${path}[1]`)];
}
