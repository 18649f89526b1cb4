/**
 * Maglev hashing with weights: every real server walks its own permutation of the table's slots and takes the next free
 * one, as many in a turn as its weight says, until all are taken. Slots are then spread by weight, and a real server
 * that goes leaves nearly all of the others' slots where they were.
 *
 * This is net/netfilter/ipvs/ip_vs_mh.c (ip_vs_mh_permutate, ip_vs_mh_populate), bit for bit: with 4093 slots, the
 * kernel's default, Sluice and IPVS send a client to the same real server. Weights here are the last ones above 0: a real
 * server that is quiesced keeps its slots, so that its clients come back to it. One thing is ours: the table's size may
 * differ by service, where the kernel has one compiled in.
 */
import { TABLE_SIZES } from "../model/index.js";
import { hsiphash } from "./hsiphash.js";

/** Key of the hash that gives a real server's first slot, and of the data plane's lookup of a client. */
export const LOOKUP_KEY = 2654435761;
const SKIP_KEY = 2654446892;

/** TABLE_SIZES are what CONFIG_IP_VS_MH_TAB_INDEX selects from this index on: primes, so that any skip visits every slot. */
const FIRST_TABLE_INDEX = 8;

const SLOTS_PER_REAL_SERVER = 100;
const SMALLEST_DEFAULT = 1021;
/** How far a real server's share of all connections may be from its weight's. */
const SHARE_TOLERANCE = 0.02;
/** Below so many slots for each real server, the numbers of slots of equal ones differ by more than 2 %. */
const FEWEST_SLOTS_PER_REAL_SERVER = 50;

export interface WeightedEndpoint {
  /** 32 bits that stand for the address: foldAddress(). */
  readonly fold: number;
  readonly port: number;
  /** 0..65535; 0 gets no slot */
  readonly weight: number;
}

/**
 * The table's size for a service that names none: the smallest with 100 slots for each real server, at least 1021, in which
 * every share is within 2 % of all connections of what the weights say; where there is none, as weights are too far
 * apart for IPVS's way of scaling them, the smallest with 100 slots for each.
 *
 * A service keeps the size it has, whatever its weights become, while that leaves each real server 50 slots: another size moves
 * nearly every client.
 *
 * @param weights of all real servers: the last ones above 0, 0 where there was none
 * @param current slots of the service's table now, 0 if it has none
 */
export function defaultTableSize(weights: readonly number[], current: number): number {
  const count = weights.length;
  if (isTableSize(current) && current >= SMALLEST_DEFAULT && current >= count * FEWEST_SLOTS_PER_REAL_SERVER) {
    return current;
  }
  const least = Math.max(SMALLEST_DEFAULT, count * SLOTS_PER_REAL_SERVER);
  const candidates = TABLE_SIZES.filter((size) => size >= least);
  const active = weights.filter((weight) => weight > 0);
  return (
    candidates.find((size) => shareError(active, size) <= SHARE_TOLERANCE) ??
    candidates[0] ??
    TABLE_SIZES[TABLE_SIZES.length - 1]!
  );
}

/** How far the share of one of the real servers is from its weight's at most, whatever the order of their turns. */
function shareError(weights: readonly number[], size: number): number {
  const turns = turnsByWeight(weights, size);
  const total = weights.reduce((sum, weight) => sum + weight, 0);
  const round = turns.reduce((sum, turn) => sum + turn, 0);
  const wholeRounds = Math.floor(size / round);
  const rest = size % round;
  return weights.reduce((worst, weight, index) => {
    const turn = turns[index]!;
    const fewest = wholeRounds * turn + Math.max(0, rest - (round - turn));
    const most = wholeRounds * turn + Math.min(turn, rest);
    const ideal = weight / total;
    return Math.max(worst, ideal - fewest / size, most / size - ideal);
  }, 0);
}

function isTableSize(slots: number): boolean {
  return (TABLE_SIZES as readonly number[]).includes(slots);
}

/**
 * Fills a table.
 *
 * @param endpoints in the order in which they take turns: that of IPVS's list
 * @param size one of TABLE_SIZES
 * @returns for each slot, which of `endpoints` has it; nothing where none has a weight
 */
export function fillTable(endpoints: readonly WeightedEndpoint[], size: number): Uint32Array {
  if (!endpoints.some(({ weight }) => weight > 0)) {
    return new Uint32Array(0);
  }
  const count = endpoints.length;
  const position = new Uint32Array(count);
  const skip = new Uint32Array(count);
  for (const [index, endpoint] of endpoints.entries()) {
    const word = (endpoint.fold + endpoint.port) >>> 0;
    position[index] = hsiphash(word, LOOKUP_KEY) % size;
    skip[index] = (hsiphash(word, SKIP_KEY) % (size - 1)) + 1;
  }
  const turns = turnsByWeight(
    endpoints.map(({ weight }) => weight),
    size,
  );

  const table = new Uint32Array(size).fill(FREE);
  for (let taken = 0; ; ) {
    for (let index = 0; index < count; index++) {
      const step = skip[index]!;
      let slot = position[index]!;
      for (let turn = turns[index]!; turn > 0; turn--) {
        while (table[slot] !== FREE) {
          slot += step;
          if (slot >= size) {
            slot -= size;
          }
        }
        table[slot] = index;
        if (++taken === size) {
          return table;
        }
      }
      position[index] = slot;
    }
  }
}

const FREE = 0xffffffff;

/**
 * Slots that each takes in its turn: the weight over all weights' greatest common divisor, shifted right until the
 * largest fits into half as many bits as the table's index has, at least 1 where there is a weight (ip_vs_mh_shift_weight).
 */
function turnsByWeight(weights: readonly number[], size: number): Uint32Array {
  let divisor = 0;
  let largest = 0;
  for (const weight of weights) {
    divisor = greatestCommonDivisor(weight, divisor);
    largest = Math.max(largest, weight);
  }
  const tableIndex = (TABLE_SIZES as readonly number[]).indexOf(size) + FIRST_TABLE_INDEX;
  const bits = 32 - Math.clz32(largest / divisor);
  const shift = Math.max(0, bits - (tableIndex >> 1));
  return Uint32Array.from(weights, (weight) => (weight / divisor) >> shift || Math.sign(weight));
}

export function greatestCommonDivisor(a: number, b: number): number {
  let [larger, smaller] = [a, b];
  while (smaller !== 0) {
    [larger, smaller] = [smaller, larger % smaller];
  }
  return larger;
}
