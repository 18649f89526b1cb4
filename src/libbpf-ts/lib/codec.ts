// Values to bytes and back, by BTF. A type is compiled once into two closures; what can be decided then costs nothing later.
//
// What stands for what: integers up to 32 bits are numbers, 64 and 128 bits bigints; bool is boolean; an enum is a number (bigint
// if it has 8 bytes); a pointer is a bigint; arrays of u8 and char are Uint8Arrays, other arrays arrays; structs are plain objects
// with the C names, the members of anonymous structs and unions among those of the struct around them. Of a union, exactly one
// member is encoded and all are decoded. Integers keep the host's byte order, which is little-endian (package.json, "cpu").
import type { BtfType, Composite, Member, Section, TypeTable } from "./btf-types.js";
import { BpfError, requireBytes, requireInteger, shown } from "./error.js";

export interface Codec<T> {
  /** Bytes. */
  readonly size: number;
  /** INVALID_VALUE, with the path to the field, for a missing, an unknown or an unfitting one. Padding is zero. */
  encode(value: T): Uint8Array;
  encodeInto(value: T, out: Uint8Array, offset?: number): void;
  /** Of the bytes from `offset` on, which may be more than `size`. WRONG_SIZE if they are fewer. */
  decode(bytes: Uint8Array, offset?: number): T;
  /** Bytes to a field: "ring.length", "slots[3].flow". */
  offsetOf(path: string): number;
}

type Write = (view: DataView, at: number, value: unknown) => void;
type Read = (view: DataView, at: number) => unknown;

/** A compiled type. */
interface Layout {
  readonly size: number;
  readonly write: Write;
  readonly read: Read;
}

type PlainObject = Record<string, unknown>;

/** As deep as the kernel resolves types (MAX_RESOLVE_DEPTH in kernel/bpf/btf.c). */
const MAX_DEPTH = 32;
const MAX_MEMBERS = 0xffff;

/**
 * Structs that belong to the kernel: user space reads zeros in their place and what it writes there is ignored, so they are treated
 * as padding (check_and_init_map_value and copy_map_value in include/linux/bpf.h).
 */
const kernelStructs: ReadonlySet<string> = new Set([
  "bpf_spin_lock",
  "bpf_res_spin_lock",
  "bpf_timer",
  "bpf_wq",
  "bpf_list_head",
  "bpf_list_node",
  "bpf_rb_root",
  "bpf_rb_node",
  "bpf_refcount",
]);

/** Explicit padding: pad, pad2, pad_to_line, _padding, __pad ... Written as zeros, not read. */
const padding = /^_*pad(ding)?(_.*|\d*)$/;

export function isOmitted(types: TypeTable, member: Member): boolean {
  if (padding.test(member.name)) return true;
  const type = types.resolve(member.type);
  return type.kind === "struct" && kernelStructs.has(type.name);
}

// A value that does not fit, on its way up through the structs and arrays around it, which add their names.
class Misfit extends Error {
  path = "";
  constructor(readonly problem: string) {
    super(problem);
  }
  inside(step: string): this {
    this.path = this.path === "" || this.path.startsWith("[") ? step + this.path : `${step}.${this.path}`;
    return this;
  }
}

function unfit(value: unknown, allowed: string): Misfit {
  return new Misfit(`is ${shown(value)}, must be ${allowed}`);
}

function integer(size: number, signed: boolean): Layout {
  switch (size) {
    case 1:
    case 2:
    case 4:
      return smallInteger(size, signed);
    case 8:
      return {
        size,
        write: bigWrite(64, signed, (view, at, value) => view.setBigUint64(at, value, true)),
        read: signed ? (view, at) => view.getBigInt64(at, true) : (view, at) => view.getBigUint64(at, true),
      };
    default:
      return {
        size: 16,
        write: bigWrite(128, signed, (view, at, value) => {
          view.setBigUint64(at, BigInt.asUintN(64, value), true);
          view.setBigUint64(at + 8, BigInt.asUintN(64, value >> 64n), true);
        }),
        read: (view, at) => {
          const high = signed ? view.getBigInt64(at + 8, true) : view.getBigUint64(at + 8, true);
          return (high << 64n) | view.getBigUint64(at, true);
        },
      };
  }
}

