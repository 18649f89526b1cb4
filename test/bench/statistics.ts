/** Order statistics of samples; all take at least one sample. */

export interface Summary {
  readonly min: number;
  /** A quarter of the samples is below it. */
  readonly low: number;
  readonly median: number;
  /** A quarter of the samples is above it. */
  readonly high: number;
  readonly max: number;
}

/** Linear between the two nearest ranks; `part` from 0 to 1. */
export function quantile(samples: readonly number[], part: number): number {
  const sorted = samples.toSorted((a, b) => a - b);
  const rank = part * (sorted.length - 1);
  const low = sorted[Math.floor(rank)];
  const high = sorted[Math.ceil(rank)];
  if (low === undefined || high === undefined) throw new RangeError("no samples");
  return low + (high - low) * (rank - Math.floor(rank));
}

export function summarize(samples: readonly number[]): Summary {
  return {
    min: quantile(samples, 0),
    low: quantile(samples, 0.25),
    median: quantile(samples, 0.5),
    high: quantile(samples, 0.75),
    max: quantile(samples, 1),
  };
}

/** Sample by sample: what was measured in the same round is compared with each other, and drift of the machine cancels out. */
export function pairwise(
  a: readonly number[],
  b: readonly number[],
  combine: (a: number, b: number) => number,
): readonly number[] {
  return a.map((value, round) => {
    const other = b[round];
    if (other === undefined) throw new RangeError("the two have different numbers of rounds");
    return combine(value, other);
  });
}
