/** A service's ring: the sequence or table that the data plane indexes when a connection opens. */
import type { RealServer, VirtualService } from "../model/index.js";
import { foldAddress } from "./address.js";
import { DataPlaneError } from "./error.js";
import { defaultTableSize, fillTable } from "./mh.js";
import { interleave } from "./wrr.js";

/**
 * Compiles the ring of a service. A quiesced real server is in no ring.
 *
 * @param service what is wanted
 * @param serverIndexes for each of its real servers, the number that stands for it in the ring
 * @param currentLength slots of the ring that the service has now, 0 if none: an mh table of no stated size keeps it
 */
export function compileRing(service: VirtualService, serverIndexes: Uint32Array, currentLength: number): Uint32Array {
  // Positions in the service's list, of those that take part.
  const members: number[] = [];
  for (const [position, { weight }] of service.realServers.entries()) {
    if (weight > 0) {
      members.push(position);
    }
  }
  if (service.scheduler === "mh") {
    // IPVS puts a new real server at the head of its list, so those added last take their turns first.
    members.reverse();
  }
  const order = orderOf(service, members, currentLength);
  return order.map((member) => serverIndexes[members[member]!]!);
}

/** The ring as indexes into `members`. */
function orderOf(service: VirtualService, members: readonly number[], currentLength: number): Uint32Array {
  const realServers = members.map((position) => service.realServers[position]!);
  switch (service.scheduler) {
    case "rr":
      return Uint32Array.from(members.keys());
    case "wrr":
      return interleave(realServers.map(({ weight }) => weight));
    case "mh":
      return fillTable(realServers.map(endpoint), tableSize(service, currentLength));
    default:
      return service.scheduler satisfies never;
  }
}

function endpoint({ address, port, weight }: RealServer): { fold: number; port: number; weight: number } {
  return { fold: foldAddress(address), port, weight };
}

function tableSize(service: VirtualService, currentLength: number): number {
  const weights = service.realServers.map(({ weight }) => weight);
  const wanted = weights.length;
  const size = service.tableSize ?? defaultTableSize(weights, currentLength);
  if (wanted > size) {
    const message = `an mh table of ${String(size)} slots has no room for ${String(wanted)} real servers`;
    throw new DataPlaneError("TABLE_TOO_SMALL", message, {
      field: "table_size",
      wanted,
      available: size,
      remedy: "choose a larger table_size",
    });
  }
  return size;
}
