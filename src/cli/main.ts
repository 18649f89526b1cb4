#!/usr/bin/env node
import { failureOf } from "./failure.js";
import { sluiceProgram } from "./program.js";

// `sluice service list | head` ends when head has seen enough.
process.stdout.on("error", (error: NodeJS.ErrnoException) => {
  if (error.code !== "EPIPE") {
    throw error;
  }
  process.exit();
});

try {
  await sluiceProgram().parseAsync();
} catch (error) {
  const { status, lines } = failureOf(error);
  for (const line of lines) {
    process.stderr.write(`${line}\n`);
  }
  process.exitCode = status;
}
