// Opening, preparing and loading objects; pins.
import { existsSync, readdirSync, readFileSync } from "node:fs";
import t from "tap";
import { BpfError, BpfMap, openObject, Program } from "../lib/index.js";
import { fixturePath, loadMachine, pinFolder, unpinned } from "./fixture.js";
import { balanced } from "./ledger.js";

const machine = fixturePath("machine");
const key = { address: { bytes: new Uint8Array(16) }, port: 1 };

async function failure(promise: Promise<unknown>): Promise<BpfError> {
  try {
    await promise;
  } catch (error) {
    if (error instanceof BpfError) return error;
    throw error;
  }
  throw new Error("it did not fail");
}

await balanced(t, "an open object tells what is in it", async (t) => {
  using object = openObject(machine);
  t.equal(object.name, "machine");
  t.match(object.map("table"), { name: "table", type: "hash", keySize: 20, valueSize: 16, flags: 0, maxEntries: 1000 });
  t.equal(object.map("counters").type, "percpu_array");
  t.equal(object.map("events").maxEntries, 65536);
  t.equal(object.map("shared").pinPath, "/sys/fs/bpf/shared");
  t.same([...object.maps.keys()].filter((name) => name.startsWith(".")).sort(), [
    ".bss",
    ".data",
    ".data.custom",
    ".rodata",
  ]);
  t.match(object.program("count"), { name: "count", type: "xdp", section: "xdp", autoload: true });
  t.match(object.program("add"), { type: "syscall", section: "syscall" });
  t.match(object.program("list"), { type: "tracing", section: "iter/bpf_map_elem" });
  t.match(object.program("optional"), { type: "xdp", section: "xdp", autoload: false });
  t.throws(() => object.map("tabel"), { code: "NO_SUCH_MAP", message: /there are .*table/ });
  t.throws(() => object.program("cuont"), { code: "NO_SUCH_PROGRAM", message: /there are .*count/ });
  using other = openObject(machine, { pinRootPath: "/sys/fs/bpf/elsewhere", name: "renamed" });
  t.equal(other.map("shared").pinPath, "/sys/fs/bpf/elsewhere/shared");
  t.equal(other.name, "renamed");
  using fromBytes = openObject(readFileSync(machine));
  t.equal(fromBytes.name, "object");
});

await balanced(t, "sizes, constants and initial values", async (t) => {
  using object = await loadMachine((open) => {
    open.map("table").maxEntries = 5;
    open.map("events").setMaxEntries(5000);
    t.equal(open.map("events").maxEntries, 8192, "a ring's size is rounded up to pages");
    open.setRodata({ factor: 10, seeds: [7n, 8n], favourite: { address: { bytes: new Uint8Array(16) }, port: 9 } });
    open.setData({ runs: 100n, balance: -1, custom: 12 });
    open.setData({});
  });
  t.equal(object.map("table").maxEntries, 5);
  t.equal(object.map("events").maxEntries, 8192);
  t.match(object.map(".rodata").get(0), { factor: 10, seeds: [7n, 8n], favourite: { port: 9 } });
  t.match(object.map(".bss").get(0), { runs: 100n });
  t.same(object.map(".data").get(0), { balance: -1 });
  t.same(object.map(".data.custom").get(0), { custom: 12 });
  object.program("count").testRun({ data: new Uint8Array(64) });
  t.match(object.map(".bss").get(0), { runs: 101n });
  t.equal(
    object
      .map<number, { packets: bigint }>("counters")
      .getPerCpu(0)
      ?.reduce((sum, { packets }) => sum + packets, 0n),
    10n,
  );
  t.throws(() => object.map(".rodata").setRaw(new Uint8Array(4), new Uint8Array(object.map(".rodata").valueSize)), {
    code: "FROZEN",
  });
});

