/** Connection states under the names that ipvsadm lists them by, their timeouts and the data plane's clock. */
import { ConnectionState } from "../../src/dataplane/sluice.bpf.js";

/** IPVS's defaults in seconds (net/netfilter/ipvs/ip_vs_proto_tcp.c, tcp_timeouts; ip_vs_proto_udp.c, ip_vs_proto_sctp.c), and of the entries that are no connections. */
export const TIMEOUTS = {
  NONE: 2,
  ESTABLISHED: 900,
  SYN_SENT: 120,
  SYN_RECV: 60,
  FIN_WAIT: 120,
  TIME_WAIT: 120,
  CLOSE: 10,
  CLOSE_WAIT: 60,
  LAST_ACK: 30,
  LISTEN: 120,
  SYNACK: 120,
  UDP: 300,
  ONE_PACKET: 30,
  SCTP_NONE: 2,
  SCTP_INIT1: 4,
  SCTP_INIT: 61,
  SCTP_COOKIE_SENT: 61,
  SCTP_COOKIE_REPLIED: 61,
  SCTP_COOKIE_WAIT: 61,
  SCTP_COOKIE: 61,
  SCTP_COOKIE_ECHOED: 61,
  SCTP_ESTABLISHED: 900,
  SCTP_SHUTDOWN_SENT: 61,
  SCTP_SHUTDOWN_RECEIVED: 61,
  SCTP_SHUTDOWN_ACK_SENT: 61,
  SCTP_REJECTED: 4,
  SCTP_CLOSED: 61,
  /** Of templates, whose time is their service's. */
  TEMPLATE: 0,
  TEMPLATE_ASSURED: 0,
} as const;
export type State = keyof typeof TIMEOUTS;
type TcpState = keyof typeof ConnectionState extends infer K ? (K extends `TCP_${infer Name}` ? Name : never) : never;

export function stateNumber(state: State): ConnectionState {
  if (state in ConnectionState) return ConnectionState[state as keyof typeof ConnectionState & State];
  return state === "UDP" ? ConnectionState.UDP_NORMAL : ConnectionState[`TCP_${state as TcpState}`];
}

const NAMES = new Map(Object.keys(TIMEOUTS).map((name) => [stateNumber(name as State), name as State]));

export function stateName(state: ConnectionState): State {
  const name = NAMES.get(state);
  if (name === undefined) throw new RangeError(`there is no connection state ${state}`);
  return name;
}

/** Which of a real server's two counts a connection is in (ip_vs_proto_tcp.c, tcp_state_active_table). */
export function isActive(state: State): boolean {
  return ["SYN_SENT", "SYN_RECV", "ESTABLISHED", "SYNACK", "SCTP_ESTABLISHED"].includes(state);
}

/** abi.h's TICK_SHIFT: ticks are CLOCK_MONOTONIC nanoseconds >> 22, 32 bits of them. */
const TICK_SHIFT = 22n;
export const TICK_SECONDS = 2 ** Number(TICK_SHIFT) / 1e9;

export function tickNow(): number {
  return Number((process.hrtime.bigint() >> TICK_SHIFT) & 0xffffffffn);
}

/** Which of the timeouts an `expires` was set by: the one that it is at most five seconds short of, since tests are not that fast. */
export function timeoutOf(expires: number): number | undefined {
  const left = ((expires - tickNow()) | 0) * TICK_SECONDS;
  return Object.values(TIMEOUTS).find((timeout) => timeout + 0.1 >= left && timeout - 5 < left);
}
