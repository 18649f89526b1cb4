// Maps, by real system calls.
import t from "tap";
import { BPF_F_MMAPABLE, BPF_F_NO_PREALLOC, BpfMap, type BpfObject, possibleCpus } from "../lib/index.js";
import { loadMachine } from "./fixture.js";
import { balanced } from "./ledger.js";

interface Key {
  address: { bytes: Uint8Array };
  port: number;
}
interface Value {
  packets: bigint;
  weight: number;
}

function key(port: number): Key {
  return { address: { bytes: new Uint8Array(16).fill(port & 0xff) }, port };
}

function value(weight: number): Value {
  return { packets: BigInt(weight) << 40n, weight };
}

function table(object: BpfObject): BpfMap<Key, Value> {
  return object.map<Key, Value>("table");
}

await balanced(t, "get, set, delete", async (t) => {
  using object = await loadMachine();
  const map = table(object);
  t.match(map, { name: "table", type: "hash", keySize: 20, valueSize: 16, maxEntries: 1000, flags: 0 });
  t.ok(map.id > 0 && map.fd > 2);

  t.equal(map.get(key(1)), undefined);
  map.set(key(1), value(7));
  t.same(map.get(key(1)), value(7));
  map.set(key(1), value(8), "existing");
  t.same(map.get(key(1)), value(8));
  t.throws(() => map.set(key(1), value(9), "new"), { code: "KEY_EXISTS", errno: 17, syscall: "BPF_MAP_UPDATE_ELEM" });
  t.throws(() => map.set(key(2), value(9), "existing"), { code: "NO_SUCH_KEY", errno: 2 });
  t.equal(map.delete(key(1)), true);
  t.equal(map.delete(key(1)), false);

  const raw = map.encodeKey(key(3));
  map.setRaw(raw, map.encodeValue(value(3)));
  t.same(map.decodeValue(map.getRaw(raw) ?? new Uint8Array()), value(3));
  t.same(map.decodeKey(raw), key(3));
});

