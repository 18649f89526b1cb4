/** The laboratory itself: nothing of it stays behind, however its process ends. */
import { existsSync, mkdirSync, readdirSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { test } from "tap";
import { Laboratory } from "../network/namespace.js";
import { BackgroundProgram, eventually } from "../network/program.js";

const NAMESPACE_MODULE = fileURLToPath(new URL("../network/namespace.js", import.meta.url));

/** A process with a laboratory in which a program runs; prints the laboratory's name. */
const OWNER = `
  import { Laboratory } from ${JSON.stringify(NAMESPACE_MODULE)};
  const laboratory = new Laboratory("test");
  const host = await laboratory.namespace("host");
  const sleeper = host.start(["sleep", "1000"]);
  console.log(laboratory.name + " " + sleeper.pid + " ready");
  setInterval(() => undefined, 1000);
`;

async function startOwner(): Promise<{ owner: BackgroundProgram; name: string; sleeper: string }> {
  const owner = new BackgroundProgram([process.execPath, "--input-type=module", "--eval", OWNER]);
  await owner.waitForOutput(/ready/);
  const [name = "", sleeper = ""] = owner.output.split(" ");
  return { owner, name, sleeper };
}

function isThere(name: string): boolean {
  return readdirSync("/run/netns").some((namespace) => namespace.startsWith(`${name}-`));
}

test("a laboratory goes with its process", async (t) => {
  for (const signal of ["SIGINT", "SIGTERM"] as const) {
    const { owner, name, sleeper } = await startOwner();
    t.ok(isThere(name));
    owner.kill(signal);
    const outcome = await owner.ended;
    t.equal(outcome.signal, signal, `the parent sees that it ended by ${signal}`);
    t.notOk(isThere(name), "its namespaces are gone");
    await eventually("its programs are gone", async () => !existsSync(`/proc/${sleeper}`) || undefined);
  }
});

test("what a killed process leaves, the next one removes", async (t) => {
  const { owner, name, sleeper } = await startOwner();
  const pins = `/sys/fs/bpf/${name}-director`;
  mkdirSync(pins);
  owner.kill("SIGKILL");
  await owner.ended;
  t.ok(isThere(name));
  using laboratory = new Laboratory("test");
  t.not(laboratory.name, name);
  t.notOk(isThere(name), "its namespaces are gone");
  t.notOk(existsSync(pins), "its pins are gone");
  await eventually("its programs are gone", async () => !existsSync(`/proc/${sleeper}`) || undefined);
});