await balanced(t, "variables that are not there or do not fit", async (t) => {
  using object = openObject(machine);
  t.throws(() => object.setRodata({ factr: 1 }), {
    code: "NO_SUCH_VARIABLE",
    message: /no variable factr in \.rodata; it has .*factor/,
  });
  t.throws(() => object.setRodata({ runs: 1n }), { code: "NO_SUCH_VARIABLE" }, "a variable of another section");
  t.throws(() => object.setData({ factor: 1 }), { code: "NO_SUCH_VARIABLE" });
  t.throws(() => object.setRodata({ factor: -1 }), { code: "INVALID_VALUE" });
  t.throws(() => object.setRodata({ seeds: [1n] }), { code: "INVALID_VALUE", message: /seeds is an array of 1/ });
  t.throws(() => object.map(".rodata").setMaxEntries(2), { code: "WRONG_MAP_TYPE" });
  t.throws(() => object.map("table").setMaxEntries(0), { code: "INVALID_ARGUMENT" });
  t.throws(() => object.map("table").setMaxEntries(2 ** 32), { code: "INVALID_ARGUMENT" });
});

await balanced(t, "what is loaded and what is not", async (t) => {
  using object = await loadMachine((open) => {
    open.program("optional").setAutoload(true);
    open.program("use_the_rest").autoload = false;
    t.equal(open.program("use_the_rest").autoload, false);
    open.program("choose").autoload = false;
    open.map("outer").setAutocreate(false);
  });
  t.equal(object.program("optional").type, "xdp");
  t.throws(() => object.program("choose"), { code: "NO_SUCH_PROGRAM", message: /loaded no program choose/ });
  t.throws(() => object.map("outer"), { code: "NO_SUCH_MAP" });
});

await balanced(t, "loading consumes the open object", async (t) => {
  const open = openObject(machine);
  unpinned(open);
  const map = open.map("table");
  const program = open.program("count");
  const loading = open.load();
  t.throws(() => map.maxEntries, { code: "CLOSED", message: /closed or loaded/ });
  t.throws(() => program.setAutoload(false), { code: "CLOSED" });
  t.throws(() => open.setRodata({}), { code: "CLOSED" });
  await t.rejects(open.load(), { code: "CLOSED" });
  open.close();
  (await loading).close();

  const closed = openObject(machine);
  closed.close();
  closed.close();
  await t.rejects(closed.load(), { code: "CLOSED" });
});

await balanced(t, "what the verifier rejects", async (t) => {
  const error = await failure(openObject(fixturePath("rejected")).load());
  t.match(error, { code: "VERIFIER_REJECTED", errno: 13, syscall: "BPF_PROG_LOAD" });
  t.match(
    error.message,
    /^the verifier rejected program careless of rejected: (R\d+ offset is outside of the packet|invalid access to packet)/,
  );
  t.match(error.log, /R1=ctx\(\)[^]*invalid access to packet[^]*processed \d+ insns/, "the log has all of it");
});

await balanced(t, "a map that the kernel refuses", async (t) => {
  const error = await failure(openObject(fixturePath("refused-map")).load());
  t.match(error, {
    code: "INVALID_ARGUMENT",
    errno: 22,
    message: "object refused-map cannot create map prefixes: an lpm_trie needs the flag BPF_F_NO_PREALLOC (EINVAL)",
  });
});

await balanced(t, "several objects load at once, each with its own log", async (t) => {
  const results = await Promise.allSettled([
    openObject(fixturePath("rejected"), { name: "one" }).load(),
    loadMachine(),
    openObject(fixturePath("rejected"), { name: "two" }).load(),
    openObject(fixturePath("refused-map")).load(),
  ]);
  t.same(
    results.map(({ status }) => status),
    ["rejected", "fulfilled", "rejected", "rejected"],
  );
  const [one, loaded, two] = results;
  t.match(one, { reason: { message: /of one:/ } });
  t.match(two, { reason: { message: /of two:/ } });
  if (loaded.status === "fulfilled") loaded.value.close();
});

