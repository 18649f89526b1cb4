/**
 * What each of IPVS's schedulers picks, written from the sentences in which they are described and not from the data plane. A
 * model knows a service's real servers in the order of their list, with their counts as they are.
 */
import { ipv4Bytes } from "./addresses.js";
import { sipHash } from "./siphash.js";

export interface Server {
  weight: number;
  active: number;
  inactive: number;
}

export interface Client {
  readonly address: string;
  readonly port: number;
}

/** Place in the list, or undefined: no real server is available. */
export type Pick = (servers: readonly Server[], destination: string) => number | undefined;

/** The first of those with the least `load` for its `share`, a fraction compared without dividing. A server of weight 0 is never picked. */
function least(
  servers: readonly Server[],
  load: (server: Server) => number,
  share: (server: Server) => number,
  among: readonly number[] = [...servers.keys()],
): number | undefined {
  let best: number | undefined;
  for (const place of among) {
    const server = servers[place];
    const leader = best === undefined ? undefined : servers[best];
    if (server === undefined || server.weight === 0) continue;
    if (leader === undefined || load(server) * share(leader) < load(leader) * share(server)) best = place;
  }
  return best;
}

function overhead({ active, inactive }: Server): number {
  return active * 256 + inactive;
}
const weight = (server: Server): number => server.weight;

/** The first of those with the highest weight. */
function heaviest(servers: readonly Server[], takes: (server: Server) => boolean): number | undefined {
  const highest = Math.max(0, ...servers.filter(takes).map(weight));
  const place = servers.findIndex((server) => server.weight > 0 && server.weight === highest && takes(server));
  return place === -1 ? undefined : place;
}

const lc: Pick = (servers) => least(servers, overhead, () => 1);
const wlc: Pick = (servers) => least(servers, overhead, weight);
const sed: Pick = (servers) => least(servers, ({ active }) => active + 1, weight);
const nq: Pick = (servers, destination) => {
  const idle = servers.findIndex((server) => server.weight > 0 && server.active === 0);
  return idle === -1 ? sed(servers, destination) : idle;
};
const fo: Pick = (servers) => heaviest(servers, () => true);
const ovf: Pick = (servers) => heaviest(servers, (server) => server.active <= server.weight);

/** Schedulers without a memory. */
export const LIVE_PICKS = { lc, wlc, sed, nq, fo, ovf } as const;

function isCrowded(servers: readonly Server[], server: Server): boolean {
  return server.active > server.weight && servers.some((other) => 2 * other.active < other.weight);
}

/** A destination keeps its server until that has weight 0 or is crowded; then wlc. */
export function lblc(): Pick {
  const memory = new Map<string, number>();
  return (servers, destination) => {
    const place = memory.get(destination);
    const server = place === undefined ? undefined : servers[place];
    if (server !== undefined && server.weight > 0 && !isCrowded(servers, server)) return place;
    const picked = wlc(servers, destination);
    if (picked !== undefined) memory.set(destination, picked);
    return picked;
  };
}

/** A set has room for so many. */
export const LARGEST_SET = 16;

/** A destination has a set of servers; the least loaded of it is picked, unless crowded: then one by wlc, which joins the set. */
export function lblcr(): Pick {
  const memory = new Map<string, number[]>();
  return (servers, destination) => {
    const set = memory.get(destination) ?? [];
    memory.set(destination, set);
    const place = least(servers, overhead, weight, set);
    const server = place === undefined ? undefined : servers[place];
    if (server !== undefined && !isCrowded(servers, server)) return place;
    const picked = wlc(servers, destination);
    if (picked !== undefined && !set.includes(picked)) {
      set.unshift(picked);
      set.splice(LARGEST_SET);
    }
    return picked;
  };
}

// -------------------------------------------------------------------------------------------------------- hashing

function word({ address, port }: Client, withPort: boolean): number {
  const bytes = ipv4Bytes(address);
  return (new DataView(bytes.buffer, bytes.byteOffset).getUint32(0) + (withPort ? port : 0)) >>> 0;
}

/** The bucket of sh and, of the destination's address, dh. */
export function bucket(client: Client, withPort: boolean, offset = 0): number {
  return (offset + (Math.imul(word(client, withPort), 0x61c88647) >>> 24)) & 255;
}

/** The slot of mh, in a table of `size` slots. */
export function slot(client: Client, withPort: boolean, size: number, offset = 0): number {
  const bytes = new Uint8Array(4);
  new DataView(bytes.buffer).setUint32(0, (word(client, withPort) + offset) >>> 0, true);
  const key = 2654435761n;
  return Number(sipHash(1, 3, [key, key], bytes) & 0xffffffffn) % size;
}

/**
 * What a table leads to: the server of the client's slot; where that is quiesced none, or with a fallback the first other that the
 * offsets from that slot on lead to, around the table.
 */
export function byTable(
  servers: readonly Server[],
  table: readonly number[],
  hash: (offset: number) => number,
  fallback: boolean,
): number | undefined {
  const first = hash(0);
  const weighted = (at: number): number | undefined => {
    const place = table[at];
    return place !== undefined && (servers[place]?.weight ?? 0) > 0 ? place : undefined;
  };
  const own = weighted(first);
  if (own !== undefined || !fallback) return own;
  for (let offset = 0; offset < table.length; offset++) {
    const other = weighted(hash((offset + first) % table.length));
    if (other !== undefined) return other;
  }
  return undefined;
}