function smallInteger(size: 1 | 2 | 4, signed: boolean): Layout {
  const least = signed ? -(2 ** (size * 8 - 1)) : 0;
  const most = signed ? 2 ** (size * 8 - 1) - 1 : 2 ** (size * 8) - 1;
  const allowed = `a whole number from ${least} to ${most}`;
  const check = (value: unknown): number => {
    if (typeof value !== "number" || !(value >= least && value <= most) || Math.floor(value) !== value)
      throw unfit(value, allowed);
    return value;
  };
  switch (size) {
    case 1:
      return {
        size,
        write: (view, at, value) => view.setUint8(at, check(value)),
        read: signed ? (view, at) => view.getInt8(at) : (view, at) => view.getUint8(at),
      };
    case 2:
      return {
        size,
        write: (view, at, value) => view.setUint16(at, check(value), true),
        read: signed ? (view, at) => view.getInt16(at, true) : (view, at) => view.getUint16(at, true),
      };
    case 4:
      return {
        size,
        write: (view, at, value) => view.setUint32(at, check(value), true),
        read: signed ? (view, at) => view.getInt32(at, true) : (view, at) => view.getUint32(at, true),
      };
  }
}

function bigWrite(bits: number, signed: boolean, store: (view: DataView, at: number, value: bigint) => void): Write {
  const least = signed ? -(1n << BigInt(bits - 1)) : 0n;
  const most = signed ? (1n << BigInt(bits - 1)) - 1n : (1n << BigInt(bits)) - 1n;
  return (view, at, value) => {
    if (typeof value !== "bigint" || value < least || value > most)
      throw unfit(value, `a bigint from ${least.toString()} to ${most.toString()}`);
    store(view, at, value);
  };
}

const bool: Layout = {
  size: 1,
  write: (view, at, value) => {
    if (typeof value !== "boolean") throw unfit(value, "true or false");
    view.setUint8(at, value ? 1 : 0);
  },
  read: (view, at) => view.getUint8(at) !== 0,
};

function float(size: number, name: string): Layout {
  const check = (value: unknown): number => {
    if (typeof value !== "number") throw unfit(value, "a number");
    return value;
  };
  switch (size) {
    case 4:
      return {
        size,
        write: (view, at, value) => view.setFloat32(at, check(value), true),
        read: (view, at) => view.getFloat32(at, true),
      };
    case 8:
      return {
        size,
        write: (view, at, value) => view.setFloat64(at, check(value), true),
        read: (view, at) => view.getFloat64(at, true),
      };
    default:
      throw new BpfError("UNSUPPORTED_TYPE", `${name}: a floating-point type of ${size} bytes has no counterpart`);
  }
}

function byteArray(length: number, text: boolean): Layout {
  const allowed = text
    ? `a Uint8Array of ${length} bytes, or a string of at most ${Math.max(length - 1, 0)} bytes in UTF-8 without a zero byte`
    : `a Uint8Array of ${length} bytes`;
  const encoder = new TextEncoder();
  const bytesOf = (value: unknown): Uint8Array => {
    if (value instanceof Uint8Array && value.length === length) return value;
    if (text && typeof value === "string" && !value.includes("\0")) {
      const bytes = encoder.encode(value);
      if (bytes.length < length) return bytes;
    }
    throw unfit(value, allowed);
  };
  return {
    size: length,
    write: (view, at, value) => new Uint8Array(view.buffer, view.byteOffset + at, length).set(bytesOf(value)),
    read: (view, at) => new Uint8Array(view.buffer, view.byteOffset + at, length).slice(),
  };
}

function array(element: Layout, length: number): Layout {
  const { size: stride, read, write } = element;
  const allowed = `an array of ${length}`;
  return {
    size: stride * length,
    write: (view, at, value) => {
      const items: ArrayLike<unknown> | undefined = Array.isArray(value) || isTypedArray(value) ? value : undefined;
      if (items?.length !== length) throw unfit(value, allowed);
      let i = 0;
      try {
        for (; i < length; i++) write(view, at + i * stride, items[i]);
      } catch (error) {
        throw error instanceof Misfit ? error.inside(`[${i}]`) : error;
      }
    },
    read: (view, at) => {
      const items = new Array<unknown>(length);
      for (let i = 0; i < length; i++) items[i] = read(view, at + i * stride);
      return items;
    },
  };
}

