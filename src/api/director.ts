import type { ConnectionText } from "../dataplane/connection-text.js";
import type { Change, ConnectionFilter, DesiredState, Drops, ServiceCounters, VirtualService } from "../model/index.js";

/** What the API serves: the daemon, as far as the API is concerned. */
export interface Director {
  /** The state in force. */
  readonly desired: DesiredState;
  /** A service of it by serviceName. */
  service(name: string): VirtualService | undefined;
  /**
   * Changes the state. `decide` is called when all changes before have taken effect, so that it may rely on what it reads of the state;
   * what it throws is the answer, and nothing changes. `change` undefined: nothing to do. Resolves when the data plane forwards by
   * the new state; rejects, the old one being in force, where it could not be brought to.
   */
  change<Result>(decide: () => Decision<Result>): Promise<Result>;
  /** Of a service by serviceName, read from the data plane at the moment of the call; undefined where it has not counted for it. */
  serviceCounters(name: string): Promise<ServiceCounters | undefined>;
  drops(): Drops;
  /** Those that a filter selects, read as they are asked for: see readConnections. */
  connections(filter: ConnectionFilter): AsyncIterable<ConnectionText>;
}

export interface Decision<Result> {
  readonly change: Change | undefined;
  readonly result: Result;
}
