/** Where round robin goes on when its real servers change: after the one that had the last turn, as IPVS does. */

/**
 * @param next the service's cursor: how many turns there were
 * @param before the ring that those turns went over
 * @param after the ring that the next one goes over
 * @returns the cursor for the new ring. A real server that is gone had the place of the one before it (ip_vs_rr_del_dest() in
 *   net/netfilter/ipvs/ip_vs_rr.c); where none of those is there any more, the turns begin anew.
 */
export function continueTurns(next: bigint, before: Uint32Array, after: Uint32Array): bigint {
  if (next === 0n || before.length === 0) {
    return 0n;
  }
  for (let turn = Number((next - 1n) % BigInt(before.length)); turn >= 0; turn--) {
    const place = after.indexOf(before[turn]!);
    if (place >= 0) {
      return BigInt(place + 1);
    }
  }
  return 0n;
}
