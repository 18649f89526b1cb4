/** The part of a plan that is about fullnat's local addresses, and which of them each real server's connections come from. */
import type { DesiredState, FullnatPool, VirtualService } from "../model/index.js";
import { type Address, parseAddress } from "./address.js";
import { Claims } from "./claims.js";
import { disusePool, type Inventory, usePool } from "./inventory.js";
import type { LocalPool } from "./local-pool.js";
import { NO_RING, type Ring, ringChunks } from "./ring-record.js";
import type { AddressFamily } from "./sluice.bpf.js";
import { isWithin, type Subnet } from "./source-address.js";
import type { PhasedWrites } from "./writes.js";

/** What is known of the ways to real servers. */
export interface Ways {
  /** The interface that packets to an address leave by; 0 where that is not known. */
  interfaceTo(address: Address): number;
  /** Of the addresses that an interface has, those of one family. */
  subnets(ifindex: number, family: AddressFamily): readonly Subnet[];
}

interface PlacedAddress {
  readonly index: number;
  readonly address: Address;
}

export class PoolPlanner {
  readonly #inventory: Inventory;
  readonly #ways: Ways;
  readonly #writes: PhasedWrites;
  readonly #chunkClaims: Claims;
  readonly #addressClaims: Claims;
  readonly #changed: boolean;
  /** Under their names; the default one under undefined. */
  readonly #pools = new Map<string | undefined, FullnatPool>();
  readonly #placed = new Map<string, PlacedAddress>();
  /** By pool, family and interface. */
  readonly #answers = new Map<string, LocalPool>();
  readonly #newRings: { readonly ring: Ring; readonly slots: Uint32Array }[] = [];

  constructor(inventory: Inventory, desired: DesiredState, ways: Ways, chunkClaims: Claims, writes: PhasedWrites) {
    const { published, freeLocalAddresses } = inventory;
    this.#inventory = inventory;
    this.#ways = ways;
    this.#writes = writes;
    this.#chunkClaims = chunkClaims;
    this.#addressClaims = new Claims(freeLocalAddresses);
    this.#changed = published?.fullnat !== desired.fullnat || published?.pools !== desired.pools;
    if (desired.fullnat !== undefined) {
      this.#pools.set(undefined, desired.fullnat);
    }
    for (const pool of desired.pools) {
      this.#pools.set(pool.name, pool);
    }
    if (this.#changed) {
      for (const text of Array.from(this.#pools.values()).flatMap((pool) => pool.localAddresses)) {
        this.#place(text);
      }
    }
  }

  /** Whether pools are not the objects that were published last, so that all real servers have to be looked at. */
  get changed(): boolean {
    return this.#changed;
  }

  /**
   * Where connections to a real server come from. Addresses of the network that its packets leave by are preferred to others, so that the
   * replies come back the same way.
   */
  poolFor({ fullnatPool }: VirtualService, address: Address): LocalPool {
    const { family } = address;
    const pool = this.#pools.get(fullnatPool);
    if (pool === undefined) {
      return { ring: NO_RING, ports: [0, 0] };
    }
    const ifindex = this.#ways.interfaceTo(address);
    const question = `${String(family)} ${String(ifindex)} ${fullnatPool ?? ""}`;
    const known = this.#answers.get(question);
    if (known !== undefined) {
      return known;
    }
    const answer = { ring: this.#ring(this.#slots(pool, family, ifindex)), ports: pool.localPorts };
    this.#answers.set(question, answer);
    return answer;
  }

  /** @throws DataPlaneError CAPACITY_EXCEEDED */
  check(): void {
    const field = this.#pools.size > 1 ? "fullnat_pools" : "fullnat.local_addresses";
    const drains = "those that went while fullnat connections were open";
    this.#addressClaims.checkFixed(field, "local addresses", 0, drains);
  }

  abandon(): void {
    this.#addressClaims.abandon();
  }

  /** Before the services are. The returned function is for after them. */
  commit(now: number): () => void {
    const inventory = this.#inventory;
    for (const { ring, slots } of this.#newRings) {
      inventory.poolRings.set(ring.chunk, { ring, slots, users: 0 });
    }
    if (this.#changed) {
      this.#commitAddresses(now);
    }
    // One service may take up what another one has just let go of.
    for (const pool of this.#answers.values()) {
      usePool(inventory, pool);
    }
    return () => {
      for (const pool of this.#answers.values()) {
        disusePool(inventory, pool, now);
      }
    };
  }

  #commitAddresses(now: number): void {
    const { localAddresses } = this.#inventory;
    for (const [text, { index, unusedSince }] of localAddresses) {
      if (!this.#placed.has(text) && unusedSince === undefined) {
        localAddresses.set(text, { index, unusedSince: now });
      }
    }
    for (const [text, { index }] of this.#placed) {
      localAddresses.set(text, { index, unusedSince: undefined });
    }
  }

  #place(text: string): PlacedAddress {
    const known = this.#placed.get(text);
    if (known !== undefined) {
      return known;
    }
    const address = parseAddress(text);
    const installed = this.#inventory.localAddresses.get(text)?.index;
    const index = installed ?? this.#addressClaims.claim(1);
    if (installed === undefined) {
      this.#writes.build.push({ kind: "local address", index, bytes: address.bytes });
    }
    const placed = { index, address };
    this.#placed.set(text, placed);
    return placed;
  }

  #slots({ localAddresses }: FullnatPool, family: AddressFamily, ifindex: number): Uint32Array {
    const candidates = localAddresses
      .map((text) => this.#place(text))
      .filter(({ address }) => address.family === family);
    const subnets = ifindex === 0 ? [] : this.#ways.subnets(ifindex, family);
    const near = candidates.filter(({ address: { bytes } }) => subnets.some((subnet) => isWithin(bytes, subnet)));
    return Uint32Array.from(near.length > 0 ? near : candidates, ({ index }) => index);
  }

  #ring(slots: Uint32Array): Ring {
    if (slots.length === 0) {
      return NO_RING;
    }
    for (const known of [...this.#inventory.poolRings.values(), ...this.#newRings]) {
      if (sameSlots(known.slots, slots)) {
        return known.ring;
      }
    }
    const ring = { chunk: this.#chunkClaims.claim(ringChunks(slots.length)), length: slots.length };
    this.#newRings.push({ ring, slots });
    this.#writes.build.push({ kind: "slots", ring, slots });
    return ring;
  }
}

function sameSlots(a: Uint32Array, b: Uint32Array): boolean {
  return a.length === b.length && a.every((slot, index) => slot === b[index]);
}
