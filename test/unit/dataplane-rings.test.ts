import fc from "fast-check";
import t from "tap";
import { foldAddress, formatAddress, parseAddress } from "../../src/dataplane/address.js";
import { hsiphash } from "../../src/dataplane/hsiphash.js";
import { defaultTableSize, fillTable, LOOKUP_KEY, type WeightedEndpoint } from "../../src/dataplane/mh.js";
import { compileRing } from "../../src/dataplane/ring.js";
import { continueTurns } from "../../src/dataplane/turn.js";
import { interleave, LONGEST_CYCLE } from "../../src/dataplane/wrr.js";
import type { RealServer, SchedulerName, VirtualService } from "../../src/model/index.js";

t.test("hsiphash", async (t) => {
  // From a C program with lib/siphash.c's hsiphash_1u32 on x86-64.
  const rows = [
    { word: 0x00000000, lookup: 0x1d5a77c2, skip: 0xf882433f },
    { word: 0x00000001, lookup: 0x16ec66b2, skip: 0x8210aad1 },
    { word: 0xc6120001, lookup: 0xe00db0de, skip: 0x80b62a1e },
    { word: 0x0a011f9b, lookup: 0xfca180f3, skip: 0x3cc2e76e },
    { word: 0xffffffff, lookup: 0x22c5d719, skip: 0xf75a0f5d },
    { word: 0xc6130203, lookup: 0x0eeb3610, skip: 0x8a022da9 },
  ];
  for (const { word, lookup, skip } of rows) {
    t.equal(hsiphash(word, LOOKUP_KEY), lookup, `0x${word.toString(16)} as a lookup`);
    t.equal(hsiphash(word, 2654446892), skip, `0x${word.toString(16)} as a skip`);
  }
});

t.test("addresses", async (t) => {
  t.equal(foldAddress("198.18.0.1"), 0xc6120001);
  t.equal(foldAddress("2001:db8::1"), (0x20010db8 ^ 0x00000001) >>> 0);
  const text = fc.oneof(
    fc.ipV4(),
    fc.ipV6().filter((address) => !address.includes(".")),
  );
  fc.assert(
    fc.property(text, (address) => {
      const canonical = formatAddress(parseAddress(address));
      t.strictSame(parseAddress(canonical), parseAddress(address));
    }),
    { numRuns: 100 },
  );
});

t.test("mh picks what IPVS picks", async (t) => {
  // Picks of Linux 6.1's ip_vs_mh with 4093 slots and mh-port, seen on the wire: [client, client port, real server 10.1.0.(10 + n):8080].
  const w432: readonly (readonly [string, number, number])[] = [
    ["198.18.1.7", 40001, 1],
    ["198.18.0.4", 40003, 2],
    ["198.18.1.1", 40005, 1],
    ["198.18.0.2", 40012, 1],
    ["198.18.66.95", 61051, 1],
    ["198.19.33.156", 1886, 2],
    ["198.19.132.142", 16381, 3],
    ["198.18.118.163", 10960, 3],
    ["198.19.242.153", 48132, 2],
  ];
  const w482: typeof w432 = [
    ["198.19.218.102", 48742, 1],
    ["198.18.18.35", 33456, 2],
    ["198.19.154.108", 34266, 3],
    ["198.19.179.137", 39367, 2],
  ];
  const w1233: typeof w432 = [
    ["198.18.126.122", 19373, 4],
    ["198.18.153.2", 60587, 3],
    ["198.19.159.218", 51172, 2],
    ["198.18.156.67", 54278, 1],
    ["198.18.41.12", 31345, 1],
  ];
  // Without mh-port the client's port has no part in it.
  const plain: typeof w432 = [
    ["198.18.1.7", 0, 1],
    ["198.18.2.1", 0, 2],
    ["198.18.0.2", 0, 3],
    ["198.18.3.3", 0, 1],
  ];
  const rows = [
    { weights: [4, 3, 2], picks: w432 },
    { weights: [4, 8, 2], picks: w482 },
    { weights: [1, 2, 3, 3], picks: w1233 },
    { weights: [4, 3, 2], picks: plain },
    { weights: [1, 1, 1], picks: plain },
  ];
  for (const { weights, picks } of rows) {
    // ipvsadm added 1, 2, 3 in this order; the list has them the other way round.
    const added = service("mh", weights, { tableSize: 4093 });
    const list = { ...added, realServers: added.realServers.toReversed() };
    const ring = compileRing(list, indexes(weights).reverse(), Uint32Array.from(weights).reverse(), 0);
    for (const [client, port, pick] of picks) {
      const slot = hsiphash((foldAddress(client) + port) >>> 0, LOOKUP_KEY) % ring.length;
      t.equal(ring[slot]! + 1, pick, `weights ${weights.join("/")}, ${client}:${port}`);
    }
  }
});

