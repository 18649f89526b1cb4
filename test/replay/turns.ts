/** Where in its cycle a wrr service begins, which is all of it that may differ. */
import { realAddress } from "../packet/network.js";
import type { Director } from "./director.js";
import { type KernelService, serviceOf, type Tables } from "./tables.js";
import type { TraceEvent } from "./trace.js";

/**
 * Turns every wrr service's cycle to where the kernel's stands: of all rotations the one that gives the most of the real servers in a row
 * that the trace's connections get up to the next command. Returns whether there is one that is not turned at all.
 */
export function alignTurns(director: Director, events: readonly TraceEvent[]): boolean {
  let isTurned = false;
  for (const service of director.tables.services) {
    if (service.scheduler !== "wrr") continue;
    const turns = director.turns(service.key);
    const known = new Set(director.connections().map(({ client }) => client));
    const picks = nextPicks(director.tables, service, events, known);
    const fits = turns.map((_, slot) => {
      const wrong = picks.findIndex((pick, index) => turns[(slot + index) % turns.length] !== realAddress(pick));
      return wrong === -1 ? picks.length : wrong;
    });
    const slot = fits.indexOf(Math.max(...fits));
    if (slot > 0) isTurned = true;
    if (slot >= 0) director.turnTo(service.key, slot);
  }
  return isTurned;
}

/** The real servers that are scheduled of a service before the next command. */
function nextPicks(
  tables: Tables,
  service: KernelService,
  events: readonly TraceEvent[],
  known: Set<string>,
): number[] {
  const picks: number[] = [];
  for (const event of events) {
    if (event.kind === "ipvsadm") break;
    if (event.kind !== "packet" || event.side !== "c" || event.picked === undefined) continue;
    if (serviceOf(tables, event) !== service) continue;
    const client = clientOf(service, event.source, event.sourcePort);
    if (!known.has(client)) picks.push(event.picked);
    if (!service.onePacket || service.persistence !== undefined) known.add(client);
  }
  return picks;
}

/** As the list of connections names what makes another packet need no scheduling: its connection, or its template. */
function clientOf({ persistence }: KernelService, source: string, sourcePort: number): string {
  if (persistence === undefined) return `${source} ${sourcePort}`;
  const mask = String(persistence.netmask ?? "255.255.255.255").split(".");
  const network = source.split(".").map((byte, index) => Number(byte) & Number(mask[index] ?? 255));
  return `${network.join(".")} 0`;
}
