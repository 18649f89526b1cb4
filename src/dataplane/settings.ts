/** The one element of the settings map: what may change while the data plane runs. */
import type { Timeouts } from "../model/index.js";
import { ADDRESS_BYTES } from "./address.js";
import { Abi, ConnectionState, layout } from "./sluice.bpf.js";
import type { ArrayMemory } from "./tables.js";

const offsets = layout.Settings.offsets;

/** The states by the names of the configuration, of the protocols that the data plane knows. */
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
} as const satisfies Partial<Record<keyof Timeouts, number>>;

/** @param timeouts in seconds */
export function writeTimeouts(settings: ArrayMemory, timeouts: Timeouts): void {
  for (const [name, state] of Object.entries(STATE_OF_TIMEOUT)) {
    settings.u32[offsets.timeouts / 4 + state] = ticks(timeouts[name as keyof Timeouts]);
  }
}

/** Time in the connection table, rounded up: nanoseconds >> TICK_SHIFT. */
function ticks(seconds: number): number {
  return Math.ceil((seconds * 1e9) / 2 ** Abi.TICK_SHIFT);
}

export function readLocalAddressCount(settings: ArrayMemory): number {
  return settings.u32[offsets.local_addresses / 4]!;
}

export function writeLocalAddressCount(settings: ArrayMemory, count: number): void {
  Atomics.store(settings.u32, offsets.local_addresses / 4, count);
}

export function readLocalPorts(settings: ArrayMemory): readonly [first: number, last: number] {
  return [settings.u16[offsets.local_port_first / 2]!, settings.u16[offsets.local_port_last / 2]!];
}

export function writeLocalPorts(settings: ArrayMemory, [first, last]: readonly [number, number]): void {
  // Every state between two ranges must be a range: widen before narrowing.
  const [oldFirst] = readLocalPorts(settings);
  const firstAt = offsets.local_port_first / 2;
  const lastAt = offsets.local_port_last / 2;
  if (first <= oldFirst) {
    Atomics.store(settings.u16, firstAt, first);
    Atomics.store(settings.u16, lastAt, last);
  } else {
    Atomics.store(settings.u16, lastAt, last);
    Atomics.store(settings.u16, firstAt, first);
  }
}

export function readLocalAddress(localAddresses: ArrayMemory, index: number): Uint8Array {
  const start = index * localAddresses.stride;
  return localAddresses.bytes.slice(start, start + ADDRESS_BYTES);
}

export function writeLocalAddress(localAddresses: ArrayMemory, index: number, bytes: Uint8Array): void {
  localAddresses.bytes.set(bytes, index * localAddresses.stride);
}
