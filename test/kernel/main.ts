/**
 * `make test-kernel`: whether our BPF objects work on the oldest kernel that we support, Debian 12's Linux 6.1, and whether the
 * daemon says clearly what is missing on one that is too old, Debian 11's 5.10. Boots them in qemu, where guest.ts does the
 * checking. Needs no root and installs nothing. The last line is `N passed, N failed, N skipped`; the exit status is 0 only
 * if nothing failed.
 *
 *   node dist/test/kernel/main.js [--time-limit SECONDS] [FILE]...
 *
 * A FILE is an object to load (*.o) or a compiled file of tests (*.test.js), for 6.1 alone. Without any: the objects of
 * build/bpf and the packet tests on 6.1, and the daemon on 5.10.
 */
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  realpathSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import path from "node:path";
import { parseArgs } from "node:util";
import type { FileTally, Skip } from "../tally.js";
import { buildInitramfs } from "./initramfs.js";
import { type DebianKernel, KernelPackageError, unpackDebianKernel } from "./kernel-package.js";
import { MachineError, runMachine } from "./machine.js";
import { decodeMessage, type Message } from "./report.js";
import { project, type Task } from "./task.js";

const BUSYBOX = "/bin/busybox";
const workFolder = path.join(project, "build/test-kernel");

/** Something that is missing on this machine; nothing was checked. */
class PrerequisiteError extends Error {
  override readonly name = "PrerequisiteError";
}

/** Packet tests that are about volume (a million flows, ten thousand frames) rather than about what a kernel can do. */
const TOO_LONG: readonly string[] = ["connection-table", "fuzz", "processors"];

const total = { passed: 0, failed: 0, skipped: 0 };

interface Work {
  readonly objects: readonly string[];
  readonly tests: readonly string[];
  /** Tests that are left out, and why. */
  readonly leftOut: readonly Skip[];
  /** Whether to start the daemon on the kernel that is too old. */
  readonly refusal: boolean;
  /** Of each machine. */
  readonly timeLimitSeconds: number;
}

/** Helpers of the data plane's that Linux 5.10 does not have. */
const MISSING_IN_5_10 = ["bpf_ktime_get_coarse_ns", "bpf_loop"];

function parseArguments(): Work {
  const { values, positionals } = parseArgs({
    allowPositionals: true,
    options: { "time-limit": { type: "string", default: "1800" } },
  });
  const timeLimitSeconds = Number(values["time-limit"]);
  if (!(timeLimitSeconds > 0)) throw new PrerequisiteError("--time-limit is not a number of seconds above 0");
  if (positionals.length === 0) return { ...everything(), timeLimitSeconds };
  const files = positionals.map((file) => {
    if (!existsSync(file)) throw new PrerequisiteError(`there is no file ${file}`);
    return realpathSync(file);
  });
  return {
    objects: files.filter((file) => file.endsWith(".o")),
    tests: files.filter((file) => !file.endsWith(".o")).map((file) => path.relative(project, file)),
    leftOut: [],
    refusal: false,
    timeLimitSeconds,
  };
}

function everything(): Omit<Work, "timeLimitSeconds"> {
  const tests = built("dist/test/packet", ".test.js");
  const isTooLong = (file: string): boolean => TOO_LONG.includes(path.basename(file, ".test.js"));
  return {
    objects: built("build/bpf", ".bpf.o").map((file) => path.join(project, file)),
    tests: tests.filter((file) => !isTooLong(file)),
    leftOut: tests.filter(isTooLong).map((name) => ({
      name,
      reason: "about volume, for which emulation is too slow; name the file to run it all the same",
    })),
    refusal: true,
  };
}

function built(folder: string, ending: string): string[] {
  const files = existsSync(path.join(project, folder)) ? readdirSync(path.join(project, folder)) : [];
  const found = files.filter((file) => file.endsWith(ending)).sort();
  if (found.length === 0) throw new PrerequisiteError(`no *${ending} in ${folder}: run \`make build\``);
  return found.map((file) => path.join(folder, file));
}

function builtObject(file: string): string {
  const object = path.join(project, "build", file);
  if (!existsSync(object)) throw new PrerequisiteError(`no ${object}: run \`make build\``);
  return object;
}

/** The guest's first file system: busybox, the kernel's modules, init.sh and the task. */
function initramfsOf(kernel: DebianKernel, task: Task): Buffer {
  if (!existsSync(BUSYBOX)) throw new PrerequisiteError(`no ${BUSYBOX}: apt-get install busybox-static`);
  const order = kernel.modules.map((module) => `${path.basename(module)}\n`).join("");
  return buildInitramfs([
    { kind: "directory", path: "bin" },
    { kind: "file", path: "bin/busybox", contents: readFileSync(BUSYBOX), executable: true },
    { kind: "symlink", path: "bin/sh", target: "busybox" },
    { kind: "file", path: "init", contents: readFileSync(path.join(project, "test/kernel/init.sh")), executable: true },
    { kind: "file", path: "task.json", contents: Buffer.from(JSON.stringify(task)), executable: false },
    { kind: "directory", path: "modules" },
    { kind: "file", path: "modules/order", contents: Buffer.from(order), executable: false },
    ...kernel.modules.map((module) => {
      const name = `modules/${path.basename(module)}`;
      return { kind: "file", path: name, contents: readFileSync(module), executable: false } as const;
    }),
  ]);
}

