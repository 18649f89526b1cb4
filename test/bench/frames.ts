/** The packets of the rows: frames of 64 bytes, the smallest that count as whole packets with their FCS cut off. */
import { build, counting, type Layer } from "../packet/frame.js";
import { INTERFACES, ROUTER_MAC } from "../packet/network.js";

const ETHERNET: Layer = { kind: "ethernet", destination: INTERFACES.c0.mac, source: ROUTER_MAC };

function filled(layers: readonly Layer[]): Uint8Array {
  return build([...layers, { kind: "payload", bytes: counting(64 - build(layers).length) }]);
}

/** `flags` as in packet/frame.ts: S, SA, A. The prelude replaces addresses and ports. */
export function tcpFrame(source: string, destination: string, destinationPort: number, flags: string): Uint8Array {
  return filled([
    ETHERNET,
    { kind: "ipv4", source, destination, dontFragment: true },
    { kind: "tcp", sourcePort: 0x8000, destinationPort, sequence: 1000, flags, window: 502 },
  ]);
}

export function udpFrame(source: string, destination: string, destinationPort: number): Uint8Array {
  return filled([
    ETHERNET,
    { kind: "ipv4", source, destination, dontFragment: true },
    { kind: "udp", sourcePort: 0x8000, destinationPort },
  ]);
}

export function echoFrame(source: string, destination: string): Uint8Array {
  return filled([
    ETHERNET,
    { kind: "ipv4", source, destination, dontFragment: true },
    { kind: "icmp", type: 8, code: 0, rest: 0x0001_0001 },
  ]);
}
