/**
 * Imported first by every test that touches the kernel: runs the importing file again in a network namespace of its own,
 * and ends this process with its status. The mount namespace stays, so /sys/fs/bpf is the machine's own.
 */
import { spawnSync } from "node:child_process";

const MARK = "SLUICE_PACKET_NAMESPACE";

if (process.env[MARK] === undefined) {
  const file = process.argv[1];
  if (file === undefined) throw new Error("a packet test is started as a file");
  // Node waits for no signal while a child runs synchronously: if this process is killed, the kernel ends the child.
  const child = spawnSync(
    "setpriv",
    ["--pdeathsig", "KILL", "unshare", "--net", process.execPath, ...process.execArgv, file, ...process.argv.slice(2)],
    { stdio: "inherit", env: { ...process.env, [MARK]: "1" } },
  );
  if (child.error !== undefined) throw child.error;
  process.exit(child.status ?? 1);
}
