/** `sluice` as users run it, against an API over a data plane in memory. */
import { spawn } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import t from "tap";
import { ApiServer } from "../../src/api/server.js";
import { SerialDirector } from "../../src/daemon/serial-director.js";
import { validateDesiredState } from "../../src/model/index.js";
import { MemoryStore } from "../../src/store/state-store.js";
import { FakeDataPlane } from "./fake-data-plane.js";

const program = join(import.meta.dirname, "../../src/cli/main.js");

export const folder = mkdtempSync(join(tmpdir(), "sluice-cli-"));
const silent = { level: "silent", debug() {}, info() {}, warn() {}, error() {} };
export const dataPlane = new FakeDataPlane();
const desired = validateDesiredState({
  services: [
    {
      protocol: "tcp",
      address: "10.0.0.100",
      port: 80,
      scheduler: "wrr",
      real_servers: [{ address: "10.1.0.11", port: 8080, method: "nat", weight: 3 }],
    },
  ],
});
await dataPlane.publish(desired);
const server = await ApiServer.listen(
  new SerialDirector(new MemoryStore(desired), dataPlane, silent),
  join(folder, "test.sock"),
);
t.teardown(async () => {
  await server.close();
  rmSync(folder, { recursive: true });
});

export interface Outcome {
  readonly status: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

export function sluice(...args: string[]): Promise<Outcome> {
  const env = { ...process.env, SLUICE_RUNTIME_DIRECTORY: folder, SLUICE_INSTANCE: "test" };
  return new Promise((resolve, reject) => {
    const child = spawn(process.execPath, [program, ...args], { env, stdio: ["ignore", "pipe", "pipe"] });
    let stdout = "";
    let stderr = "";
    child.stdout.on("data", (chunk: Buffer) => {
      stdout += chunk.toString();
    });
    child.stderr.on("data", (chunk: Buffer) => {
      stderr += chunk.toString();
    });
    child.on("error", reject);
    child.on("close", (status) => {
      resolve({ status, stdout, stderr });
    });
  });
}

export const done = (stdout: string): Outcome => ({ status: 0, stdout, stderr: "" });
