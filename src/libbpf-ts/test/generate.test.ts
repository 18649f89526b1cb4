// The generator, as a function and as a command.
import { spawnSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { tmpdir } from "node:os";
import { join } from "node:path";
import t from "tap";
import { Btf, generate } from "../lib/index.js";
import { fixturePath } from "./fixture.js";

const command = new URL("../../bin/libbpf-ts.js", import.meta.url).pathname;

function run(...arguments_: string[]): { status: number | null; stdout: string; stderr: string } {
  return spawnSync(process.execPath, [command, ...arguments_], { encoding: "utf8" });
}

function folder(t: { teardown(action: () => void): void }): string {
  const path = mkdtempSync(join(tmpdir(), "libbpf-ts-"));
  t.teardown(() => rmSync(path, { recursive: true }));
  return path;
}

t.test("the text", async (t) => {
  const text = generate(fixturePath("machine"), { types: ["event"] });
  for (const part of [
    "export interface Key {\n  address: Address;\n  port: number;\n}",
    "export interface Value {\n  packets: bigint;\n  weight: number;\n}",
    "export interface Locked {\n  under_lock: number;\n}",
    "  table: { key: Key; value: Value };",
    "  prefixes: { key: Uint8Array; value: Uint8Array };",
    "  events: { key: never; value: never };",
    "  outer: { key: number; value: number };",
    "export type Rodata = {\n  factor: number;\n  favourite: Key;\n  seeds: bigint[];\n};",
    "  custom: number;",
    '  add: { type: "syscall"; section: "syscall"; context: Request };',
    '  count: { type: "xdp"; section: "xdp" };',
    "  Event: { size: 8, offsets: { sequence: 0, length: 4 } },",
    "  Locked: { size: 8, offsets: { under_lock: 4 } },",
  ])
    t.ok(text.includes(part), part);
  t.equal(
    text,
    generate(readFileSync(fixturePath("machine")), { types: ["event"] }).replace(
      "from an object:",
      "from machine.bpf.o:",
    ),
  );
});

t.test("every kind of type", async (t) => {
  const text = generate(fixturePath("types"));
  for (const part of [
    "export interface Anonymous {\n  before: number;\n  word?: number;\n  low?: number;\n  high?: number;\n  inner?: Inner;\n  first: number;\n  second: number;\n  named: {\n    x: number;\n    y: number;\n  };\n}",
    "export interface Choice {\n  number?: bigint;\n  bytes?: Uint8Array;\n  inner?: Inner;\n}",
    "export interface Exported {\n  value: number;\n}",
    "export const Negative = {\n  NEGATIVE_LEAST: -5,\n  NEGATIVE_MOST: 5,\n} as const;\nexport type Negative = (typeof Negative)[keyof typeof Negative];",
    "  WIDE_MOST: 18446744073709551614n,",
    "  yes: boolean;",
    "  grid: number[][];",
    "  rows: Uint8Array[];",
    "  pairs: PairT[];",
    "  pointer: bigint;",
    "  f64: number;",
  ])
    t.ok(text.includes(part), part);
});

t.test("offsets are the compiler's", async (t) => {
  const directory = folder(t);
  const file = join(directory, "machine.ts");
  const text = generate(fixturePath("types"));
  // The layout is the one part of the text that has values: strip the types and run it.
  writeFileSync(
    file.replace(".ts", ".mjs"),
    text.slice(text.indexOf("export const layout")).replace(" as const;", ";"),
  );
  const { layout } = (await import(file.replace(".ts", ".mjs"))) as {
    layout: Record<string, { size: number; offsets: Record<string, number> }>;
  };
  const btf = Btf.fromObject(fixturePath("types"));
  for (const [name, cName] of [
    ["Integers", "integers"],
    ["Arrays", "arrays"],
    ["Anonymous", "anonymous"],
  ] as const) {
    t.equal(layout[name]?.size, btf.codec(cName).size);
    for (const [field, offset] of Object.entries(layout[name]?.offsets ?? {}))
      t.equal(offset, btf.codec(cName).offsetOf(field), `${cName}.${field}`);
  }
});

t.test("the text compiles, and says of values what is so", async (t) => {
  const directory = folder(t);
  const machine = generate(fixturePath("machine"), { types: ["event"] });
  writeFileSync(join(directory, "machine.ts"), machine);
  writeFileSync(join(directory, "types.ts"), generate(fixturePath("types")));
  writeFileSync(
    join(directory, "use.ts"),
    `import { layout, type Maps, type Rodata, type Data } from "./machine.js";
     import { Negative, type Anonymous } from "./types.js";
     export const value: Maps["table"]["value"] = { packets: 1n, weight: 2 };
     export const rodata: Readonly<Record<string, unknown>> = { factor: 1 } satisfies Partial<Rodata>;
     export const data: Partial<Data> = { runs: 1n };
     export const least: Negative = Negative.NEGATIVE_LEAST;
     export const anonymous: Anonymous = { before: 1, word: 2, first: 3, second: 4, named: { x: 1, y: 2 } };
     export const offset: 4 = layout.Event.offsets.length;
     // @ts-expect-error: a number where a bigint belongs
     export const wrong: Maps["table"]["value"] = { packets: 1, weight: 2 };
    `,
  );
  const tsc = createRequire(import.meta.url).resolve("typescript/bin/tsc");
  const flags = ["--noEmit", "--strict", "--exactOptionalPropertyTypes", "--module", "nodenext", "--target", "es2023"];
  const { stdout, status } = spawnSync(process.execPath, [tsc, ...flags, "--ignoreConfig", join(directory, "use.ts")], {
    encoding: "utf8",
  });
  t.equal(stdout, "");
  t.equal(status, 0);
});

t.test("what cannot be generated", async (t) => {
  t.throws(() => generate(fixturePath("machine"), { types: ["nothing"] }), { code: "NO_SUCH_TYPE" });
  t.throws(() => generate(fixturePath("machine"), { types: "key" as unknown as string[] }), {
    code: "INVALID_ARGUMENT",
  });
  t.throws(() => generate(fixturePath("clash")), {
    code: "NAME_CLASH",
    message: /two things would be called RealServer/,
  });
});

t.test("the command", async (t) => {
  const directory = folder(t);
  const file = join(directory, "machine.bpf.ts");
  const object = fixturePath("machine");
  t.match(run("generate", object, "-o", file, "--type", "event"), { status: 0, stdout: "", stderr: "" });
  t.equal(readFileSync(file, "utf8"), generate(object, { types: ["event"] }));
  t.equal(run("generate", object, "--type", "event").stdout, readFileSync(file, "utf8"));
  t.match(run("generate", object, "--type", "event", "--check", file), { status: 0, stdout: "", stderr: "" });
  t.match(run("generate", object, "--check", file), { status: 1, stderr: /out of date/ });
  t.match(run("generate", object, "--check", join(directory, "missing")), { status: 1, stderr: /ENOENT|missing/ });
  t.match(run("generate", "/no/such/object.o"), { status: 1, stderr: /NO_SUCH_FILE: cannot read the object/ });
  t.match(run("generate", object, "--type", "nothing"), { status: 1, stderr: /NO_SUCH_TYPE/ });
  t.match(run("--help"), { status: 0, stdout: /^usage: libbpf-ts generate/ });
  for (const wrong of [
    [],
    ["generate"],
    ["generate", object, "another"],
    ["produce"],
    ["generate", object, "--unknown"],
  ])
    t.match(run(...wrong), { status: 2, stderr: /usage: libbpf-ts generate/ }, wrong.join(" "));
});
