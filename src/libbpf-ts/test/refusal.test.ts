// What is refused before it reaches C: closed handles, values of the wrong type, methods on the wrong receiver, forged handles.
import t from "tap";
import { addon } from "../lib/addon.js";
import {
  BpfError,
  BpfMap,
  Btf,
  errorCodes,
  Link,
  MappedArray,
  OpenObject,
  openObject,
  Program,
  RingBuffer,
} from "../lib/index.js";
import { fixturePath, loadMachine } from "./fixture.js";
import { balanced } from "./ledger.js";

const packet = new Uint8Array(64);
const key = { address: { bytes: new Uint8Array(16) }, port: 1 };
const value = { packets: 1n, weight: 1 };

/** Values that are not what is wanted, whatever is wanted. */
const wrong: unknown[] = [
  undefined,
  null,
  true,
  -1,
  1.5,
  Number.NaN,
  2 ** 53,
  1n,
  "",
  "text",
  "a\0b",
  Symbol("s"),
  {},
  [],
  new Map(),
  () => 1,
  new DataView(new ArrayBuffer(4)),
  new Uint16Array(2),
];

await balanced(t, "closed maps and programs", async (t) => {
  const object = await loadMachine();
  const map = object.map("table");
  const program = object.program("count");
  const inner = object.map("inner_one");
  const iteration = object.map<number>("numbers").keys();
  iteration.next();
  object.close();
  object.close();
  const closed = { name: "BpfError", code: "CLOSED" };
  for (const use of [
    () => map.get(key),
    () => map.set(key, value),
    () => map.delete(key),
    () => map.getRaw(new Uint8Array(20)),
    () => map.setRaw(new Uint8Array(20), new Uint8Array(16)),
    () => [...map.keys()],
    () => [...map.entries()],
    () => [...map.batchesRaw()],
    () => map.setBatch([[key, value]]),
    () => map.setBatchRaw(new Uint8Array(0), new Uint8Array(0), 0),
    () => map.deleteBatch([key]),
    () => object.map("numbers").mmap(),
    () => object.map("counters").getPerCpu(0),
    () => object.map("jumps").setFd(new Uint8Array(4), { fd: 1 }),
    () => map.freeze(),
    () => map.pin("/sys/fs/bpf/libbpf-ts-closed"),
    () => map.unpin("/sys/fs/bpf/libbpf-ts-closed"),
    () => map.fd,
    () => program.fd,
    () => program.info(),
    () => program.testRun({ data: packet }),
    () => program.pin("/sys/fs/bpf/libbpf-ts-closed"),
    () => program.unpin("/sys/fs/bpf/libbpf-ts-closed"),
    () => new RingBuffer(object.map("events"), () => undefined),
  ])
    t.throws(use, closed, use.toString());
  await t.rejects(program.testRunAsync({ data: packet }), closed);
  await t.rejects(object.map("outer").setInner(0, inner), closed);
  await t.rejects(Link.attachXdp(program, 1), closed);
  await t.rejects(Link.attachIterator(program), closed);
  t.doesNotThrow(() => iteration.next(), "a batch that was read before is there");
  t.equal(map.name, "table", "what is not asked of the kernel is still known");
  t.same(map.decodeKey(map.encodeKey(key)), key);
});

