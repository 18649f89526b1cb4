/** Elements of the local_addresses map: the addresses that fullnat's connections come from. Connections name them by index. */
import { ADDRESS_BYTES, type Address, isUnspecified } from "./address.js";
import { AddressFamily } from "./sluice.bpf.js";
import type { ArrayMemory } from "./tables.js";

/** Undefined where the element is free. */
export function readLocalAddress(localAddresses: ArrayMemory, index: number): Address | undefined {
  const start = index * localAddresses.stride;
  const bytes = localAddresses.bytes.slice(start, start + ADDRESS_BYTES);
  if (isUnspecified(bytes)) {
    return undefined;
  }
  const family = isUnspecified(bytes.subarray(4)) ? AddressFamily.FAMILY_IPV4 : AddressFamily.FAMILY_IPV6;
  return { family, bytes };
}

export function writeLocalAddress(localAddresses: ArrayMemory, index: number, bytes: Uint8Array): void {
  localAddresses.bytes.set(bytes, index * localAddresses.stride);
}
