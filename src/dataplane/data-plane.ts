import { BpfError, type BpfMap, RingBuffer } from "libbpf-ts";
import type {
  ConnectionFilter,
  DesiredState,
  Drops,
  InterfaceSettings,
  Limits,
  ServiceCounters,
} from "../model/index.js";
import { ADDRESS_BYTES } from "./address.js";
import type { ConnectionText } from "./connection-text.js";
import { readConnections } from "./connections.js";
import { type CounterMaps, readDrops, readServiceCounters } from "./counters.js";
import { DataPlaneError } from "./error.js";
import { warnWithoutForwarding } from "./forwarding.js";
import { type Loaded, load } from "./load.js";
import type { Logger } from "./log.js";
import type { MappedTables } from "./mapped-tables.js";
import { DatagramNeighbours } from "./neighbours.js";
import { NextHops } from "./next-hops.js";
import { Pins } from "./pins.js";
import { Publisher, type PublishReport } from "./publisher.js";
import { routeLookup } from "./route.js";
import { inSlices } from "./slices.js";
import { type AddressFamily, EventKind, layout } from "./sluice.bpf.js";
import { sourceAddress, subnetsOf } from "./source-address.js";
import { Sweeper } from "./sweeper.js";
import { type UnloadOptions, type UnloadReport, unload } from "./unload.js";

export interface DataPlaneOptions {
  /** Names the pin folder. */
  readonly instance: string;
  readonly interfaces: readonly InterfaceSettings[];
  readonly limits: Limits;
  /** Left out: build/bpf/sluice.bpf.o of this package. */
  readonly objectPath?: string;
  /** Where the BPF file system is mounted; left out: /sys/fs/bpf. */
  readonly bpffs?: string;
  /**
   * To be aborted when the process is to end: opening, and a publish that has not begun to change what packets meet, are given up
   * and reject with its reason. close() has no need to wait for them then.
   */
  readonly signal?: AbortSignal;
  readonly log: Logger;
}

/**
 * In every network namespace (LOOPBACK_IFINDEX of include/net/flow.h). The kernel answers only for interfaces on which forwarding is
 * on. Where it is off on all others, it may be on for this one alone, by which no packets of others come in.
 */
const LOOPBACK = 1;

/** How often a service's counters are read at most while the service keeps changing. */
const READ_ATTEMPTS = 3;

/**
 * A data plane in the kernel, and all that this process does for it: publishing, next hops, sweeping, counters. It lives on when
 * this object or the process ends. Whoever opens one sees to it that no other process has the same instance open.
 */
export class DataPlane {
  readonly #loaded: Loaded;
  readonly #pins: Pins;
  readonly #tables: MappedTables;
  readonly #neighbours: DatagramNeighbours;
  readonly #nextHops: NextHops;
  readonly #publisher: Publisher;
  readonly #sweeper: Sweeper;
  readonly #events: RingBuffer;
  readonly #counters: CounterMaps;
  readonly #closing = new AbortController();

