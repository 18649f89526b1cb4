// XDP links, on a veth pair in a network namespace of this test's own: the file runs itself again in one, which goes with it.
import { execFileSync, spawnSync } from "node:child_process";
import { existsSync, readlinkSync, writeFileSync } from "node:fs";
import t from "tap";
import { interfaceIndex, interfaceName, Link, type Program } from "../lib/index.js";
import { loadMachine, pinFolder } from "./fixture.js";
import { balanced } from "./ledger.js";

const OUTER = "LIBBPF_TS_TEST_OUTER_NAMESPACE";
const namespace = readlinkSync("/proc/self/ns/net");

if (process.env[OUTER] === undefined) {
  const arguments_ = ["--net", process.execPath, ...process.execArgv, ...process.argv.slice(1)];
  const { status } = spawnSync("unshare", arguments_, {
    stdio: "inherit",
    env: { ...process.env, [OUTER]: namespace },
  });
  process.exit(status ?? 1);
}

t.not(namespace, process.env[OUTER], "this runs in a namespace of its own");
// No neighbour discovery among the frames that are counted.
writeFileSync("/proc/sys/net/ipv6/conf/default/disable_ipv6", "1\n");
execFileSync("ip", ["link", "add", "left", "type", "veth", "peer", "name", "right"]);
for (const name of ["left", "right"]) execFileSync("ip", ["link", "set", name, "up"]);
const left = interfaceIndex("left");
const right = interfaceIndex("right");

function attached(name: string): number {
  const [interface_] = JSON.parse(execFileSync("ip", ["-json", "link", "show", name], { encoding: "utf8" })) as {
    xdp?: { prog?: { id: number } };
  }[];
  return interface_?.xdp?.prog?.id ?? 0;
}

t.test("interfaces", async (t) => {
  t.equal(interfaceName(left), "left");
  t.throws(() => interfaceIndex("nothing"), { code: "NO_SUCH_INTERFACE", message: /no interface nothing/ });
  t.throws(() => interfaceIndex("a_name_of_17_char"), { code: "NO_SUCH_INTERFACE" });
  t.throws(() => interfaceIndex("left\0"), { code: "INVALID_ARGUMENT" });
  t.throws(() => interfaceIndex(""), { code: "INVALID_ARGUMENT" });
  t.throws(() => interfaceName(99_999), { code: "NO_SUCH_INTERFACE" });
  t.throws(() => interfaceName(0), { code: "INVALID_ARGUMENT" });
});

for (const mode of ["native", "generic", "default"] as const) {
  await balanced(t, `attach, update, detach: ${mode}`, async (t) => {
    using object = await loadMachine();
    const [count, drop] = [object.program("count"), object.program("drop")];
    const link = await Link.attachXdp(count, left, { mode });
    t.match(link.info(), { id: link.id, type: "xdp", programId: count.id, ifindex: left });
    t.equal(attached("left"), count.id);
    await t.rejects(Link.attachXdp(drop, left, { mode }), { code: "INTERFACE_BUSY", errno: 16 });

    await link.update(drop);
    t.equal(attached("left"), drop.id);
    await t.rejects(link.update(count, { expected: count }), {
      code: "EXPECTED_PROGRAM_DIFFERS",
      message: /another program than count/,
    });
    t.equal(attached("left"), drop.id);
    await link.update(count, { expected: drop });
    t.equal(link.info().programId, count.id);
    await t.rejects(link.update(object.program("add")), { code: "INVALID_ARGUMENT" });

    await link.detach();
    t.equal(attached("left"), 0);
    t.equal(link.info().ifindex, 0);
    await t.rejects(link.update(drop), { code: "LINK_DETACHED" });
    link.close();
  });
}

