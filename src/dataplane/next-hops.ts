/**
 * Keeps the next hop of every real server what the kernel's routing and neighbour tables say: looked up when a real server
 * comes, when the data plane misses one, and over and over in slices. Each address is looked up once, however many services
 * it serves.
 */
import { setTimeout as sleep } from "node:timers/promises";
import { type Address, formatAddress, isUnspecified } from "./address.js";
import type { Logger } from "./log.js";
import type { Neighbours } from "./neighbours.js";
import { type NextHop, sameNextHop, writeNextHop } from "./real-server-record.js";
import type { Route, RouteLookup } from "./route.js";
import { eachInSlices } from "./slices.js";
import { RouteVerdict } from "./sluice.bpf.js";
import type { ArrayMemory } from "./tables.js";

/** Milliseconds between two looks at the same address, as long as all fit. */
const REFRESH = 1000;
/** Pause over work, so that tens of thousands of addresses take a tenth of a processor at most, and longer. */
const PAUSE_RATIO = 9;
/** Milliseconds for which a next hop stays in use when the kernel has just forgotten its MAC: it is asked for meanwhile. */
const HOLD = 3000;
/** Milliseconds between two looks at an address that the data plane asks for. */
const ASKED_AGAIN_AFTER = 100;
/** Milliseconds between two looks at what is awaited. */
const POLL = 20;
/** Addresses that a complaint names. */
const EXAMPLES = 3;

export interface NextHopsParts {
  readonly lookup: RouteLookup;
  readonly realServers: ArrayMemory;
  /** Interfaces to ask from: those that packets for the services come in by. */
  readonly interfaces: readonly number[];
  readonly neighbours: Neighbours;
  /** The address that this host would use on an interface towards a gateway, for kernels that cannot tell. */
  readonly sourceAddress: (ifindex: number, gateway: Address) => Uint8Array | undefined;
  /** Called with each interface that a next hop lies behind, before the first packet can be sent there. */
  readonly addEgress: (ifindex: number) => void;
  /** Called when an address that interfaceTo() was asked about has another interface than was said. */
  readonly onInterfaceChange: () => void;
  readonly log: Logger;
}

export interface WatchedRealServer {
  readonly index: number;
  readonly address: Address;
}

/** One address, for all the real servers that have it. */
interface Target {
  readonly text: string;
  readonly address: Address;
  readonly realServers: Set<number>;
  /** What the kernel said last; undefined before the first look, and where there is no interface to ask from. */
  route: Route | undefined;
  hop: NextHop | undefined;
  /** The interface that interfaceTo() said last; undefined where it was not asked. */
  told: number | undefined;
  /** When the MAC was found missing; undefined while it is known. */
  missingSince: number | undefined;
  lookedUpAt: number;
}

export class NextHops {
  readonly #parts: NextHopsParts;
  readonly #targets = new Map<string, Target>();
  readonly #byRealServer = new Map<number, Target>();
  /** Those that were never looked up. */
  readonly #new = new Set<Target>();
  /** What interfaceTo() said of addresses that are not watched yet. */
  readonly #told = new Map<string, number>();
  readonly #stop = new AbortController();
  #refreshing: Promise<void> | undefined;
  #complaint = "";

  constructor(parts: NextHopsParts) {
    this.#parts = parts;
  }

  /** Starts to keep the next hop of a real server; no change where it is watched already. */
  watch({ index, address }: WatchedRealServer): void {
    if (this.#byRealServer.has(index)) {
      return;
    }
    const text = formatAddress(address);
    let target = this.#targets.get(text);
    if (target === undefined) {
      target = {
        text,
        address,
        realServers: new Set(),
        route: undefined,
        hop: undefined,
        told: this.#told.get(text),
        missingSince: undefined,
        lookedUpAt: Number.NEGATIVE_INFINITY,
      };
      this.#targets.set(text, target);
      this.#told.delete(text);
      this.#new.add(target);
    }
    target.realServers.add(index);
    this.#byRealServer.set(index, target);
    if (target.hop !== undefined) {
      this.#store(index, target.hop);
    }
  }

