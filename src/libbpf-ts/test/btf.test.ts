// BTF to types, and types to values: against what clang laid out, and against noise.
import { readFileSync } from "node:fs";
import fc from "fast-check";
import t from "tap";
import { addon } from "../lib/addon.js";
import { BpfError, Btf, type BtfType, type Codec, decodeRecord } from "../lib/index.js";
import { fixturePath, loadTypes } from "./fixture.js";
import { balanced } from "./ledger.js";

const object = readFileSync(fixturePath("types"));
const raw = rawBtf();
const btf = new Btf(raw);

function rawBtf(): Uint8Array {
  const handle = addon.openObject(object, "types", undefined);
  if ("errno" in handle) throw new Error(handle.log);
  const bytes = addon.objectBtf(handle);
  addon.closeObject(handle);
  if (bytes === undefined) throw new Error("the fixture has no BTF");
  return bytes;
}

/** Little-endian 32-bit words. */
function words(...values: number[]): Uint8Array {
  return new Uint8Array(new Uint32Array(values).buffer);
}

/** BTF of these type records, with the names "\0a\0b\0": a is at 1, b at 3. */
function handmade(types: Uint8Array): Uint8Array {
  const strings = new TextEncoder().encode("\0a\0b\0");
  const header = words(0x0001eb9f, 24, 0, types.length, types.length, strings.length);
  return Buffer.concat([header, types, strings]);
}

const kind = (number: number, count = 0, flag = 0): number => ((flag << 31) | (number << 24) | count) >>> 0;
/** int a, 4 bytes, unsigned. */
const integer = words(1, kind(1), 4, 32);

t.test("values as clang laid them out", async (t) => {
  await balanced(t, "every type of the fixture", async (t) => {
    const loaded = await loadTypes();
    t.same(loaded.map(".data").get(0), {
      integers: {
        u8: 255,
        s8: -128,
        u16: 65535,
        s16: -32768,
        u32: 4294967295,
        s32: -2147483648,
        u64: 18446744073709551615n,
        s64: -9223372036854775807n,
        u128: (1n << 100n) + 7n,
        s128: -5n,
        yes: true,
        small: 255,
        negative: -5,
        wide: 0xfffffffffffffffen,
        wide_negative: -0x7fffffffffffffffn,
        pointer: 0x1122334455667788n,
        count: 77,
        f32: 1.5,
        f64: -2.25,
      },
      bits: { low: 5, middle: 4097, negative: -42, flag: 1, wide: 0xabcdef0123n, tiny: 9, yes: true },
      arrays: {
        bytes: new Uint8Array([1, 2, 3, 4, 5]),
        text: new TextEncoder().encode("hello\0\0\0"),
        signed_bytes: [-1, 0, 1],
        truths: [true, false],
        grid: [
          [1, 2, 3],
          [4, 5, 6],
        ],
        pairs: [
          { low: 1, high: 2 },
          { low: 3, high: 4 },
        ],
        rows: [new Uint8Array([1, 2, 3, 4]), new Uint8Array([5, 6, 7, 8])],
      },
      anonymous: {
        before: 1,
        word: 0x20001,
        low: 1,
        high: 2,
        inner: { value: 0x20001 },
        first: 3,
        second: 4,
        named: { x: 5, y: 6 },
      },
      choice: {
        number: 0x0102030405060708n,
        bytes: new Uint8Array([8, 7, 6, 5, 4, 3, 2, 1]),
        inner: { value: 0x05060708 },
      },
      qualified: {
        constant: 12,
        pointer: 0n,
        tagged: 0n,
        choice: { number: 34n, bytes: new Uint8Array([34, 0, 0, 0, 0, 0, 0, 0]), inner: { value: 34 } },
      },
      counts: [1, 2, 3],
    });
    loaded.close();
  });
});