function isTypedArray(value: unknown): value is ArrayLike<unknown> {
  return ArrayBuffer.isView(value) && !(value instanceof DataView);
}

/** Bits, counted from the least significant one of the byte that `bitOffset` begins in. */
function bitField(size: number, signed: boolean, boolean: boolean, bitOffset: number, bitSize: number): Layout {
  const first = bitOffset >> 3;
  const shift = BigInt(bitOffset & 7);
  const bytes = ((bitOffset & 7) + bitSize + 7) >> 3;
  const mask = ((1n << BigInt(bitSize)) - 1n) << shift;
  const least = signed ? -(1n << BigInt(bitSize - 1)) : 0n;
  const most = signed ? (1n << BigInt(bitSize - 1)) - 1n : (1n << BigInt(bitSize)) - 1n;
  const big = size > 4;
  const load = (view: DataView, at: number): bigint => {
    let bits = 0n;
    for (let i = bytes - 1; i >= 0; i--) bits = (bits << 8n) | BigInt(view.getUint8(at + first + i));
    return bits;
  };
  return {
    size,
    write: (view, at, value) => {
      let field: bigint;
      if (boolean && typeof value === "boolean") field = value ? 1n : 0n;
      else if (!boolean && big && typeof value === "bigint") field = value;
      else if (!boolean && !big && typeof value === "number" && Number.isInteger(value)) field = BigInt(value);
      else throw unfit(value, boolean ? "true or false" : `a ${big ? "bigint" : "whole number"} of ${bitSize} bits`);
      if (field < least || field > most)
        throw unfit(value, `from ${least.toString()} to ${most.toString()} (a bit-field of ${bitSize} bits)`);
      let bits = (load(view, at) & ~mask) | ((field << shift) & mask);
      for (let i = 0; i < bytes; i++, bits >>= 8n) view.setUint8(at + first + i, Number(bits & 0xffn));
    },
    read: (view, at) => {
      const bits = (load(view, at) & mask) >> shift;
      const field = signed ? BigInt.asIntN(bitSize, bits) : bits;
      return boolean ? field !== 0n : big ? field : Number(field);
    },
  };
}

/** One named member, or an anonymous struct's or union's members in its place. */
type Part =
  | { readonly kind: "field"; readonly name: string; readonly at: number; readonly layout: Layout }
  | { readonly kind: "choice"; readonly alternatives: readonly (readonly Part[])[] };

function namesOf(parts: readonly Part[]): string[] {
  return parts.flatMap((part) => (part.kind === "field" ? [part.name] : part.alternatives.flatMap(namesOf)));
}

/** Reads into an object that already has the fields before. */
type ReadInto = (view: DataView, at: number, out: PlainObject) => void;

function fieldReader(name: string, offset: number, read: Read): ReadInto {
  // An assignment to this name would set the object's prototype.
  if (name === "__proto__")
    return (view, at, out) =>
      Object.defineProperty(out, name, {
        value: read(view, at + offset),
        enumerable: true,
        configurable: true,
        writable: true,
      });
  return (view, at, out) => {
    out[name] = read(view, at + offset);
  };
}

function allFields(parts: readonly Part[]): Extract<Part, { kind: "field" }>[] {
  return parts.flatMap((part) => (part.kind === "field" ? [part] : part.alternatives.flatMap(allFields)));
}

function requireObject(value: unknown, names: readonly string[]): PlainObject {
  if (typeof value !== "object" || value === null || Array.isArray(value) || ArrayBuffer.isView(value))
    throw unfit(value, `an object with ${names.join(", ") || "no fields"}`);
  return value as PlainObject;
}

function refuseUnknown(object: PlainObject, names: readonly string[]): never {
  const unknown = Object.keys(object).filter((name) => !names.includes(name));
  throw new Misfit(`has no ${unknown.join(", no ")}; it has ${names.join(", ") || "no fields"}`);
}

