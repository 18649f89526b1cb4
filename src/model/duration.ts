import { codeFor } from "./read.js";
import type { Path, ViolationCode, Violations } from "./violation.js";

/** Seconds. ipvsadm's MAX_TIMEOUT: 31 days. */
export const MAX_DURATION = 86_400 * 31;

const SECONDS = { s: 1, m: 60, h: 3600, d: 86_400 };

/** Seconds of `900s`, `15m`, `2h` or `1d`, unless it is out of range; undefined where the text is no duration. */
export function parseDuration(text: string): number | undefined {
  const match = /^(\d{1,15})([smhd])$/.exec(text);
  return match === null ? undefined : Number(match[1]) * SECONDS[match[2] as keyof typeof SECONDS];
}

/** In seconds: `900s`. */
export function formatDuration(seconds: number): string {
  return `${String(seconds)}s`;
}

/** Whole seconds, in the spelling of parseDuration. A number without a unit is refused rather than guessed. */
export function readDuration(input: unknown, path: Path, violations: Violations): number | undefined {
  const seconds = typeof input === "string" ? parseDuration(input) : undefined;
  if (seconds !== undefined && seconds >= 1 && seconds <= MAX_DURATION) {
    return seconds;
  }
  let code: ViolationCode = "DURATION_OUT_OF_RANGE";
  if (seconds === undefined) {
    code = codeFor(input, "string", "DURATION_MALFORMED");
  }
  violations.add(code, path, input, "a duration with its unit from 1s to 31d, as in 900s, 15m or 1h");
  return undefined;
}
