/** A service's ring: the sequence, table or list that the data plane reads when a connection opens. */
import type { RealServer, VirtualService } from "../model/index.js";
import { foldAddress } from "./address.js";
import { fillByRuns, fillInTurn } from "./bucket-table.js";
import { DataPlaneError } from "./error.js";
import { defaultTableSize, fillTable } from "./mh.js";
import { interleave } from "./wrr.js";

/**
 * Compiles the ring of a service. All schedulers take the service's list of real servers as IPVS takes its own, head first, and give the
 * slots that IPVS gives.
 *
 * A quiesced real server has no turn with rr and wrr. With all others it stays in the ring and the data plane passes it over: with mh, so that
 * its clients come back to it; with the rest as in IPVS, so that a change of weights alone writes no ring where weights are not what a ring
 * is made of.
 *
 * @param service what is wanted
 * @param serverIndexes for each of its real servers, the number that stands for it in the ring
 * @param lastWeights for each of its real servers the last weight above 0, 0 where there was none: what mh goes by
 * @param currentLength slots of the ring that the service has now, 0 if none: an mh table of no stated size keeps it
 */
export function compileRing(
  service: VirtualService,
  serverIndexes: Uint32Array,
  lastWeights: Uint32Array,
  currentLength: number,
): Uint32Array {
  const { scheduler, realServers } = service;
  const weights = realServers.map(({ weight }) => weight);
  switch (scheduler) {
    case "rr":
      return serverIndexes.filter((_, position) => weights[position]! > 0);
    case "wrr": {
      const members = serverIndexes.filter((_, position) => weights[position]! > 0);
      return interleave(weights.filter((weight) => weight > 0)).map((member) => members[member]!);
    }
    case "mh": {
      const endpoints = realServers.map(({ address, port }: RealServer, position) => {
        return { fold: foldAddress(address), port, weight: lastWeights[position]! };
      });
      const size = tableSize(service, lastWeights, currentLength);
      return fillTable(endpoints, size).map((position) => serverIndexes[position]!);
    }
    case "sh":
      return fillByRuns(weights).map((position) => serverIndexes[position]!);
    case "dh":
      return fillInTurn(weights.length).map((position) => serverIndexes[position]!);
    case "lc":
    case "wlc":
    case "sed":
    case "nq":
    case "lblc":
    case "lblcr":
    case "fo":
    case "ovf":
    case "twos":
      return serverIndexes;
    default:
      return scheduler satisfies never;
  }
}

function tableSize(service: VirtualService, lastWeights: Uint32Array, currentLength: number): number {
  const wanted = lastWeights.length;
  const size = service.tableSize ?? defaultTableSize([...lastWeights], currentLength);
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
