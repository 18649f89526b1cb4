/** The connection table while packets run through it: read in pieces, between which others go on, so not of one moment. */
import { setImmediate as nextTurn } from "node:timers/promises";
import type { BpfMap } from "libbpf-ts";
import { ConnectionDirection, layout } from "../../src/dataplane/sluice.bpf.js";
import { emptyFlows, type Flows } from "../prelude/flows.js";

const BUCKET = layout.Bucket.offsets;
const CONNECTION = layout.Connection.offsets;
const FLOW = layout.Flow.offsets;
const SLOTS = 16;
const BUCKETS_AT_ONCE = 512;

/** Calls back for each entry, with where it lies in the table and in the bytes that were read. */
async function eachEntry(map: BpfMap, take: (location: number, view: DataView, at: number) => void): Promise<void> {
  for (const { keys, values, count } of map.batchesRaw({ batchSize: BUCKETS_AT_ONCE })) {
    const indexes = new DataView(keys.buffer, keys.byteOffset, keys.byteLength);
    const view = new DataView(values.buffer, values.byteOffset, values.byteLength);
    for (let i = 0; i < count; i++) {
      const bucket = i * layout.Bucket.size;
      const location = indexes.getUint32(4 * i, true) << 4;
      for (let slot = 0; slot < SLOTS; slot++) {
        if (view.getUint16(bucket + BUCKET.tags + 2 * slot, true) === 0) continue;
        take(location | slot, view, bucket + BUCKET.slots + slot * layout.Connection.size);
      }
    }
    await nextTurn();
  }
}

/**
 * What the replies to each of these packets look like when they come from the real server; a source of 0 where there is no such
 * connection, or its replies pass elsewhere. A client has each of its ports once, whatever it is connected to.
 */
export async function repliesTo(map: BpfMap, requests: Flows): Promise<Flows> {
  const places = new Map<number, number>();
  for (let i = 0; i < requests.source.length; i++) {
    places.set(requests.source[i]! * 0x1_0000 + requests.sourcePort[i]!, i);
  }
  const twins = new Uint32Array(requests.source.length).fill(0xffffffff);
  const reverse = emptyFlows(map.maxEntries * SLOTS);
  await eachEntry(map, (location, view, at) => {
    const flow = at + CONNECTION.flow;
    const source = view.getUint32(flow + FLOW.source);
    const sourcePort = view.getUint16(flow + FLOW.source_port);
    if (view.getUint8(at + CONNECTION.direction) === ConnectionDirection.DIRECTION_FORWARD) {
      const place = places.get(source * 0x1_0000 + sourcePort);
      if (place !== undefined) twins[place] = view.getUint32(at + CONNECTION.twin, true);
    } else {
      reverse.source[location] = source;
      reverse.sourcePort[location] = sourcePort;
      reverse.destination[location] = view.getUint32(flow + FLOW.destination);
      reverse.destinationPort[location] = view.getUint16(flow + FLOW.destination_port);
    }
  });
  const replies = emptyFlows(twins.length);
  for (const [place, twin] of twins.entries()) {
    replies.source[place] = reverse.source[twin] ?? 0;
    replies.sourcePort[place] = reverse.sourcePort[twin] ?? 0;
    replies.destination[place] = reverse.destination[twin] ?? 0;
    replies.destinationPort[place] = reverse.destinationPort[twin] ?? 0;
  }
  return replies;
}

/** Buckets that hold something, or say so. */
export function bucketsInUse(map: BpfMap): number {
  let found = 0;
  for (const { values, count } of map.batchesRaw({ batchSize: BUCKETS_AT_ONCE })) {
    const view = new DataView(values.buffer, values.byteOffset, values.byteLength);
    for (let bucket = 0; bucket < count * layout.Bucket.size; bucket += layout.Bucket.size) {
      let held = view.getUint32(bucket + BUCKET.used, true) + view.getUint32(bucket + BUCKET.lodgers, true);
      for (let slot = 0; slot < SLOTS; slot++) held += view.getUint16(bucket + BUCKET.tags + 2 * slot, true);
      found += held === 0 ? 0 : 1;
    }
  }
  return found;
}
