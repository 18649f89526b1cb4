// TypeScript from a compiled object's BTF, so that no struct is written twice.
import { basename } from "node:path";
import type { Btf } from "./btf.js";
import type { BtfType, Composite, Member } from "./btf-types.js";
import { isOmitted } from "./codec.js";
import { BpfError, requireName, shown } from "./error.js";
import { holdsObjects } from "./kernel-types.js";
import { definedTypes } from "./map-definition.js";
import { type OpenObject, openObject } from "./object.js";

export interface GenerateOptions {
  /** Structs, unions, enums or typedefs by their C names, besides those that are reached from maps, variables and programs. */
  readonly types?: readonly string[];
}

/** What the text itself declares or uses. */
const reserved: ReadonlySet<string> = new Set(["Maps", "Rodata", "Data", "Programs", "Uint8Array"]);

/** A type with this tag (__attribute__((btf_decl_tag("export")))) is written though nothing reaches it. */
const EXPORT_TAG = "export";

type Enum = Extract<BtfType, { kind: "enum" }>;

function pascalCase(name: string): string {
  return name
    .split("_")
    .map((word) => word.charAt(0).toUpperCase() + word.slice(1))
    .join("");
}

function propertyName(name: string): string {
  return /^[A-Za-z_$][\w$]*$/.test(name) ? name : JSON.stringify(name);
}

function indent(text: string): string {
  return text.replaceAll(/^(?=.)/gm, "  ");
}

function byName<T>(entries: Iterable<readonly [string, T]>): (readonly [string, T])[] {
  return [...entries].sort(([a], [b]) => (a < b ? -1 : 1));
}

/** Collects the declarations that the text needs while it writes expressions that refer to them. */
class Writer {
  readonly #btf: Btf;
  /** TypeScript name to the BTF id and text; empty while a declaration is being written. */
  readonly #declared = new Map<string, { readonly id: number; text: string }>();
  readonly #layouts = new Map<string, string>();

  constructor(btf: Btf) {
    this.#btf = btf;
  }

  /** The type's expression, and its declaration where it has a name. */
  type(id: number): string {
    const resolvedId = this.#btf.resolveId(id);
    const type = this.#btf.type(resolvedId);
    switch (type.kind) {
      case "integer":
        return type.bool ? "boolean" : type.size > 4 ? "bigint" : "number";
      case "pointer":
        return "bigint";
      case "float":
        return "number";
      case "array":
        return this.#array(type.element);
      case "enum": {
        const name = type.name || this.#typedefName(id);
        return name === ""
          ? type.size > 4
            ? "bigint"
            : "number"
          : this.#declare(name, resolvedId, () => writeEnum(pascalCase(name), type));
      }
      case "struct":
      case "union": {
        const name = type.name || this.#typedefName(id);
        if (name === "") return `{\n${indent(this.#fields(type, ""))}\n}`;
        return this.#declare(name, resolvedId, () => this.#interface(pascalCase(name), type));
      }
      default:
        throw new BpfError("UNSUPPORTED_TYPE", `${type.kind} ${type.name} is no type that has values`);
    }
  }

