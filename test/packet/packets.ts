/** What the clients and real servers of these tests' network send, in short, and which real server it went to. */
import type { Bed, Method, RealServerSetup } from "./bed.js";
import { build, type Frame, type Layer } from "./frame.js";
import { CLIENT, INTERFACES, type InterfaceName, ROUTER_MAC, realAddress, realMac, VIP } from "./network.js";

/** Left out: CLIENT, port 1000, and VIP, port 80. */
export interface Ends {
  readonly client?: string;
  readonly port?: number;
  readonly vip?: string;
  readonly vport?: number;
}

export function real(n: number, method: Method, more: Partial<RealServerSetup> = {}): RealServerSetup {
  return { address: realAddress(n), method, hop: { mac: realMac(n) }, ...more };
}

function fromClient({ client = CLIENT, vip = VIP }: Ends, transport: Layer): Frame {
  return [
    { kind: "ethernet", destination: INTERFACES.c0.mac, source: ROUTER_MAC },
    { kind: "ipv4", source: client, destination: vip },
    transport,
  ];
}

/** A client's TCP segment. */
export function segment(flags: string, ends: Ends = {}): Frame {
  const { port = 1000, vport = 80 } = ends;
  return fromClient(ends, { kind: "tcp", sourcePort: port, destinationPort: vport, flags });
}

/** A client's UDP datagram. */
export function datagram(ends: Ends = {}): Frame {
  const { port = 1000, vport = 80 } = ends;
  return fromClient(ends, { kind: "udp", sourcePort: port, destinationPort: vport });
}

/** Whom a real server's packet is for; left out: CLIENT, port 1000, from port 80. */
export interface Answer {
  readonly to?: string;
  readonly port?: number;
  readonly rport?: number;
}

function fromReal(n: number, { to = CLIENT }: Answer, transport: Layer): Frame {
  return [
    { kind: "ethernet", destination: INTERFACES.r0.mac, source: realMac(n) },
    { kind: "ipv4", source: realAddress(n), destination: to },
    transport,
  ];
}

/** Real server n's TCP segment. */
export function answerSegment(n: number, flags: string, answer: Answer = {}): Frame {
  const { port = 1000, rport = 80 } = answer;
  return fromReal(n, answer, { kind: "tcp", sourcePort: rport, destinationPort: port, flags });
}

/** Real server n's UDP datagram. */
export function answerDatagram(n: number, answer: Answer = {}): Frame {
  const { port = 1000, rport = 80 } = answer;
  return fromReal(n, answer, { kind: "udp", sourcePort: rport, destinationPort: port });
}

/** The real server that a frame left for, by the MAC it has; or what became of it, with the reasons that were counted. */
export function pick(bed: Bed, frame: Frame, on: InterfaceName = "c0"): number | string {
  const { verdict, frame: out, counted } = bed.run(build(frame), on);
  if (verdict !== "redirect") return [verdict, ...Object.keys(counted.drops)].join(" ");
  return out[5] ?? 0;
}
