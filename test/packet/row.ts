/**
 * Rules of the data plane as rows of a table: packets in, verdict, packets out, counters. Everything that a row does not
 * name must not happen: a field of the packet it does not change, a counter it does not count.
 */
import type { Test } from "tap";
import type { Bed, Result, Setup, Verdict } from "./bed.js";
import type { Counted, DropName } from "./counted.js";
import { build, type Frame, type Layer, parse } from "./frame.js";
import type { InterfaceName } from "./network.js";

/** One packet. */
export interface Step {
  readonly in: Frame;
  /** Where it arrives; left out: c0. */
  readonly on?: InterfaceName;
  readonly verdict: Verdict;
  /** What leaves; a packet that passes is the one that came, byte for byte. */
  readonly out?: Frame;
  /** The outer IPv4 id of what leaves is drawn by chance. */
  readonly randomOuterId?: boolean;
  readonly counted: Counted;
}

/** Something between two packets. */
export type Action = (bed: Bed, t: Test) => void | Promise<void>;

export interface Row {
  readonly name: string;
  readonly setup: Setup;
  readonly steps: readonly (Step | Action)[];
}

/** Runs the row's steps on a bed that is set up anew, and looks at the invariants after each. */
export async function runRow(t: Test, bed: Bed, row: Row): Promise<void> {
  bed.configure(row.setup);
  for (const [index, step] of row.steps.entries()) {
    if (typeof step === "function") await step(bed, t);
    else judge(t, step, bed.run(build(step.in), step.on), `packet ${index + 1}`);
    t.same(bed.violations(), [], `invariants hold after step ${index + 1}`);
  }
}

export function runRows(t: Test, bed: Bed, rows: readonly Row[]): void {
  for (const row of rows) t.test(row.name, async (t) => runRow(t, bed, row));
}

function judge(t: Test, step: Step, result: Result, name: string): void {
  const came = build(step.in);
  if (step.verdict === "pass" && result.verdict === "pass") {
    t.equal(hex(result.frame), hex(came), `${name} is untouched`);
  }
  const leaves = step.verdict === "transmit" || step.verdict === "redirect";
  const out = leaves ? parse(result.frame) : undefined;
  const expected = leaves ? parse(build(step.out ?? step.in)) : undefined;
  t.strictSame(
    { verdict: result.verdict, counted: result.counted, out },
    {
      verdict: step.verdict,
      counted: step.counted,
      out: step.randomOuterId && out && expected ? withOuterIdOf(out, expected) : expected,
    },
    name,
  );
}

function withOuterIdOf(frame: Frame, expected: Frame): Frame {
  const outer = frame.find((layer) => layer.kind === "ipv4");
  return outer?.id === undefined ? expected : change(expected, { ipv4: { id: outer.id } });
}

function hex(bytes: Uint8Array): string {
  return Buffer.from(bytes).toString("hex");
}

// --------------------------------------------------------------------------------------------- writing rows

type Patch = { readonly [Kind in Layer["kind"]]?: Partial<Omit<Extract<Layer, { kind: Kind }>, "kind">> };

/** The frame with members of its layers replaced; where there are several of a kind, of the first. */
export function change(frame: Frame, patch: Patch): Frame {
  const seen = new Set<string>();
  return frame.map((layer) => {
    if (seen.has(layer.kind)) return layer;
    seen.add(layer.kind);
    return { ...layer, ...patch[layer.kind] };
  });
}

/** The IP packet's length: what service and real server counters count. */
function packetLength(frame: Frame): number {
  return Buffer.from(build(frame)).readUInt16BE(16);
}

const NOTHING: Counted = { services: {}, realServers: {}, drops: {} };

export function passes(frame: Frame, on: InterfaceName = "c0"): Step {
  return { in: frame, on, verdict: "pass", counted: NOTHING };
}

/** Who a packet counts for: a service's name, and the real server's "address:port". */
export interface Of {
  readonly service: string;
  readonly real: string;
}

export interface Leaving {
  readonly on?: InterfaceName;
  /** Left out: redirect. */
  readonly verdict?: "transmit" | "redirect";
  readonly randomOuterId?: boolean;
}

function traffic(of: Of, counts: Counted["services"][string], drops: Counted["drops"] = {}): Counted {
  return { services: { [of.service]: counts }, realServers: { [`${of.service} ${of.real}`]: counts }, drops };
}

/** A packet from a client that opens a connection and leaves for its real server. */
export function opens(of: Of, frame: Frame, out: Frame, leaving: Leaving = {}): Step {
  const counts = { connections: 1, in_packets: 1, in_bytes: packetLength(frame) };
  return { verdict: "redirect", ...leaving, in: frame, out, counted: traffic(of, counts) };
}

/** A packet from a client of a connection that is there. */
export function continues(of: Of, frame: Frame, out: Frame, leaving: Leaving = {}): Step {
  const counts = { in_packets: 1, in_bytes: packetLength(frame) };
  return { verdict: "redirect", ...leaving, in: frame, out, counted: traffic(of, counts) };
}

/** A packet from a real server, on its way to the client. */
export function replies(of: Of, frame: Frame, out: Frame, leaving: Leaving = {}): Step {
  const counts = { out_packets: 1, out_bytes: packetLength(frame) };
  return { verdict: "redirect", on: "r0", ...leaving, in: frame, out, counted: traffic(of, counts) };
}

function dropOf(frame: Frame, reason: DropName): Counted["drops"] {
  return { [reason]: { packets: 1, bytes: build(frame).length } };
}

/** A packet that is dropped, and counted as that alone. */
export function drops(reason: DropName, frame: Frame, on: InterfaceName = "c0"): Step {
  return { in: frame, on, verdict: "drop", counted: { ...NOTHING, drops: dropOf(frame, reason) } };
}

/** A packet that opens a connection, and is then dropped on its way to the real server. */
export function opensThenDrops(of: Of, reason: DropName, frame: Frame): Step {
  return { in: frame, verdict: "drop", counted: traffic(of, { connections: 1 }, dropOf(frame, reason)) };
}

export function waits(seconds: number): Action {
  return async () => new Promise((resolve) => setTimeout(resolve, seconds * 1000));
}
