/** Says when a fullnat real server is about to run out of local ports, before connections are refused for want of one. */
import type { Inventory } from "./inventory.js";
import { localPortCount } from "./local-pool.js";
import type { Logger } from "./log.js";
import { localPortsInUse, readLoad } from "./real-load.js";
import type { ArrayMemory } from "./tables.js";

/** Share in use from which on it is said: LOCAL_PORT_TRIES ports drawn at random find a free one all but always yet. */
const HIGH = 0.8;
/** Share below which it may be said again. */
const LOW = 0.75;

export class PoolWatch {
  readonly #realLoad: ArrayMemory;
  readonly #log: Logger;
  /** Indexes of real servers that it was said of. */
  #high = new Set<number>();

  constructor(realLoad: ArrayMemory, log: Logger) {
    this.#realLoad = realLoad;
    this.#log = log;
  }

  look({ services, poolRings }: Inventory): void {
    if (poolRings.size === 0) {
      return;
    }
    const high = new Set<number>();
    for (const service of services.values()) {
      for (const { index, name, pool, standing } of service.realServers.values()) {
        if (pool === undefined || standing !== "active") {
          continue;
        }
        const available = localPortCount(pool);
        const inUse = localPortsInUse(readLoad(this.#realLoad, index));
        const wasHigh = this.#high.has(index);
        if (available === 0 || inUse < available * (wasHigh ? LOW : HIGH)) {
          continue;
        }
        high.add(index);
        if (!wasHigh) {
          this.#log.warn(
            { service: service.name, realServer: name, inUse, available },
            `${String(inUse)} of ${String(available)} local ports towards ${name} are in use; give its pool more local_addresses or local_ports`,
          );
        }
      }
    }
    this.#high = high;
  }
}
