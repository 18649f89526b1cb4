/** How the kernel would forward to an address: the program resolve_route, run once a question. */
import { ADDRESS_BYTES, type Address } from "./address.js";
import { layout, type RouteVerdict } from "./sluice.bpf.js";

export interface Route {
  readonly verdict: RouteVerdict;
  /** 0 where there is no route. */
  readonly ifindex: number;
  /** The next hop's own address: the destination where it is on link. */
  readonly gateway: Uint8Array;
  /** What this host would use as its own address; all zero where the kernel cannot tell. */
  readonly source: Uint8Array;
  readonly destinationMac: Uint8Array;
  readonly sourceMac: Uint8Array;
  readonly mtu: number;
}

/** @param fromIfindex the route is that of a packet which comes in by this interface */
export type RouteLookup = (destination: Address, fromIfindex: number) => Route;

const { size, offsets } = layout.RouteRequest;
const MAC_BYTES = 6;

/** @param run runs the program with the request as its packet and returns the packet afterwards */
export function routeLookup(run: (request: Uint8Array) => Uint8Array): RouteLookup {
  return (destination, fromIfindex) => {
    // Fields are in the machine's byte order, as DataView is not unless told.
    const request = new Uint32Array(size / 4);
    const bytes = new Uint8Array(request.buffer);
    bytes.set(destination.bytes, offsets.destination);
    bytes[offsets.family] = destination.family;
    request[offsets.from_ifindex / 4] = fromIfindex;

    const answer = run(bytes).slice(0, size);
    const words = new Uint32Array(answer.buffer);
    const halves = new Uint16Array(answer.buffer);
    const part = (offset: number, length: number): Uint8Array => answer.subarray(offset, offset + length);
    return {
      verdict: words[offsets.verdict / 4] as RouteVerdict,
      ifindex: words[offsets.ifindex / 4]!,
      gateway: part(offsets.gateway, ADDRESS_BYTES),
      source: part(offsets.source, ADDRESS_BYTES),
      destinationMac: part(offsets.destination_mac, MAC_BYTES),
      sourceMac: part(offsets.source_mac, MAC_BYTES),
      mtu: halves[offsets.mtu / 2]!,
    };
  };
}
