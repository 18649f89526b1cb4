/** How the kernel would forward to an address: the program resolve_route, run once a question. */
import { ADDRESS_BYTES, type Address } from "./address.js";
import { layout, type RouteVerdict } from "./sluice.bpf.js";

/** An answer of the program. What is not asked of it is not taken apart: most answers are the same as the last time. */
export class Route {
  readonly #bytes: Uint8Array;
  readonly verdict: RouteVerdict;
  /** 0 where there is no route. */
  readonly ifindex: number;

  constructor(answer: Uint8Array) {
    const copy = answer.slice(0, size);
    const words = new Uint32Array(copy.buffer);
    this.#bytes = copy;
    this.verdict = words[offsets.verdict / 4] as RouteVerdict;
    this.ifindex = words[offsets.ifindex / 4]!;
  }

  /** The next hop's own address: the destination where it is on link. */
  get gateway(): Uint8Array {
    return this.#bytes.subarray(offsets.gateway, offsets.gateway + ADDRESS_BYTES);
  }

  /** What this host would use as its own address; all zero where the kernel cannot tell. */
  get source(): Uint8Array {
    return this.#bytes.subarray(offsets.source, offsets.source + ADDRESS_BYTES);
  }

  get destinationMac(): Uint8Array {
    return this.#bytes.subarray(offsets.destination_mac, offsets.destination_mac + MAC_BYTES);
  }

  get sourceMac(): Uint8Array {
    return this.#bytes.subarray(offsets.source_mac, offsets.source_mac + MAC_BYTES);
  }

  get mtu(): number {
    return new Uint16Array(this.#bytes.buffer)[offsets.mtu / 2]!;
  }

  equals(other: Route): boolean {
    for (let at = 0; at < size; at++) {
      if (this.#bytes[at] !== other.#bytes[at]) {
        return false;
      }
    }
    return true;
  }
}

/** @param fromIfindex the route is that of a packet which comes in by this interface */
export type RouteLookup = (destination: Address, fromIfindex: number) => Route;

const { size, offsets } = layout.RouteRequest;
const MAC_BYTES = 6;

/** @param run runs the program with the request as its packet and returns the packet afterwards */
export function routeLookup(run: (request: Uint8Array) => Uint8Array): RouteLookup {
  const request = new Uint32Array(size / 4);
  const bytes = new Uint8Array(request.buffer);
  return (destination, fromIfindex) => {
    bytes.set(destination.bytes, offsets.destination);
    bytes[offsets.family] = destination.family;
    request[offsets.from_ifindex / 4] = fromIfindex;
    return new Route(run(bytes));
  };
}