t.test("mh shares follow the weights within 2 % of all connections", async () => {
  const weights = fc.array(fc.integer({ min: 1, max: 31 }), { minLength: 1, maxLength: 30 });
  fc.assert(
    fc.property(weights, fc.integer(), (weights, seed) => {
      const table = fillTable(endpoints(weights, seed), defaultTableSize(weights, 0));
      const total = weights.reduce((sum, weight) => sum + weight, 0);
      return shares(table, weights.length).every((share, index) => Math.abs(share - weights[index]! / total) <= 0.02);
    }),
    { numRuns: 200 },
  );
});

t.test("mh moves few of the other clients when a real server goes, and all back when it returns", async () => {
  fc.assert(
    fc.property(fc.integer({ min: 2, max: 40 }), fc.integer(), fc.nat(), (count, seed, pick) => {
      const size = defaultTableSize(new Array<number>(count).fill(1), 0);
      const all = endpoints(new Array<number>(count).fill(1), seed);
      const gone = pick % count;
      const before = fillTable(all, size);
      const without = fillTable(
        all.filter((_, index) => index !== gone),
        size,
      );
      let moved = 0;
      let others = 0;
      for (const [slot, server] of before.entries()) {
        if (server !== gone) {
          others++;
          moved += without[slot] === (server > gone ? server - 1 : server) ? 0 : 1;
        }
      }
      const again = fillTable(all, size);
      return moved <= (2 / count) * others && again.every((server, slot) => server === before[slot]);
    }),
    { numRuns: 100 },
  );
});

t.test("the default size of an mh table", async (t) => {
  const rows = [
    { realServers: 0, current: 0, size: 1021, why: "the least" },
    { realServers: 10, current: 0, size: 1021, why: "100 slots each" },
    { realServers: 11, current: 0, size: 2039, why: "the next prime with 100 slots each" },
    { realServers: 11, current: 1021, size: 1021, why: "kept: 92 slots each" },
    { realServers: 20, current: 1021, size: 1021, why: "kept: 51 slots each" },
    { realServers: 21, current: 1021, size: 4093, why: "too few slots to be kept" },
    { realServers: 2, current: 4093, size: 4093, why: "kept when real servers go" },
    { realServers: 2, current: 1000, size: 1021, why: "not a table's size" },
    { realServers: 100_000, current: 0, size: 131_071, why: "the largest there is" },
  ];
  t.equal(defaultTableSize([16, 3, 1, 28, 27, 30], 0), 2039, "larger, for shares within 2 %");
  t.equal(defaultTableSize([16, 3, 1, 28, 27, 30], 1021), 1021, "kept when weights change");
  const farApart = [65535, ...new Array<number>(30).fill(1)];
  t.equal(defaultTableSize(farApart, 0), 4093, "not larger for weights that no size can follow");
  for (const { realServers, current, size, why } of rows) {
    t.equal(
      defaultTableSize(new Array<number>(realServers).fill(1), current),
      size,
      `${realServers} real servers, ${current} slots now: ${why}`,
    );
  }
});

t.test("wrr interleaves as IPVS does from its highest weight", async (t) => {
  const rows = [
    { weights: [4, 3, 2], sequence: "AABABCABC" },
    { weights: [2, 4, 3], sequence: "BBCABCABC" },
    { weights: [1, 1, 1], sequence: "ABC" },
    { weights: [10, 5], sequence: "AAB" },
    { weights: [7], sequence: "A" },
    { weights: [], sequence: "" },
  ];
  for (const { weights, sequence } of rows) {
    const letters = Array.from(interleave(weights), (index) => "ABC"[index]).join("");
    t.equal(letters, sequence, weights.join(","));
  }
});