  private constructor(loaded: Loaded, pins: Pins, { signal, log }: DataPlaneOptions) {
    const { object, tables, inventory, interfaces, identity } = loaded;
    this.#loaded = loaded;
    this.#pins = pins;
    this.#tables = tables;

    const egress = object.map<number, number>("egress");
    const ifindexes = interfaces.map(({ ifindex }) => ifindex);
    for (const ifindex of ifindexes) {
      egress.set(ifindex, ifindex);
    }
    this.#neighbours = new DatagramNeighbours(log);
    const resolve = object.program("resolve_route");
    this.#nextHops = new NextHops({
      lookup: routeLookup((data) => resolve.testRun({ data }).data),
      realServers: this.#tables.realServers,
      interfaces: [...ifindexes, LOOPBACK],
      neighbours: this.#neighbours,
      sourceAddress,
      onInterfaceChange: () => {
        this.#publisher.followWays();
      },
      addEgress: (ifindex) => {
        addEgress(egress, ifindex, log);
      },
      log,
    });
    this.#publisher = new Publisher({
      tables,
      inventory,
      nextHops: this.#nextHops,
      subnets: subnetsOf,
      log,
      stop: signal ?? new AbortController().signal,
    });
    const sweep = object.program("sweep");
    const hasResets = (): boolean => this.#publisher.inventory.resetting > 0;
    this.#sweeper = new Sweeper((data) => sweep.testRunAsync({ data }), identity.buckets, hasResets, log);
    this.#counters = {
      realServers: object.map("real_counters"),
      drops: object.map("drops"),
      retired: tables.retiredCounters,
      realLoad: tables.realLoad,
    };
    this.#events = new RingBuffer(object.map("events"), (records) => {
      this.#hear(records);
    });
    warnWithoutForwarding(
      interfaces.map(({ name }) => name),
      log,
    );
    this.#nextHops.start();
    this.#publisher.start();
    this.#sweeper.start();
  }

  /**
   * Loads a data plane and attaches it, or adopts the one that is pinned: its connections stay, its program is replaced in
   * place by this build's. All or nothing.
   *
   * @throws DataPlaneError
   */
  static async open(options: DataPlaneOptions): Promise<DataPlane> {
    const { instance, bpffs, log } = options;
    const pins = Pins.of(instance, bpffs);
    const loaded = await load(pins, options);
    try {
      const dataPlane = new DataPlane(loaded, pins, options);
      const names = loaded.interfaces.map(({ name }) => name);
      log.info({ interfaces: names, pins: pins.root }, loaded.adopted ? "data plane adopted" : "data plane loaded");
      return dataPlane;
    } catch (error) {
      loaded.tables.close();
      loaded.object.close();
      throw error;
    }
  }

  /**
   * Takes a data plane out of the kernel, with its connections.
   *
   * @throws DataPlaneError BPFFS_NOT_MOUNTED
   */
  static unload(options: UnloadOptions): Promise<UnloadReport> {
    return unload(options);
  }

  /**
   * Makes the data plane do what `desired` says, whole or not at all, and says what changed. Services that are the same objects
   * as last time cost nothing. The first call waits for up to a second until the next hops of the real servers are known.
   *
   * @throws DataPlaneError CAPACITY_EXCEEDED, TABLE_TOO_SMALL, DUPLICATE_SERVICE: nothing has changed. WRITE_FAILED: a part has.
   * The reason of the signal that it was opened with, once that is aborted: nothing has changed.
   */
  async publish(desired: DesiredState): Promise<PublishReport> {
    this.#requireOpen();
    return this.#publisher.publish(desired);
  }

  /**
   * What a service has counted since the data plane was loaded, or the service or real server added; undefined where there is no
   * such service in use. Costs one system call a real server.
   *
   * @param name as serviceName() has it
   */
  async serviceCounters(name: string): Promise<ServiceCounters | undefined> {
    this.#requireOpen();
    for (let attempt = 1; ; attempt++) {
      const service = this.#publisher.inventory.services.get(name);
      if (service?.indexed !== true) {
        return undefined;
      }
      const counters = await inSlices(readServiceCounters(this.#counters, service), this.#closing.signal);
      // A real server that is freed meanwhile takes its counts from one place to another.
      if (service === this.#publisher.inventory.services.get(name) || attempt === READ_ATTEMPTS) {
        return counters;
      }
    }
  }

  /** What was dropped since the data plane was loaded, by reason. */
  drops(): Drops {
    this.#requireOpen();
    return readDrops(this.#counters.drops);
  }

  /** The connections that a filter selects, read as they are asked for; see readConnections. */
  connections(filter: ConnectionFilter): AsyncIterable<ConnectionText> {
    this.#requireOpen();
    return readConnections(this.#pins.connections, filter);
  }

  /** Entries of the connection table in use, some seconds ago. A nat or fullnat connection has two. */
  get connectionEntries(): number {
    return this.#sweeper.entries;
  }

  /** Lets go of the data plane, which stays pinned and goes on forwarding. Waits for a publish that is under way. */
  async close(): Promise<void> {
    if (this.#closing.signal.aborted) {
      return;
    }
    this.#closing.abort(closed());
    this.#events.close();
    await this.#publisher.close();
    await Promise.all([this.#nextHops.close(), this.#sweeper.close()]);
    this.#neighbours.close();
    this.#tables.close();
    this.#loaded.object.close();
  }

  #requireOpen(): void {
    this.#closing.signal.throwIfAborted();
  }

  #hear(records: readonly Uint8Array[]): void {
    const { kind, subject, address, family } = layout.Event.offsets;
    for (const record of records) {
      const words = new Uint32Array(record.buffer, record.byteOffset, layout.Event.size / 4);
      switch (words[kind / 4]) {
        case EventKind.EVENT_NEXT_HOP_MISSING:
          this.#nextHops.missing(words[subject / 4]!);
          break;
        case EventKind.EVENT_CLIENT_NEIGHBOUR_MISSING:
          this.#neighbours.resolve({
            family: record[family] as AddressFamily,
            bytes: record.subarray(address, address + ADDRESS_BYTES),
          });
          break;
        default:
        // Of a newer data plane, which asks for something that this build does not know.
      }
    }
  }
}

function closed(): DataPlaneError {
  return new DataPlaneError("CLOSED", "this data plane was closed");
}

/** Lets packets leave by an interface. One that has just gone needs no entry. */
function addEgress(egress: BpfMap<number, number>, ifindex: number, log: Logger): void {
  try {
    egress.set(ifindex, ifindex);
  } catch (error) {
    if (!(error instanceof BpfError)) {
      throw error;
    }
    log.warn({ err: error, ifindex }, "cannot let packets leave by an interface");
  }
}
