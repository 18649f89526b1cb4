// Test runs, tail calls, iterators and ring buffers.
import { setImmediate, setTimeout } from "node:timers/promises";
import t from "tap";
import { BpfMap, type BpfObject, decodeRecord, Link, probe, RingBuffer } from "../lib/index.js";
import { loadMachine, pinFolder } from "./fixture.js";
import { balanced } from "./ledger.js";

const packet = new Uint8Array(64).fill(7);

await balanced(t, "a program's properties", async (t) => {
  using object = await loadMachine();
  const info = object.program("count").info();
  t.match(info, { type: "xdp", name: "count", tag: /^[0-9a-f]{16}$/ });
  t.equal(info.id, object.program("count").id);
  t.ok(info.loadTimeNs > 0n && info.verifiedInstructions > 5 && info.jitedBytes > 0 && info.translatedBytes > 0);
  t.ok(info.mapIds.includes(object.map("counters").id) && info.mapIds.length === 3);
  t.equal(object.program("use_the_rest").info().name, "use_the_rest");
});

await balanced(t, "test runs", async (t) => {
  using object = await loadMachine();
  const count = object.program("count");
  const result = count.testRun({ data: packet });
  t.equal(result.returnValue, 3);
  t.same(result.data, packet);
  t.same(result.context, new Uint8Array(0));
  count.testRun({ data: packet, repeat: 9 });
  t.match(object.map(".bss").get(0), { runs: 10n });

  const grown = object.program("grow").testRun({ data: packet });
  t.equal(grown.data.length, 84);
  t.same(grown.data.subarray(20), packet);
  t.same(object.program("grow").testRun({ data: packet, dataOutSize: 0 }).data, new Uint8Array(0), "no room asked for");
  t.throws(() => object.program("grow").testRun({ data: packet, dataOutSize: 80 }), {
    code: "OUTPUT_TOO_SMALL",
    message: /raise dataOutSize/,
  });
  t.throws(() => count.testRun({ data: new Uint8Array(13) }), {
    code: "INVALID_ARGUMENT",
    message: /at least 14 bytes/,
  });

  const xdpMd = object.btf.codec<Record<string, number>>("xdp_md");
  const fields = {
    data: 0,
    data_end: 64,
    data_meta: 0,
    ingress_ifindex: 1,
    rx_queue_index: 0,
    egress_ifindex: 0,
  };
  const context = xdpMd.encode(fields);
  t.equal(xdpMd.decode(count.testRun({ data: packet, context }).context)["data_end"], 64);
  const beyond = xdpMd.encode({ ...fields, data_end: 65 });
  t.throws(() => count.testRun({ data: packet, context: beyond }), { code: "INVALID_ARGUMENT", message: /data_end/ });

  const [one, two] = await Promise.all([
    count.testRunAsync({ data: packet, repeat: 1000 }),
    object.program("drop").testRunAsync({ data: packet }),
  ]);
  t.equal(one.returnValue, 3);
  t.ok(one.durationNs < 1_000_000);
  t.equal(two.returnValue, 1);
  await t.rejects(count.testRunAsync({ data: new Uint8Array(13) }), {
    code: "INVALID_ARGUMENT",
    syscall: "BPF_PROG_TEST_RUN",
  });
});

await balanced(t, "a syscall program answers in its context", async (t) => {
  using object = await loadMachine();
  const request = object.btf.codec<{ a: number; b: number; sum: bigint }>("request");
  const add = object.program("add");
  const context = request.encode({ a: 4_000_000_000, b: 5, sum: 0n });
  const result = add.testRun({ context });
  t.equal(result.returnValue, 7);
  t.equal(request.decode(result.context).sum, 4_000_000_005n);
  t.equal(request.decode(context).sum, 0n, "the caller's buffer stays as it was");
  t.equal(request.decode((await add.testRunAsync({ context })).context).sum, 4_000_000_005n);
  for (const more of [
    { repeat: 2 },
    { data: packet },
    { dataOutSize: 1 },
    { contextOutSize: 16 },
    { liveFrames: true },
  ])
    t.throws(() => add.testRun({ context, ...more }), {
      code: "INVALID_ARGUMENT",
      message: /a context, once, and nothing else/,
    });
});

