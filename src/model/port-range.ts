import { codeFor } from "./read.js";
import type { Path, Violations } from "./violation.js";

/** First and last, both included; 1 to 65535. */
export type PortRange = readonly [first: number, last: number];

/** `1024-32767`, or one port as a number or as text. */
export function readPortRange(input: unknown, path: Path, violations: Violations): PortRange | undefined {
  const text = typeof input === "number" ? String(input) : input;
  const match = typeof text === "string" ? /^([1-9]\d{0,4})(?:-([1-9]\d{0,4}))?$/.exec(text) : null;
  const first = Number(match?.[1]);
  const last = Number(match?.[2] ?? match?.[1]);
  if (first <= last && last <= 65535) {
    return [first, last];
  }
  const code = codeFor(input, typeof input === "number" ? "number" : "string", "PORT_RANGE_MALFORMED");
  violations.add(code, path, input, "a port, or a range of ports FIRST-LAST, from 1 to 65535, as in 1024-32767");
  return undefined;
}

/** The inverse of readPortRange: `80`, `1024-32767`. */
export function formatPortRange([first, last]: PortRange): string {
  return first === last ? String(first) : `${String(first)}-${String(last)}`;
}
