/**
 * `--profile ROW`: where the time of one row goes. Virtual machines often have no counters for cycles, so perf samples by the
 * clock; it sees the program, its subprograms that were not inlined, and the kernel's functions that they call.
 */
import { spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import type { Bench } from "./bench.js";
import type { Row } from "./rows.js";

const SECONDS = 3;

export async function profile(bench: Bench, row: Row): Promise<void> {
  const { translatedBytes, jitedBytes, verifiedInstructions } = bench.sluice.info();
  console.log(`program sluice: ${translatedBytes / 8} instructions, ${jitedBytes} bytes of machine code,`);
  console.log(`${verifiedInstructions} instructions walked through by the verifier\n`);
  if (spawnSync("perf", ["--version"]).error !== undefined) {
    console.log("perf is not installed (Debian package linux-perf): no profile");
    return;
  }

  // Afterwards the row's packets and its last program are what the prelude has.
  await row.run(bench);
  const folder = mkdtempSync(path.join(tmpdir(), "sluice-bench-"));
  try {
    const file = path.join(folder, "perf.data");
    const recorder = spawn(
      "perf",
      ["record", "-q", "-e", "cpu-clock", "-F", "9973", "-o", file, "-p", `${process.pid}`],
      {
        stdio: ["ignore", "inherit", "inherit"],
      },
    );
    const ended = once(recorder, "exit");
    await sleep(300);
    const until = Date.now() + SECONDS * 1000;
    while (Date.now() < until) await bench.prelude.run(100_000);
    recorder.kill("SIGINT");
    await ended;
    const report = spawnSync("perf", ["report", "-i", file, "--stdio", "--sort", "symbol", "--percent-limit", "0.5"], {
      encoding: "utf8",
      stdio: ["ignore", "pipe", "ignore"],
    });
    console.log(report.stdout.replaceAll(/^#.*\n|^\n/gm, ""));
  } finally {
    rmSync(folder, { recursive: true });
  }
}
