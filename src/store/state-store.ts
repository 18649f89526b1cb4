import { afterChange, type Change, type DesiredState, serviceName, type VirtualService } from "../model/index.js";

/**
 * Where the desired state is kept.
 *
 * Which source wins: the YAML file. It is read when the daemon starts and on SIGHUP, and replaces what the store holds, changes made over
 * the API since included. A store that outlives the daemon (SQLite, etcd) fits behind the same interface: a change names the one
 * row that it writes.
 */
export interface StateStore {
  /** The state in force. */
  readonly desired: DesiredState;
  /** Counts changes; the state that the store was opened with has revision 1. */
  readonly revision: number;
  /** A service of `desired` by serviceName, in constant time. */
  service(name: string): VirtualService | undefined;
  /** The state that `change` leads to from `desired`. Changes nothing. */
  preview(change: Change): DesiredState;
  /** Makes what preview returned for `change` the state in force; resolves when that would survive what the store survives. */
  commit(change: Change, next: DesiredState): Promise<void>;
}

/** Survives nothing: the YAML file is read again at the next start. */
export class MemoryStore implements StateStore {
  #desired: DesiredState;
  #revision = 1;
  #services: Map<string, VirtualService>;

  constructor(desired: DesiredState) {
    this.#desired = desired;
    this.#services = byName(desired);
  }

  get desired(): DesiredState {
    return this.#desired;
  }

  get revision(): number {
    return this.#revision;
  }

  service(name: string): VirtualService | undefined {
    return this.#services.get(name);
  }

  preview(change: Change): DesiredState {
    return afterChange(this.#desired, change, this.#existing(change));
  }

  commit(change: Change, next: DesiredState): Promise<void> {
    switch (change.kind) {
      case "put":
        this.#services.set(serviceName(change.service), change.service);
        break;
      case "remove":
        this.#services.delete(change.name);
        break;
      case "configure":
        break;
      case "replace":
        this.#services = byName(next);
        break;
    }
    this.#desired = next;
    this.#revision++;
    return Promise.resolve();
  }

  #existing(change: Change): VirtualService | undefined {
    switch (change.kind) {
      case "put":
        return this.#services.get(serviceName(change.service));
      case "remove":
        return this.#services.get(change.name);
      case "configure":
      case "replace":
        return undefined;
    }
  }
}

function byName(desired: DesiredState): Map<string, VirtualService> {
  return new Map(desired.services.map((service) => [serviceName(service), service]));
}