await balanced(t, "a link lasts as long as someone has it", async (t) => {
  const folder = pinFolder(t);
  using object = await loadMachine();
  const count = object.program("count");
  const link = await Link.attachXdp(count, left);
  link.pin(`${folder}/left`);
  link.close();
  t.equal(attached("left"), count.id, "the pin has it");
  const opened = Link.open(`${folder}/left`);
  t.equal(opened.info().programId, count.id);
  opened.unpin(`${folder}/left`);
  t.equal(existsSync(`${folder}/left`), false);
  t.equal(attached("left"), count.id, "the handle has it");
  opened.close();
  t.equal(attached("left"), 0);
});

await balanced(t, "closing while work is under way", async (t) => {
  using object = await loadMachine();
  const [count, drop] = [object.program("count"), object.program("drop")];
  const link = await Link.attachXdp(count, left);
  const updates = [link.update(drop), link.update(count), link.update(drop)];
  link.close();
  await Promise.all(updates);
  t.equal(attached("left"), 0, "the work had the link, and then nobody");
  t.throws(() => link.info(), { code: "CLOSED" });
  await t.rejects(link.update(count), { code: "CLOSED" });
  await t.rejects(link.detach(), { code: "CLOSED" });
  await t.rejects(link.readIterator(), { code: "CLOSED" });

  const other = await loadMachine();
  const attaching = Link.attachXdp(other.program("drop"), right);
  other.close();
  using made = await attaching;
  t.ok(attached("right") > 0, "attaching had the program");
  t.equal(made.info().ifindex, right);
});

await balanced(t, "what cannot be attached", async (t) => {
  using object = await loadMachine();
  const drop = object.program("drop");
  await t.rejects(Link.attachXdp(drop, 99_999), { code: "NO_SUCH_INTERFACE" });
  await t.rejects(Link.attachXdp(drop, 0), { code: "INVALID_ARGUMENT" });
  await t.rejects(Link.attachXdp(drop, left, { mode: "fast" as "native" }), {
    code: "INVALID_ARGUMENT",
    message: /must be default, generic, native, offload/,
  });
  await t.rejects(Link.attachXdp(drop, left, { mode: "toString" as "native" }), { code: "INVALID_ARGUMENT" });
  await t.rejects(Link.attachXdp(drop, left, { mode: "offload" }), { name: "BpfError" });
  await t.rejects(Link.attachXdp(object.program("add"), left), {
    code: "WRONG_PROGRAM_TYPE",
    message: /is of type syscall, must be xdp/,
  });
  await t.rejects(Link.attachXdp(object.map("table") as unknown as Program, left), { code: "INVALID_ARGUMENT" });
  using link = await Link.attachXdp(drop, left);
  await t.rejects(link.readIterator(), { code: "INVALID_ARGUMENT", message: /no iterator/ });
  t.throws(() => Link.open("/sys/fs/bpf/nothing-here"), { code: "NO_SUCH_FILE" });
});

await balanced(t, "an interface whose frames are too large for native XDP", async (t) => {
  using object = await loadMachine();
  execFileSync("ip", ["link", "set", "left", "mtu", "9000"]);
  await t.rejects(Link.attachXdp(object.program("drop"), right, { mode: "native" }), {
    code: "UNSUPPORTED",
    message: /MTU/,
  });
  execFileSync("ip", ["link", "set", "left", "mtu", "1500"]);
});

await balanced(t, "live frames are sent", async (t) => {
  using object = await loadMachine();
  using _receiver = await Link.attachXdp(object.program("count"), right, { mode: "native" });
  const before = object.map<number, { runs: bigint }>(".bss").get(0)?.runs ?? 0n;
  using sender = await loadMachine();
  sender.map<number, number>("egress").set(1, left);
  const redirecting = sender.program("use_the_rest");
  // The program redirects to key balance + custom + port + seeds[0] of its egress map.
  sender.map<number, { balance: number }>(".data").set(0, { balance: -11 });
  await redirecting.testRunAsync({ data: new Uint8Array(64).fill(2), repeat: 50, liveFrames: true });
  const after = object.map<number, { runs: bigint }>(".bss").get(0)?.runs ?? 0n;
  t.equal(after - before, 50n, "every frame came to the peer's program");
});
