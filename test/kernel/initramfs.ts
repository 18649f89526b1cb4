/** What the guest finds before it has mounted anything: a path without leading slash, and what is there. */
export type InitramfsEntry =
  | { readonly path: string; readonly kind: "directory" }
  | { readonly path: string; readonly kind: "symlink"; readonly target: string }
  | { readonly path: string; readonly kind: "file"; readonly contents: Buffer; readonly executable: boolean };

const DIRECTORY = 0o040755;
const SYMLINK = 0o120777;
const FILE = 0o100644;
const EXECUTABLE = 0o100755;

/**
 * A cpio archive of the kind that the kernel unpacks into its first root file system, uncompressed.
 * Source of the format: Documentation/driver-api/early-userspace/buffer-format.rst ("newc": thirteen header fields of
 * eight hexadecimal digits; name and contents padded to four bytes).
 */
export function buildInitramfs(entries: readonly InitramfsEntry[]): Buffer {
  const parts = entries.map((entry, index) => member(index + 1, entry.path, ...modeAndContents(entry)));
  return Buffer.concat([...parts, member(0, "TRAILER!!!", 0, Buffer.alloc(0))]);
}

function modeAndContents(entry: InitramfsEntry): [mode: number, contents: Buffer] {
  switch (entry.kind) {
    case "directory":
      return [DIRECTORY, Buffer.alloc(0)];
    case "symlink":
      return [SYMLINK, Buffer.from(entry.target)];
    case "file":
      return [entry.executable ? EXECUTABLE : FILE, entry.contents];
  }
}

function member(inode: number, path: string, mode: number, contents: Buffer): Buffer {
  const name = Buffer.from(`${path}\0`);
  const owner = 0;
  const links = 1;
  const modified = 0;
  const device = [0, 0, 0, 0];
  const checksum = 0;
  const fields = [inode, mode, owner, owner, links, modified, contents.length, ...device, name.length, checksum];
  const header = Buffer.from(`070701${fields.map((field) => field.toString(16).padStart(8, "0")).join("")}`);
  return Buffer.concat([padToFour(Buffer.concat([header, name])), padToFour(contents)]);
}

function padToFour(bytes: Buffer): Buffer {
  return Buffer.concat([bytes, Buffer.alloc(-bytes.length & 3)]);
}
