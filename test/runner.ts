/**
 * `make test`: runs the test suites with tap and sums them up. Its last line is `N passed, N failed, N skipped`, counted
 * as test/tally.ts says; the exit status is 0 only if nothing failed. Arguments name the suites to run; none means all.
 */
import { spawn } from "node:child_process";
import { createWriteStream, existsSync, mkdirSync, readdirSync } from "node:fs";
import { availableParallelism } from "node:os";
import path from "node:path";
import { add, emptyTally, type FileTally, type Tally, TapReader } from "./tally.js";

interface Suite {
  readonly name: string;
  /** Where tap runs, relative to the project. */
  readonly cwd: string;
  /** Where its *.test.js are, relative to cwd. */
  readonly folder: string;
  /** How many files at a time. What touches the kernel runs alone. */
  readonly jobs: number;
}

const project = path.resolve(import.meta.dirname, "../..");

/** How long one file may take: many times what it needs, since other work may share the machine. */
const TIMEOUT_SECONDS = 300;

const suites: readonly Suite[] = [
  { name: "unit", cwd: ".", folder: "dist/test/unit", jobs: availableParallelism() },
  { name: "libbpf-ts", cwd: "src/libbpf-ts", folder: "dist/test", jobs: 1 },
  { name: "packet", cwd: ".", folder: "dist/test/packet", jobs: 1 },
  { name: "stress", cwd: ".", folder: "dist/test/stress", jobs: 1 },
  { name: "wire", cwd: ".", folder: "dist/test/wire", jobs: 1 },
];

function testFiles(suite: Suite): string[] {
  const folder = path.join(project, suite.cwd, suite.folder);
  if (!existsSync(folder)) return [];
  return readdirSync(folder, { recursive: true, encoding: "utf8" })
    .filter((file) => file.endsWith(".test.js"))
    .map((file) => path.join(suite.folder, file))
    .sort();
}

async function runSuite(suite: Suite): Promise<Tally> {
  const tally = emptyTally();
  const files = testFiles(suite);
  console.log(`\n${suite.name}: ${files.length} files`);
  if (files.length === 0) {
    tally.failed.push({ name: suite.name, details: [`no *.test.js in ${path.join(suite.cwd, suite.folder)}`] });
    return tally;
  }

  const missing = new Set(files);
  const reader = new TapReader((file) => {
    missing.delete(file.file);
    printFile(file);
    add(tally, file);
  });
  const record = path.join(project, "build/tap", `${suite.name}.tap`);
  mkdirSync(path.dirname(record), { recursive: true });
  const recorder = createWriteStream(record);

  const tap = spawn(
    path.join(project, "node_modules/.bin/tap"),
    ["--reporter=tap", "--disable-coverage", `--jobs=${suite.jobs}`, `--timeout=${TIMEOUT_SECONDS}`, ...files],
    { cwd: path.join(project, suite.cwd), stdio: ["ignore", "pipe", "inherit"] },
  );
  tap.stdout.on("data", (chunk: Buffer) => {
    recorder.write(chunk);
    reader.write(chunk);
  });
  const end = await new Promise<string | number>((resolve, reject) => {
    tap.on("error", reject);
    tap.on("close", (status, signal) => {
      resolve(status ?? signal ?? "unknown");
    });
  });
  reader.end();
  recorder.end();

  for (const file of missing) {
    tally.failed.push({ name: file, details: [`did not finish: ${reader.bailout ?? `tap ended with ${end}`}`] });
  }
  if (end !== 0 && tally.failed.length === 0) {
    tally.failed.push({ name: suite.name, details: [`every test passed, but tap ended with ${end}`] });
  }
  return tally;
}

function printFile(file: FileTally): void {
  const counts = [`${file.passed} passed`];
  if (file.failed.length > 0) counts.push(`${file.failed.length} failed`);
  if (file.skipped.length > 0) counts.push(`${file.skipped.length} skipped`);
  const mark = file.failed.length > 0 ? "FAILED" : "ok";
  console.log(`  ${mark.padEnd(6)} ${file.file}: ${counts.join(", ")} (${file.seconds.toFixed(1)} s)`);
}

function printSkips(tally: Tally): void {
  if (tally.skipped.length === 0) return;
  console.log("\nSkipped:");
  for (const skip of tally.skipped) console.log(`  ${skip.name}: ${skip.reason}`);
}

function printFailures(tally: Tally): void {
  if (tally.failed.length === 0) return;
  console.log("\nFailed:");
  for (const failure of tally.failed) {
    console.log(`  ${failure.name}`);
    for (const detail of failure.details) console.log(`    ${detail.replaceAll("\n", "\n    ")}`);
  }
}

const wanted = process.argv.slice(2);
for (const name of wanted) {
  if (!suites.some((suite) => suite.name === name)) {
    console.error(`no test suite ${name}; there are: ${suites.map((suite) => suite.name).join(", ")}`);
    process.exit(2);
  }
}

const total = emptyTally();
for (const suite of suites) {
  if (wanted.length === 0 || wanted.includes(suite.name)) add(total, await runSuite(suite));
}
printSkips(total);
printFailures(total);
console.log(`\n${total.passed} passed, ${total.failed.length} failed, ${total.skipped.length} skipped`);
process.exitCode = total.failed.length === 0 ? 0 : 1;