  unwatch(index: number): void {
    const target = this.#byRealServer.get(index);
    this.#byRealServer.delete(index);
    target?.realServers.delete(index);
    if (target?.realServers.size === 0) {
      this.#targets.delete(target.text);
      this.#new.delete(target);
    }
  }

  /** Looks up every address that was never looked up. Rejects with the signal's reason. */
  async resolveNew(signal?: AbortSignal): Promise<void> {
    await eachInSlices(
      this.#new,
      (target) => {
        this.#resolve(target);
      },
      signal,
    );
  }

  /** Waits until no address lacks only its MAC, or until `timeout` milliseconds have passed. Rejects with the signal's reason. */
  async settle(timeout: number, signal?: AbortSignal): Promise<void> {
    const deadline = performance.now() + timeout;
    for (;;) {
      const waiting = [...this.#targets.values()].filter(
        ({ route }) => route?.verdict === RouteVerdict.ROUTE_NO_NEIGHBOUR,
      );
      if (waiting.length === 0 || performance.now() >= deadline) {
        return;
      }
      await sleep(POLL);
      await eachInSlices(
        waiting,
        (target) => {
          if (performance.now() < deadline) {
            this.#resolve(target);
          }
        },
        signal,
      );
    }
  }

  isResolved(index: number): boolean {
    return this.#byRealServer.get(index)?.hop !== undefined;
  }

