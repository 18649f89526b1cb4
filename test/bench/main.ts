/** `make bench`: docs/performance.md says how to read what it prints. */
import "../packet/own-namespace.js";
import { readFileSync, writeFileSync } from "node:fs";
import { cpus, loadavg, release } from "node:os";
import { parseArgs } from "node:util";
import { Bench, bucketsFor, type RowResult, type Settings, TABLE_ENTRIES } from "./bench.js";
import { measureControlPlane } from "./control-plane.js";
import { measureListing } from "./listing.js";
import { profile } from "./profile.js";
import { markdown, printControlPlane, printHeading, printListing, printRow, printSweep } from "./report.js";
import { type Row, rows } from "./rows.js";
import { measureSweep } from "./sweep.js";

const USAGE = `Usage: node dist/test/bench/main.js [options] [row...]

A row is named by its whole name or by a beginning of it up to a dash ("dr", "syn"). None named: all.

  --quick          fewer and shorter rounds, without the slow rows: about 20 s
  --rounds NUMBER  turns of the programs in every row (21; with --quick 7)
  --json FILE      write the results with all samples, too
  --markdown FILE  write the packet rows as a table for docs/performance.md, too
  --list           print the names of the rows
  --profile ROW    no measurements: where the time of one row goes
`;

const { values: options, positionals: wanted } = readArguments();

function readArguments() {
  try {
    return parseArgs({
      allowPositionals: true,
      options: {
        quick: { type: "boolean", default: false },
        rounds: { type: "string" },
        json: { type: "string" },
        markdown: { type: "string" },
        list: { type: "boolean", default: false },
        profile: { type: "string" },
        help: { type: "boolean", default: false },
      },
    });
  } catch (error) {
    return refuse(`${error instanceof Error ? error.message : String(error)}\n\n${USAGE}`);
  }
}

function refuse(message: string): never {
  console.error(message);
  process.exit(2);
}

function roundsOf(text: string): number {
  const rounds = Number(text);
  if (!Number.isInteger(rounds) || rounds < 1) refuse(`--rounds is ${text}; it takes an integer from 1`);
  return rounds;
}

/** The rows that run the sweeper and the daemon; their figures are others than those of packets. */
const SWEEP = "sweep";
const CONTROL_PLANE = "control-plane";
const LISTING = "listing";

function isWanted(name: string, slow: boolean): boolean {
  if (wanted.length === 0) return !(options.quick && slow);
  return wanted.some((want) => name === want || name.startsWith(`${want}-`));
}

/** What the figures depend on, beside the code. */
function machine(): Record<string, string | number> {
  const model = /^model name\s*:\s*(.*)$/m.exec(readFileSync("/proc/cpuinfo", "utf8"))?.[1];
  return {
    date: new Date().toISOString(),
    kernel: release(),
    processor: model ?? "unknown",
    processors: cpus().length,
    load: loadavg()[0] ?? 0,
  };
}

async function measure(): Promise<void> {
  const settings = {
    rounds: roundsOf(options.rounds ?? (options.quick ? "7" : "21")),
    scale: options.quick ? 0.25 : 1,
  };
  const before = machine();
  console.log(
    Object.entries(before)
      .map(([name, value]) => `${name} ${value}`)
      .join(", "),
  );
  const chosen = rows.filter(({ name, slow }) => isWanted(name, slow));
  const withControlPlane = isWanted(CONTROL_PLANE, true);
  const withSweep = isWanted(SWEEP, true);
  const withListing = isWanted(LISTING, true);
  if (chosen.length === 0 && !withSweep && !withControlPlane && !withListing) {
    refuse(`no row is named ${wanted.join(" ")}; --list prints the names`);
  }
  const results = chosen.length === 0 ? [] : await measurePackets(chosen, settings);
  const sweep = withSweep ? await measureSweep() : undefined;
  if (sweep !== undefined) printSweep(sweep);
  const controlPlane = withControlPlane ? await measureControlPlane() : undefined;
  if (controlPlane !== undefined) printControlPlane(controlPlane);
  const listing = withListing ? await measureListing() : undefined;
  if (listing !== undefined) printListing(listing);
  console.log(`\nload average after it: ${(loadavg()[0] ?? 0).toFixed(2)}`);
  if (options.markdown !== undefined) writeFileSync(options.markdown, markdown(results));
  if (options.json !== undefined) {
    const all = {
      machine: before,
      ...settings,
      tableEntries: TABLE_ENTRIES,
      rows: results,
      sweep,
      controlPlane,
      listing,
    };
    writeFileSync(options.json, `${JSON.stringify(all, null, 2)}\n`);
  }
}

async function measurePackets(chosen: readonly Row[], settings: Settings): Promise<RowResult[]> {
  const bench = await Bench.open(settings);
  try {
    const table = bench.bed.object.map("connection_table");
    const bytesPerEntry = (table.valueSize * bucketsFor(TABLE_ENTRIES)) / TABLE_ENTRIES;
    console.log(`connection table for ${TABLE_ENTRIES} entries: ${bytesPerEntry.toFixed(1)} bytes each\n`);
    printHeading();
    const results: RowResult[] = [];
    for (const row of chosen) {
      const result = await row.run(bench);
      printRow(result);
      results.push(result);
    }
    return results;
  } finally {
    await bench.close();
  }
}

async function profileRow(name: string): Promise<void> {
  const row = rows.find((one) => one.name === name);
  if (row === undefined) refuse(`no row is named ${name}; --list prints the names`);
  const bench = await Bench.open({ rounds: 1, scale: 0.1 });
  try {
    await profile(bench, row);
  } finally {
    await bench.close();
  }
}

if (options.help) console.log(USAGE);
else if (options.list)
  for (const name of [...rows.map((row) => row.name), SWEEP, CONTROL_PLANE, LISTING]) console.log(name);
else if (options.profile !== undefined) await profileRow(options.profile);
else await measure();
