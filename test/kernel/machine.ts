import { spawn } from "node:child_process";
import { createInterface } from "node:readline";

export interface MachineOptions {
  readonly kernel: string;
  readonly initramfs: string;
  /** Names and values without quotes; the kernel hands those it does not know to the first process as environment. */
  readonly environment: Readonly<Record<string, string>>;
  /** Where the kernel's own messages go. */
  readonly consoleFile: string;
  readonly timeLimitSeconds: number;
  /** Called with each line that the guest writes to its second serial port. */
  readonly onLine: (line: string) => void;
}

export class MachineError extends Error {
  override readonly name = "MachineError";
  constructor(
    readonly code: "NOT_INSTALLED" | "TIME_LIMIT" | "QEMU_FAILED",
    message: string,
  ) {
    super(message);
  }
}

const QEMU = "qemu-system-x86_64";

/**
 * Runs a virtual machine until it powers itself off. It is emulated, so that every machine takes the same way and no
 * privilege is needed; has no network; and sees this machine's files, read-only, as the 9p share "system".
 */
export async function runMachine(options: MachineOptions): Promise<void> {
  const environment = Object.entries(options.environment).map(([name, value]) => `${name}="${value}"`);
  const args = [
    ["-accel", "tcg", "-cpu", "max", "-smp", "2", "-m", "2048"],
    ["-nodefaults", "-display", "none", "-no-reboot"],
    ["-kernel", options.kernel, "-initrd", options.initramfs],
    // The first process writes to ttyS1; panic=-1 restarts at once, which -no-reboot makes the end.
    ["-append", ["console=ttyS0", "panic=-1", ...environment].join(" ")],
    ["-serial", `file:${options.consoleFile}`, "-serial", "stdio"],
    ["-fsdev", "local,id=system,path=/,security_model=none,readonly=on,multidevs=remap"],
    ["-device", "virtio-9p-pci,fsdev=system,mount_tag=system"],
  ].flat();

  const timeLimit = AbortSignal.timeout(options.timeLimitSeconds * 1000);
  const qemu = spawn(QEMU, args, { stdio: ["ignore", "pipe", "pipe"], signal: timeLimit, killSignal: "SIGKILL" });
  const complaints: Buffer[] = [];
  qemu.stderr.on("data", (chunk: Buffer) => complaints.push(chunk));
  // The guest's terminal ends lines with CR LF, which readline takes for one end.
  createInterface(qemu.stdout).on("line", (line) => options.onLine(line));

  const status = await new Promise<number | NodeJS.Signals>((resolve, reject) => {
    qemu.on("error", () => {
      const error = timeLimit.aborted
        ? new MachineError("TIME_LIMIT", `not done after ${options.timeLimitSeconds} s, the time limit: stopped`)
        : new MachineError("NOT_INSTALLED", `cannot start ${QEMU}: apt-get install qemu-system-x86`);
      reject(error);
    });
    qemu.on("close", (code, signal) => resolve(code ?? signal ?? 0));
  });
  if (status !== 0) {
    const said = Buffer.concat(complaints).toString().trim();
    throw new MachineError("QEMU_FAILED", `${QEMU} ended with ${status}: ${said}`);
  }
}
