/** What the data plane does in the background and beside, each on its own: sweeping, slices, what a start asks for first. */
import { setTimeout as sleep } from "node:timers/promises";
import t from "tap";
import { requireKernelFeatures } from "../../src/dataplane/kernel-features.js";
import { requirePermission } from "../../src/dataplane/permission.js";
import { eachInSlices, inSlices, type Steps } from "../../src/dataplane/slices.js";
import { layout } from "../../src/dataplane/sluice.bpf.js";
import { Sweeper, type SweepRun } from "../../src/dataplane/sweeper.js";

const { size, offsets } = layout.SweepRequest;

/** A program that sweeps a table of which each bucket holds `entriesPerBucket`, and has time for `most` buckets in a run. */
function program(
  entriesPerBucket: number,
  most = Number.POSITIVE_INFINITY,
): { run: SweepRun; slices: [first: number, count: number][]; resets: boolean[] } {
  const slices: [number, number][] = [];
  const resets: boolean[] = [];
  const run: SweepRun = (request) => {
    const words = new Uint32Array(request.slice(0, size).buffer);
    const first = words[offsets.first / 4]!;
    const count = Math.min(most, words[offsets.count / 4]!);
    slices.push([first, count]);
    resets.push(words[offsets.resets / 4] === 1);
    words[offsets.count / 4] = count;
    words[offsets.entries / 4] = count * entriesPerBucket;
    return Promise.resolve({ data: new Uint8Array(words.buffer) });
  };
  return { run, slices, resets };
}

function logger(): { logged: string[]; log: ConstructorParameters<typeof Sweeper>[3] } {
  const logged: string[] = [];
  const keep = (_: object, message: string): void => {
    logged.push(message);
  };
  return { logged, log: { debug: keep, info: keep, warn: keep, error: keep } };
}

t.test("the sweeper passes the whole table, slice after slice, and counts what is in it", async (t) => {
  const { run, slices, resets } = program(3);
  const { log } = logger();
  const sweeper = new Sweeper(run, 100, () => slices.length % 2 === 1, log);
  t.equal(sweeper.entries, 0);
  sweeper.start();
  while (sweeper.entries === 0) {
    await sleep(20);
  }
  await sweeper.close();
  t.equal(sweeper.entries, 300);
  let next = 0;
  for (const [first, count] of slices) {
    t.equal(first, next, "where the last slice ended");
    t.ok(count > 0 && first + count <= 100);
    next = (first + count) % 100;
  }
  t.ok(
    resets.every((asked, slice) => asked === (slice % 2 === 1)),
    "what names a real server that ends its connections is asked for when there is one",
  );
});

t.test("the sweeper goes on where the time of a slice ended", async (t) => {
  const { run, slices } = program(1, 40);
  const { log } = logger();
  const sweeper = new Sweeper(run, 4000, () => false, log);
  sweeper.start();
  while (slices.length < 3) {
    await sleep(20);
  }
  await sweeper.close();
  t.strictSame(slices.slice(0, 3), [
    [0, 40],
    [40, 40],
    [80, 40],
  ]);
});

t.test("the sweeper says once that it cannot, and goes on where it was", async (t) => {
  const { run, slices } = program(1);
  const { logged, log } = logger();
  let failures = 3;
  const sweeper = new Sweeper(
    (request) => (--failures >= 0 ? Promise.reject(new Error("no memory")) : run(request)),
    10,
    () => false,
    log,
  );
  sweeper.start();
  while (sweeper.entries === 0) {
    await sleep(20);
  }
  await sweeper.close();
  t.strictSame(logged, ["cannot sweep the connection table"]);
  t.equal(slices[0]?.[0], 0);
});

t.test("long work lets others in between, and stops when it is told to", async (t) => {
  const stop = new AbortController();
  const reason = new Error("stopping");
  const busy = (): void => {
    const until = performance.now() + 1;
    while (performance.now() < until) {
      // Takes a processor for a millisecond.
    }
  };
  let turns = 0;
  const timer = setInterval(() => {
    if (++turns === 3) {
      stop.abort(reason);
    }
  }, 1);
  t.teardown(() => {
    clearInterval(timer);
  });
  let done = 0;
  const items = Array.from({ length: 1000 });
  await t.rejects(
    eachInSlices(
      items,
      () => {
        busy();
        done++;
      },
      stop.signal,
    ),
    reason,
  );
  t.ok(done > 0 && done < 1000, `${String(done)} of 1000`);

  let putRight = false;
  function* steps(): Steps<string> {
    try {
      for (;;) {
        busy();
        yield;
      }
    } catch (error) {
      putRight = error === reason;
      throw error;
    }
  }
  const again = new AbortController();
  setTimeout(() => {
    again.abort(reason);
  }, 20);
  await t.rejects(inSlices(steps(), again.signal), reason);
  t.ok(putRight, "the steps hear of it where they pause");
});

t.test("a process without the capabilities is told which it lacks", async (t) => {
  const status = (capabilities: string): string => `Name:\tnode\nCapEff:\t${capabilities}\nCapBnd:\t000001ffffffffff\n`;
  const rows: [capabilities: string, missing: string | undefined][] = [
    ["000001ffffffffff", undefined],
    ["0000000000200000", undefined], // CAP_SYS_ADMIN
    ["000000c000001000", undefined], // CAP_BPF, CAP_PERFMON, CAP_NET_ADMIN
    ["0000004000001000", "CAP_BPF;"],
    ["0000000000000000", "CAP_NET_ADMIN, CAP_PERFMON, CAP_BPF;"],
  ];
  for (const [capabilities, missing] of rows) {
    const ask = (): void => {
      requirePermission(status(capabilities));
    };
    if (missing === undefined) {
      t.doesNotThrow(ask, capabilities);
    } else {
      t.throws(ask, { code: "PERMISSION_DENIED", message: new RegExp(`it lacks ${missing}`) }, capabilities);
    }
  }
});

t.test("a kernel that lacks something is told of all that it lacks", async (t) => {
  const rows = [
    { feature: "this", since: "9.9", present: () => false },
    { feature: "that", since: "9.9", present: () => true },
    { feature: "the other", since: "9.9", present: () => false },
  ];
  t.throws(
    () => {
      requireKernelFeatures(rows);
    },
    { code: "KERNEL_FEATURE_MISSING", message: /lacks this \(Linux 9\.9\), the other \(Linux 9\.9\);/ },
  );
});