await balanced(t, "what is no object", async (t) => {
  t.throws(() => openObject("/no/such/file.o"), { code: "NO_SUCH_FILE" });
  t.throws(() => openObject("a\0b"), { code: "INVALID_ARGUMENT" });
  t.throws(() => openObject(""), { code: "INVALID_ARGUMENT" });
  t.throws(() => openObject(7 as unknown as string), { code: "INVALID_ARGUMENT" });
  t.throws(() => openObject(new Uint8Array(10)), { code: "INVALID_OBJECT", message: /less than an ELF header/ });
  t.throws(() => openObject(new Uint8Array(100)), { code: "INVALID_OBJECT", message: /magic/ });
  t.throws(() => openObject(process.execPath), { code: "INVALID_OBJECT", message: /machine is \d+, must be 247/ });
  const bytes = readFileSync(machine);
  t.throws(() => openObject(bytes.subarray(0, 200)), { code: "INVALID_OBJECT", message: /libbpf cannot open/ });
  const unaligned = new Uint8Array(bytes.length + 1).subarray(1);
  unaligned.set(bytes);
  openObject(unaligned).close();
});

await balanced(t, "pins: made, found again, refused where they differ", async (t) => {
  const folder = pinFolder(t);
  const pinned = (
    prepare: (object: ReturnType<typeof openObject>) => void = () => undefined,
  ): ReturnType<typeof loadMachine> =>
    loadMachine((open) => {
      open.map("table").setPinPath(`${folder}/table`);
      open.map("egress").setPinPath(`${folder}/egress`);
      prepare(open);
    });
  const first = await pinned();
  t.same(readdirSync(folder).sort(), ["egress", "table"]);
  first.map("table").set(key, { packets: 5n, weight: 6 });
  first.map("egress").close();
  const { id } = first.map("table");
  first.close();

  using second = await pinned();
  t.equal(second.map("table").id, id);
  t.same(second.map("table").get(key), { packets: 5n, weight: 6 });
  t.equal(second.map("egress").type, "devmap_hash", "the kernel adds a flag to a devmap: it still fits");

  using opened = BpfMap.open<typeof key, { packets: bigint }>(`${folder}/table`);
  t.equal(opened.name, "table");
  t.equal(opened.get(key)?.packets, 5n, "the kernel has its BTF");
  using egress = BpfMap.open<number, number>(`${folder}/egress`, { btf: second.btf, definition: "egress" });
  t.equal(egress.get(1), undefined, "and where it has none, the object's is used");
  t.throws(() => BpfMap.open(`${folder}/egress`, { btf: second.btf, definition: "ingress" }), {
    code: "NO_SUCH_MAP",
    message: /egress/,
  });

  const differing = await failure(pinned((open) => open.map("table").setMaxEntries(999)));
  t.match(differing, {
    code: "PIN_DOES_NOT_FIT",
    message: `object machine cannot reuse the pinned map table at ${folder}/table: its max_entries is 1000, must be 999`,
  });
  t.match(await failure(loadMachine((open) => open.map("counters").setPinPath(`${folder}/table`))), {
    code: "PIN_DOES_NOT_FIT",
    message: /its type is hash, must be percpu_array/,
  });
  second.program("count").pin(`${folder}/program`);
  t.match(await failure(loadMachine((open) => open.map("table").setPinPath(`${folder}/program`))), {
    code: "WRONG_KIND",
  });
  t.match(await failure(loadMachine((open) => open.map("table").setPinPath("/sys/fs/bpf/no/such/folder"))), {
    code: "NO_SUCH_FILE",
    message: /the directory does not exist/,
  });
  t.match(await failure(loadMachine((open) => open.map("table").setPinPath("/tmp/libbpf_ts_pin"))), {
    code: /NOT_BPFFS|SYSTEM_ERROR|INVALID_ARGUMENT/,
  });
});