await balanced(t, "live frames", async (t) => {
  using object = await loadMachine();
  const result = await object
    .program("drop")
    .testRunAsync({ data: packet, repeat: 100, liveFrames: true, batchSize: 16 });
  t.same(result.data, new Uint8Array(0));
  const count = object.program("count");
  t.throws(() => count.testRun({ data: packet, batchSize: 16 }), { code: "INVALID_ARGUMENT", message: /liveFrames/ });
  t.throws(() => count.testRun({ data: packet, liveFrames: true, batchSize: 257 }), { code: "INVALID_ARGUMENT" });
});

await balanced(t, "tail calls through a prog_array", async (t) => {
  using object = await loadMachine();
  const jumps = object.map<Uint8Array, number>("jumps");
  const one = new Uint8Array([1, 0, 0, 0]);
  t.equal(object.program("jump").testRun({ data: packet }).returnValue, 0);
  jumps.setFd(one, object.program("drop"));
  t.equal(object.program("jump").testRun({ data: packet }).returnValue, 1);
  t.equal(jumps.get(one), object.program("drop").id, "a lookup answers the program's id");
  t.throws(() => jumps.setFd(one, object.program("add")), {
    code: "INVALID_ARGUMENT",
    message: /does not fit the map/,
  });
  t.throws(() => jumps.setFd(one, object.map("table")), { code: "INVALID_ARGUMENT" });
  t.throws(() => jumps.setFd(one, { fd: 99_999 }), { code: "INVALID_ARGUMENT", message: /no such descriptor/ });
  t.throws(() => jumps.setFd(one, { fd: -1 }), { code: "INVALID_ARGUMENT" });
  t.throws(() => jumps.setFd(one, { fd: "3" as unknown as number }), { code: "INVALID_ARGUMENT" });
  t.throws(() => jumps.setFd(new Uint8Array([9, 0, 0, 0]), object.program("drop")), { code: "NO_SUCH_KEY" });
  t.throws(() => jumps.set(one, 5), { code: "WRONG_MAP_TYPE", message: /setFd/ });
  t.equal(jumps.delete(one), true);
});

await balanced(t, "a program looks into an inner map", async (t) => {
  using object = await loadMachine();
  object.map<number, number>("inner_one").set(0, 2);
  await object.map<number>("outer").setInner(1, object.map("inner_one"));
  t.equal(object.program("choose").testRun({ data: packet }).returnValue, 2);
});

await balanced(t, "locks in values are padding", async (t) => {
  using object = await loadMachine();
  const locked = object.map<number, { under_lock: number }>("locked");
  object.program("use_the_rest").testRun({ data: packet });
  t.same(locked.get(0), { under_lock: 1 });
  locked.set(1, { under_lock: 5 });
  t.same(locked.get(1), { under_lock: 5 });
});

await balanced(t, "an iterator", async (t) => {
  const folder = pinFolder(t);
  using object = await loadMachine();
  const numbers = object.map<number, number>("numbers");
  for (let i = 0; i < 10; i++) numbers.set(i, i * i);
  using link = await Link.attachIterator(object.program("list"), { map: numbers });
  t.match(link.info(), { type: "iter", programId: object.program("list").id });
  t.equal(await link.readIterator(), "0=0\n1=1\n2=4\n3=9\n4=16\n5=25\n6=36\n7=49\n8=64\n9=81\n");
  numbers.set(9, 1);
  t.match(await link.readIterator(), /9=1\n$/, "each read is a run of its own");
  link.pin(`${folder}/numbers`);
  const { readFile } = await import("node:fs/promises");
  t.match(await readFile(`${folder}/numbers`, "utf8"), /^0=0\n1=1/);
  using again = Link.open(`${folder}/numbers`);
  t.equal(again.id, link.id);
  t.throws(() => BpfMap.open(`${folder}/numbers`), { code: "WRONG_KIND" });
  again.unpin(`${folder}/numbers`);

  await t.rejects(Link.attachIterator(object.program("list")), { code: "INVALID_ARGUMENT" });
  await t.rejects(Link.attachIterator(object.program("drop")), { code: "WRONG_PROGRAM_TYPE" });
  await t.rejects(Link.attachIterator(object.program("list"), { map: object.program("drop") as unknown as BpfMap }), {
    code: "INVALID_ARGUMENT",
  });
  await t.rejects(link.detach(), { code: "UNSUPPORTED" });
});

