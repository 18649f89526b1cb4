/**
 * The parts of a plan that are about elements which several services may have: the addresses of services, and the endpoints of nat real
 * servers. Elements that go make room for those that come.
 */
import { formatAddress } from "./address.js";
import { endpointKeys, endpointText } from "./endpoint.js";
import type { InstalledEndpoint, InstalledRealServer, InstalledVip, Inventory } from "./inventory.js";
import { isMark } from "./service-key.js";
import type { ServiceKey } from "./sluice.bpf.js";
import type { Write } from "./write.js";
import type { PhasedWrites } from "./writes.js";

export class VipPlanner {
  readonly #inventory: Inventory;
  readonly #vips = new Map<string, InstalledVip>();

  constructor(inventory: Inventory) {
    this.#inventory = inventory;
  }

  count(key: ServiceKey, change: 1 | -1): void {
    if (isMark(key)) {
      return;
    }
    const { family, vip } = key;
    const text = formatAddress({ family, bytes: vip.bytes });
    const none = { family, bytes: vip.bytes, services: 0, stored: 0 };
    const known = this.#vips.get(text) ?? this.#inventory.vips.get(text) ?? none;
    this.#vips.set(text, { ...known, services: known.services + change });
  }

  addTo(writes: PhasedWrites): void {
    // Right after a start, counts that a former process left wrong are put right.
    const { published, vips } = this.#inventory;
    const candidates = published === undefined ? new Map([...vips, ...this.#vips]) : this.#vips;
    for (const [text, vip] of candidates) {
      const { family, bytes, services, stored } = vip;
      if (services !== stored) {
        const write: Write = { kind: "vip", key: { address: { bytes }, family }, services };
        (services < stored ? writes.free : writes.take).push(write);
        this.#vips.set(text, { ...vip, stored: services });
      }
    }
  }

  commit(): void {
    for (const [text, vip] of this.#vips) {
      if (vip.services > 0) {
        this.#inventory.vips.set(text, vip);
      } else {
        this.#inventory.vips.delete(text);
      }
    }
  }
}

type Endpoint = Pick<InstalledRealServer, "index" | "address" | "port">;

export class EndpointPlanner {
  readonly #inventory: Inventory;
  readonly #endpoints = new Map<string, InstalledEndpoint>();

  constructor(inventory: Inventory) {
    this.#inventory = inventory;
  }

  add(service: ServiceKey, realServer: Endpoint): void {
    this.#change(service, realServer, (indexes) => [...indexes, realServer.index]);
  }

  remove(service: ServiceKey, realServer: Endpoint): void {
    this.#change(service, realServer, (indexes) => indexes.filter((index) => index !== realServer.index));
  }

  addTo(writes: PhasedWrites): void {
    const { published, endpoints } = this.#inventory;
    const candidates = published === undefined ? new Map([...endpoints, ...this.#endpoints]) : this.#endpoints;
    for (const [text, endpoint] of candidates) {
      const { key, realServers, stored } = endpoint;
      const isStored = stored === undefined ? realServers.length === 0 : realServers.includes(stored);
      if (!isStored) {
        const [realServer] = realServers;
        (realServer === undefined ? writes.free : writes.take).push({ kind: "endpoint", key, realServer });
        this.#endpoints.set(text, { ...endpoint, stored: realServer });
      }
    }
  }

  commit(): void {
    for (const [text, endpoint] of this.#endpoints) {
      if (endpoint.realServers.length > 0) {
        this.#inventory.endpoints.set(text, endpoint);
      } else {
        this.#inventory.endpoints.delete(text);
      }
    }
  }

  #change(service: ServiceKey, realServer: Endpoint, change: (indexes: readonly number[]) => readonly number[]): void {
    for (const key of endpointKeys(service, realServer)) {
      const text = endpointText(key);
      const none = { key, realServers: [], stored: undefined };
      const known = this.#endpoints.get(text) ?? this.#inventory.endpoints.get(text) ?? none;
      this.#endpoints.set(text, { ...known, realServers: change(known.realServers) });
    }
  }
}
