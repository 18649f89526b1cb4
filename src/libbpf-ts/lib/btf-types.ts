// BTF as the kernel's Documentation/bpf/btf.rst has it: bytes to a table of types.
import { BpfError } from "./error.js";

export interface Member {
  readonly name: string;
  readonly type: number;
  readonly bitOffset: number;
  /** Bits of a bit-field; 0: an ordinary member. */
  readonly bitSize: number;
}

export interface Enumerator {
  readonly name: string;
  readonly value: bigint;
}

export interface SectionVariable {
  /** A `var`. */
  readonly type: number;
  readonly offset: number;
  readonly size: number;
}

export interface Composite {
  readonly kind: "struct" | "union";
  readonly name: string;
  readonly size: number;
  readonly members: readonly Member[];
}

/** A data section: ".rodata", ".bss", and ".maps" with the maps' definitions. */
export interface Section {
  readonly kind: "section";
  readonly name: string;
  readonly size: number;
  readonly variables: readonly SectionVariable[];
}

/** What only refers to another type, by its id. */
export type ReferenceKind = "pointer" | "typedef" | "volatile" | "const" | "restrict" | "type tag";

export type BtfType =
  | { readonly kind: "void"; readonly name: "void" }
  | {
      readonly kind: "integer";
      readonly name: string;
      readonly size: number;
      readonly signed: boolean;
      readonly bool: boolean;
      /** Bits and their offset in `size` bytes: other than all only in bit-fields of old compilers. */
      readonly bits: number;
      readonly bitOffset: number;
    }
  | { readonly kind: ReferenceKind; readonly name: string; readonly type: number }
  | { readonly kind: "array"; readonly name: ""; readonly element: number; readonly length: number }
  | Composite
  | {
      readonly kind: "enum";
      readonly name: string;
      readonly size: number;
      readonly signed: boolean;
      readonly enumerators: readonly Enumerator[];
    }
  | { readonly kind: "forward"; readonly name: string }
  | { readonly kind: "function"; readonly name: string; readonly type: number }
  | {
      readonly kind: "prototype";
      readonly name: "";
      readonly result: number;
      readonly parameters: readonly { readonly name: string; readonly type: number }[];
    }
  | { readonly kind: "variable"; readonly name: string; readonly type: number }
  | Section
  | { readonly kind: "float"; readonly name: string; readonly size: number }
  | { readonly kind: "declaration tag"; readonly name: string; readonly type: number; readonly component: number };

const MAGIC = 0xeb9f;
const HEADER_SIZE = 24;
/** As the kernel has it (BTF_MAX_SIZE in kernel/bpf/btf.c). */
const MAX_SIZE = 16 * 1024 * 1024;

const kinds = {
  integer: 1,
  pointer: 2,
  array: 3,
  struct: 4,
  union: 5,
  enum: 6,
  forward: 7,
  typedef: 8,
  volatile: 9,
  const: 10,
  restrict: 11,
  function: 12,
  prototype: 13,
  variable: 14,
  section: 15,
  float: 16,
  declarationTag: 17,
  typeTag: 18,
  enum64: 19,
} as const;

const referenceKinds = new Map<number, ReferenceKind>([
  [kinds.pointer, "pointer"],
  [kinds.typedef, "typedef"],
  [kinds.volatile, "volatile"],
  [kinds.const, "const"],
  [kinds.restrict, "restrict"],
  [kinds.typeTag, "type tag"],
]);

function damaged(what: string): BpfError {
  return new BpfError("INVALID_BTF", `BTF is damaged: ${what}`);
}