  #array(element: number): string {
    const type = this.#btf.resolve(element);
    if (type.kind === "integer" && type.size === 1 && !type.bool && (type.name === "char" || !type.signed))
      return "Uint8Array";
    return `${this.type(element)}[]`;
  }

  /** Of the last typedef before an anonymous type; empty without one. */
  #typedefName(id: number): string {
    let name = "";
    for (let type = this.#btf.type(id); "type" in type; type = this.#btf.type(type.type))
      if (type.kind === "typedef") name = type.name;
    return name;
  }

  #declare(cName: string, id: number, write: () => string): string {
    const name = pascalCase(cName);
    const known = this.#declared.get(name);
    if (known?.id === id) return name;
    if (known !== undefined || reserved.has(name))
      throw new BpfError("NAME_CLASH", `two things would be called ${name}: rename ${cName}`);
    const declaration = { id, text: "" };
    this.#declared.set(name, declaration);
    declaration.text = write();
    return name;
  }

  #interface(name: string, type: Composite): string {
    const offsets = this.#offsets(type, 0).map(([field, offset]) => `${propertyName(field)}: ${offset}`);
    this.#layouts.set(name, `{ size: ${type.size}, offsets: { ${offsets.join(", ")} } }`);
    return `export interface ${name} {\n${indent(this.#fields(type, ""))}\n}`;
  }

  /** Of a union, one member is given and all are read, so each is optional. */
  #fields(type: Composite, optional: "" | "?"): string {
    const mark = type.kind === "union" ? "?" : optional;
    return this.#visible(type)
      .map((member) => {
        const inner = this.#btf.resolve(member.type);
        if (member.name !== "") return `${propertyName(member.name)}${mark}: ${this.type(member.type)};`;
        return inner.kind === "struct" || inner.kind === "union" ? this.#fields(inner, mark) : "";
      })
      .filter((line) => line !== "")
      .join("\n");
  }

  #visible(type: Composite): Member[] {
    return type.members.filter((member) => !isOmitted(this.#btf, member));
  }

  #offsets(type: Composite, base: number): [field: string, offset: number][] {
    return this.#visible(type).flatMap((member): [string, number][] => {
      const inner = this.#btf.resolve(member.type);
      const at = base + member.bitOffset / 8;
      if (member.name === "") return inner.kind === "struct" || inner.kind === "union" ? this.#offsets(inner, at) : [];
      return member.bitSize > 0 ? [] : [[member.name, at]];
    });
  }

  declarations(): string[] {
    return byName(this.#declared).map(([, { text }]) => text);
  }

  layout(): string {
    const lines = byName(this.#layouts).map(([name, text]) => `  ${name}: ${text},\n`);
    return `/** Bytes: sizes, and the offsets of fields. */\nexport const layout = {\n${lines.join("")}} as const;`;
  }
}

function writeEnum(name: string, type: Enum): string {
  const suffix = type.size > 4 ? "n" : "";
  const lines = type.enumerators.map(
    ({ name: enumerator, value }) => `  ${propertyName(enumerator)}: ${value.toString()}${suffix},\n`,
  );
  return `export const ${name} = {\n${lines.join("")}} as const;\nexport type ${name} = (typeof ${name})[keyof typeof ${name}];`;
}

function mapsText(object: OpenObject, writer: Writer): string {
  const maps = [...object.maps].filter(([name]) => !name.startsWith("."));
  const lines = byName(maps).map(([name, map]) => {
    const { key, value } = definedTypes(object.btf, name);
    const keyed = map.keySize === 0 ? "never" : typeof key === "string" || key === 0 ? "Uint8Array" : writer.type(key);
    const empty = map.valueSize === 0 ? "never" : "Uint8Array";
    const valued = holdsObjects(map.type) ? "number" : value === 0 ? empty : writer.type(value);
    return `  ${propertyName(name)}: { key: ${keyed}; value: ${valued} };\n`;
  });
  return `/** The maps' key and value types: object.map<Maps["x"]["key"], Maps["x"]["value"]>("x"). */\nexport interface Maps {\n${lines.join("")}}`;
}

function variablesText(
  object: OpenObject,
  writer: Writer,
  name: string,
  about: string,
  prefixes: readonly string[],
): string {
  const variables = new Map<string, string>();
  for (const type of object.btf.types) {
    if (type.kind !== "section" || !prefixes.some((prefix) => type.name.startsWith(prefix))) continue;
    // A dot: a static variable of a function, which is nobody else's business.
    for (const variable of type.variables.map((entry) => object.btf.type(entry.type)))
      if (variable.kind === "variable" && !variable.name.includes("."))
        variables.set(variable.name, writer.type(variable.type));
  }
  const lines = byName(variables).map(([variable, type]) => `  ${propertyName(variable)}: ${type};\n`);
  return `/** ${about} */\nexport type ${name} = {\n${lines.join("")}};`;
}

function programsText(object: OpenObject, writer: Writer): string {
  const lines = byName(object.programs).map(([name, program]) => {
    const context = program.type === "syscall" ? contextType(object.btf, name, writer) : undefined;
    const more = context === undefined ? "" : `; context: ${context}`;
    return `  ${propertyName(name)}: { type: ${JSON.stringify(program.type)}; section: ${JSON.stringify(program.section)}${more} };\n`;
  });
  return `/** The programs, with the context of those that test runs hand one. */\nexport interface Programs {\n${lines.join("")}}`;
}

/** What a syscall program's argument points to. */
function contextType(btf: Btf, name: string, writer: Writer): string | undefined {
  const program = btf.types.find((type) => type.kind === "function" && type.name === name);
  const prototype = program?.kind === "function" ? btf.type(program.type) : undefined;
  const argument = prototype?.kind === "prototype" ? prototype.parameters[0] : undefined;
  const pointer = argument && btf.resolve(argument.type);
  if (pointer?.kind !== "pointer") return undefined;
  return btf.resolve(pointer.type).kind === "struct" ? writer.type(pointer.type) : undefined;
}

/**
 * The text of a module: an interface for each struct and union that is reached from maps, variables, syscall programs' contexts, tags
 * "export" and `types`; every named enum; Maps, Rodata, Data, Programs; and `layout`. Sorted by name, so that it does not depend on the compiler.
 */
export function generate(source: string | Uint8Array, options: GenerateOptions = {}): string {
  const { types = [] } = options;
  if (!Array.isArray(types))
    throw new BpfError("INVALID_ARGUMENT", `the option types is ${shown(types)}, must be an array of names`);
  const object = openObject(source);
  object.close();
  const { btf } = object;
  const writer = new Writer(btf);
  const sections = [
    mapsText(object, writer),
    variablesText(object, writer, "Rodata", "Constants, for setRodata: Partial<Rodata>.", [".rodata"]),
    variablesText(object, writer, "Data", "Global variables, for setData: Partial<Data>.", [".data", ".bss"]),
    programsText(object, writer),
  ];
  for (const [id, type] of btf.types.entries()) {
    if (type.kind === "enum" && type.name !== "") writer.type(id);
    if (type.kind === "declaration tag" && type.name === EXPORT_TAG && type.component < 0) writer.type(type.type);
  }
  for (const name of types) {
    requireName("a type to generate", name);
    writer.type(btf.find(name));
  }
  const from = typeof source === "string" ? basename(source) : "an object";
  const heading = `// Generated by libbpf-ts from ${from}: do not edit. Values are in the host's byte order unless their C type says otherwise.`;
  return `${[heading, ...writer.declarations(), ...sections, writer.layout()].join("\n\n")}\n`;
}
