/** `make replay TRACES="FILE-OR-FOLDER…"`: runs traces of the kernel's IPVS through the real programs and says where they part. */
import "../packet/own-namespace.js";
import { readdirSync, readFileSync, statSync } from "node:fs";
import { join } from "node:path";
import { prepareNetwork } from "./director.js";
import { type Judgement, replay } from "./replay.js";
import { replayStates } from "./states.js";
import { readTrace } from "./trace.js";
import { waitsFor } from "./waiting.js";

function traceFiles(path: string): string[] {
  if (!statSync(path).isDirectory()) return [path];
  return readdirSync(path)
    .filter((name) => name.endsWith(".json"))
    .sort()
    .map((name) => join(path, name));
}

/** Undefined where the trace has to wait; then why is in `waits`. */
async function judge(text: string, waits: string[]): Promise<Judgement | undefined> {
  const trace = readTrace(text);
  if (!("paths" in trace)) waits.push(...waitsFor(trace));
  if (waits.length > 0) return undefined;
  return "paths" in trace ? replayStates(trace) : replay(trace);
}

function failed(error: unknown): Judgement {
  return { failure: error instanceof Error ? error.message : String(error), differences: new Set() };
}

const paths = process.argv.slice(2);
if (paths.length === 0) {
  process.stderr.write('no traces: make replay TRACES="FILE-OR-FOLDER…"\n');
  process.exit(2);
}
prepareNetwork();

const totals = { passed: 0, failed: 0, skipped: 0 };
for (const file of paths.flatMap(traceFiles)) {
  const waits: string[] = [];
  const judgement = await judge(readFileSync(file, "utf8"), waits).catch(failed);
  if (judgement === undefined) {
    totals.skipped++;
    process.stdout.write(`skip ${file}: waits for ${waits.join(", ")}\n`);
  } else if (judgement.failure !== undefined) {
    totals.failed++;
    process.stdout.write(`FAIL ${file}: ${judgement.failure}\n`);
  } else {
    totals.passed++;
    const names = [...judgement.differences].map(({ name }) => name);
    process.stdout.write(`pass ${file}${names.length > 0 ? ` (${names.join("; ")})` : ""}\n`);
  }
}
process.stdout.write(`${totals.passed} passed, ${totals.failed} failed, ${totals.skipped} skipped\n`);
process.exitCode = totals.failed > 0 ? 1 : 0;