/** Reads the type section front to back. Every read is checked against its end. */
class Cursor {
  #at: number;
  constructor(
    readonly view: DataView,
    start: number,
    readonly end: number,
  ) {
    this.#at = start;
  }
  get done(): boolean {
    return this.#at === this.end;
  }
  u32(): number {
    if (this.#at + 4 > this.end) throw damaged("the type section ends inside a type");
    const value = this.view.getUint32(this.#at, true);
    this.#at += 4;
    return value;
  }
  s32(): number {
    return this.u32() | 0;
  }
  /** `count` items of `size` bytes; refuses before anything of that length is allocated. */
  items<T>(count: number, size: number, read: () => T): T[] {
    if (this.#at + count * size > this.end) throw damaged("the type section ends inside a type");
    return Array.from({ length: count }, read);
  }
}

class Strings {
  readonly #bytes: Uint8Array;
  readonly #known = new Map<number, string>();
  readonly #decoder = new TextDecoder();
  constructor(bytes: Uint8Array) {
    this.#bytes = bytes;
    if (bytes.length === 0 || bytes[0] !== 0 || bytes[bytes.length - 1] !== 0)
      throw damaged("the string section does not begin and end with a zero byte");
  }
  at(offset: number): string {
    let text = this.#known.get(offset);
    if (text === undefined) {
      if (offset >= this.#bytes.length) throw damaged(`a name at ${offset}, beyond the string section`);
      text = this.#decoder.decode(this.#bytes.subarray(offset, this.#bytes.indexOf(0, offset)));
      this.#known.set(offset, text);
    }
    return text;
  }
}

function parse(bytes: Uint8Array): BtfType[] {
  if (bytes.length < HEADER_SIZE) throw damaged(`${bytes.length} bytes are less than a header`);
  if (bytes.length > MAX_SIZE) throw damaged(`${bytes.length} bytes are more than the kernel takes`);
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  if (view.getUint16(0, true) !== MAGIC)
    throw damaged(
      view.getUint16(0, false) === MAGIC ? "it is in the other byte order" : "it does not begin with the magic number",
    );
  if (view.getUint8(2) !== 1) throw damaged(`its version is ${view.getUint8(2)}, must be 1`);
  const header = view.getUint32(4, true);
  if (header < HEADER_SIZE) throw damaged(`a header of ${header} bytes`);
  const section = (name: string, at: number): [start: number, end: number] => {
    const start = header + view.getUint32(at, true);
    const end = start + view.getUint32(at + 4, true);
    if (end > bytes.length) throw damaged(`the ${name} section ends at ${end} of ${bytes.length} bytes`);
    return [start, end];
  };
  const [typeStart, typeEnd] = section("type", 8);
  const [stringStart, stringEnd] = section("string", 16);
  const strings = new Strings(bytes.subarray(stringStart, stringEnd));
  const cursor = new Cursor(view, typeStart, typeEnd);
  const types: BtfType[] = [{ kind: "void", name: "void" }];
  while (!cursor.done) types.push(parseType(cursor, strings));
  for (const type of types) checkReferences(type, types.length);
  return types;
}

function parseType(cursor: Cursor, strings: Strings): BtfType {
  const name = strings.at(cursor.u32());
  const info = cursor.u32();
  const sizeOrType = cursor.u32();
  const kind = (info >>> 24) & 0x1f;
  const count = info & 0xffff;
  const flag = info >>> 31 === 1;
  const reference = referenceKinds.get(kind);
  if (reference !== undefined) return { kind: reference, name, type: sizeOrType };
  switch (kind) {
    case kinds.integer: {
      const encoding = cursor.u32();
      const bits = encoding & 0xff;
      const bitOffset = (encoding >>> 16) & 0xff;
      if (![1, 2, 4, 8, 16].includes(sizeOrType) || bits === 0 || bits + bitOffset > sizeOrType * 8)
        throw damaged(`integer ${name} has ${bits} bits at ${bitOffset} in ${sizeOrType} bytes`);
      const signed = ((encoding >>> 24) & 1) !== 0;
      const bool = ((encoding >>> 24) & 4) !== 0;
      return { kind: "integer", name, size: sizeOrType, signed, bool, bits, bitOffset };
    }
    case kinds.array: {
      const element = cursor.u32();
      cursor.u32(); // the index's type
      return { kind: "array", name: "", element, length: cursor.u32() };
    }
    case kinds.struct:
    case kinds.union: {
      const members = cursor.items(count, 12, () => {
        const member = strings.at(cursor.u32());
        const type = cursor.u32();
        const offset = cursor.u32();
        // With the flag, the upper byte is a bit-field's size.
        return { name: member, type, bitOffset: flag ? offset & 0xffffff : offset, bitSize: flag ? offset >>> 24 : 0 };
      });
      return { kind: kind === kinds.struct ? "struct" : "union", name, size: sizeOrType, members };
    }
    case kinds.enum:
    case kinds.enum64: {
      if (![1, 2, 4, 8].includes(sizeOrType)) throw damaged(`enum ${name} has ${sizeOrType} bytes`);
      const enumerators = cursor.items(count, kind === kinds.enum ? 8 : 12, () => {
        const enumerator = strings.at(cursor.u32());
        const low = flag && kind === kinds.enum ? cursor.s32() : cursor.u32();
        if (kind === kinds.enum) return { name: enumerator, value: BigInt(low) };
        const high = flag ? cursor.s32() : cursor.u32();
        return { name: enumerator, value: (BigInt(high) << 32n) | BigInt(low) };
      });
      return { kind: "enum", name, size: sizeOrType, signed: flag, enumerators };
    }
    case kinds.forward:
      return { kind: "forward", name };
    case kinds.function:
      return { kind: "function", name, type: sizeOrType };
    case kinds.prototype:
      return {
        kind: "prototype",
        name: "",
        result: sizeOrType,
        parameters: cursor.items(count, 8, () => ({ name: strings.at(cursor.u32()), type: cursor.u32() })),
      };
    case kinds.variable:
      cursor.u32(); // the linkage
      return { kind: "variable", name, type: sizeOrType };
    case kinds.section:
      return {
        kind: "section",
        name,
        size: sizeOrType,
        variables: cursor.items(count, 12, () => ({ type: cursor.u32(), offset: cursor.u32(), size: cursor.u32() })),
      };
    case kinds.float:
      return { kind: "float", name, size: sizeOrType };
    case kinds.declarationTag:
      return { kind: "declaration tag", name, type: sizeOrType, component: cursor.s32() };
    default:
      throw damaged(`a type of the unknown kind ${kind}`);
  }
}

function checkReferences(type: BtfType, count: number): void {
  const check = (id: number): void => {
    if (id >= count) throw damaged(`${type.kind} ${type.name} refers to type ${id} of ${count}`);
  };
  switch (type.kind) {
    case "struct":
    case "union":
      for (const member of type.members) check(member.type);
      break;
    case "section":
      for (const variable of type.variables) check(variable.type);
      break;
    case "prototype":
      check(type.result);
      for (const parameter of type.parameters) check(parameter.type);
      break;
    case "array":
      check(type.element);
      break;
    case "void":
    case "integer":
    case "enum":
    case "forward":
    case "float":
      break;
    default:
      check(type.type);
  }
}

/** Types by id. */
export class TypeTable {
  /** 0 is void. */
  readonly types: readonly BtfType[];

  /** Parses raw BTF: a .BTF section, or what the kernel answers. INVALID_BTF if it is damaged. */
  constructor(raw: Uint8Array) {
    this.types = parse(raw);
  }

  type(id: number): BtfType {
    const type = this.types[id];
    if (type === undefined) throw damaged(`there is no type ${id}`);
    return type;
  }

  /** The type, without the variable, typedefs and qualifiers around it. */
  resolve(id: number): BtfType {
    return this.type(this.resolveId(id));
  }

  resolveId(id: number): number {
    // As many steps as there are types: more would be a circle.
    for (const _ of this.types) {
      const type = this.type(id);
      switch (type.kind) {
        case "typedef":
        case "volatile":
        case "const":
        case "restrict":
        case "type tag":
        case "variable":
          id = type.type;
          break;
        default:
          return id;
      }
    }
    throw damaged("typedefs go round in a circle");
  }
}