function printRow(name: string, failure: string | undefined): void {
  total[failure === undefined ? "passed" : "failed"]++;
  console.log(`  ${(failure === undefined ? "ok" : "FAILED").padEnd(6)} ${name}`);
  if (failure !== undefined) console.log(`         ${failure.replaceAll("\n", "\n         ")}`);
}

function takeTests(tally: FileTally): void {
  total.passed += tally.passed;
  total.failed += tally.failed.length;
  total.skipped += tally.skipped.length;
  const failed = tally.failed.length > 0 ? `, ${tally.failed.length} failed` : "";
  const mark = tally.failed.length > 0 ? "FAILED" : "ok";
  console.log(`  ${mark.padEnd(6)} ${tally.file}: ${tally.passed} passed${failed} (${tally.seconds.toFixed(0)} s)`);
  for (const skip of tally.skipped) console.log(`         skipped ${skip.name}: ${skip.reason}`);
  for (const failure of tally.failed) {
    console.log(`         ${[failure.name, ...failure.details].join("\n").replaceAll("\n", "\n           ")}`);
  }
}

/** Adds a message to the total and prints it. */
function take(message: Message, kernel: DebianKernel): void {
  switch (message.kind) {
    case "kernel":
      printRow(
        `the guest runs Linux ${message.release}`,
        message.release === kernel.release ? undefined : `it should be ${kernel.release}`,
      );
      return;
    case "row":
      printRow(message.name, message.failure);
      return;
    case "tests":
      takeTests(message.tally);
      return;
    case "end":
      return;
  }
}

/** Boots a kernel, has the guest do the task, and adds what it says to the total. */
async function boot(kernel: DebianKernel, task: Task, timeLimitSeconds: number): Promise<void> {
  // A folder for each run: two may go on at once.
  const runFolder = mkdtempSync(path.join(workFolder, "run-"));
  const initramfsFile = path.join(runFolder, "initramfs.cpio");
  const consoleFile = path.join(runFolder, "console.log");
  process.on("exit", () => rmSync(runFolder, { recursive: true, force: true }));
  writeFileSync(initramfsFile, initramfsOf(kernel, task));

  const seen = new Set<Message["kind"]>();
  let stopped: string | undefined;
  try {
    await runMachine({
      kernel: kernel.image,
      initramfs: initramfsFile,
      environment: { project, node: process.execPath },
      consoleFile,
      timeLimitSeconds,
      onLine: (line) => {
        const message = decodeMessage(line);
        if (message === undefined) {
          console.log(`  guest: ${line}`);
          return;
        }
        seen.add(message.kind);
        take(message, kernel);
      },
    });
  } catch (error) {
    if (!(error instanceof MachineError) || error.code === "NOT_INSTALLED") throw error;
    stopped = error.message;
  }
  if (!seen.has("end")) {
    const lastWords = existsSync(consoleFile) ? readFileSync(consoleFile, "utf8").trimEnd().split("\n").slice(-40) : [];
    const reason = stopped ?? "the guest ended before its last message";
    printRow("the check runs to its end", `${reason}\nLast on its console:\n${lastWords.join("\n")}`);
  }
}

function printSkip(name: string, reason: string): void {
  total.skipped++;
  console.log(`  skip   ${name}: ${reason}`);
}

async function checkOnSupported({ objects, tests, leftOut, timeLimitSeconds }: Work): Promise<void> {
  const kernel = unpackDebianKernel(workFolder, "supported");
  const object = builtObject("test/kernel/newer-kernel.bpf.o");
  console.log(`\nLinux ${kernel.release}, emulated:`);
  for (const { name, reason } of leftOut) printSkip(name, reason);
  const refused = { object, reason: "sleepable progs cannot use bpf_spin_lock yet" };
  await boot(kernel, { kind: "check", objects, refused, tests }, timeLimitSeconds);
}

async function checkOnTooOld(timeLimitSeconds: number): Promise<void> {
  const running = builtObject("test/network/pass.bpf.o");
  let kernel: DebianKernel;
  try {
    kernel = unpackDebianKernel(workFolder, "tooOld");
  } catch (error) {
    if (!(error instanceof KernelPackageError)) throw error;
    console.log("\nA kernel that is too old:");
    printSkip("what the daemon says there", error.message);
    return;
  }
  console.log(`\nLinux ${kernel.release}, emulated:`);
  await boot(kernel, { kind: "refusal", missing: MISSING_IN_5_10, running }, timeLimitSeconds);
}

async function main(): Promise<void> {
  const work = parseArguments();
  mkdirSync(workFolder, { recursive: true });
  await checkOnSupported(work);
  if (work.refusal) await checkOnTooOld(work.timeLimitSeconds);
  console.log(`\n${total.passed} passed, ${total.failed} failed, ${total.skipped} skipped`);
  process.exitCode = total.failed === 0 ? 0 : 1;
}

try {
  await main();
} catch (error) {
  const known = [PrerequisiteError, KernelPackageError, MachineError].some((known) => error instanceof known);
  if (!(error instanceof Error) || !known) throw error;
  console.error(`test-kernel: ${error.message}`);
  process.exitCode = 2;
}
