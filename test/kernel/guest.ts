/**
 * Runs on the kernel under test, in the guest that main.ts boots: loads objects, gives frames to their programs, attaches
 * them to an interface, and runs the packet tests; or, on a kernel that is too old, starts the daemon. Reports on standard output, in the lines of report.ts.
 */
import { spawnSync } from "node:child_process";
import { readFileSync } from "node:fs";
import { release } from "node:os";
import path from "node:path";
import { TapReader } from "../tally.js";
import { foreignFrames } from "./frames.js";
import { attachToVeth, load, type PinnedProgram, runOnFrame } from "./programs.js";
import { checkDaemonRefuses } from "./refusal.js";
import { encodeMessage, type Message } from "./report.js";
import { type CheckTask, project, type Task } from "./task.js";

const XDP_PASS = 2;

/** How long one file of tests may take: what takes seconds takes minutes where every instruction is emulated. */
const TEST_FILE_SECONDS = 600;

/** Programs that see packets. The other XDP programs are run by the control plane, with requests in place of packets. */
const PACKET_PROGRAMS: readonly string[] = ["sluice", "decapsulate"];

function report(message: Message): void {
  process.stdout.write(encodeMessage(message));
}

/** Reports `check`: it returns why it failed, or undefined; what it throws is a failure as well. */
function row(name: string, check: () => string | undefined): void {
  let failure: string | undefined;
  try {
    failure = check();
  } catch (error) {
    failure = error instanceof Error ? error.message : String(error);
  }
  report({ kind: "row", name, ...(failure !== undefined && { failure }) });
}

function checkObject(object: string): void {
  const name = path.basename(object);
  let programs: readonly PinnedProgram[] = [];
  row(`${name}: every program loads`, () => {
    const loading = load(object);
    if (!loading.loaded) return lastLines(loading.log);
    programs = loading.programs;
    return programs.length === 0 ? "it has no program" : undefined;
  });
  for (const program of programs.filter(({ name }) => PACKET_PROGRAMS.includes(name))) {
    row(`${name}: ${program.name} attaches natively to a veth`, () => attachToVeth(program));
    for (const [title, frame] of foreignFrames) {
      row(`${name}: ${program.name} passes ${title} on unchanged`, () => {
        const verdict = runOnFrame(program, frame);
        if (verdict.returnValue !== XDP_PASS) return `returns ${verdict.returnValue}, not XDP_PASS`;
        if (Buffer.compare(frame, verdict.frame) === 0) return undefined;
        return `changes it\nfrom ${hex(frame)}\nto   ${hex(verdict.frame)}`;
      });
    }
  }
}

function checkRefusal({ object, reason }: CheckTask["refused"]): void {
  row(`${path.basename(object)}: is refused, so this check can fail`, () => {
    const loading = load(object);
    if (loading.loaded) return "it loads";
    return loading.log.includes(reason) ? undefined : `not because "${reason}":\n${lastLines(loading.log)}`;
  });
}

/** The end of a failed load's output, where the verifier says why; all before is its way there. */
function lastLines(output: string): string {
  const count = 40;
  const lines = output.trimEnd().split("\n");
  return lines.length <= count ? lines.join("\n") : ["…", ...lines.slice(-count)].join("\n");
}

function hex(bytes: Uint8Array): string {
  return Buffer.from(bytes).toString("hex");
}

/**
 * Runs test files, each by itself: starting tap's own runner takes minutes here. What TapReader reads is what that runner
 * would have written: a subtest for each file.
 */
function runTests(files: readonly string[]): void {
  const reader = new TapReader((tally) => report({ kind: "tests", tally }));
  for (const [index, file] of files.entries()) {
    const start = performance.now();
    const { status, signal, stdout, stderr } = spawnSync(process.execPath, [file], {
      cwd: project,
      encoding: "utf8",
      env: { ...process.env, TAP_TIMEOUT: String(TEST_FILE_SECONDS) },
      timeout: TEST_FILE_SECONDS * 1000,
      killSignal: "SIGKILL",
      maxBuffer: 256 << 20,
    });
    const milliseconds = Math.round(performance.now() - start);
    process.stderr.write(stderr);
    reader.write(`# Subtest: ${file}\n${stdout.replace(/^TAP version 14\n/, "").replace(/^(?=.)/gm, "    ")}`);
    reader.write(`${status === 0 ? "ok" : "not ok"} ${index + 1} - ${file} # time=${milliseconds}ms\n`);
    if (status !== 0) reader.write(`  ---\n  exitCode: ${status ?? "null"}\n  signal: ${signal ?? "null"}\n  ...\n`);
  }
  reader.write(`1..${files.length}\n`);
  reader.end();
}

const [taskFile = ""] = process.argv.slice(2);
const task = JSON.parse(readFileSync(taskFile, "utf8")) as Task;
report({ kind: "kernel", release: release() });
switch (task.kind) {
  case "check":
    for (const object of task.objects) checkObject(object);
    checkRefusal(task.refused);
    runTests(task.tests);
    break;
  case "refusal":
    row(`sluice run names what the kernel lacks (${task.missing.join(", ")}), and changes nothing`, () =>
      checkDaemonRefuses(task.missing, task.running),
    );
    break;
}
report({ kind: "end" });
