/**
 * Runs on the kernel under test, in the guest that main.ts boots: loads objects, gives frames to their programs, attaches
 * them to an interface, and runs the packet tests. Reports on standard output, in the lines of report.ts.
 */
import { spawn } from "node:child_process";
import { once } from "node:events";
import { release } from "node:os";
import path from "node:path";
import { TapReader } from "../tally.js";
import { foreignFrames } from "./frames.js";
import { attachToVeth, load, type PinnedProgram, runOnFrame } from "./programs.js";
import { encodeMessage, type Message } from "./report.js";
import { project, readTask, type Task } from "./task.js";

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

function checkRefusal({ object, reason }: Task["refused"]): void {
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

/** Runs test files one after the other and reports each. */
async function runTests(files: readonly string[]): Promise<void> {
  const missing = new Set(files);
  const reader = new TapReader((tally) => {
    missing.delete(tally.file);
    report({ kind: "tests", tally });
  });
  const options = ["--reporter=tap", "--disable-coverage", "--jobs=1", `--timeout=${TEST_FILE_SECONDS}`];
  const tap = spawn(path.join(project, "node_modules/.bin/tap"), [...options, ...files], {
    cwd: project,
    stdio: ["ignore", "pipe", "inherit"],
  });
  const ended = once(tap, "close");
  for await (const chunk of tap.stdout) reader.write(chunk as Buffer);
  await ended;
  reader.end();
  row("every test file ran", () =>
    missing.size === 0 ? undefined : `${[...missing].join(", ")} did not: ${reader.bailout ?? "tap ended before"}`,
  );
}

const task = readTask();
report({ kind: "kernel", release: release() });
for (const object of task.objects) checkObject(object);
checkRefusal(task.refused);
if (task.tests.length > 0) await runTests(task.tests);
report({ kind: "end" });