t.test("encoding", async (t) => {
  const anonymous = { before: 1, first: 3, second: 4, named: { x: 5, y: 6 } };
  const refused = (typeName: string, value: unknown, message: string): void => {
    t.throws(() => btf.codec(typeName).encode(value), { name: "BpfError", code: "INVALID_VALUE", message }, message);
  };

  t.same(
    btf.codec("anonymous").encode({ ...anonymous, low: 7, high: 8 }),
    new Uint8Array(
      [1, 0, 0, 0, 7, 0, 8, 0, 3, 4, 5, 0, 6, 0, 0, 0, 0, 0, 0, 0].concat(
        Array(btf.codec("anonymous").size - 20).fill(0),
      ),
    ),
    "a struct in an anonymous union is an alternative of it; padding is zero",
  );
  t.same(
    btf.codec("choice").encode({ inner: { value: 1 } }),
    new Uint8Array([1, 0, 0, 0, 0, 0, 0, 0]),
    "the rest of a union is zero",
  );
  refused("anonymous", anonymous, "anonymous has none of the union's word, low and high, inner: exactly one is needed");
  refused(
    "anonymous",
    { ...anonymous, word: 1, low: 2, high: 3 },
    "anonymous has more than one of the union's word, low and high, inner: exactly one is needed",
  );
  refused("anonymous", { ...anonymous, low: 2 }, "anonymous.high is missing");
  refused(
    "anonymous",
    { ...anonymous, word: 2, other: 1 },
    "anonymous has no other; it has before, word, low, high, inner, first, second, named",
  );
  refused("choice", {}, "choice has none of the union's number, bytes, inner: exactly one is needed");
  refused("inner", {}, "inner.value is missing");
  refused("inner", null, "inner is null, must be an object with value");
  refused("inner", [1], "inner is an array of 1, must be an object with value");
  refused("inner", { value: 1, valeu: 2 }, "inner has no valeu; it has value");
  refused("inner", { value: 4294967296 }, "inner.value is 4294967296, must be a whole number from 0 to 4294967295");
  refused("inner", { value: 0.5 }, "inner.value is 0.5, must be a whole number from 0 to 4294967295");
  refused("inner", { value: Number.NaN }, "inner.value is NaN, must be a whole number from 0 to 4294967295");
  refused("inner", { value: 1n }, "inner.value is 1n, must be a whole number from 0 to 4294967295");
  refused("inner", { value: "1" }, 'inner.value is "1", must be a whole number from 0 to 4294967295');

  const arrays = {
    bytes: new Uint8Array(5),
    text: "seven77",
    signed_bytes: [0, 0, 0],
    truths: [true, true],
    grid: [new Uint32Array(3), [1, 2, 3]],
    pairs: [
      { low: 0, high: 0 },
      { low: 0, high: 0 },
    ],
    rows: [new Uint8Array(4), new Uint8Array(4)],
  };
  t.ok(
    btf.codec("arrays").encode(arrays),
    "a string that leaves room for its zero byte, and a typed array for an array",
  );
  const text =
    "arrays.text is %, must be a Uint8Array of 8 bytes, or a string of at most 7 bytes in UTF-8 without a zero byte";
  refused("arrays", { ...arrays, text: "eight888" }, text.replace("%", '"eight888"'));
  refused("arrays", { ...arrays, text: "a\0b" }, text.replace("%", '"a\\u0000b"'));
  refused("arrays", { ...arrays, bytes: "abc" }, 'arrays.bytes is "abc", must be a Uint8Array of 5 bytes');
  refused(
    "arrays",
    { ...arrays, bytes: new Uint8Array(6) },
    "arrays.bytes is Uint8Array(6), must be a Uint8Array of 5 bytes",
  );
  refused(
    "arrays",
    {
      ...arrays,
      grid: [
        [1, 2, 3],
        [1, 2],
      ],
    },
    "arrays.grid[1] is an array of 2, must be an array of 3",
  );
  refused(
    "arrays",
    {
      ...arrays,
      grid: [
        [1, 2, 3],
        [1, -1, 2],
      ],
    },
    "arrays.grid[1][1] is -1, must be a whole number from 0 to 4294967295",
  );
  refused(
    "arrays",
    {
      ...arrays,
      pairs: [
        { low: 0, high: 0 },
        { low: 0, high: 65536 },
      ],
    },
    "arrays.pairs[1].high is 65536, must be a whole number from 0 to 65535",
  );
  refused("arrays", { ...arrays, truths: [true, 1] }, "arrays.truths[1] is 1, must be true or false");

  const bits = { low: 5, middle: 4097, negative: -42, flag: 1, wide: 1n, tiny: 9, yes: true };
  refused("bits", { ...bits, low: 8 }, "bits.low is 8, must be from 0 to 7 (a bit-field of 3 bits)");
  refused("bits", { ...bits, negative: -65 }, "bits.negative is -65, must be from -64 to 63 (a bit-field of 7 bits)");
  refused("bits", { ...bits, wide: 1 }, "bits.wide is 1, must be a bigint of 40 bits");
  refused("bits", { ...bits, yes: 1 }, "bits.yes is 1, must be true or false");
  t.throws(
    () =>
      btf.codec("inner").encode({
        get value(): number {
          throw new RangeError("from the caller's getter");
        },
      }),
    RangeError,
    "what a getter throws comes through",
  );

  const out = new Uint8Array(12).fill(0xff);
  btf.codec("inner").encodeInto({ value: 1 }, out, 4);
  t.same(out, new Uint8Array([255, 255, 255, 255, 1, 0, 0, 0, 255, 255, 255, 255]), "encodeInto touches nothing else");
  const small = new Uint8Array(3);
  t.throws(() => btf.codec("inner").encodeInto({ value: 1 }, small), { code: "WRONG_SIZE" });
  t.throws(() => btf.codec("inner").encodeInto({ value: 1 }, out, 9), { code: "WRONG_SIZE" });
  t.throws(() => btf.codec("inner").encodeInto({ value: 1 }, out, -1), { code: "INVALID_ARGUMENT" });
  t.throws(() => btf.codec("inner").encodeInto({ value: 1 }, out, 1.5), { code: "INVALID_ARGUMENT" });
  t.throws(() => btf.codec("inner").decode(small), { code: "WRONG_SIZE" });
  t.throws(() => btf.codec("inner").decode("text" as unknown as Uint8Array), { code: "INVALID_ARGUMENT" });
});

