/** Reads the connection table through its pinned iterator, while traffic goes on and the event loop runs. */
import { type FileHandle, open } from "node:fs/promises";
import type { ConnectionFilter } from "../model/index.js";
import { selection } from "./connection-selection.js";
import { ConnectionText } from "./connection-text.js";
import { DataPlaneError } from "./error.js";

const NEWLINE = 0x0a;

/** The kernel gives no more at a time than its own buffer of eight pages (kernel/bpf/bpf_iter.c, bpf_seq_read). */
const CHUNK = 64 * 1024;

/** The pinned iterator, opened: it goes through the table once. */
export type Listing = Pick<FileHandle, "read" | "close">;

/**
 * Yields the listing piece by piece, each time the same cursor, to be used before the next piece is asked for. The piece after it is being
 * read meanwhile, on the thread pool, and nothing beyond that. Returning early ends the reading.
 *
 * @param path the pinned iterator
 * @param openFile opens it
 * @throws DataPlaneError PINS_DAMAGED where there is none
 */
export async function* readConnections(
  path: string,
  filter: ConnectionFilter,
  openFile: (path: string) => Promise<Listing> = open,
): AsyncGenerator<ConnectionText, undefined, undefined> {
  const file = await openListing(path, openFile);
  try {
    const cursor = new ConnectionText(selection(filter));
    let text = Buffer.allocUnsafe(CHUNK);
    let other = Buffer.allocUnsafe(CHUNK);
    let held = 0;
    let pending = read(file, text, held);
    for (;;) {
      const count = await pending;
      if (count === 0) {
        return;
      }
      const end = text.subarray(0, held + count).lastIndexOf(NEWLINE) + 1;
      if (end === 0 && held + count === CHUNK) {
        throw new DataPlaneError("PINS_DAMAGED", `${path} is no list of connections: it has no lines`);
      }
      // A line that was cut off goes to the head of what is read next.
      held = text.copy(other, 0, end, held + count);
      pending = read(file, other, held);
      pending.catch(() => undefined); // heard of when it is awaited, if it ever is
      cursor.load(text, end);
      yield cursor;
      [text, other] = [other, text];
    }
  } finally {
    await file.close();
  }
}

async function openListing(path: string, openFile: (path: string) => Promise<Listing>): Promise<Listing> {
  try {
    return await openFile(path);
  } catch (error) {
    throw new DataPlaneError("PINS_DAMAGED", `the connections cannot be read from ${path}`, {
      remedy: "restart the daemon, which pins their listing anew",
      cause: error,
    });
  }
}

/** Returns how many bytes it has read behind the first `held`; 0 at the end. */
async function read(file: Listing, into: Buffer, held: number): Promise<number> {
  for (;;) {
    try {
      return (await file.read(into, held, into.length - held, null)).bytesRead;
    } catch (error) {
      // After a million empty buckets the kernel takes a pause, and goes on from there when it is asked again (bpf_seq_read).
      if (!(error instanceof Error && "code" in error && error.code === "EAGAIN")) {
        throw error;
      }
    }
  }
}