/** Writes the parts whose fields the object has and returns how many of its fields that were. */
function writeParts(parts: readonly Part[], view: DataView, at: number, object: PlainObject): number {
  let written = 0;
  for (const part of parts) {
    if (part.kind === "field") {
      writeField(part, view, at, object);
      written++;
    } else {
      const chosen = part.alternatives.filter((alternative) =>
        namesOf(alternative).some((name) => Object.hasOwn(object, name)),
      );
      const [only] = chosen;
      if (only === undefined || chosen.length > 1) {
        const alternatives = part.alternatives
          .map((alternative) => namesOf(alternative).join(" and "))
          .filter((names) => names !== "");
        throw new Misfit(
          `has ${only === undefined ? "none" : "more than one"} of the union's ${alternatives.join(", ")}: exactly one is needed`,
        );
      }
      written += writeParts(only, view, at, object);
    }
  }
  return written;
}

function writeField(field: Extract<Part, { kind: "field" }>, view: DataView, at: number, object: PlainObject): void {
  const value = object[field.name];
  if (value === undefined) throw new Misfit("is missing").inside(field.name);
  try {
    field.layout.write(view, at + field.at, value);
  } catch (error) {
    throw error instanceof Misfit ? error.inside(field.name) : error;
  }
}

function composite(size: number, parts: readonly Part[]): Layout {
  const names = namesOf(parts);
  const readers = allFields(parts).map((field) => fieldReader(field.name, field.at, field.layout.read));
  const write: Write = parts.every((part) => part.kind === "field")
    ? plainWriter(parts, names)
    : (view, at, value) => {
        const object = requireObject(value, names);
        const written = writeParts(parts, view, at, object);
        if (Object.keys(object).length !== written) refuseUnknown(object, names);
      };
  return {
    size,
    write,
    read: (view, at) => {
      const out: PlainObject = {};
      for (const read of readers) read(view, at, out);
      return out;
    },
  };
}

/** The fast way, for structs without anonymous unions. */
function plainWriter(fields: readonly Extract<Part, { kind: "field" }>[], names: readonly string[]): Write {
  return (view, at, value) => {
    const object = requireObject(value, names);
    for (const field of fields) writeField(field, view, at, object);
    if (Object.keys(object).length !== fields.length) refuseUnknown(object, names);
  };
}

/** Compiles the types that one type consists of, each once. */
class Compiler {
  readonly #done = new Map<number, Layout>();
  #members = 0;

  constructor(readonly types: TypeTable) {}

  layout(id: number, depth: number): Layout {
    const resolved = this.types.resolveId(id);
    let layout = this.#done.get(resolved);
    if (layout === undefined) {
      if (depth > MAX_DEPTH)
        throw new BpfError("INVALID_BTF", `types are nested more than ${MAX_DEPTH} deep, or contain themselves`);
      layout = this.#compile(this.types.type(resolved), depth);
      this.#done.set(resolved, layout);
    }
    return layout;
  }

