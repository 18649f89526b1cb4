/** Time as the maps have it. */
import { Abi } from "./sluice.bpf.js";

/** Ticks of the connection table, rounded up: nanoseconds >> TICK_SHIFT. */
export function toTicks(seconds: number): number {
  return Math.ceil((seconds * 1e9) / 2 ** Abi.TICK_SHIFT);
}
