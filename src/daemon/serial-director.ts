import type { Decision, Director } from "../api/director.js";
import { StoppingError } from "../api/status.js";
import type { ConnectionText } from "../dataplane/connection-text.js";
import {
  type Change,
  type ConnectionFilter,
  type DesiredState,
  type DirectorSettings,
  type Drops,
  type ServiceCounters,
  serviceName,
  type VirtualService,
} from "../model/index.js";
import type { StateStore } from "../store/state-store.js";
import type { DataPlane } from "./data-plane.js";
import type { Log } from "./log.js";

/**
 * The one way in which the state changes, whoever asks: one change after another, each first brought to the data plane and then to the
 * store. Where either fails, both are as before.
 */
export class SerialDirector implements Director {
  readonly #store: StateStore;
  readonly #dataPlane: DataPlane;
  readonly #log: Log;
  #turn: Promise<unknown> = Promise.resolve();
  #stopping = false;

  constructor(store: StateStore, dataPlane: DataPlane, log: Log) {
    this.#store = store;
    this.#dataPlane = dataPlane;
    this.#log = log;
  }

  get desired(): DesiredState {
    return this.#store.desired;
  }

  service(name: string): VirtualService | undefined {
    return this.#store.service(name);
  }

  serviceCounters(name: string): Promise<ServiceCounters | undefined> {
    return this.#dataPlane.serviceCounters(name);
  }

  drops(): Drops {
    return this.#dataPlane.drops();
  }

  connections(filter: ConnectionFilter): AsyncIterable<ConnectionText> {
    return this.#dataPlane.connections(filter);
  }

  change<Result>(decide: () => Decision<Result>): Promise<Result> {
    const turn = this.#turn.then(() => this.#take(decide));
    // Whoever asked hears of a failure; whoever comes next does not.
    this.#turn = turn.catch(() => undefined);
    return turn;
  }

  /** Lets the changes under way end and refuses all others. */
  async stop(): Promise<void> {
    this.#stopping = true;
    await this.#turn;
  }

  async #take<Result>(decide: () => Decision<Result>): Promise<Result> {
    if (this.#stopping) {
      throw new StoppingError();
    }
    const { change, result } = decide();
    if (change === undefined) {
      return result;
    }
    const before = this.#store.desired;
    const next = this.#store.preview(change);
    const start = performance.now();
    await this.#dataPlane.publish(next);
    try {
      await this.#store.commit(change, next);
    } catch (error) {
      await this.#dataPlane.publish(before);
      throw error;
    }
    const milliseconds = Math.round((performance.now() - start) * 1000) / 1000;
    this.#log.info({ ...described(change, before), revision: this.#store.revision, milliseconds }, "changed");
    return result;
  }
}

function described(change: Change, before: DesiredState): Readonly<Record<string, unknown>> {
  switch (change.kind) {
    case "put":
      return { change: change.kind, service: serviceName(change.service) };
    case "remove":
      return { change: change.kind, service: change.name };
    case "configure":
      return { change: change.kind, changed: changedSections(before, change.settings) };
    case "replace":
      return { change: change.kind, services: change.desired.services.length };
  }
}

/** By identity: what does not change stays the same object. */
function changedSections(before: DirectorSettings, after: DirectorSettings): string[] {
  const sections = ["settings", "timeouts", "marks", "fullnat", "pools"] as const;
  return sections.filter((name) => before[name] !== after[name]);
}