t.test("a Buffer in a pool is no different, and what is decoded is a copy", async (t) => {
  const pooled = Buffer.from([9, 1, 2, 3, 4, 5, 6, 7, 8]).subarray(1);
  const { bytes } = btf.codec<{ bytes: Uint8Array }>("choice").decode(pooled);
  t.same(bytes, new Uint8Array([1, 2, 3, 4, 5, 6, 7, 8]));
  pooled[0] = 99;
  t.equal(bytes[0], 1);
});

t.test("names, offsets and records", async (t) => {
  t.equal(btf.codec("arrays").offsetOf("grid[1][2]"), btf.codec("arrays").offsetOf("grid") + 20);
  t.equal(btf.codec("arrays").offsetOf("pairs[1].high"), btf.codec("arrays").offsetOf("pairs") + 6);
  t.equal(btf.codec("anonymous").offsetOf("high"), 6);
  t.equal(btf.codec("anonymous").offsetOf("named.y"), 12);
  for (const path of ["nothing", "grid[2]", "grid[0][3]", "grid[", "bytes.x", "grid[1][2][3]"])
    t.throws(() => btf.codec("arrays").offsetOf(path), { code: "NO_SUCH_FIELD" }, path);
  t.throws(() => btf.codec("nothing"), { code: "NO_SUCH_TYPE" });
  t.equal(btf.codec("count_t").decode(new Uint8Array([1, 0, 0, 0])), 1, "a typedef");
  t.equal(btf.codec("negative").decode(new Uint8Array([251, 255, 255, 255])), -5, "an enum");
  t.same(btf.codec("empty").encode({}), new Uint8Array(0));
  t.same(
    decodeRecord(btf, "inner", new Uint8Array([1, 0, 0, 0, 99, 99])),
    { value: 1 },
    "a record may be longer than its type",
  );
  t.equal(btf.codec("inner"), btf.codec("inner"), "codecs are compiled once");
});