await balanced(t, "wrong types", async (t) => {
  using object = await loadMachine();
  const map = object.map("table");
  const numbers = object.map("numbers");
  const outer = object.map("outer");
  const program = object.program("count");
  const refused = (action: () => unknown, what: string): void => {
    try {
      action();
      t.fail(`not refused: ${what}`);
    } catch (error) {
      const ours = error instanceof BpfError && error.errno === undefined;
      t.ok(ours, what, ours ? {} : { found: error });
    }
  };
  for (const [i, each] of wrong.entries()) {
    const bytes = each as Uint8Array;
    refused(() => map.get(each), `get ${i}`);
    refused(() => map.set(key, each), `set ${i}`);
    refused(() => map.delete(each), `delete ${i}`);
    refused(() => map.getRaw(bytes), `getRaw ${i}`);
    refused(() => map.setRaw(bytes, new Uint8Array(16)), `setRaw key ${i}`);
    refused(() => map.setRaw(new Uint8Array(20), bytes), `setRaw value ${i}`);
    refused(() => map.setBatchRaw(bytes, bytes, 1), `setBatchRaw ${i}`);
    refused(() => map.decodeKey(bytes), `decodeKey ${i}`);
    refused(() => numbers.mmap.call(map), `mmap ${i}`);
    refused(() => new RingBuffer(each as BpfMap, () => undefined), `RingBuffer ${i}`);
    refused(() => openObject(each as string, { name: "x" }), `openObject ${i}`);
    if (each !== undefined) {
      refused(() => map.set(key, value, each as "any"), `mode ${i}`);
      refused(() => program.testRun({ data: bytes }), `data ${i}`);
      refused(() => program.testRun({ data: packet, context: bytes }), `context ${i}`);
      refused(() => program.testRun({ data: packet, repeat: each as number }), `repeat ${i}`);
      refused(() => program.testRun({ data: packet, dataOutSize: each as number }), `dataOutSize ${i}`);
      refused(() => program.testRun({ data: packet, flags: each as number }), `flags ${i}`);
      refused(() => [...map.entriesBatch({ batchSize: each as number })], `batchSize ${i}`);
      refused(
        () => new RingBuffer(object.map("events"), () => undefined, { maxBatch: each as number }),
        `maxBatch ${i}`,
      );
    }
    if (typeof each !== "function")
      refused(() => new RingBuffer(object.map("events"), each as () => void), `callback ${i}`);
    await t.rejects(outer.setInner(0, each as BpfMap), { name: "BpfError" }, `inner ${i}`);
    await t.rejects(Link.attachXdp(each as Program, 1), { name: "BpfError" }, `attach ${i}`);
  }
  refused(() => map.getRaw(new Uint8Array(19)), "a key that is too short");
  refused(() => map.getRaw(new Uint8Array(21)), "a key that is too long");
  refused(() => map.setRaw(new Uint8Array(20), new Uint8Array(15)), "a value that is too short");
  const detached = new Uint8Array(20);
  structuredClone(detached.buffer, { transfer: [detached.buffer] });
  refused(() => map.getRaw(detached), "a buffer that was moved away");
});

await balanced(t, "the wrong receiver", async (t) => {
  using object = await loadMachine();
  const map = object.map("table");
  const program = object.program("count");
  const mapped = object.map("numbers").mmap();
  const borrow = (
    type: { readonly prototype: object },
    method: string,
    receiver: unknown,
    ...values: unknown[]
  ): unknown => Reflect.apply(Reflect.get(type.prototype, method) as (...all: unknown[]) => unknown, receiver, values);
  t.throws(() => borrow(BpfMap, "get", program, key), TypeError);
  t.throws(() => borrow(BpfMap, "close", {}), TypeError);
  t.throws(() => borrow(BpfMap, "get", Object.create(map), key), TypeError, "an heir has no handle");
  t.throws(() => borrow(Program, "testRun", map, { data: packet }), TypeError);
  t.throws(() => borrow(Btf, "codec", {}, "key"), TypeError);
  for (const type of [Program, Link, OpenObject, RingBuffer, MappedArray])
    t.throws(() => borrow(type, "close", map), TypeError);
  await t.rejects(object.map("outer").setInner(0, Object.create(map) as BpfMap), { code: "INVALID_ARGUMENT" });
  mapped.close();
});

