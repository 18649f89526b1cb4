import { addon } from "./addon.js";
import { type Section, TypeTable } from "./btf-types.js";
import { type Codec, compileCodec } from "./codec.js";
import { BpfError } from "./error.js";
import { openSource } from "./source.js";

/** The types of an object or of a loaded map. Immutable; codecs are compiled once and kept. */
export class Btf extends TypeTable {
  readonly #codecs = new Map<number, Codec<unknown>>();
  readonly #named = new Map<string, number>();

  constructor(raw: Uint8Array) {
    super(raw);
    // Where a name stands for several types, the last of these kinds wins: a struct, as a rule with a typedef of the same name.
    for (const kind of ["typedef", "enum", "union", "struct"] as const) {
      for (const [id, type] of this.types.entries())
        if (type.kind === kind && type.name !== "") this.#named.set(type.name, id);
    }
  }

  /** Of a compiled object: its path or its bytes. Nothing is loaded. */
  static fromObject(source: string | Uint8Array): Btf {
    const { handle, name } = openSource(source);
    try {
      const raw = addon.objectBtf(handle);
      if (raw === undefined) throw new BpfError("INVALID_OBJECT", `${name} has no BTF: compile it with -g`);
      return new Btf(raw);
    } finally {
      addon.closeObject(handle);
    }
  }

  /** By the kernel's id, a loaded map's for example; undefined where there is none. */
  static fromKernel(id: number): Btf | undefined {
    const raw = addon.btfById(id);
    return typeof raw === "number" ? undefined : new Btf(raw);
  }

  /** The id of a struct, union, enum or typedef. */
  find(typeName: string): number {
    const id = this.#named.get(typeName);
    if (id === undefined)
      throw new BpfError("NO_SUCH_TYPE", `BTF has no struct, union, enum or typedef called ${typeName}`);
    return id;
  }

  section(name: string): Section | undefined {
    for (const type of this.types) if (type.kind === "section" && type.name === name) return type;
    return undefined;
  }

  codec<T = unknown>(typeName: string): Codec<T> {
    return this.codecOf(this.find(typeName)) as Codec<T>;
  }

  codecOf(id: number): Codec<unknown> {
    let codec = this.#codecs.get(id);
    if (codec === undefined) {
      codec = compileCodec(this, id);
      this.#codecs.set(id, codec);
    }
    return codec;
  }
}

/** Decodes a ring buffer's record, which may be longer than the type. */
export function decodeRecord<T>(btf: Btf, typeName: string, record: Uint8Array): T {
  return btf.codec<T>(typeName).decode(record);
}