t.test("damaged BTF is refused", async (t) => {
  const refused = (bytes: Uint8Array, message: RegExp): void => {
    t.throws(() => new Btf(bytes), { name: "BpfError", code: "INVALID_BTF", message }, message.source);
  };
  t.ok(new Btf(handmade(integer)));
  refused(new Uint8Array(0), /0 bytes are less than a header/);
  refused(new Uint8Array(24), /does not begin with the magic number/);
  refused(Buffer.concat([new Uint8Array([0xeb, 0x9f, 1, 0]), new Uint8Array(20)]), /other byte order/);
  refused(handmade(integer).fill(2, 2, 3), /version is 2/);
  refused(handmade(integer).fill(23, 4, 5), /a header of 23 bytes/);
  refused(handmade(integer).fill(200, 12, 13), /type section ends at/);
  refused(handmade(integer.subarray(0, 12)), /ends inside a type/);
  refused(handmade(words(99, kind(1), 4, 32)), /a name at 99/);
  refused(handmade(words(1, kind(1), 3, 24)), /24 bits at 0 in 3 bytes/);
  refused(handmade(words(1, kind(1), 4, 33)), /33 bits at 0 in 4 bytes/);
  refused(handmade(words(1, kind(31), 4)), /unknown kind 31/);
  refused(handmade(words(1, kind(6), 3)), /enum a has 3 bytes/);
  refused(handmade(words(1, kind(4, 0xffff), 4)), /ends inside a type/);
  refused(handmade(words(0, kind(2), 7)), /refers to type 7 of 2/);
  refused(handmade(words(0, kind(3), 0, 9, 1, 3)), /refers to type 9 of 2/);

  const refusedType = (types: Uint8Array, code: string, message: RegExp): void => {
    t.throws(() => new Btf(handmade(types)).codec("a"), { name: "BpfError", code, message }, message.source);
  };
  refusedType(words(1, kind(8), 1), "INVALID_BTF", /round in a circle/);
  refusedType(words(1, kind(4, 1), 4, 3, 1, 0), "INVALID_BTF", /contain themselves/);
  refusedType(words(1, kind(4, 1), 4, 0, 1, 0), "INVALID_BTF", /contain themselves/);
  refusedType(words(1, kind(4, 1), 4, 3, 2, 0, 0, kind(3), 0, 1, 1, 1), "INVALID_BTF", /contain themselves/);
  refusedType(Buffer.concat([words(1, kind(4, 1), 4, 3, 2, 8), integer]), "INVALID_BTF", /member b ends beyond it/);
  refusedType(Buffer.concat([words(1, kind(4, 1), 8, 3, 2, 4), integer]), "INVALID_BTF", /does not begin at a byte/);
  refusedType(
    Buffer.concat([words(1, kind(4, 1, 1), 8, 3, 2, 33 << 24), integer]),
    "INVALID_BTF",
    /wider than its type/,
  );
  refusedType(
    Buffer.concat([words(1, kind(4, 1, 1), 8, 3, 2, 3 << 24), words(0, kind(2), 0)]),
    "INVALID_BTF",
    /bit-field of kind pointer/,
  );
  refusedType(words(1, kind(8), 2, 0, kind(13), 0), "UNSUPPORTED_TYPE", /prototype/);
  refusedType(words(1, kind(8), 2, 3, kind(7), 0), "UNSUPPORTED_TYPE", /forward b/);
  refusedType(words(1, kind(8), 2, 3, kind(16), 16), "UNSUPPORTED_TYPE", /16 bytes/);
  refusedType(
    Buffer.concat([words(1, kind(8), 2, 0, kind(3), 0, 3, 3, 0xffffffff), integer]),
    "UNSUPPORTED_TYPE",
    /array of 4294967295/,
  );
  refusedType(words(1, kind(8), 2, 0, kind(3), 0, 3, 3, 5, 3, kind(4), 0), "UNSUPPORTED_TYPE", /5 elements of 0 bytes/);
});

