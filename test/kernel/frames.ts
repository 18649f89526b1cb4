import { build, ETHERTYPE, type Ethernet, type Frame, type Ipv4, PROTOCOL, padded, type Tcp } from "../packet/frame.js";

const ethernet: Ethernet = { kind: "ethernet", destination: "02:00:00:00:00:01", source: "02:00:00:00:00:02" };
const ipv4: Ipv4 = { kind: "ipv4", source: "192.0.2.2", destination: "192.0.2.1" };
const syn: Tcp = { kind: "tcp", sourcePort: 49152, destinationPort: 443, flags: "S" };
const eightBytes = { kind: "payload", bytes: "0001020304050607" } as const;

const frames: Readonly<Record<string, Frame>> = {
  "an Ethernet header alone": [{ ...ethernet, type: ETHERTYPE.ipv4 }],
  "an ARP request": padded([
    { ...ethernet, destination: "ff:ff:ff:ff:ff:ff" },
    {
      kind: "arp",
      operation: 1,
      senderMac: ethernet.source,
      senderAddress: ipv4.source,
      targetMac: "00:00:00:00:00:00",
      targetAddress: ipv4.destination,
    },
  ]),
  "a TCP SYN": [ethernet, ipv4, syn],
  "a TCP SYN in a VLAN": [ethernet, { kind: "vlan", id: 100 }, ipv4, syn],
  "a UDP datagram": [ethernet, ipv4, { kind: "udp", sourcePort: 49152, destinationPort: 53 }, eightBytes],
  "an ICMP echo request": [ethernet, ipv4, { kind: "icmp", type: 8, code: 0, rest: 0x00010001 }, eightBytes],
  "a first fragment": [ethernet, { ...ipv4, protocol: PROTOCOL.udp, moreFragments: true }, eightBytes],
  "a last fragment": [ethernet, { ...ipv4, protocol: PROTOCOL.udp, fragmentOffset: 1480 }, eightBytes],
  "an IPIP packet": [ethernet, ipv4, ipv4, syn],
  "an IPv4 header that is cut short": [{ ...ethernet, type: ETHERTYPE.ipv4 }, eightBytes],
  "an IPv4 header of four words": [ethernet, { ...ipv4, headerLength: 4 }, syn],
  "a TCP segment over IPv6": [ethernet, { kind: "ipv6", source: "2001:db8::2", destination: "2001:db8::1" }, syn],
};

/** Frames that are not for us while no service is configured: a program must leave them to the host, byte for byte. */
export const foreignFrames: ReadonlyMap<string, Uint8Array> = new Map(
  Object.entries(frames).map(([name, frame]) => [name, build(frame)]),
);
