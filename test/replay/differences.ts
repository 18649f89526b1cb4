/**
 * Where Sluice does otherwise than the kernel's IPVS, and a replay lets it pass: each with its reason, in one place. What is not here
 * fails the trace.
 */
import type { Outgoing, PacketEvent } from "./trace.js";

/** What became of a packet, and what the trace has for it. */
export interface Outcome {
  readonly packet: PacketEvent;
  readonly verdict: "drop" | "pass" | "forward";
  /** Why it was dropped. */
  readonly reason: string | undefined;
  /** How many there are. */
  readonly services: number;
}

export interface Difference {
  readonly name: string;
  readonly reason: string;
}

export const WRR_ROTATION: Difference = {
  name: "wrr begins elsewhere in its cycle",
  reason:
    "the cycle begins at the heaviest real server (AABABCABC for weights 4, 3, 2); the kernel's begins where adding the servers one by " +
    "one left its current weight. The order within the cycle is the same.",
};

export const NO_ICMP: Difference = {
  name: "no ICMP where no real server is available",
  reason:
    "the packet is dropped and counted as no_real_server; ICMP port unreachable comes with the ICMP of the data plane.",
};

export const TWOS: Difference = {
  name: "twos draws its own random numbers",
  reason: "which two servers it draws cannot be the kernel's draws; that the less loaded wins is tested by itself.",
};

const PROTOCOL_ICMP = 1;
const DESTINATION_UNREACHABLE = 3;
const PORT_UNREACHABLE = 3;

export const LAST_SERVICE: Difference = {
  name: "a removed service's connections are dropped also when it was the last",
  reason:
    "the kernel takes its hooks out with the last service, and the clients' packets reach the local stack, which resets their connections; " +
    "what becomes of a connection should not depend on whether some other service is there.",
};

export const STALE_ROUTE: Difference = {
  name: "a server that comes back by another method gets its packets",
  reason:
    "the kernel goes on with the route of the connections by NAT and asks by ARP for the VIP on the real servers' side, where nobody has it.",
};

export const SWEPT: Difference = {
  name: "counts fall when expired connections are swept",
  reason:
    "an expired connection is absent at once, and is taken off its server's counts when it is met or swept, some seconds later; the kernel has " +
    "a timer for each. The replayer sweeps after every sleep.",
};

/** All of them, for who wants to list them. */
export const DIFFERENCES: readonly Difference[] = [WRR_ROTATION, TWOS, NO_ICMP, LAST_SERVICE, STALE_ROUTE, SWEPT];

/** The documented difference that explains why a packet did not come out as in the trace. */
export function explain({ packet, verdict, reason, services }: Outcome): Difference | undefined {
  const [answer, ...more] = packet.out;
  if (answer === undefined || more.length > 0) return undefined;
  if (verdict === "drop" && reason === "no_real_server" && isPortUnreachable(answer)) return NO_ICMP;
  if (verdict === "drop" && reason === "real_server_removed" && services === 0 && isReset(packet, answer)) {
    return LAST_SERVICE;
  }
  return verdict === "forward" && packet.side === "c" && answer.arp !== undefined ? STALE_ROUTE : undefined;
}

function isPortUnreachable({ protocol, icmp }: Outgoing): boolean {
  return protocol === PROTOCOL_ICMP && icmp?.[0] === DESTINATION_UNREACHABLE && icmp[1] === PORT_UNREACHABLE;
}

function isReset(packet: PacketEvent, { source, sourcePort, flags }: Outgoing): boolean {
  return source === packet.destination && sourcePort === packet.destinationPort && flags?.includes("R") === true;
}