t.test("a bit-field of old compilers, in its integer's encoding", async (t) => {
  // struct a { u32 b:5 at bit 3 }
  const codec = new Btf(handmade(Buffer.concat([words(1, kind(4, 1), 4, 3, 2, 3), words(0, kind(1), 4, 5)]))).codec<{
    b: number;
  }>("a");
  t.same(codec.encode({ b: 21 }), new Uint8Array([21 << 3, 0, 0, 0]));
  t.same(codec.decode(new Uint8Array([0xff, 0, 0, 0])), { b: 31 });
});

t.test("a field called __proto__ is a field like any other", async (t) => {
  const strings = new TextEncoder().encode("\0a\0__proto__\0");
  const types = Buffer.concat([words(1, kind(4, 1), 4, 3, 2, 0), integer]);
  const codec = new Btf(
    Buffer.concat([words(0x0001eb9f, 24, 0, types.length, types.length, strings.length), types, strings]),
  ).codec("a");
  const value = codec.decode(new Uint8Array([5, 0, 0, 0])) as object;
  t.equal(Object.getPrototypeOf(value), Object.prototype);
  t.equal(Object.getOwnPropertyDescriptor(value, "__proto__")?.value, 5);
  t.same(codec.encode(value), new Uint8Array([5, 0, 0, 0]));
});

/** Any value of a type, as far as it can be encoded: of a union, one member. */
function arbitrary(id: number): fc.Arbitrary<unknown> {
  const type = btf.resolve(id);
  switch (type.kind) {
    case "integer":
      if (type.bool) return fc.boolean();
      return whole(type.size * 8, type.signed, type.size > 4);
    case "enum":
      return whole(type.size * 8, type.signed, type.size > 4);
    case "pointer":
      return whole(64, false, true);
    case "float":
      return type.size === 4 ? fc.float({ noNaN: true }) : fc.double({ noNaN: true });
    case "array": {
      const element = btf.resolve(type.element);
      const bytes =
        element.kind === "integer" &&
        element.size === 1 &&
        !element.bool &&
        (!element.signed || element.name === "char");
      const constraints = { minLength: type.length, maxLength: type.length };
      return bytes ? fc.uint8Array(constraints) : fc.array(arbitrary(type.element), constraints);
    }
    case "struct":
    case "union":
      return composite(type);
    default:
      throw new Error(`no arbitrary for ${type.kind}`);
  }
}

function whole(bits: number, signed: boolean, big: boolean): fc.Arbitrary<unknown> {
  const least = signed ? -(1n << BigInt(bits - 1)) : 0n;
  const most = signed ? (1n << BigInt(bits - 1)) - 1n : (1n << BigInt(bits)) - 1n;
  const all = fc.bigInt(least, most);
  return big ? all : all.map(Number);
}

function composite(type: Extract<BtfType, { members: unknown }>): fc.Arbitrary<Record<string, unknown>> {
  const members = type.members.flatMap((member) => {
    const inner = btf.resolve(member.type);
    if (member.name.startsWith("pad")) return [];
    if (member.name === "" && "members" in inner) return [composite(inner)];
    const bool = inner.kind === "integer" && inner.bool;
    const sized = inner.kind === "integer" || inner.kind === "enum" ? inner : undefined;
    const value =
      member.bitSize > 0 && sized && !bool
        ? whole(member.bitSize, sized.signed, sized.size > 4)
        : arbitrary(member.type);
    return [value.map((field): Record<string, unknown> => ({ [member.name]: field }))];
  });
  if (type.kind === "union") return fc.oneof(...members);
  return fc.tuple(...members).map((parts) => Object.assign({}, ...parts) as Record<string, unknown>);
}

