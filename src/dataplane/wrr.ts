/**
 * Weighted round robin, interleaved: the sequence over one cycle that net/netfilter/ipvs/ip_vs_wrr.c walks when it starts
 * with the highest weight. A level goes from the highest weight down by the weights' greatest common divisor; at each
 * level every real server whose weight reaches it gets one connection. Weights 4, 3, 2 give A A B A B C A B C.
 */
import { greatestCommonDivisor } from "./mh.js";

/** Longest cycle that is stored as it is. */
export const LONGEST_CYCLE = 4096;

/**
 * One cycle: each index occurs as often as its weight says, all weights divided by their greatest common divisor.
 *
 * A cycle longer than LONGEST_CYCLE is scaled down: each weight becomes the nearest whole number, at least 1, of parts of
 * LONGEST_CYCLE. A share of the connections is then wrong by at most (n + 1) / LONGEST_CYCLE for n real servers.
 *
 * @param weights 1..65535 each
 * @returns indexes into `weights`
 */
export function interleave(weights: readonly number[]): Uint32Array {
  const [steps, length] = scale(weights);
  const sequence = new Uint32Array(length);
  // Levels between two neighbouring weights have the same members, so members only ever join: heaviest first.
  const heaviestFirst = steps.map((_, index) => index).sort((a, b) => steps[b]! - steps[a]!);
  const members: number[] = [];
  let next = 0;
  for (let level = steps[heaviestFirst[0]!] ?? 0; level > 0; level--) {
    let joined = false;
    while (members.length < steps.length && steps[heaviestFirst[members.length]!]! >= level) {
      members.push(heaviestFirst[members.length]!);
      joined = true;
    }
    if (joined) {
      // Within a level the real servers come in the order of the list.
      sequence.set(
        members.slice().sort((a, b) => a - b),
        next,
      );
    } else {
      sequence.copyWithin(next, next - members.length, next);
    }
    next += members.length;
  }
  return sequence;
}

/** Weights as whole steps without a common divisor, and their sum, which is at most LONGEST_CYCLE or two for each weight. */
function scale(weights: readonly number[]): [steps: number[], sum: number] {
  const divisor = weights.reduce(greatestCommonDivisor, 0);
  const steps = weights.map((weight) => weight / divisor);
  const sum = add(steps);
  if (sum <= LONGEST_CYCLE) {
    return [steps, sum];
  }
  const scaled = steps.map((step) => Math.max(1, Math.round((step * LONGEST_CYCLE) / sum)));
  return [scaled, add(scaled)];
}

function add(numbers: readonly number[]): number {
  return numbers.reduce((sum, number) => sum + number, 0);
}