  #compile(type: BtfType, depth: number): Layout {
    switch (type.kind) {
      case "integer":
        if (type.bits !== type.size * 8) return bitField(type.size, type.signed, type.bool, type.bitOffset, type.bits);
        if (type.bool && type.size === 1) return bool;
        return integer(type.size, type.signed);
      case "enum":
        return integer(type.size, type.signed);
      case "pointer":
        return integer(8, false);
      case "float":
        return float(type.size, type.name);
      case "array":
        return this.#array(type.element, type.length, depth);
      case "struct":
        return composite(type.size, this.#parts(type, 0, depth));
      case "union":
        return composite(type.size, [{ kind: "choice", alternatives: this.#alternatives(type, 0, depth) }]);
      case "section":
        return composite(type.size, this.#variables(type, depth));
      default:
        throw new BpfError("UNSUPPORTED_TYPE", `${type.kind} ${type.name} is no type that has values`);
    }
  }

  #array(elementId: number, length: number, depth: number): Layout {
    const element = this.types.resolve(elementId);
    if (element.kind === "integer" && element.size === 1 && element.bits === 8 && !element.bool) {
      if (element.name === "char") return byteArray(length, true);
      if (!element.signed) return byteArray(length, false);
    }
    const layout = this.layout(elementId, depth + 1);
    if (layout.size * length > 0xffffffff || (layout.size === 0 && length > 0))
      throw new BpfError("UNSUPPORTED_TYPE", `an array of ${length} elements of ${layout.size} bytes`);
    return array(layout, length);
  }

  /** Byte offsets are relative to the named struct around, so that the members of anonymous structs are its own. */
  #parts(type: Composite, base: number, depth: number): Part[] {
    return type.members.flatMap((member) => this.#member(type, member, base, depth));
  }

  #alternatives(type: Composite, base: number, depth: number): Part[][] {
    return type.members.map((member) => this.#member(type, member, base, depth)).filter((parts) => parts.length > 0);
  }

  #member(outer: Composite, member: Member, base: number, depth: number): Part[] {
    if (++this.#members > MAX_MEMBERS)
      throw new BpfError("UNSUPPORTED_TYPE", `a type of more than ${MAX_MEMBERS} members`);
    if (depth > MAX_DEPTH)
      throw new BpfError("INVALID_BTF", `types are nested more than ${MAX_DEPTH} deep, or contain themselves`);
    const type = this.types.resolve(member.type);
    const requireInside = (bits: number): void => {
      if (member.bitOffset + bits > outer.size * 8)
        throw new BpfError("INVALID_BTF", `${outer.kind} ${outer.name}: member ${member.name} ends beyond it`);
    };
    if (isOmitted(this.types, member)) return [];
    const at = base + (member.bitOffset >> 3);
    if (member.name === "") {
      if (type.kind !== "struct" && type.kind !== "union") return [];
      requireInside(type.size * 8);
      return type.kind === "struct"
        ? this.#parts(type, at, depth + 1)
        : [{ kind: "choice", alternatives: this.#alternatives(type, at, depth + 1) }];
    }
    const bitSize = member.bitSize > 0 ? member.bitSize : legacyBits(type);
    if (bitSize > 0) {
      if (type.kind !== "integer" && type.kind !== "enum")
        throw new BpfError(
          "INVALID_BTF",
          `${outer.kind} ${outer.name}: member ${member.name} is a bit-field of kind ${type.kind}`,
        );
      if (bitSize > type.size * 8)
        throw new BpfError(
          "INVALID_BTF",
          `${outer.kind} ${outer.name}: bit-field ${member.name} is wider than its type`,
        );
      requireInside(bitSize);
      const offset = (member.bitOffset & 7) + (member.bitSize > 0 || type.kind !== "integer" ? 0 : type.bitOffset);
      const isBool = type.kind === "integer" && type.bool;
      return [
        { kind: "field", name: member.name, at, layout: bitField(type.size, type.signed, isBool, offset, bitSize) },
      ];
    }
    if ((member.bitOffset & 7) !== 0)
      throw new BpfError("INVALID_BTF", `${outer.kind} ${outer.name}: member ${member.name} does not begin at a byte`);
    const layout = this.layout(member.type, depth + 1);
    requireInside(layout.size * 8);
    return [{ kind: "field", name: member.name, at, layout }];
  }

  /** A name that the section has twice (static variables of functions) cannot be told apart: neither is a field. */
  #variables(section: Section, depth: number): Part[] {
    const named = section.variables.map((variable) => ({ ...variable, name: this.types.type(variable.type).name }));
    const unique = named.filter((variable) => named.filter((other) => other.name === variable.name).length === 1);
    return unique.map(({ name, type, offset }): Part => {
      const layout = this.layout(type, depth + 1);
      if (offset + layout.size > section.size)
        throw new BpfError("INVALID_BTF", `section ${section.name}: variable ${name} ends beyond it`);
      return { kind: "field", name, at: offset, layout };
    });
  }
}

function legacyBits(type: BtfType): number {
  return type.kind === "integer" && type.bits !== type.size * 8 ? type.bits : 0;
}

/** One step of a path like "slots[3].flow.port". */
function* steps(path: string): Generator<string | number> {
  for (const part of path.split(".")) {
    const match = /^([^[\]]*)((?:\[\d+\])*)$/.exec(part);
    if (match === null) throw new BpfError("NO_SUCH_FIELD", `${shown(path)} is no path of fields and indexes`);
    const [, name = "", indexes = ""] = match;
    if (name !== "") yield name;
    for (const [, index] of indexes.matchAll(/\[(\d+)\]/g)) yield Number(index);
  }
}

function findMember(types: TypeTable, id: number, name: string): { at: number; type: number } | undefined {
  const type = types.resolve(id);
  if (type.kind === "section") {
    const variable = type.variables.find((candidate) => types.type(candidate.type).name === name);
    return variable && { at: variable.offset, type: variable.type };
  }
  if (type.kind !== "struct" && type.kind !== "union") return undefined;
  for (const member of type.members) {
    if (member.name === name) return { at: member.bitOffset >> 3, type: member.type };
    if (member.name === "") {
      const inner = findMember(types, member.type, name);
      if (inner !== undefined) return { at: (member.bitOffset >> 3) + inner.at, type: inner.type };
    }
  }
  return undefined;
}

export function compileCodec(types: TypeTable, id: number): Codec<unknown> {
  const compiler = new Compiler(types);
  const layout = compiler.layout(id, 0);
  const name = types.type(id).name || types.type(id).kind;
  return makeCodec(name, layout, (path) => {
    let at = 0;
    let current = id;
    for (const step of steps(path)) {
      if (typeof step === "number") {
        const type = types.resolve(current);
        if (type.kind !== "array" || step >= type.length) throw new BpfError("NO_SUCH_FIELD", `${name} has no ${path}`);
        at += step * compiler.layout(type.element, 0).size;
        current = type.element;
      } else {
        const member = findMember(types, current, step);
        if (member === undefined) throw new BpfError("NO_SUCH_FIELD", `${name} has no ${path}`);
        at += member.at;
        current = member.type;
      }
    }
    return at;
  });
}

function makeCodec(name: string, { size, read, write }: Layout, offsetOf: (path: string) => number): Codec<unknown> {
  const encodeAt = (view: DataView, at: number, value: unknown): void => {
    try {
      write(view, at, value);
    } catch (error) {
      if (!(error instanceof Misfit)) throw error;
      throw new BpfError(
        "INVALID_VALUE",
        `${name}${error.path === "" || error.path.startsWith("[") ? "" : "."}${error.path} ${error.problem}`,
      );
    }
  };

  return {
    size,
    encode: (value) => {
      const out = new Uint8Array(size);
      encodeAt(new DataView(out.buffer), 0, value);
      return out;
    },
    encodeInto: (value, out, offset = 0) => {
      requireBytes("the output", out);
      requireInteger("the offset", offset, 0, out.byteLength);
      if (out.byteLength - offset < size)
        throw new BpfError(
          "WRONG_SIZE",
          `${name} needs ${size} bytes, the output has ${out.byteLength - offset} from offset ${offset} on`,
        );
      out.fill(0, offset, offset + size);
      encodeAt(new DataView(out.buffer, out.byteOffset, out.byteLength), offset, value);
    },
    decode: (bytes, offset = 0) => {
      requireBytes("the input", bytes);
      requireInteger("the offset", offset, 0, bytes.byteLength);
      if (bytes.byteLength - offset < size)
        throw new BpfError(
          "WRONG_SIZE",
          `${name} has ${size} bytes, there are ${bytes.byteLength - offset} from offset ${offset} on`,
        );
      return read(new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength), offset);
    },
    offsetOf,
  };
}

function noFields(path: string): never {
  throw new BpfError("NO_SUCH_FIELD", `a value without BTF has no ${path}`);
}

/** For indexes and ids without BTF. */
export const u32Codec = makeCodec("u32", integer(4, false), noFields);

/** For keys and values without BTF: the bytes themselves. */
export function rawCodec(size: number): Codec<unknown> {
  const layout = byteArray(size, false);
  return {
    size,
    encode: (value) => {
      requireBytes("the value", value, size);
      return value;
    },
    encodeInto: (value, out, offset = 0) => {
      requireBytes("the value", value, size);
      out.set(value, offset);
    },
    decode: (bytes, offset = 0) => layout.read(new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength), offset),
    offsetOf: noFields,
  };
}
