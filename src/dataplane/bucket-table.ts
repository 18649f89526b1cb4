/**
 * The tables of sh and dh: IPVS's 256 buckets (ip_vs_sh_reassign() and ip_vs_dh_reassign() in net/netfilter/ipvs), filled in the order of the list,
 * beginning anew at its head when it ends.
 */

/** IP_VS_SH_TAB_SIZE and IP_VS_DH_TAB_SIZE with their default bits; SH_SLOTS in bpf/schedule/sh.h. */
export const BUCKETS = 256;

/**
 * sh: runs of as many buckets as the weight says, one for a quiesced real server. What does not fit any more gets none: weights above
 * 256 leave nothing to those who come after.
 *
 * @param weights in the order of the list
 * @returns for each bucket an index into `weights`; nothing where there are none
 */
export function fillByRuns(weights: readonly number[]): Uint32Array {
  if (weights.length === 0) {
    return new Uint32Array(0);
  }
  const table = new Uint32Array(BUCKETS);
  for (let filled = 0, next = 0; filled < BUCKETS; next = (next + 1) % weights.length) {
    const end = Math.min(BUCKETS, filled + Math.max(1, weights[next]!));
    table.fill(next, filled, end);
    filled = end;
  }
  return table;
}

/** dh: one bucket for each of `count` real servers in turn, whatever their weights. */
export function fillInTurn(count: number): Uint32Array {
  return count === 0 ? new Uint32Array(0) : Uint32Array.from({ length: BUCKETS }, (_, bucket) => bucket % count);
}