t.test("wrr shares are exact over a cycle, and near where the cycle is too long", async () => {
  fc.assert(
    fc.property(fc.array(fc.integer({ min: 1, max: 65535 }), { minLength: 1, maxLength: 20 }), (weights) => {
      const cycle = interleave(weights);
      const total = weights.reduce((sum, weight) => sum + weight, 0);
      const isWhole = cycle.length < LONGEST_CYCLE && total % cycle.length === 0;
      const bound = isWhole ? 1e-12 : (weights.length + 1) / LONGEST_CYCLE;
      return shares(cycle, weights.length).every((share, index) => Math.abs(share - weights[index]! / total) <= bound);
    }),
  );
  fc.assert(
    fc.property(fc.array(fc.integer({ min: 1, max: 100 }), { minLength: 1, maxLength: 20 }), (weights) => {
      const total = weights.reduce((sum, weight) => sum + weight, 0);
      return shares(interleave(weights), weights.length).every(
        (share, index) => Math.abs(share - weights[index]! / total) < 1e-12,
      );
    }),
  );
});

t.test("rr takes each real server once, in order; a quiesced one has no turn with rr and wrr", async (t) => {
  t.strictSame([...ring("rr", [5, 1, 0, 1])], [0, 1, 3]);
  for (const scheduler of ["rr", "wrr"] as const) {
    t.strictSame([...new Set(ring(scheduler, [3, 0, 1]))].sort(), [0, 2], scheduler);
    t.equal(ring(scheduler, [0, 0]).length, 0, `${scheduler}: all quiesced`);
  }
});

t.test("rr goes on after the real server that had the last turn", async (t) => {
  const A = 10;
  const B = 11;
  const C = 12;
  const NEW = 13;
  const rows = [
    { name: "nothing changed", turns: 4, before: [A, B, C], after: [A, B, C], next: B },
    { name: "no turn yet", turns: 0, before: [A, B, C], after: [NEW, A, B, C], next: NEW },
    { name: "one more at the head", turns: 2, before: [A, B, C], after: [NEW, A, B, C], next: C },
    { name: "one more at the head, after the end", turns: 3, before: [A, B, C], after: [NEW, A, B, C], next: NEW },
    { name: "another one went", turns: 1, before: [A, B, C], after: [A, C], next: C },
    { name: "the last one went", turns: 2, before: [A, B, C], after: [A, C], next: C },
    { name: "the last one went, which was the head", turns: 1, before: [A, B, C], after: [B, C], next: B },
    { name: "all went but those to come", turns: 2, before: [A, B, C], after: [C, NEW], next: C },
    { name: "the first one ever", turns: 0, before: [], after: [A], next: A },
    { name: "none is left", turns: 5, before: [A, B], after: [], next: undefined },
  ];
  for (const { name, turns, before, after, next } of rows) {
    const cursor = continueTurns(BigInt(turns), Uint32Array.from(before), Uint32Array.from(after));
    t.equal(after[Number(cursor) % (after.length || 1)], next, name);
  }
});

t.test("mh shares its table out by the last weights", async (t) => {
  t.strictSame(ring("mh", [3, 0, 1], [3, 2, 1]), ring("mh", [3, 2, 1]), "a quiesced real server keeps its slots");
  t.strictSame([...new Set(ring("mh", [3, 0, 1], [3, 0, 1]))].sort(), [0, 2], "one that never had a weight has none");
  t.equal(ring("mh", [0, 0], [1, 0]).length, 1021);
  t.equal(ring("mh", [0, 0]).length, 0);
});

t.test("live schedulers get the list, quiesced real servers too", async (t) => {
  for (const scheduler of ["lc", "wlc", "sed", "nq", "lblc", "lblcr", "fo", "ovf", "twos"] as const) {
    t.strictSame([...ring(scheduler, [3, 0, 1])], [0, 1, 2], scheduler);
    t.equal(ring(scheduler, []).length, 0);
  }
});

