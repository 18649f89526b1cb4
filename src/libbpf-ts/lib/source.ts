// Where an object's bytes come from.
import { readFileSync } from "node:fs";
import { basename } from "node:path";
import { addon, type ObjectHandle } from "./addon.js";
import { BpfError, kernelError, requireName, shown } from "./error.js";

const ELF_HEADER_SIZE = 64;
const ELF_MAGIC = 0x7f454c46;
const ELF_CLASS_64 = 2;
const ELF_LITTLE_ENDIAN = 1;
const EM_BPF = 247;

function read(path: string): Uint8Array {
  requireName("the object's path", path);
  try {
    return readFileSync(path);
  } catch (cause) {
    const missing = cause instanceof Error && "code" in cause && cause.code === "ENOENT";
    throw new BpfError(missing ? "NO_SUCH_FILE" : "SYSTEM_ERROR", `cannot read the object ${path}: ${String(cause)}`, {
      cause,
    });
  }
}

function requireBpf(bytes: Uint8Array, name: string): void {
  const refuse = (why: string): never => {
    throw new BpfError("INVALID_OBJECT", `${name} is not a BPF object: ${why}`);
  };
  if (bytes.length < ELF_HEADER_SIZE) refuse(`${bytes.length} bytes are less than an ELF header`);
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  if (view.getUint32(0) !== ELF_MAGIC) refuse("it does not begin with ELF's magic number");
  if (view.getUint8(4) !== ELF_CLASS_64 || view.getUint8(5) !== ELF_LITTLE_ENDIAN)
    refuse("it is not 64-bit little-endian");
  const machine = view.getUint16(18, true);
  if (machine !== EM_BPF) refuse(`its ELF machine is ${machine}, must be ${EM_BPF}: compile it with clang -target bpf`);
}

/**
 * Opens an object with libbpf. Objects are as trustworthy as the programs in them: libbpf and libelf parse them, and neither is
 * made for hostile files.
 */
export function openSource(
  source: string | Uint8Array,
  options: { readonly name?: string; readonly pinRootPath?: string } = {},
): { handle: ObjectHandle; name: string } {
  if (options.name !== undefined) requireName("the option name", options.name);
  if (options.pinRootPath !== undefined) requireName("the option pinRootPath", options.pinRootPath);
  if (typeof source !== "string" && !(source instanceof Uint8Array))
    throw new BpfError("INVALID_ARGUMENT", `the object's source is ${shown(source)}, must be a path or a Uint8Array`);
  const name = options.name ?? (typeof source === "string" ? basename(source).replace(/(\.bpf)?\.o$/, "") : "object");
  const bytes = typeof source === "string" ? read(source) : source;
  requireBpf(bytes, name);
  const opened = addon.openObject(bytes, name, options.pinRootPath);
  if ("errno" in opened)
    throw kernelError(
      `libbpf cannot open ${name}${lastLine(opened.log)}`,
      "bpf_object__open",
      opened.errno,
      {
        [opened.errno]: { code: "INVALID_OBJECT" },
      },
      opened.log,
    );
  return { handle: opened, name };
}

function lastLine(log: string): string {
  const line = log.trimEnd().split("\n").at(-1) ?? "";
  return line === "" ? "" : `: ${line.replace(/^libbpf: /, "")}`;
}
