/** From the configuration's limits to the sizes of the maps, and back for messages. */
import type { Limits } from "../model/index.js";
import { DataPlaneError } from "./error.js";
import { CHUNK_SLOTS } from "./ring-record.js";

/**
 * Entries that a bucket holds when the table is filled to its configured capacity. A bucket has 16 slots and each entry may
 * lie in either of two; at this load fewer than one insert in a million finds no room.
 */
export const ENTRIES_PER_BUCKET = 12.15;

interface Sizing {
  readonly limit: keyof Limits;
  /** How many of what the limit counts one element holds. */
  readonly perElement: number;
  /** Elements at least, however small the limit. */
  readonly least?: number;
}

const CONNECTIONS: Sizing = { limit: "connections", perElement: ENTRIES_PER_BUCKET };
const SERVICES: Sizing = { limit: "services", perElement: 1 };
const REAL_SERVERS: Sizing = { limit: "realServers", perElement: 1 };
/**
 * lblc and lblcr keep one entry for each destination address, of which a service has one. The rest leaves room for the entries
 * of services that were removed, and for the free nodes that the kernel's LRU keeps for each processor.
 */
const DESTINATIONS: Sizing = { limit: "services", perElement: 1 / 4, least: 1024 };

/** Maps whose size is the configuration's. All others have the size that bpf/maps.h says. */
const SIZING: Readonly<Record<string, Sizing>> = {
  connection_table: CONNECTIONS,
  services: SERVICES,
  service_index: SERVICES,
  retired_counters: SERVICES,
  vips: SERVICES,
  cursors: SERVICES,
  destinations: DESTINATIONS,
  real_servers: REAL_SERVERS,
  real_load: REAL_SERVERS,
  real_counters: REAL_SERVERS,
  local_pools: REAL_SERVERS,
  // A real server of a firewall mark has one for each protocol.
  nat_endpoints: { limit: "realServers", perElement: 1 / 3 },
  rings: { limit: "ringSlots", perElement: CHUNK_SLOTS },
};

/** As the configuration spells them. */
const FIELDS: Readonly<Record<keyof Limits, string>> = {
  connections: "limits.connections",
  services: "limits.services",
  realServers: "limits.real_servers",
  ringSlots: "limits.ring_slots",
};

/** Elements of the map, or undefined where its size is fixed. */
export function mapSize(map: string, limits: Limits): number | undefined {
  const sizing = SIZING[map];
  return sizing === undefined
    ? undefined
    : Math.max(sizing.least ?? 1, Math.ceil(limits[sizing.limit] / sizing.perElement));
}

/** The refusal to go on with a running map of another size. */
export function limitsDiffer(map: string, running: number, limits: Limits): DataPlaneError {
  const sizing = SIZING[map];
  if (sizing === undefined) {
    return new DataPlaneError(
      "ABI_DIFFERS",
      `the running map ${map} has ${String(running)} elements, this build's another number`,
      {
        remedy: REMEDY,
      },
    );
  }
  const field = FIELDS[sizing.limit];
  const wanted = limits[sizing.limit];
  // A map's size stands for all limits that round up to it; which of them was configured, the map does not say.
  const least = Math.floor((running - 1) * sizing.perElement) + 1;
  const available = Math.floor(running * sizing.perElement);
  const loaded = least === available ? String(available) : `a value from ${String(least)} to ${String(available)}`;
  const message = `${field} is ${String(wanted)}, but the data plane was loaded with ${loaded}, which only a new load can change`;
  return new DataPlaneError("LIMITS_DIFFER", message, {
    field,
    wanted,
    available,
    remedy: `set it to what it was then, or run \`sluice unload\`, which interrupts traffic, and start again`,
  });
}

export const REMEDY = "run `sluice unload`, which interrupts traffic, and start again";
