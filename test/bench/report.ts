/** Results as a table for people. */
import type { Measured, RowResult } from "./bench.js";
import type { ControlPlaneResult } from "./control-plane.js";
import type { ListingResult } from "./listing.js";
import type { Summary } from "./statistics.js";
import type { Pass, SweepResult } from "./sweep.js";

const WIDTHS = [23, 53, 17, 7, 8, 8, 7] as const;

function line(cells: readonly string[]): string {
  return cells
    .map((cell, i) => (i < 2 ? cell.padEnd(WIDTHS[i] ?? 0) : cell.padStart(WIDTHS[i] ?? 0)))
    .join(" ")
    .trimEnd();
}

function spread({ median, low, high }: Summary): string {
  return `${median.toFixed(0)} (${low.toFixed(0)}..${high.toFixed(0)})`;
}

export function printHeading(): void {
  console.log("ns a packet: medians over the rounds; in brackets between which half of the rounds lie;");
  console.log("least: the difference of the fastest rounds, which is what is left when others use the machine\n");
  console.log(line(["row", "", "above floor", "least", "sluice", "floor", "ratio"]));
}

function cells(title: string, one: Measured, above: Summary, floor: Measured): string[] {
  const ratio = `${(one.median / floor.median).toFixed(1)}x`;
  const least = (one.min - floor.min).toFixed(0);
  return [title, spread(above), least, one.median.toFixed(0), floor.median.toFixed(0), ratio];
}

export function printRow(result: RowResult): void {
  for (const [place, one] of result.measured.entries()) {
    const above = result.above[place];
    if (above === undefined) throw new RangeError(`${result.name} has no difference for ${one.name}`);
    const alone = result.measured.length === 1;
    const title = alone ? result.title : `${place === 0 ? `${result.title}: ` : ""}${one.name}`;
    console.log(line([place === 0 ? result.name : "", ...cells(title, one, above, result.floor)]));
  }
  if (result.ratio !== undefined) {
    const { median, low, high } = result.ratio;
    console.log(
      line([
        "",
        `the second above the floor by ${median.toFixed(2)} (${low.toFixed(2)}..${high.toFixed(2)}) times the first`,
      ]),
    );
  }
}

/** The same as a table for docs/performance.md. */
export function markdown(results: readonly RowResult[]): string {
  const lines = ["| row | above floor | least | sluice | floor | |", "| --- | --- | --- | --- | --- | --- |"];
  for (const result of results) {
    for (const [place, one] of result.measured.entries()) {
      const above = result.above[place];
      if (above === undefined) throw new RangeError(`${result.name} has no difference for ${one.name}`);
      const [title, ...figures] = cells(one.name, one, above, result.floor);
      const name = result.measured.length === 1 ? result.name : `${result.name}, ${title ?? ""}`;
      lines.push(`| ${[name, ...figures].join(" | ")} |`);
    }
  }
  return `${lines.join("\n")}\n`;
}

export function printControlPlane(result: ControlPlaneResult): void {
  const services = `${result.services.toLocaleString("en")} services of ${result.realServersEach} real servers each`;
  const seconds = (ms: number): string => `${(ms / 1000).toFixed(1)} s`;
  const times = ({ median, p99 }: { median: number; p99: number }): string =>
    `${median.toFixed(1)} ms (p99 ${p99.toFixed(1)})`;
  console.log(`\ncontrol plane: ${services}, ${(result.yamlBytes / 1e6).toFixed(1)} MB of YAML`);
  for (const [name, value] of [
    ["from start to serving", `${seconds(result.startMs)}, of which it computed ${seconds(result.startCpuMs)}`],
    ["the same over a data plane in place", seconds(result.restartMs)],
    ["a weight over gRPC, to the data plane", times(result.changeMs)],
    ["the same, to the answer", `${times(result.answerMs)}, computed ${result.changeCpuMs.toFixed(1)} ms`],
    ["memory", `${result.residentMb.toFixed(0)} MiB resident, ${result.peakResidentMb.toFixed(0)} at most`],
  ] as const) {
    console.log(`  ${name.padEnd(38)} ${value}`);
  }
}

export function printSweep(results: readonly SweepResult[]): void {
  const text = ({ totalMs, longestSliceMs, slices }: Pass): string =>
    `${totalMs.toFixed(1)} ms in ${slices} slices, the longest ${longestSliceMs.toFixed(2)} ms`;
  for (const { method, entries, connections, live, expired } of results) {
    const table = `${entries.toLocaleString("en")} entries, ${connections.toLocaleString("en")} connections by ${method}`;
    console.log(`\nsweep: ${table}`);
    for (const [index, pass] of live.entries()) console.log(`  live, pass ${index + 1}`.padEnd(23), text(pass));
    console.log("  all expired".padEnd(23), text(expired));
  }
}

const LISTINGS = {
  cat: "cat",
  api: "ListConnections, taken apart",
  filtered: "the same, a tenth selected by the real server",
  count: "CountConnections",
  cli: "sluice connections > /dev/null",
  cliCount: "sluice connections --count",
} as const;

export function printListing(results: readonly ListingResult[]): void {
  for (const { method, connections, seconds, daemonCpuMs } of results) {
    console.log(`\nlisting ${connections.toLocaleString("en")} connections by ${method}: seconds, round by round`);
    for (const [name, title] of Object.entries(LISTINGS)) {
      const rounds = seconds[name as keyof typeof LISTINGS].map((one) => one.toFixed(2)).join("  ");
      console.log(`  ${title.padEnd(46)} ${rounds}`);
    }
    console.log(`  ${"the daemon computes for ListConnections".padEnd(46)} ${(daemonCpuMs / 1000).toFixed(2)}`);
  }
}