/**
 * Written from this: 256 buckets, filled with runs of `weight` buckets per server in list order, starting anew at the head; a weight 0
 * server still gets one bucket; weights over 256 starve the others. With dh each server gets one in turn.
 */
function bucketsOneByOne(weights: readonly number[], weighted: boolean): number[] {
  const buckets: number[] = [];
  let server = 0;
  let run = 0;
  while (weights.length > 0 && buckets.length < 256) {
    buckets.push(server);
    run++;
    if (!weighted || run >= weights[server]!) {
      server = server + 1 === weights.length ? 0 : server + 1;
      run = 0;
    }
  }
  return buckets;
}

t.test("sh and dh fill IPVS's buckets", async (t) => {
  t.strictSame([...ring("sh", [2, 0, 1])].slice(0, 9), [0, 0, 1, 2, 0, 0, 1, 2, 0]);
  t.strictSame([...ring("dh", [2, 0, 1])].slice(0, 5), [0, 1, 2, 0, 1]);
  t.strictSame([...new Set(ring("sh", [1, 300, 1]))], [0, 1], "what a weight over 256 leaves");
  const weights = fc.array(fc.oneof(fc.nat(5), fc.nat(300), fc.constant(65535)), { maxLength: 300 });
  fc.assert(
    fc.property(weights, (weights) => {
      t.strictSame([...ring("sh", weights)], bucketsOneByOne(weights, true));
      t.strictSame([...ring("dh", weights)], bucketsOneByOne(weights, false));
    }),
    { numRuns: 100 },
  );
});

t.test("sh shares follow the weights within a run of buckets", async () => {
  // Of a last round that is cut short a server misses its run or part of it.
  const weights = fc.array(fc.integer({ min: 1, max: 16 }), { minLength: 1, maxLength: 16 });
  fc.assert(
    fc.property(weights, (weights) => {
      const round = weights.reduce((sum, weight) => sum + weight, 0);
      return shares(ring("sh", weights), weights.length).every((share, index) => {
        const wholeRounds = Math.floor(256 / round) * weights[index]!;
        return share * 256 >= wholeRounds && share * 256 <= wholeRounds + weights[index]!;
      });
    }),
  );
});

t.test("an mh table that is too small for its real servers is refused", async (t) => {
  const weights = new Array<number>(252).fill(1);
  const list = service("mh", weights, { tableSize: 251 });
  t.throws(() => compileRing(list, indexes(weights), Uint32Array.from(weights), 0), {
    code: "TABLE_TOO_SMALL",
    field: "table_size",
    wanted: 252,
    available: 251,
  });
});

/** Positions in the list. */
function ring(scheduler: SchedulerName, weights: readonly number[], lastWeights = weights): Uint32Array {
  return compileRing(service(scheduler, weights), indexes(weights), Uint32Array.from(lastWeights), 0);
}

function service(
  scheduler: SchedulerName,
  weights: readonly number[],
  more: { readonly tableSize?: number } = {},
): VirtualService {
  const realServers = weights.map(
    (weight, index): RealServer => ({
      address: `10.1.${(index + 11) >> 8}.${(index + 11) & 255}`,
      port: 8080,
      method: "nat",
      weight,
      upperThreshold: 0,
      lowerThreshold: 0,
    }),
  );
  return {
    protocol: "tcp",
    address: "10.0.0.100",
    port: 80,
    scheduler,
    schedulerFlags: [],
    onePacket: false,
    realServers,
    ...more,
  };
}

function indexes(weights: readonly number[]): Uint32Array {
  return Uint32Array.from(weights.keys());
}

function endpoints(weights: readonly number[], seed: number): WeightedEndpoint[] {
  return weights.map((weight, index) => ({ fold: (seed * 31 + index * 7919) >>> 0, port: 8080, weight }));
}

function shares(ring: Uint32Array, servers: number): number[] {
  const counts = new Array<number>(servers).fill(0);
  for (const server of ring) {
    counts[server]!++;
  }
  return counts.map((count) => count / ring.length);
}
