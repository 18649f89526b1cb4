/** The addresses that this host has on its interfaces. */
import { networkInterfaces } from "node:os";
import { interfaceName } from "libbpf-ts";
import { type Address, parseAddress } from "./address.js";
import { AddressFamily } from "./sluice.bpf.js";

/** An address of this host, and the mask of the subnet that it lies in. */
export interface Subnet {
  readonly address: Uint8Array;
  readonly mask: Uint8Array;
}

/** Of an interface's addresses those of one family; none where the interface has gone. */
export function subnetsOf(ifindex: number, family: AddressFamily): readonly Subnet[] {
  const wanted = family === AddressFamily.FAMILY_IPV6 ? "IPv6" : "IPv4";
  return (networkInterfaces()[nameOf(ifindex)] ?? [])
    .filter((candidate) => candidate.family === wanted)
    .map(({ address, netmask }) => ({ address: parseAddress(address).bytes, mask: parseAddress(netmask).bytes }));
}

function nameOf(ifindex: number): string {
  try {
    return interfaceName(ifindex);
  } catch {
    return "";
  }
}

export function isWithin(bytes: Uint8Array, { address, mask }: Subnet): boolean {
  return bytes.every((byte, index) => ((byte ^ address[index]!) & mask[index]!) === 0);
}

/**
 * The address that this host uses on an interface, for kernels whose route lookup does not say (before Linux 6.7). Prefers one of the
 * gateway's subnet; undefined where the interface has none of its family.
 */
export function sourceAddress(ifindex: number, gateway: Address): Uint8Array | undefined {
  const candidates = subnetsOf(ifindex, gateway.family);
  return (candidates.find((subnet) => isWithin(gateway.bytes, subnet)) ?? candidates[0])?.address;
}
