// Pins: names on a BPF file system that keep a map, a program or a link alive.
import { unlinkSync } from "node:fs";
import { basename } from "node:path";
import { type AnyHandle, addon, type LinkHandle, type MapHandle, type OpenedPin, type ProgramHandle } from "./addon.js";
import { BpfError, errno, kernelError, type Reading, requireName } from "./error.js";

export type PinKind = OpenedPin["kind"];

const notBpffs: Reading = {
  code: "NOT_BPFFS",
  advice: "the path is not on a BPF file system (mount -t bpf bpf /sys/fs/bpf), or the process may not write there",
};

export const pinReadings: Readonly<Record<number, Reading>> = {
  [errno.EPERM]: notBpffs,
  [errno.EEXIST]: { code: "PIN_EXISTS", advice: "there is something at this path already" },
  [errno.ENOENT]: { code: "NO_SUCH_FILE", advice: "the directory does not exist" },
};

export function requirePinPath(path: unknown): asserts path is string {
  requireName("the pin's path", path);
  // bpf_lookup in kernel/bpf/inode.c reserves dots.
  if (basename(path).includes("."))
    throw new BpfError(
      "INVALID_ARGUMENT",
      `the pin's path ${path} has a dot in its last part: the BPF file system allows none`,
    );
}

export function pin(what: string, handle: AnyHandle, path: string): void {
  requirePinPath(path);
  const error = addon.pin(handle, path);
  if (error < 0) throw kernelError(`cannot pin ${what} at ${path}`, "BPF_OBJ_PIN", error, pinReadings);
}

interface Handles {
  map: MapHandle;
  program: ProgramHandle;
  link: LinkHandle;
}

export function openPin<Kind extends PinKind>(kind: Kind, path: string): Handles[Kind] {
  requireName("the pin's path", path);
  const opened = addon.openPin(path);
  if (typeof opened === "number")
    throw kernelError(`cannot open the pinned ${kind} ${path}`, "BPF_OBJ_GET", opened, {
      [errno.ENOENT]: { code: "NO_SUCH_FILE" },
      [errno.EACCES]: notBpffs,
      [errno.EMEDIUMTYPE]: { code: "WRONG_KIND", advice: "it is neither a map nor a program nor a link" },
    });
  if (opened.kind !== kind) {
    closeOpened(opened);
    throw new BpfError("WRONG_KIND", `what is pinned at ${path} is a ${opened.kind}, not a ${kind}`);
  }
  return opened.handle as Handles[Kind];
}

function closeOpened(opened: OpenedPin): void {
  switch (opened.kind) {
    case "map":
      addon.closeMap(opened.handle);
      break;
    case "program":
      addon.closeProgram(opened.handle);
      break;
    case "link":
      addon.closeLink(opened.handle);
      break;
  }
}

function infoOf(opened: OpenedPin): { readonly id: number } | number {
  switch (opened.kind) {
    case "map":
      return addon.mapInfo(opened.handle);
    case "program":
      return addon.programInfo(opened.handle);
    case "link":
      return addon.linkInfo(opened.handle);
  }
}

/** Removes a pin, after a look whether it is this object's: another's stays. */
export function unpin(what: string, kind: PinKind, id: number, path: string): void {
  requireName("the pin's path", path);
  const opened = addon.openPin(path);
  if (typeof opened === "number") throw kernelError(`cannot unpin ${what} from ${path}`, "BPF_OBJ_GET", opened);
  const info = infoOf(opened);
  const same = opened.kind === kind && typeof info === "object" && info.id === id;
  closeOpened(opened);
  if (!same) throw new BpfError("PIN_DIFFERS", `cannot unpin ${what} from ${path}: something else is pinned there`);
  try {
    unlinkSync(path);
  } catch (cause) {
    throw new BpfError("SYSTEM_ERROR", `cannot unpin ${what} from ${path}: ${String(cause)}`, { cause });
  }
}
