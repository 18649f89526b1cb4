import type { ConnectionText } from "../dataplane/connection-text.js";
import type {
  ConnectionFilter,
  DesiredState,
  Drops,
  InterfaceSettings,
  Limits,
  ServiceCounters,
} from "../model/index.js";
import type { Log } from "./log.js";

/** What the daemon needs of the data plane; src/dataplane has it, and tests have another. */
export interface DataPlane {
  /** Brings the data plane to `desired`: whole, or rejects and leaves it as it was. */
  publish(desired: DesiredState): Promise<unknown>;
  /** What a service, by its serviceName, has counted; undefined where the data plane does not serve it. */
  serviceCounters(name: string): Promise<ServiceCounters | undefined>;
  /** What was dropped. */
  drops(): Drops;
  /** The connections that a filter selects. */
  connections(filter: ConnectionFilter): AsyncIterable<ConnectionText>;
  /** Lets go of it. Everything stays pinned and goes on forwarding. */
  close(): Promise<void>;
}

export interface DataPlaneOptions {
  readonly instance: string;
  readonly interfaces: readonly InterfaceSettings[];
  readonly limits: Limits;
  /** Where the BPF file system is mounted. */
  readonly bpffs: string;
  /** Aborted when the daemon is to stop: opening and publishing reject with its reason instead of being waited for. */
  readonly signal: AbortSignal;
  readonly log: Log;
}

/** Loads the data plane or adopts what is pinned, and attaches it. */
export type OpenDataPlane = (options: DataPlaneOptions) => Promise<DataPlane>;
