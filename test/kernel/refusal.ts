/** What `sluice run` does where the kernel lacks something: one clear error that names it, and nothing is changed. */
import { spawnSync } from "node:child_process";
import { mkdtempSync, readdirSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { load } from "./programs.js";
import { project } from "./task.js";

const DEVICE = "refusal0";
const BPFFS = "/sys/fs/bpf";

/** Why the daemon's answer is not as it should be; undefined if it is. `running`: an object whose program DEVICE runs meanwhile. */
export function checkDaemonRefuses(missing: readonly string[], running: string): string | undefined {
  mustRun("ip", "link", "add", DEVICE, "type", "veth", "peer", "name", "refusal1");
  const loading = load(running);
  const [program] = loading.loaded ? loading.programs : [];
  if (program === undefined) return `${running} does not load`;
  mustRun("ip", "link", "set", "dev", DEVICE, "xdp", "pinned", program.pin);

  const before = state();
  const configuration = path.join(mkdtempSync(path.join(tmpdir(), "refusal-")), "sluice.yaml");
  writeFileSync(configuration, `interfaces: [${DEVICE}]\nservices: []\n`);
  const command = [path.join(project, "dist/src/cli/main.js"), "run", "--config", configuration];
  const { status, stdout, stderr } = spawnSync(process.execPath, command, { encoding: "utf8", timeout: 120_000 });
  const after = state();

  const said = `it ended with status ${status ?? "none"} and said:\n${stdout}${stderr}`;
  if (status === null || status === 0) return said;
  const lines = stderr.trimEnd().split("\n");
  if (lines.length !== 1 || !stderr.startsWith("sluice: KERNEL_FEATURE_MISSING: ")) return said;
  const unnamed = missing.filter((feature) => !stderr.includes(feature));
  if (unnamed.length > 0) return `it does not name ${unnamed.join(", ")}; ${said}`;
  return before === after ? undefined : `it changed\n${before}\nto\n${after}`;
}

/** The programs that interfaces run, and what is pinned. */
function state(): string {
  const links = JSON.parse(mustRun("ip", "-json", "link", "show")) as { ifname: string; xdp?: unknown }[];
  const running = links.map(({ ifname, xdp }) => ({ ifname, xdp }));
  return JSON.stringify({ running, pins: readdirSync(BPFFS, { recursive: true }).sort() });
}

function mustRun(command: string, ...args: readonly string[]): string {
  const { status, stdout, stderr } = spawnSync(command, args, { encoding: "utf8" });
  if (status !== 0) throw new Error(`${command} ${args.join(" ")}: ${stderr.trim()}`);
  return stdout;
}
