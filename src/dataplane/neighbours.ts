/**
 * Makes the kernel resolve neighbours, which it does only for packets of its own: a small UDP datagram to the discard
 * port (RFC 863) of whose MAC is wanted. Forwarding by XDP leaves no trace in the neighbour table either, so neighbours
 * in use are asked for now and then, or the kernel would keep a MAC that is long out of date.
 */
import { createSocket, type Socket } from "node:dgram";
import { type Address, formatAddress } from "./address.js";
import type { Logger } from "./log.js";
import { AddressFamily } from "./sluice.bpf.js";

const DISCARD_PORT = 9;
const DATAGRAM = new Uint8Array(1);
/** Milliseconds between two datagrams to the same neighbour that has no MAC. */
const RETRY_AFTER = 1000;
/** The same for one that has: about the time for which Linux trusts a MAC (net.ipv4.neigh.default.base_reachable_time_ms). */
const CONFIRM_AFTER = 30_000;
/**
 * Datagrams to all neighbours together: so many in each window of milliseconds. Each takes the kernel 20 µs, and much more where
 * its neighbour table is full (net.ipv4.neigh.default.gc_thresh3), so that more at a time would hold up the event loop.
 */
const MOST_AT_ONCE = 20;
const WINDOW = 10;

export interface Neighbours {
  /** Asks for the MAC of an address on link, unless that was done lately. */
  resolve(address: Address): void;
  /** Asks whether the MAC is still right, now and then. */
  confirm(address: Address): void;
  close(): void;
}

export class DatagramNeighbours implements Neighbours {
  readonly #log: Logger;
  readonly #sockets = new Map<"udp4" | "udp6", Socket>();
  /** When an address was last asked for, by its text or, for IPv4, its bits: this is looked at for every answer of the kernel. */
  readonly #asked = new Map<string | number, number>();
  #window = 0;
  #sentInWindow = 0;

  constructor(log: Logger) {
    this.#log = log;
  }

  resolve(address: Address): void {
    this.#ask(address, RETRY_AFTER);
  }

  confirm(address: Address): void {
    this.#ask(address, CONFIRM_AFTER);
  }

  close(): void {
    for (const socket of this.#sockets.values()) {
      socket.close();
    }
    this.#sockets.clear();
  }

  #ask(address: Address, interval: number): void {
    const now = performance.now();
    const key = keyOf(address);
    const asked = this.#asked.get(key);
    if ((asked !== undefined && now - asked < interval) || !this.#mayAsk(now)) {
      return;
    }
    // Keeps the map in the order of asking.
    this.#asked.delete(key);
    this.#asked.set(key, now);
    const text = formatAddress(address);
    const type = address.family === AddressFamily.FAMILY_IPV6 ? "udp6" : "udp4";
    this.#socket(type).send(DATAGRAM, DISCARD_PORT, text, (error) => {
      if (error !== null) {
        this.#log.debug({ address: text, err: error }, "cannot ask for a neighbour");
      }
    });
  }

  #mayAsk(now: number): boolean {
    const window = Math.floor(now / WINDOW);
    if (window !== this.#window) {
      this.#window = window;
      this.#sentInWindow = 0;
      this.#forget(now);
    }
    return ++this.#sentInWindow <= MOST_AT_ONCE;
  }

  #forget(now: number): void {
    for (const [address, asked] of this.#asked) {
      if (now - asked < CONFIRM_AFTER) {
        // In the order of asking: all others are younger.
        break;
      }
      this.#asked.delete(address);
    }
  }

  #socket(type: "udp4" | "udp6"): Socket {
    const existing = this.#sockets.get(type);
    if (existing !== undefined) {
      return existing;
    }
    const lookup = (
      host: string,
      _options: unknown,
      done: (error: null, address: string, family: number) => void,
    ): void => {
      // Addresses need no resolver.
      done(null, host, type === "udp4" ? 4 : 6);
    };
    const socket = createSocket({ type, lookup });
    // Answers such as "port unreachable" mean that there is a neighbour; nothing here waits for them.
    socket.on("error", (error) => {
      this.#log.debug({ err: error }, "neighbour socket");
    });
    socket.unref();
    this.#sockets.set(type, socket);
    return socket;
  }
}

function keyOf(address: Address): string | number {
  const [a, b, c, d] = address.bytes;
  return address.family === AddressFamily.FAMILY_IPV6
    ? formatAddress(address)
    : ((a! << 24) | (b! << 16) | (c! << 8) | d!) >>> 0;
}
