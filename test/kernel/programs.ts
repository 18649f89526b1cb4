/**
 * Loading BPF objects and running their programs with bpftool: it is what operators have, and it owes nothing to our own
 * loader. Nothing here changes an interface that it did not make.
 */
import { spawnSync } from "node:child_process";
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";

export interface PinnedProgram {
  readonly name: string;
  readonly type: string; // as bpftool calls it: "xdp", "tracing", …
  readonly pin: string;
}

/** An object's programs in the kernel, or what bpftool, libbpf and the verifier said. */
export type Loading =
  | { readonly loaded: true; readonly programs: readonly PinnedProgram[] }
  | { readonly loaded: false; readonly log: string };

export interface Verdict {
  readonly returnValue: number;
  readonly frame: Uint8Array;
}

const PINS = "/sys/fs/bpf/test-kernel";
const NATIVE = 1; // XDP_ATTACHED_DRV of <linux/if_link.h>, as `ip -json` prints it

/** Loads every program of an object, with the map sizes and constants that it was compiled with. */
export function load(object: string): Loading {
  const pins = path.join(PINS, path.basename(object).replaceAll(".", "_")); // bpffs takes no dots
  run("mkdir", "-p", PINS);
  const { ok, output } = run("bpftool", "prog", "loadall", object, pins);
  if (!ok) return { loaded: false, log: output };
  const programs = readdirSync(pins).map((name) => {
    const pin = path.join(pins, name);
    const { type } = runJson("bpftool", "--json", "prog", "show", "pinned", pin) as { type: string };
    return { name, type, pin };
  });
  return { loaded: true, programs };
}

/** Gives one frame to an XDP program. */
export function runOnFrame(program: PinnedProgram, frame: Uint8Array): Verdict {
  const scratch = mkdtempSync(path.join(tmpdir(), "frame-"));
  try {
    const [before, after] = [path.join(scratch, "in"), path.join(scratch, "out")];
    writeFileSync(before, frame);
    const how = ["pinned", program.pin, "data_in", before, "data_out", after, "repeat", "1"];
    const { retval } = runJson("bpftool", "--json", "prog", "run", ...how) as { retval: number };
    return { returnValue: retval, frame: readFileSync(after) };
  } finally {
    rmSync(scratch, { recursive: true });
  }
}

/** Attaches an XDP program natively to one end of a new veth pair and takes it off again. Says why where that fails. */
export function attachToVeth(program: PinnedProgram): string | undefined {
  const device = "testkernel0";
  const made = run("ip", "link", "add", device, "type", "veth", "peer", "name", "testkernel1");
  if (!made.ok) return made.output;
  try {
    const attached = run("ip", "link", "set", "dev", device, "xdpdrv", "pinned", program.pin);
    if (!attached.ok) return attached.output;
    const [link] = runJson("ip", "-json", "link", "show", "dev", device) as { xdp?: { mode: number } }[];
    return link?.xdp?.mode === NATIVE ? undefined : `attached, but not natively: ${JSON.stringify(link?.xdp)}`;
  } finally {
    run("ip", "link", "delete", device);
  }
}

function run(command: string, ...args: readonly string[]): { ok: boolean; output: string } {
  const { status, stdout, stderr, error } = spawnSync(command, args, { encoding: "utf8", maxBuffer: 256 << 20 });
  return error === undefined ? { ok: status === 0, output: stdout + stderr } : { ok: false, output: error.message };
}

function runJson(command: string, ...args: readonly string[]): unknown {
  const { ok, output } = run(command, ...args);
  if (!ok) throw new Error(`${command} ${args.join(" ")}: ${output.trim()}`);
  return JSON.parse(output);
}