  /** The interface that packets to an address leave by, whether its MAC is known or not; 0 where there is no route. */
  interfaceTo(address: Address): number {
    const text = formatAddress(address);
    const target = this.#targets.get(text);
    const ifindex = interfaceOf(target?.route ?? this.#lookUp(address));
    if (target === undefined) {
      this.#told.set(text, ifindex);
    } else {
      target.told = ifindex;
    }
    return ifindex;
  }

  /** The data plane found no next hop for a real server. */
  missing(index: number): void {
    const target = this.#byRealServer.get(index);
    if (target !== undefined && performance.now() - target.lookedUpAt >= ASKED_AGAIN_AFTER) {
      this.#resolve(target);
    }
  }

  /** Starts to look everything up again and again. */
  start(): void {
    this.#refreshing ??= this.#refresh();
  }

  async close(): Promise<void> {
    this.#stop.abort();
    await this.#refreshing;
  }

  async #refresh(): Promise<void> {
    const { signal } = this.#stop;
    while (!signal.aborted) {
      const started = performance.now();
      await this.#lookEverythingUp().catch((error: unknown) => {
        if (error !== signal.reason) {
          this.#parts.log.error({ err: error }, "cannot look up next hops");
        }
      });
      const took = performance.now() - started;
      await sleep(Math.max(REFRESH - took, PAUSE_RATIO * took), undefined, { signal, ref: false }).catch(
        () => undefined,
      );
    }
  }

  async #lookEverythingUp(): Promise<void> {
    await eachInSlices(
      this.#targets.values(),
      (target) => {
        this.#resolve(target);
      },
      this.#stop.signal,
    );
    this.#complain();
  }

  #resolve(target: Target): void {
    const now = performance.now();
    const before = target.route;
    const route = this.#lookUp(target.address);
    this.#new.delete(target);
    target.lookedUpAt = now;
    target.route = route;
    this.#compareInterface(target);
    switch (route?.verdict) {
      case RouteVerdict.ROUTE_RESOLVED:
        target.missingSince = undefined;
        this.#parts.neighbours.confirm({ family: target.address.family, bytes: route.gateway });
        if (before === undefined || target.hop === undefined || !route.equals(before)) {
          this.#set(target, this.#nextHop(target.address, route));
        }
        break;
      case RouteVerdict.ROUTE_NO_NEIGHBOUR:
        target.missingSince ??= now;
        this.#parts.neighbours.resolve({ family: target.address.family, bytes: route.gateway });
        if (now - target.missingSince >= HOLD || (target.hop !== undefined && target.hop.ifindex !== route.ifindex)) {
          this.#set(target, undefined);
        }
        break;
      default:
        target.missingSince = undefined;
        this.#set(target, undefined);
    }
  }

  /** A route that has gone says nothing: the next one does. */
  #compareInterface(target: Target): void {
    const ifindex = interfaceOf(target.route);
    if (target.told !== undefined && ifindex !== 0 && ifindex !== target.told) {
      target.told = ifindex;
      this.#parts.onInterfaceChange();
    }
  }

  /** The best answer for any interface that packets come in by. */
  #lookUp(address: Address): Route | undefined {
    let best: Route | undefined;
    for (const ifindex of this.#parts.interfaces) {
      const route = this.#parts.lookup(address, ifindex);
      if (route.verdict === RouteVerdict.ROUTE_RESOLVED) {
        return route;
      }
      if (best === undefined || route.verdict === RouteVerdict.ROUTE_NO_NEIGHBOUR) {
        best = route;
      }
    }
    return best;
  }

  #nextHop({ family }: Address, route: Route): NextHop {
    const { ifindex, gateway, source, destinationMac, sourceMac, mtu } = route;
    const known = isUnspecified(source) ? this.#parts.sourceAddress(ifindex, { family, bytes: gateway }) : source;
    return { ifindex, destinationMac, sourceMac, mtu, director: known ?? source };
  }

  #set(target: Target, hop: NextHop | undefined): void {
    if (hop !== undefined && hop.ifindex !== target.hop?.ifindex) {
      this.#parts.addEgress(hop.ifindex);
    }
    target.hop = hop;
    for (const index of target.realServers) {
      this.#store(index, hop);
    }
  }

  #store(index: number, hop: NextHop | undefined): void {
    if (!sameNextHop(this.#parts.realServers, index, hop)) {
      writeNextHop(this.#parts.realServers, index, hop);
    }
  }

  /** Says once what is wrong, and once that it is right again. */
  #complain(): void {
    const unresolved = new Map<string, { count: number; examples: string[] }>();
    for (const target of this.#targets.values()) {
      const { text, hop, route } = target;
      if (hop === undefined && !this.#new.has(target)) {
        const reason = REASONS[route?.verdict ?? RouteVerdict.ROUTE_NONE];
        const found = unresolved.get(reason) ?? { count: 0, examples: [] };
        unresolved.set(reason, found);
        found.count++;
        if (found.examples.length < EXAMPLES) {
          found.examples.push(text);
        }
      }
    }
    const parts = Array.from(unresolved, ([reason, { count, examples }]) => {
      return `${String(count)} (${examples.join(", ")}${count > examples.length ? ", …" : ""}): ${reason}`;
    });
    const complaint = parts.join("; ");
    if (complaint === this.#complaint) {
      return;
    }
    this.#complaint = complaint;
    if (complaint === "") {
      this.#parts.log.info({}, "every real server has a next hop");
    } else {
      this.#parts.log.warn(
        { unresolved: Object.fromEntries(unresolved) },
        `real servers without a next hop: ${complaint}`,
      );
    }
  }
}

function interfaceOf(route: Route | undefined): number {
  switch (route?.verdict) {
    case RouteVerdict.ROUTE_RESOLVED:
    case RouteVerdict.ROUTE_NO_NEIGHBOUR:
      return route.ifindex;
    default:
      return 0;
  }
}

const REASONS: Readonly<Record<RouteVerdict, string>> = {
  [RouteVerdict.ROUTE_RESOLVED]: "not written yet",
  [RouteVerdict.ROUTE_NO_NEIGHBOUR]: "the next hop does not answer ARP",
  [RouteVerdict.ROUTE_NONE]: "no route",
  [RouteVerdict.ROUTE_NOT_FORWARDING]:
    "forwarding is off; run `sysctl -w net.ipv4.ip_forward=1`, or, where every method is dr or tun, `sysctl -w net.ipv4.conf.lo.forwarding=1`",
};