await balanced(t, "a full map, and an index beyond an array", async (t) => {
  using small = BpfMap.create({ type: "hash", name: "small", keySize: 4, valueSize: 4, maxEntries: 2 });
  const bytes = (n: number): Uint8Array => new Uint8Array([n, 0, 0, 0]);
  small.set(bytes(1), bytes(1));
  small.set(bytes(2), bytes(2));
  t.throws(() => small.set(bytes(3), bytes(3)), {
    code: "MAP_FULL",
    message: "cannot update map small: the map has its 2 elements (E2BIG)",
  });

  using object = await loadMachine();
  const numbers = object.map<number, number>("numbers");
  t.equal(numbers.get(9), 0);
  t.equal(numbers.get(10), undefined);
  t.throws(() => numbers.set(10, 1), { code: "NO_SUCH_KEY", message: /the index is beyond the map's 10 elements/ });
  t.throws(() => numbers.set(1, 1, "new"), { code: "KEY_EXISTS" });
  t.throws(() => numbers.delete(1), {
    code: "WRONG_MAP_TYPE",
    message: /elements of a map of type array cannot be deleted/,
  });
});

await balanced(t, "iteration", async (t) => {
  using object = await loadMachine();
  const map = table(object);
  t.same([...map.entries()], []);
  const ports = Array.from({ length: 700 }, (_, i) => i + 1);
  for (const port of ports) map.set(key(port), value(port));
  const sorted = (all: Iterable<Key>): number[] => [...all].map(({ port }) => port).sort((a, b) => a - b);
  t.same(sorted(map.keys()), ports);
  t.ok([...map.entries()].every(([{ port }, { weight }]) => port === weight));

  const batches = [...map.entriesBatch({ batchSize: 100 })];
  t.ok(batches.length >= 7);
  t.same(sorted(batches.flat().map(([each]) => each)), ports);
  t.same(
    sorted([...map.entriesBatch({ batchSize: 1 })].flat().map(([each]) => each)),
    ports,
    "buckets that are larger than the batch",
  );

  let seen = 0;
  for (const [each] of map.entries()) {
    seen++;
    map.delete(each);
    // One that the walk may not have come to yet, or has in the batch at hand.
    map.delete(key(each.port === 700 ? 1 : each.port + 1));
  }
  t.ok(seen >= 350 && seen <= 700, "the loop may delete, here and elsewhere");
  t.same([...map.keys()], []);

  t.same(
    [...object.map<number, number>("numbers").entries()],
    Array.from({ length: 10 }, (_, i) => [i, 0]),
  );
});

await balanced(t, "iteration over a trie", async (t) => {
  using object = await loadMachine();
  const trie = object.map<Uint8Array, Uint8Array>("prefixes");
  const prefix = (n: number): Uint8Array => new Uint8Array([32, 0, 0, 0, 10, 0, 0, n]);
  for (let n = 0; n < 50; n++) trie.set(prefix(n), new Uint8Array([n, 0, 0, 0]));
  t.same(new Set([...trie.keys()].map((each) => each[7])).size, 50);
  for (const each of trie.keys()) trie.delete(each);
  t.same([...trie.keys()], []);
});

await balanced(t, "batches", async (t) => {
  using object = await loadMachine();
  const map = table(object);
  const entries = Array.from({ length: 900 }, (_, i): [Key, Value] => [key(i + 1), value(i)]);
  map.setBatch(entries);
  t.equal([...map.keys()].length, 900);
  t.same(map.get(key(900)), value(899));
  t.throws(() => map.setBatch(entries.slice(0, 2), "new"), { code: "KEY_EXISTS", message: /update element 0 of 2/ });
  map.setBatch(entries.slice(0, 2), "existing");
  t.throws(
    () =>
      map.setBatch([
        [key(1), value(1)],
        [key(2), { packets: 1n } as Value],
      ]),
    { code: "INVALID_VALUE" },
  );
  const many = Array.from({ length: 200 }, (_, i): [Key, Value] => [key(2000 + i), value(i)]);
  t.throws(
    () => map.setBatch(many),
    { code: "MAP_FULL", message: /update element 100 of 200/ },
    "those before are written",
  );
  t.same(map.get(key(2099)), value(99));
  t.equal(map.deleteBatch([key(1), key(5000), key(2), key(5001), key(2099)]), 3, "what was not there is not counted");
  t.equal(map.deleteBatch([]), 0);
  map.setBatch([]);

  const numbers = object.map<number, number>("numbers");
  numbers.setBatchRaw(
    new Uint8Array(new Uint32Array([3, 4]).buffer),
    new Uint8Array(new Uint32Array([30, 40]).buffer),
    2,
  );
  t.equal(numbers.get(4), 40);
  t.throws(() => numbers.setBatchRaw(new Uint8Array(8), new Uint8Array(4), 2), { code: "WRONG_SIZE" });
  t.throws(() => numbers.setBatchRaw(new Uint8Array(8), new Uint8Array(8), 3), { code: "WRONG_SIZE" });

  using locks = BpfMap.create({ type: "queue", name: "queue", keySize: 0, valueSize: 4, maxEntries: 4 });
  const nothing = new Uint8Array(0);
  locks.setBatchRaw(nothing, new Uint8Array([1, 0, 0, 0, 2, 0, 0, 0]), 2);
  t.same(
    locks.getRaw(nothing),
    new Uint8Array([1, 0, 0, 0]),
    "one by one where the kernel has no batches; a queue's lookup peeks",
  );
  t.throws(() => [...locks.keys()], { code: "WRONG_MAP_TYPE" });
});

await balanced(t, "per-CPU maps", async (t) => {
  using object = await loadMachine();
  const cpus = possibleCpus();
  const values = Array.from({ length: cpus }, (_, cpu) => value(cpu + 1));
  const counters = object.map<number, Value>("counters");
  counters.setPerCpu(2, values);
  t.same(counters.getPerCpu(2), values);
  t.equal(counters.getPerCpu(3), undefined);
  t.equal(counters.getRaw(new Uint8Array([2, 0, 0, 0]))?.length, cpus * 16);
  t.same(
    [...counters.entriesPerCpu()].map(([index]) => index),
    [0, 1, 2],
  );

  const byKey = object.map<number, number>("counters_by_key");
  const small = Array.from({ length: cpus }, (_, cpu) => cpu * 10);
  byKey.setPerCpu(77, small);
  t.same(byKey.getPerCpu(77), small, "4-byte values, at a stride of 8");
  t.same([...byKey.entriesPerCpu()], [[77, small]]);
  t.equal(byKey.getPerCpu(78), undefined);

  t.throws(() => counters.get(1), { code: "WRONG_MAP_TYPE", message: /getPerCpu/ });
  t.throws(() => counters.set(1, value(1)), { code: "WRONG_MAP_TYPE", message: /setPerCpu/ });
  t.throws(() => counters.setBatch([[1, value(1)]]), { code: "WRONG_MAP_TYPE" });
  t.throws(() => [...counters.entries()], { code: "WRONG_MAP_TYPE", message: /entriesPerCpu/ });
  t.throws(() => counters.setPerCpu(1, values.slice(1)), { code: "WRONG_SIZE" });
  t.throws(() => table(object).getPerCpu(key(1)), { code: "WRONG_MAP_TYPE" });
  t.throws(() => [...table(object).entriesPerCpu()], { code: "WRONG_MAP_TYPE" });
});

await balanced(t, "mapped memory", async (t) => {
  using object = await loadMachine();
  const numbers = object.map<number, number>("numbers");
  const mapped = numbers.mmap();
  t.match(mapped, { length: 10, stride: 8 });
  t.equal(mapped.bytes.length, 80);
  mapped.u32[3 * 2] = 33;
  t.equal(numbers.get(3), 33, "a store is seen by the kernel");
  numbers.set(9, 99);
  t.equal(mapped.u32[9 * 2], 99, "and the other way round");
  t.equal(mapped.u16[9 * 4], 99);
  t.equal(mapped.u64[9], 99n);
  t.equal(mapped.bytes, mapped.bytes, "the views stay the same");

  const copy = numbers.mmap({ writable: false });
  const snapshot = copy.u32;
  t.equal(snapshot[18], 99);
  snapshot[18] = 1;
  t.equal(numbers.get(9), 99, "a read-only mapping hands out copies");
  numbers.set(9, 100);
  t.equal(copy.u32[18], 100);
  copy.close();

  const { bytes, u64 } = mapped;
  try {
    structuredClone(bytes.buffer, { transfer: [bytes.buffer as ArrayBuffer] });
  } catch {
    // Newer versions of Node refuse this, older ones copy.
  }
  t.equal(bytes.length, 80, "the memory cannot be moved to another owner");
  object.close();
  t.equal(mapped.u32[18], 100, "a mapping outlives the map's handle");
  mapped.close();
  mapped.close();
  t.equal(bytes.length, 0, "views that were handed out are empty after close");
  t.equal(u64.length, 0);
  t.equal(bytes[0], undefined);
  bytes[0] = 1;
  t.throws(() => mapped.bytes, { code: "CLOSED" });
});

await balanced(t, "what cannot be mapped", async (t) => {
  using object = await loadMachine();
  t.throws(() => table(object).mmap(), { code: "WRONG_MAP_TYPE" });
  using plain = BpfMap.create({ type: "array", keySize: 4, valueSize: 8, maxEntries: 1 });
  t.throws(() => plain.mmap(), { code: "WRONG_MAP_TYPE", message: /BPF_F_MMAPABLE/ });
  using frozen = BpfMap.create({ type: "array", keySize: 4, valueSize: 8, maxEntries: 1, flags: BPF_F_MMAPABLE });
  frozen.freeze();
  t.throws(() => frozen.mmap(), { code: "FROZEN" });
  frozen.mmap({ writable: false }).close();
  t.throws(() => frozen.set(new Uint8Array(4), new Uint8Array(8)), { code: "FROZEN", message: /frozen or read-only/ });
  t.throws(() => frozen.freeze(), { code: "FROZEN" });
  using busy = BpfMap.create({ type: "array", keySize: 4, valueSize: 8, maxEntries: 1, flags: BPF_F_MMAPABLE });
  using _ = busy.mmap();
  t.throws(() => busy.freeze(), { code: "INVALID_ARGUMENT", message: /mapped writable/ });
});

await balanced(t, "maps of maps", async (t) => {
  using object = await loadMachine();
  const outer = object.map<number, number>("outer");
  t.equal(outer.get(1), undefined);
  await outer.setInner(1, object.map("inner_one"));
  t.equal(outer.get(1), object.map("inner_one").id, "a lookup answers the inner map's id");
  await Promise.all([outer.setInner(0, object.map("inner_two")), outer.setInner(1, object.map("inner_two"))]);
  t.same([...outer.keys()], [0, 1]);
  t.equal(outer.delete(1), true);
  t.equal(outer.get(1), undefined);

  await t.rejects(outer.setInner(3, object.map("inner_one")), { code: "NO_SUCH_KEY" });
  await t.rejects(outer.setInner(1, object.map("numbers")), {
    code: "INVALID_ARGUMENT",
    message: /template's type, key size, value size and flags/,
  });
  await t.rejects(object.map<number>("numbers").setInner(1, object.map("inner_one")), { code: "WRONG_MAP_TYPE" });
  t.throws(() => outer.set(1, 5), { code: "WRONG_MAP_TYPE", message: /setInner/ });
  t.throws(() => outer.setFd(1, object.map("inner_one")), { code: "WRONG_MAP_TYPE", message: /setInner/ });

  using template = BpfMap.create({ type: "array", keySize: 4, valueSize: 8, maxEntries: 2 });
  using made = BpfMap.create<Uint8Array, number>({
    type: "hash_of_maps",
    name: "made",
    keySize: 4,
    valueSize: 4,
    maxEntries: 2,
    inner: template,
  });
  await made.setInner(new Uint8Array(4), template);
  t.equal(made.get(new Uint8Array(4)), template.id);
});

await balanced(t, "making maps", async (t) => {
  const refused = (options: Parameters<typeof BpfMap.create>[0], message: RegExp): void => {
    t.throws(() => BpfMap.create(options), { code: "INVALID_ARGUMENT", message }, message.source);
  };
  refused(
    { type: "ringbuf", keySize: 0, valueSize: 0, maxEntries: 5000 },
    /a ring's size .* must be a power-of-two number of pages, is 5000/,
  );
  refused({ type: "ringbuf", keySize: 4, valueSize: 0, maxEntries: 4096 }, /a ringbuf has no keys and values/);
  refused({ type: "array", keySize: 8, valueSize: 4, maxEntries: 1 }, /key size must be 4, is 8/);
  refused({ type: "array", keySize: 4, valueSize: 0, maxEntries: 1 }, /value size must be above 0/);
  refused({ type: "hash", keySize: 4, valueSize: 4, maxEntries: 0 }, /max_entries must be above 0/);
  refused({ type: "hash", keySize: 0, valueSize: 4, maxEntries: 1 }, /key size must be above 0/);
  refused({ type: "queue", keySize: 4, valueSize: 4, maxEntries: 1 }, /a queue has no keys/);
  refused({ type: "lpm_trie", keySize: 8, valueSize: 4, maxEntries: 1 }, /BPF_F_NO_PREALLOC/);
  refused({ type: "lpm_trie", keySize: 4, valueSize: 4, maxEntries: 1, flags: BPF_F_NO_PREALLOC }, /prefix length/);
  refused(
    { type: "lru_hash", keySize: 4, valueSize: 4, maxEntries: 1, flags: BPF_F_NO_PREALLOC },
    /always preallocated/,
  );
  t.throws(() => BpfMap.create({ type: "array_of_maps", keySize: 4, valueSize: 4, maxEntries: 1 }), {
    code: "INVALID_ARGUMENT",
    message: /needs an inner map as a template/,
  });
  t.throws(() => BpfMap.create({ type: "no_such", keySize: 4, valueSize: 4, maxEntries: 1 }), { code: "NO_SUCH_TYPE" });
  t.throws(() => BpfMap.create({ type: "hash", keySize: -1, valueSize: 4, maxEntries: 1 }), {
    code: "INVALID_ARGUMENT",
  });
  t.throws(() => BpfMap.create({ type: "hash", keySize: 4, valueSize: 2 ** 32, maxEntries: 1 }), {
    code: "INVALID_ARGUMENT",
  });
  t.throws(() => BpfMap.create({ type: "hash", name: "a\0b", keySize: 4, valueSize: 4, maxEntries: 1 }), {
    code: "INVALID_ARGUMENT",
  });
  using raw = BpfMap.create({ type: "hash", name: "a_name_that_is_longer", keySize: 2, valueSize: 3, maxEntries: 4 });
  raw.set(new Uint8Array([1, 2]), new Uint8Array([3, 4, 5]));
  t.same([...raw.entries()], [[new Uint8Array([1, 2]), new Uint8Array([3, 4, 5])]]);
});
