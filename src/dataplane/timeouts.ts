/** Elements of the timeouts map: sets of them, which real servers name by index. Set 0 is the global one. */
import type { Timeouts } from "../model/index.js";
import { toTicks } from "./clock.js";
import { ConnectionState } from "./sluice.bpf.js";
import type { ArrayMemory } from "./tables.js";

export const GLOBAL_TIMEOUTS = 0;

/** In ticks, by connection state. */
export type TimeoutSet = Uint32Array;

/** The states by the names of the configuration. */
const STATE_OF_TIMEOUT = {
  tcp_none: ConnectionState.TCP_NONE,
  tcp_established: ConnectionState.TCP_ESTABLISHED,
  tcp_syn_sent: ConnectionState.TCP_SYN_SENT,
  tcp_syn_recv: ConnectionState.TCP_SYN_RECV,
  tcp_fin_wait: ConnectionState.TCP_FIN_WAIT,
  tcp_time_wait: ConnectionState.TCP_TIME_WAIT,
  tcp_close: ConnectionState.TCP_CLOSE,
  tcp_close_wait: ConnectionState.TCP_CLOSE_WAIT,
  tcp_last_ack: ConnectionState.TCP_LAST_ACK,
  tcp_listen: ConnectionState.TCP_LISTEN,
  tcp_synack: ConnectionState.TCP_SYNACK,
  udp: ConnectionState.UDP_NORMAL,
  sctp_none: ConnectionState.SCTP_NONE,
  sctp_init1: ConnectionState.SCTP_INIT1,
  sctp_init: ConnectionState.SCTP_INIT,
  sctp_cookie_sent: ConnectionState.SCTP_COOKIE_SENT,
  sctp_cookie_replied: ConnectionState.SCTP_COOKIE_REPLIED,
  sctp_cookie_wait: ConnectionState.SCTP_COOKIE_WAIT,
  sctp_cookie: ConnectionState.SCTP_COOKIE,
  sctp_cookie_echoed: ConnectionState.SCTP_COOKIE_ECHOED,
  sctp_established: ConnectionState.SCTP_ESTABLISHED,
  sctp_shutdown_sent: ConnectionState.SCTP_SHUTDOWN_SENT,
  sctp_shutdown_received: ConnectionState.SCTP_SHUTDOWN_RECEIVED,
  sctp_shutdown_ack_sent: ConnectionState.SCTP_SHUTDOWN_ACK_SENT,
  sctp_rejected: ConnectionState.SCTP_REJECTED,
  sctp_closed: ConnectionState.SCTP_CLOSED,
  one_packet: ConnectionState.ONE_PACKET,
} as const satisfies Record<keyof Timeouts, ConnectionState>;

/** @param timeouts in seconds */
export function compileTimeouts(timeouts: Timeouts): TimeoutSet {
  const set = new Uint32Array(ConnectionState.CONNECTION_STATES);
  for (const [name, state] of Object.entries(STATE_OF_TIMEOUT)) {
    set[state] = toTicks(timeouts[name as keyof Timeouts]);
  }
  return set;
}

export function readTimeouts(timeouts: ArrayMemory, index: number): TimeoutSet {
  const start = (index * timeouts.stride) / 4;
  return timeouts.u32.slice(start, start + ConnectionState.CONNECTION_STATES);
}

export function writeTimeouts(timeouts: ArrayMemory, index: number, set: TimeoutSet): void {
  timeouts.u32.set(set, (index * timeouts.stride) / 4);
}
