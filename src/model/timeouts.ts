import { formatDuration, readDuration } from "./duration.js";
import { field, readFields } from "./read.js";
import { at, type Path, type Violations } from "./violation.js";

/**
 * How long a connection in a state stays without a packet, in seconds: IPVS's states and defaults (net/netfilter/ipvs/ip_vs_proto_tcp.c,
 * tcp_timeouts; ip_vs_proto_udp.c, udp_timeouts; ip_vs_proto_sctp.c, sctp_timeouts). IPVS has no `one_packet`, for it does not
 * translate the replies to datagrams that are scheduled one by one.
 */
export const DEFAULT_TIMEOUTS = {
  tcp_none: 2,
  tcp_established: 900,
  tcp_syn_sent: 120,
  tcp_syn_recv: 60,
  tcp_fin_wait: 120,
  tcp_time_wait: 120,
  tcp_close: 10,
  tcp_close_wait: 60,
  tcp_last_ack: 30,
  tcp_listen: 120,
  tcp_synack: 120,
  udp: 300,
  sctp_none: 2,
  sctp_init1: 4,
  sctp_init: 61,
  sctp_cookie_sent: 61,
  sctp_cookie_replied: 61,
  sctp_cookie_wait: 61,
  sctp_cookie: 61,
  sctp_cookie_echoed: 61,
  sctp_established: 900,
  sctp_shutdown_sent: 61,
  sctp_shutdown_received: 61,
  sctp_shutdown_ack_sent: 61,
  sctp_rejected: 4,
  sctp_closed: 61,
  one_packet: 30,
} as const;
export type TimeoutName = keyof typeof DEFAULT_TIMEOUTS;
export const TIMEOUT_NAMES = Object.keys(DEFAULT_TIMEOUTS) as TimeoutName[];
/** Seconds by state. */
export type Timeouts = Readonly<Record<TimeoutName, number>>;
/** Those of one service; the global ones hold for the names that it has not. */
export type ServiceTimeouts = Readonly<Partial<Record<TimeoutName, number>>>;

/** All timeouts; those that are not given have their defaults. */
export function readTimeouts(input: unknown, path: Path, violations: Violations): Timeouts {
  return { ...DEFAULT_TIMEOUTS, ...readGivenTimeouts(input, path, violations) };
}

/** @param protocol the service's, whose timeouts alone have a meaning for it; undefined: any */
export function readServiceTimeouts(
  input: unknown,
  protocol: "tcp" | "udp" | "sctp" | undefined,
  path: Path,
  violations: Violations,
): ServiceTimeouts | undefined {
  const timeouts = readGivenTimeouts(input, path, violations);
  const names = Object.keys(timeouts) as TimeoutName[];
  for (const name of protocol === undefined ? [] : names) {
    if (protocolOf(name) !== protocol) {
      const own = TIMEOUT_NAMES.filter((other) => protocolOf(other) === protocol);
      const allowed = `some of ${own.join(", ")} with ${protocol}`;
      const problem = `is of ${protocolOf(name)}, not of ${protocol}; it takes ${allowed}`;
      violations.add("TIMEOUT_NOT_APPLICABLE", at(path, name), formatDuration(timeouts[name] ?? 0), allowed, problem);
    }
  }
  return names.length === 0 ? undefined : timeouts;
}

function protocolOf(name: TimeoutName): string {
  return name === "one_packet" ? "udp" : name.replace(/_.*/, "");
}

function readGivenTimeouts(input: unknown, path: Path, violations: Violations): ServiceTimeouts {
  const fields = input === undefined ? {} : (readFields(input, path, TIMEOUT_NAMES, violations) ?? {});
  const timeouts: Partial<Record<TimeoutName, number>> = {};
  for (const name of TIMEOUT_NAMES) {
    const given = field(fields, name);
    const seconds = given === undefined ? undefined : readDuration(given, at(path, name), violations);
    if (seconds !== undefined) {
      timeouts[name] = seconds;
    }
  }
  return timeouts;
}

export type PlainTimeouts = Readonly<Partial<Record<TimeoutName, string>>>;

export function plainTimeouts(timeouts: ServiceTimeouts): PlainTimeouts {
  return Object.fromEntries(Object.entries(timeouts).map(([name, seconds]) => [name, formatDuration(seconds)]));
}

/** Those that differ from the defaults. */
export function changedTimeouts(timeouts: Timeouts): ServiceTimeouts {
  return Object.fromEntries(
    TIMEOUT_NAMES.filter((name) => timeouts[name] !== DEFAULT_TIMEOUTS[name]).map((name) => [name, timeouts[name]]),
  );
}

export function sameTimeouts(a: ServiceTimeouts, b: ServiceTimeouts): boolean {
  return a === b || TIMEOUT_NAMES.every((name) => a[name] === b[name]);
}