function reports(object: BpfObject, count: number): void {
  object.program("report").testRun({ data: packet, repeat: count });
}

await balanced(t, "a ring buffer", async (t) => {
  using object = await loadMachine();
  const batches: number[][] = [];
  const all = new Promise<void>((resolve) => {
    const ring = new RingBuffer(
      object.map("events"),
      (records) => {
        batches.push(records.map((record) => decodeRecord<{ sequence: number }>(object.btf, "event", record).sequence));
        t.ok(records.every((record) => record.length === 8 && record.byteOffset % 8 === 0));
        if (batches.flat().length === 2500) {
          ring.close();
          resolve();
        }
      },
      { maxBatch: 1000 },
    );
  });
  reports(object, 2500);
  await all;
  t.same(
    batches.map((batch) => batch.length),
    [1000, 1000, 500],
  );
  t.same(
    batches.flat(),
    Array.from({ length: 2500 }, (_, i) => i),
    "in order",
  );

  reports(object, 3);
  const second: number[] = [];
  const rest = new RingBuffer(object.map("events"), (records) => second.push(records.length));
  await setTimeout(20);
  rest.close();
  rest.close();
  t.same(second, [3], "what came before the ring was opened is there");
  reports(object, 3);
  await setTimeout(20);
  t.same(second, [3], "nothing comes after close");
  t.throws(() => new RingBuffer(object.map("table"), () => undefined), { code: "WRONG_MAP_TYPE" });
});

await balanced(t, "a ring outlives the handle of its map, and closes in its callback", async (t) => {
  const object = await loadMachine();
  let calls = 0;
  const ring = new RingBuffer(
    object.map("events"),
    () => {
      calls++;
      ring.close();
    },
    { maxBatch: 1 },
  );
  reports(object, 5);
  object.close();
  await setTimeout(20);
  t.equal(calls, 1);
});

await balanced(t, "a callback that throws is an uncaught exception, and the ring goes on", async (t) => {
  using object = await loadMachine();
  const caught: unknown[] = [];
  const listeners = process.listeners("uncaughtException");
  process.removeAllListeners("uncaughtException");
  process.on("uncaughtException", (error) => caught.push(error));
  let calls = 0;
  const ring = new RingBuffer(
    object.map("events"),
    () => {
      calls++;
      throw new RangeError(`call ${calls}`);
    },
    { maxBatch: 1 },
  );
  reports(object, 2);
  await setTimeout(20);
  ring.close();
  await setImmediate();
  process.removeAllListeners("uncaughtException");
  for (const listener of listeners) process.on("uncaughtException", listener);
  t.match(caught, [{ message: "call 1" }, { message: "call 2" }]);
});

await balanced(t, "probes", async (t) => {
  t.equal(probe.programType("xdp"), true);
  t.equal(probe.mapType("ringbuf"), true);
  t.equal(probe.mapType("hash"), true);
  t.equal(probe.helper("xdp", "bpf_xdp_adjust_head"), true);
  t.equal(probe.helper("xdp", "fib_lookup"), true);
  t.equal(probe.helper("xdp", 69), true);
  t.equal(probe.helper("xdp", "sk_assign"), false);
  t.match(probe.libbpfVersion(), /^v\d+\.\d+/);
  t.throws(() => probe.mapType("no_such"), { code: "NO_SUCH_TYPE" });
  t.throws(() => probe.programType("no_such"), { code: "NO_SUCH_TYPE" });
  t.throws(() => probe.helper("xdp", "no_such"), { code: "NO_SUCH_TYPE" });
  t.throws(() => probe.helper("xdp", 0), { code: "INVALID_ARGUMENT" });
});
