import type { FileTally } from "../tally.js";

/** What the guest says over its serial port: one JSON value a line. `end` is the last; without it the guest died on the way. */
export type Message =
  | { readonly kind: "kernel"; readonly release: string }
  /** One thing that was checked, and why it failed if it did. */
  | { readonly kind: "row"; readonly name: string; readonly failure?: string }
  /** What a file of tests amounts to. */
  | { readonly kind: "tests"; readonly tally: FileTally }
  | { readonly kind: "end" };

export function encodeMessage(message: Message): string {
  return `${JSON.stringify(message)}\n`;
}

/** Undefined for a line that is no message: something else in the guest wrote to the serial port. */
export function decodeMessage(line: string): Message | undefined {
  // Both ends are the same build, so what parses and has a kind has that kind's fields.
  return line.startsWith('{"kind":') ? (JSON.parse(line) as Message) : undefined;
}
