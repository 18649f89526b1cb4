/**
 * `make test-kernel`: whether our BPF objects work on the oldest kernel that we support, Debian 12's Linux 6.1. Boots it in
 * qemu, where guest.ts does the checking. Needs no root and installs nothing. The last line is
 * `N passed, N failed, N skipped`; the exit status is 0 only if nothing failed.
 *
 *   node dist/test/kernel/main.js [--object FILE]... [--time-limit SECONDS] [SUITE]...
 *
 * Without arguments: every object of build/bpf, and the suites libbpf-ts and packet of test/runner.ts. With --object only
 * what is named.
 */
import { existsSync, mkdirSync, readdirSync, readFileSync, realpathSync, rmSync, writeFileSync } from "node:fs";
import path from "node:path";
import { parseArgs } from "node:util";
import { buildInitramfs } from "./initramfs.js";
import { type DebianKernel, KernelPackageError, unpackDebianKernel } from "./kernel-package.js";
import { MachineError, runMachine } from "./machine.js";
import { decodeMessage, type Message } from "./report.js";
import { project, type Task, workFolder, writeTask } from "./task.js";

const BUSYBOX = "/bin/busybox";
const initramfsFile = path.join(workFolder, "initramfs.cpio");
const consoleFile = path.join(workFolder, "console.log");

/** Something that is missing on this machine; nothing was checked. */
class PrerequisiteError extends Error {
  override readonly name = "PrerequisiteError";
}

const total = { passed: 0, failed: 0, skipped: 0 };

function parseArguments(): { objects: string[]; suites: string[]; timeLimitSeconds: number } {
  const { values, positionals } = parseArgs({
    allowPositionals: true,
    options: { object: { type: "string", multiple: true }, "time-limit": { type: "string", default: "900" } },
  });
  const timeLimitSeconds = Number(values["time-limit"]);
  if (!(timeLimitSeconds > 0)) throw new PrerequisiteError("--time-limit is not a number of seconds above 0");
  if (values.object !== undefined) {
    return { objects: values.object.map((file) => realpathSync(file)), suites: positionals, timeLimitSeconds };
  }
  const suites = positionals.length > 0 ? positionals : ["libbpf-ts", "packet"];
  return { objects: builtObjects(), suites, timeLimitSeconds };
}

function builtObjects(): string[] {
  const folder = path.join(project, "build/bpf");
  const names = existsSync(folder) ? readdirSync(folder).filter((name) => name.endsWith(".bpf.o")) : [];
  if (names.length === 0) throw new PrerequisiteError(`no *.bpf.o in ${folder}: run \`make build\``);
  return names.sort().map((name) => path.join(folder, name));
}

function refusedObject(): Task["refused"] {
  const object = path.join(project, "build/test/kernel/newer-kernel.bpf.o");
  if (!existsSync(object)) throw new PrerequisiteError(`no ${object}: run \`make build\``);
  return { object, reason: "sleepable progs cannot use bpf_spin_lock yet" };
}

function writeInitramfs(kernel: DebianKernel): void {
  if (!existsSync(BUSYBOX)) throw new PrerequisiteError(`no ${BUSYBOX}: apt-get install busybox-static`);
  const order = path.join(workFolder, "modules.order");
  writeFileSync(order, kernel.modules.map((module) => `${path.basename(module)}\n`).join(""));
  const init = path.join(project, "test/kernel/init.sh");
  const image = buildInitramfs([
    { kind: "directory", path: "bin" },
    { kind: "file", path: "bin/busybox", source: BUSYBOX, executable: true },
    { kind: "symlink", path: "bin/sh", target: "busybox" },
    { kind: "file", path: "init", source: init, executable: true },
    { kind: "directory", path: "modules" },
    { kind: "file", path: "modules/order", source: order, executable: false },
    ...kernel.modules.map(
      (source) => ({ kind: "file", path: `modules/${path.basename(source)}`, source, executable: false }) as const,
    ),
  ]);
  writeFileSync(initramfsFile, image);
}

function printRow(name: string, failure: string | undefined): void {
  total[failure === undefined ? "passed" : "failed"]++;
  console.log(`  ${(failure === undefined ? "ok" : "FAILED").padEnd(6)} ${name}`);
  if (failure !== undefined) console.log(`         ${failure.replaceAll("\n", "\n         ")}`);
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
    case "text":
      console.log(`  ${message.text}`);
      return;
    case "tally":
      total.passed += message.passed;
      total.failed += message.failed;
      total.skipped += message.skipped;
      return;
    case "end":
      return;
  }
}

async function main(): Promise<void> {
  const { objects, suites, timeLimitSeconds } = parseArguments();
  mkdirSync(workFolder, { recursive: true });
  const kernel = unpackDebianKernel(workFolder);
  writeTask({ objects, refused: refusedObject(), suites });
  writeInitramfs(kernel);

  console.log(`\nLinux ${kernel.release}, emulated:`);
  const seen = new Set<Message["kind"]>();
  let stopped: string | undefined;
  rmSync(consoleFile, { force: true });
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
    const lastWords = existsSync(consoleFile) ? readFileSync(consoleFile, "utf8").trimEnd().split("\n").slice(-20) : [];
    const reason = stopped ?? "the guest ended before its last message";
    printRow("the check runs to its end", `${reason}\nLast on its console (${consoleFile}):\n${lastWords.join("\n")}`);
  }
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