await balanced(t, "a load that fails takes the pins away that it made", async (t) => {
  const folder = pinFolder(t);
  const error = await failure(
    loadMachine((open) => {
      open.map("counters").setPinPath(`${folder}/counters`);
      open.map("table").setPinPath(`${folder}/missing/table`);
    }),
  );
  t.equal(error.code, "NO_SUCH_FILE");
  t.same(readdirSync(folder), []);
});

await balanced(t, "reuse", async (t) => {
  const first = await loadMachine();
  first.map("table").set(key, { packets: 1n, weight: 2 });
  using second = await loadMachine((open) => {
    t.throws(() => open.map("table").reuse(first.map("numbers")), {
      code: "INVALID_ARGUMENT",
      message: /its type is array, must be hash/,
    });
    t.throws(() => open.map("inner_one").reuse(first.map(".rodata")), {
      code: "INVALID_ARGUMENT",
      message: /its valueSize is/,
    });
    open.map("table").reuse(first.map("table"));
    t.throws(() => open.map("table").setMaxEntries(5), { code: "INVALID_ARGUMENT", message: /reused/ });
    first.close();
  });
  t.same(second.map("table").get(key), { packets: 1n, weight: 2 });
});

await balanced(t, "an inner template", async (t) => {
  using inner = BpfMap.create({ type: "array", keySize: 4, valueSize: 4, maxEntries: 9 });
  using object = await loadMachine((open) => {
    open.map("outer").setInnerTemplate(inner);
    t.throws(() => open.map("outer").setInnerTemplate(inner), {
      code: "INVALID_ARGUMENT",
      message: /takes no template/,
    });
    t.throws(() => open.map("table").setInnerTemplate(inner), { code: "INVALID_ARGUMENT" });
  });
  await object.map("outer").setInner(0, inner);
  await t.rejects(
    object.map("outer").setInner(1, object.map("inner_one")),
    { code: "INVALID_ARGUMENT" },
    "4 elements, the template 9",
  );
});

await balanced(t, "pin and unpin", async (t) => {
  const folder = pinFolder(t);
  using object = await loadMachine();
  const table = object.map("table");
  const count = object.program("count");
  table.pin(`${folder}/table`);
  count.pin(`${folder}/count`);
  t.throws(() => table.pin(`${folder}/count`), { code: "PIN_EXISTS", errno: 17 });
  t.throws(() => table.pin(`${folder}/no/table`), { code: "NO_SUCH_FILE" });
  t.throws(() => table.pin("/tmp/libbpf_ts_pin"), { code: "NOT_BPFFS", message: /not on a BPF file system/ });
  t.throws(() => table.pin(`${folder}/with.dot`), { code: "INVALID_ARGUMENT", message: /dot/ });
  t.throws(() => table.pin(""), { code: "INVALID_ARGUMENT" });
  t.throws(() => table.pin("a\0b"), { code: "INVALID_ARGUMENT" });

  using program = Program.open(`${folder}/count`);
  t.equal(program.id, count.id);
  t.equal(program.name, "count");
  t.throws(() => Program.open(`${folder}/table`), { code: "WRONG_KIND", message: /is a map, not a program/ });
  t.throws(() => BpfMap.open(`${folder}/count`), { code: "WRONG_KIND", message: /is a program, not a map/ });
  t.throws(() => BpfMap.open(`${folder}/nothing`), { code: "NO_SUCH_FILE" });

  t.throws(() => object.program("drop").unpin(`${folder}/count`), { code: "PIN_DIFFERS" });
  t.throws(() => table.unpin(`${folder}/count`), { code: "PIN_DIFFERS" });
  t.throws(() => table.unpin(`${folder}/nothing`), { code: "NO_SUCH_FILE" });
  t.equal(existsSync(`${folder}/count`), true);
  count.unpin(`${folder}/count`);
  table.unpin(`${folder}/table`);
  t.same(readdirSync(folder), []);
});
