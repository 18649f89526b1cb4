/** The address that this host uses on an interface, for kernels whose route lookup does not say (before Linux 6.7). */
import { networkInterfaces } from "node:os";
import { interfaceName } from "libbpf-ts";
import { type Address, parseAddress } from "./address.js";
import { AddressFamily } from "./sluice.bpf.js";

/** Prefers an address of the gateway's subnet; undefined where the interface has none of its family. */
export function sourceAddress(ifindex: number, gateway: Address): Uint8Array | undefined {
  const family = gateway.family === AddressFamily.FAMILY_IPV6 ? "IPv6" : "IPv4";
  const candidates = (networkInterfaces()[interfaceName(ifindex)] ?? [])
    .filter((candidate) => candidate.family === family)
    .map(({ address, netmask }) => ({ address: parseAddress(address).bytes, mask: parseAddress(netmask).bytes }));
  const onLink = candidates.find(({ address, mask }) =>
    address.every((byte, index) => ((byte ^ gateway.bytes[index]!) & mask[index]!) === 0),
  );
  return (onLink ?? candidates[0])?.address;
}
