// The command line: libbpf-ts generate OBJECT [-o FILE] [--check FILE] [--type NAME]...
import { readFileSync, writeFileSync } from "node:fs";
import { parseArgs } from "node:util";
import { BpfError } from "./error.js";
import { generate } from "./generate.js";

const usage = `usage: libbpf-ts generate OBJECT [-o FILE] [--check FILE] [--type NAME]...

Writes TypeScript types for the maps, variables and programs of a compiled BPF object, from its BTF.

  -o, --output FILE  write to FILE instead of standard output
      --check FILE   write nothing; exit with status 1 if FILE is not what would be written
      --type NAME    also this struct, union, enum or typedef; may be repeated
  -h, --help         this text
`;

class UsageError extends Error {}

/** What status the process is to exit with: 0 done, 1 failed or out of date, 2 wrong usage. */
function run(argv: string[]): number {
  const { values, positionals } = parse(argv);
  if (values.help === true) {
    process.stdout.write(usage);
    return 0;
  }
  const [command, object, ...rest] = positionals;
  if (command !== "generate") throw new UsageError(command === undefined ? "no command" : `unknown command ${command}`);
  if (object === undefined || rest.length > 0) throw new UsageError("generate takes one object");
  const text = generate(object, { types: values.type ?? [] });
  if (values.check !== undefined) return check(values.check, text, object);
  if (values.output === undefined) process.stdout.write(text);
  else writeFileSync(values.output, text);
  return 0;
}

function parse(argv: string[]) {
  try {
    return parseArgs({
      args: argv,
      allowPositionals: true,
      options: {
        output: { type: "string", short: "o" },
        check: { type: "string" },
        type: { type: "string", multiple: true },
        help: { type: "boolean", short: "h" },
      },
    });
  } catch (error) {
    throw new UsageError(error instanceof Error ? error.message : String(error), { cause: error });
  }
}

function check(file: string, text: string, object: string): number {
  if (readFileSync(file, "utf8") === text) return 0;
  process.stderr.write(`libbpf-ts: ${file} is out of date: generate it again from ${object}\n`);
  return 1;
}

try {
  process.exitCode = run(process.argv.slice(2));
} catch (error) {
  if (error instanceof UsageError) {
    process.stderr.write(`libbpf-ts: ${error.message}\n\n${usage}`);
    process.exitCode = 2;
  } else {
    const prefix = error instanceof BpfError ? `${error.code}: ` : "";
    process.stderr.write(`libbpf-ts: ${prefix}${error instanceof Error ? error.message : String(error)}\n`);
    process.exitCode = 1;
  }
}