t.test("what is encoded is decoded", async (t) => {
  for (const name of ["integers", "bits", "arrays", "anonymous", "choice", "qualified", "pair_t", "wide", "small"]) {
    const codec: Codec<unknown> = btf.codec(name);
    fc.assert(
      fc.property(arbitrary(btf.find(name)), (value) => {
        const bytes = codec.encode(value);
        if (bytes.length !== codec.size) throw new Error(`${bytes.length} bytes`);
        contains(codec.decode(bytes), value);
      }),
      { numRuns: 300 },
    );
  }
  t.pass("for every type of the fixture");
});

/** All of `value` is in `decoded`; unions have more. */
function contains(decoded: unknown, value: unknown): void {
  if (value instanceof Uint8Array || typeof value !== "object" || value === null) {
    const [left, right] = [decoded, value].map((side) =>
      side instanceof Uint8Array ? Buffer.from(side).toString("hex") : side,
    );
    if (!Object.is(left, right)) throw new Error(`${String(left)} is not ${String(right)}`);
    return;
  }
  for (const [key, inner] of Object.entries(value)) contains((decoded as Record<string, unknown>)[key], inner);
}

t.test("mutated BTF: an error of ours or types that work, never anything else", async (t) => {
  let accepted = 0;
  fc.assert(
    fc.property(
      fc.array(fc.tuple(fc.nat(raw.length - 1), fc.nat(255)), { minLength: 1, maxLength: 12 }),
      fc.option(fc.nat(raw.length)),
      (mutations, length) => {
        const bytes = raw.slice(0, length ?? raw.length);
        for (const [at, value] of mutations) if (at < bytes.length) bytes[at] = value;
        accepted += useAll(bytes);
      },
    ),
    { numRuns: 3000 },
  );
  t.ok(accepted > 0, `${accepted} of 3000 were still BTF`);
});

t.test("noise in the type section", async () => {
  fc.assert(
    fc.property(fc.array(fc.nat(0xffffffff), { maxLength: 40 }), (noise) => {
      useAll(handmade(words(...noise)));
    }),
    { numRuns: 3000 },
  );
  // The same with kinds and ids that are more often right.
  const record = fc.tuple(
    fc.constantFrom(0, 1, 3),
    fc.nat(19),
    fc.nat(3),
    fc.boolean(),
    fc.nat(8),
    fc.array(fc.nat(9), { maxLength: 12 }),
  );
  fc.assert(
    fc.property(fc.array(record, { maxLength: 8 }), (records) => {
      const types = records.flatMap(([name, number, count, flag, size, rest]) => [
        name,
        kind(number, count, flag ? 1 : 0),
        size,
        ...rest,
      ]);
      useAll(handmade(words(...types)));
    }),
    { numRuns: 5000 },
  );
});

/** Parses, compiles every named type and decodes zeros with it. Returns 1 if it is BTF at all. */
function useAll(bytes: Uint8Array): 0 | 1 {
  const attempt = <T>(action: () => T): T | undefined => {
    try {
      return action();
    } catch (error) {
      if (error instanceof BpfError) return undefined;
      throw error;
    }
  };
  const mutated = attempt(() => new Btf(bytes));
  if (mutated === undefined) return 0;
  for (const id of mutated.types.keys()) {
    const codec = attempt(() => mutated.codecOf(id));
    if (codec !== undefined && codec.size < 1 << 16) attempt(() => codec.decode(new Uint8Array(codec.size)));
  }
  return 1;
}

t.test("mutated values: an error of ours, or bytes", async () => {
  const codec = btf.codec("anonymous");
  fc.assert(
    fc.property(
      fc.anything(),
      fc.dictionary(
        fc.constantFrom("before", "word", "low", "high", "inner", "first", "second", "named"),
        fc.anything(),
      ),
      (any, fields) => {
        for (const value of [any, fields]) {
          try {
            codec.encode(value);
          } catch (error) {
            if (!(error instanceof BpfError)) throw error;
          }
        }
      },
    ),
    { numRuns: 3000 },
  );
});
