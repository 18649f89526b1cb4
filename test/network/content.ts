/** Bytes that both ends can make up for themselves, so that a download can be checked without a file. */
import { createHash } from "node:crypto";

const BLOCK_BYTES = 65_536;
const BLOCK = makeBlock();

/** The content of /bytes/LENGTH, in blocks. Each begins with its own number: no two are alike, and none can change places. */
export function* content(length: number): Generator<Buffer> {
  for (let offset = 0, number = 0; offset < length; offset += BLOCK_BYTES, number++) {
    const block = Buffer.from(BLOCK);
    block.writeUInt32BE(number);
    yield block.subarray(0, Math.min(BLOCK_BYTES, length - offset));
  }
}

export function contentSha256(length: number): string {
  const hash = createHash("sha256");
  for (const block of content(length)) hash.update(block);
  return hash.digest("hex");
}

/** Pseudo-random (xorshift32), so that no two 16-bit words cancel out in a checksum by design. */
function makeBlock(): Buffer {
  const block = Buffer.alloc(BLOCK_BYTES);
  let state = 2_463_534_242;
  for (let offset = 0; offset < BLOCK_BYTES; offset += 4) {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    block.writeInt32BE(state | 0, offset);
  }
  return block;
}