await balanced(t, "the addon itself refuses foreign handles and wrong sizes", async (t) => {
  const made = addon.createMap(1, "direct", 4, 8, 10, 0, undefined);
  const opened = addon.openObject((await import("node:fs")).readFileSync(fixturePath("machine")), "direct", undefined);
  if (typeof made === "number" || "errno" in opened) throw new Error("not made");
  const native = addon as unknown as Record<string, (...values: unknown[]) => unknown>;
  const call = (name: string, ...values: unknown[]): unknown => native[name]?.(...values);
  const handles = [
    "mapInfo",
    "lookup",
    "update",
    "remove",
    "nextKey",
    "lookupBatch",
    "updateBatch",
    "removeBatch",
    "setInner",
    "freeze",
    "mmap",
    "programInfo",
    "testRun",
    "testRunAsync",
    "attachXdp",
    "attachIterator",
    "updateLink",
    "detachLink",
    "linkInfo",
    "readIterator",
    "objectBtf",
    "objectMaps",
    "objectPrograms",
    "findSection",
    "setMaxEntries",
    "maxEntries",
    "setAutocreate",
    "setAutoload",
    "reuse",
    "setInnerTemplate",
    "initialValue",
    "setInitialValue",
    "loadObject",
    "openRing",
    "closeRing",
    "closeMap",
    "closeProgram",
    "closeLink",
    "closeObject",
    "pin",
    "descriptor",
  ];
  for (const name of handles) {
    for (const value of [...wrong, Object.create(made)]) t.throws(() => call(name, value), { name: "TypeError" }, name);
    const other = /[oO]bject|Section|Entries|Auto|reuse|Template|initial|Initial/.test(name) ? made : opened;
    t.throws(
      () => call(name, other),
      { name: "TypeError", message: /not a handle of the kind/ },
      `${name} with a handle of another kind`,
    );
  }
  const bytes = (n: number): Uint8Array => new Uint8Array(n);
  const size = { name: "TypeError", message: /size that the kernel copies/ };
  t.throws(() => addon.lookup(made, bytes(3), bytes(8)), size);
  t.throws(() => addon.lookup(made, bytes(4), bytes(7)), size);
  t.throws(() => addon.update(made, bytes(4), bytes(9), 0), size);
  t.throws(() => addon.remove(made, bytes(5)), size);
  t.throws(() => addon.nextKey(made, undefined, bytes(3)), size);
  t.throws(() => addon.nextKey(made, bytes(3), bytes(4)), size);
  t.throws(() => addon.lookupBatch(made, undefined, bytes(4), bytes(39), bytes(80), 10), size);
  t.throws(() => addon.lookupBatch(made, undefined, bytes(4), bytes(40), bytes(79), 10), size);
  t.throws(() => addon.lookupBatch(made, undefined, bytes(3), bytes(40), bytes(80), 10), size);
  t.throws(() => addon.lookupBatch(made, bytes(3), bytes(4), bytes(40), bytes(80), 10), size);
  t.throws(() => addon.updateBatch(made, bytes(40), bytes(79), 10), size);
  t.throws(() => addon.updateBatch(made, bytes(40), bytes(80), 0xffffffff), size);
  t.throws(() => addon.removeBatch(made, bytes(39), 10), size);
  t.throws(() => addon.setMaxEntries(opened, 999, 1), { name: "RangeError" });
  t.throws(() => addon.setAutoload(opened, 999, true), { name: "RangeError" });
  t.ok(addon.setInitialValue(opened, 0, bytes(1)) < 0);
  t.throws(() => call("setInner", made, bytes(4), made), size, "not a map of maps");
  addon.closeMap(made);
  addon.closeMap(made);
  t.throws(() => addon.mapInfo(made), { name: "TypeError", message: /closed/ });
  addon.closeObject(opened);
  t.throws(() => addon.objectMaps(opened), { name: "TypeError", message: /closed/ });
});

await balanced(t, "values with accessors cannot confuse a map", async (t) => {
  using object = await loadMachine();
  const map = object.map<typeof key, typeof value>("table");
  const meddling = {
    packets: 2n,
    get weight(): number {
      map.set({ ...key, port: 2 }, { packets: 9n, weight: 9 });
      return 1;
    },
  };
  map.set(key, meddling);
  t.same(map.get(key), { packets: 2n, weight: 1 });
  t.same(map.get({ ...key, port: 2 }), { packets: 9n, weight: 9 });
  const closing = {
    packets: 2n,
    get weight(): number {
      map.close();
      return 1;
    },
  };
  t.throws(() => map.set(key, closing), { code: "CLOSED" });
});

t.test("errors", async (t) => {
  const error = new BpfError("MAP_FULL", "full", {
    errno: 7,
    syscall: "BPF",
    advice: "delete",
    log: "log",
    cause: "cause",
  });
  t.match(error, {
    name: "BpfError",
    code: "MAP_FULL",
    message: "full",
    errno: 7,
    syscall: "BPF",
    advice: "delete",
    log: "log",
    cause: "cause",
  });
  t.same(
    Object.keys(new BpfError("CLOSED", "closed")).sort(),
    ["code", "name"],
    "details that are not there are no properties",
  );
  t.ok(Object.values(errorCodes).every((meaning) => meaning.length > 10));
});
