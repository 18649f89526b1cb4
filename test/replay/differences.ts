/**
 * Where Sluice does otherwise than the kernel's IPVS, and a replay lets it pass: each with its reason, in one place. What is not here
 * fails the trace.
 */
import type { Fate } from "./director.js";
import type { KernelService } from "./tables.js";
import type { Outgoing, PacketEvent } from "./trace.js";

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

export const TWOS: Difference = {
  name: "twos draws its own random numbers",
  reason: "which two servers it draws cannot be the kernel's draws; that the less loaded wins is tested by itself.",
};

export const LAST_SERVICE: Difference = {
  name: "a removed service's connections are dropped also when it was the last",
  reason:
    "the kernel takes its hooks out with the last service: clients' packets reach the local stack, which refuses them, and replies reach the clients from an address they do not know. What becomes of a connection should not depend on whether some other " +
    "service is there; removed_connections says what it is.",
};

export const STALE_ROUTE: Difference = {
  name: "a server that comes back by another method gets its packets",
  reason:
    "the kernel goes on with the route of the connections by NAT and asks by ARP for the VIP on the real servers' side, where nobody " +
    "has it.",
};

export const ONE_PACKET_REPLIES: Difference = {
  name: "replies of one-packet scheduling by nat are translated",
  reason:
    "the kernel forgets a packet of one-packet scheduling with its forwarding, so that the client gets the reply from an address that it " +
    "did not ask.",
};

export const INVALID_TEMPLATE: Difference = {
  name: "a template that may lead no more connections is not listed",
  reason:
    "the kernel gives it port 65535, by which nothing finds it, and lists and counts it until its time is over. Here the client's next " +
    "connection takes it to another real server, and while there is none it waits for its own.",
};

/** All of them, for who wants to list them. */
export const DIFFERENCES: readonly Difference[] = [
  WRR_ROTATION,
  TWOS,
  LAST_SERVICE,
  STALE_ROUTE,
  ONE_PACKET_REPLIES,
  INVALID_TEMPLATE,
];

/** The documented difference that explains why a packet did not come out as in the trace; `earlier` are those that its trace has met. */
export function explain(
  packet: PacketEvent,
  fate: Fate,
  services: readonly KernelService[],
  earlier: ReadonlySet<Difference>,
): Difference | undefined {
  const [answer, ...more] = packet.out;
  if (answer === undefined && earlier.has(STALE_ROUTE) && isGivenUp(packet, fate)) return STALE_ROUTE;
  if (answer === undefined || more.length > 0) return undefined;
  switch (fate.verdict) {
    case "pass":
      return undefined;
    case "drop":
      return fate.reason === "real_server_removed" && services.length === 0 && isRefusal(packet, answer)
        ? LAST_SERVICE
        : undefined;
    case "forward":
      if (packet.side === "c" && answer.arp !== undefined) return STALE_ROUTE;
      if (services.length === 0 && isRouted(packet, answer)) return LAST_SERVICE;
      return packet.protocol === "udp" && services.some(isOnePacketOf(packet, fate.out)) && isRouted(packet, answer)
        ? ONE_PACKET_REPLIES
        : undefined;
    default:
      return fate satisfies never;
  }
}

/** While its questions are not answered the kernel drops what would go by them: dr's packets, which are still to the VIP. */
function isGivenUp({ side, destination }: PacketEvent, fate: Fate): boolean {
  return side === "c" && fate.verdict === "forward" && fate.out.destination === destination;
}

/** A reset, or ICMP port unreachable, from where the packet was sent to. */
function isRefusal(packet: PacketEvent, { source, sourcePort, flags, icmp }: Outgoing): boolean {
  const resets = sourcePort === packet.destinationPort && flags?.includes("R") === true;
  return source === packet.destination && (resets || (icmp?.[0] === 3 && icmp[1] === 3));
}

/** Whether a packet of a real server went through the director as any other. */
function isRouted({ side, source, destination }: PacketEvent, answer: Outgoing): boolean {
  return side === "r" && answer.side === "c" && answer.source === source && answer.destination === destination;
}

/** Whether what came of a real server's packet is a reply of the service's to that client. */
function isOnePacketOf({ source, destination }: PacketEvent, out: Outgoing): (service: KernelService) => boolean {
  return ({ key, onePacket, realServers }) =>
    onePacket &&
    out.destination === destination &&
    (key.address === undefined || key.address === out.source) &&
    realServers.some(({ address, method }) => address === source && method === "nat");
}
