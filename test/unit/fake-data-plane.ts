import type { DataPlane } from "../../src/daemon/data-plane.js";
import type { ConnectionText } from "../../src/dataplane/connection-text.js";
import { readConnections } from "../../src/dataplane/connections.js";
import {
  type ConnectionFilter,
  type DesiredState,
  type Drops,
  EMPTY_STATE,
  realServerName,
  type ServiceCounters,
  serviceName,
} from "../../src/model/index.js";

/** A data plane in memory: remembers what was published, and fails when it is told to. */
export class FakeDataPlane implements DataPlane {
  published: DesiredState = EMPTY_STATE;
  publications = 0;
  /** Services whose counters were read. */
  readonly readings: string[] = [];
  closed = false;
  /** What it reads connections from: a file with text as the kernel's iterator makes it. */
  connectionsFile = "/dev/null";
  /** Thrown by the next publish. */
  failure: Error | undefined;
  /** Publications that have begun and not ended; more than one at a time is a fault of the caller. */
  underWay = 0;
  mostUnderWay = 0;

  async publish(desired: DesiredState): Promise<void> {
    this.underWay++;
    this.mostUnderWay = Math.max(this.mostUnderWay, this.underWay);
    await new Promise((resolve) => setImmediate(resolve));
    this.underWay--;
    const failure = this.failure;
    this.failure = undefined;
    if (failure !== undefined) {
      throw failure;
    }
    this.published = desired;
    this.publications++;
  }

  /** Every counter is the position of its service, in the order published, counted from 1. */
  serviceCounters(name: string): Promise<ServiceCounters | undefined> {
    this.readings.push(name);
    const index = this.published.services.findIndex((service) => serviceName(service) === name);
    const service = this.published.services[index];
    if (service === undefined) {
      return Promise.resolve(undefined);
    }
    const count = BigInt(index + 1);
    const traffic = { connections: count, inPackets: count, inBytes: count, outPackets: count, outBytes: count };
    const realServers = service.realServers.map((realServer, position) => {
      const load = { active: 2, inactive: 3, persistentConnections: 4, overloaded: position === 0 };
      // The second one's pool is half used.
      const ports = position === 1 ? { localPortsInUse: 5, localPorts: 10 } : {};
      return [realServerName(realServer), { ...traffic, ...load, ...ports }] as const;
    });
    return Promise.resolve({ ...traffic, realServers: new Map(realServers) });
  }

  drops(): Drops {
    return { no_real_server: { packets: 7n, bytes: 420n }, table_full: { packets: 0n, bytes: 0n } };
  }

  connections(filter: ConnectionFilter): AsyncIterable<ConnectionText> {
    return readConnections(this.connectionsFile, filter);
  }

  close(): Promise<void> {
    this.closed = true;
    return Promise.resolve();
  }
}
