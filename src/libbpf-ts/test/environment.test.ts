// Worker threads, the end of an environment, and the garbage collector: nothing is lost, and nothing crashes.
import { spawnSync } from "node:child_process";
import { readdirSync, readlinkSync } from "node:fs";
import { setTimeout } from "node:timers/promises";
import { Worker } from "node:worker_threads";
import t from "tap";
import { addon } from "../lib/addon.js";
import { loadMachine } from "./fixture.js";
import { balanced } from "./ledger.js";

const library = new URL("../lib/index.js", import.meta.url).href;
const fixture = new URL("fixture.js", import.meta.url).href;

/** A worker that loads everything, keeps it open, and says so. */
function start(body: string): Worker {
  const code = `
    const { parentPort } = await import("node:worker_threads");
    const library = await import(${JSON.stringify(library)});
    const { loadMachine } = await import(${JSON.stringify(fixture)});
    const object = await loadMachine();
    ${body}
    parentPort.postMessage("ready");
  `;
  return new Worker(new URL(`data:text/javascript,${encodeURIComponent(code)}`));
}

function ready(worker: Worker): Promise<void> {
  return new Promise((resolve, reject) => {
    worker.once("message", () => resolve());
    worker.once("error", reject);
  });
}

await balanced(t, "a worker's handles, mappings and rings end with it", async (t) => {
  const worker = start(`
    globalThis.kept = [object, object.map("numbers").mmap(), new library.RingBuffer(object.map("events"), () => {})];
    setInterval(() => {}, 1000);
  `);
  await ready(worker);
  await worker.terminate();
  t.pass("terminated");
});

await balanced(t, "a worker is terminated in the middle of work", async () => {
  for (let i = 0; i < 12; i++) {
    const worker = start(`
      const inner = object.map("inner_one");
      const data = new Uint8Array(64);
      const packets = object.program("count");
      const churn = async () => {
        for (;;) {
          await Promise.all([
            object.map("outer").setInner(0, inner),
            packets.testRunAsync({ data, repeat: 20000 }),
            loadMachine().then((other) => other.close()),
          ]);
        }
      };
      churn();
      const ring = new library.RingBuffer(object.map("events"), () => {});
      globalThis.reporting = setInterval(() => object.program("report").testRun({ data, repeat: 100 }), 0);
    `);
    await ready(worker);
    await setTimeout(i * 3);
    await worker.terminate();
  }
  // Descriptors close when the thread pool has finished what it was doing.
  await setTimeout(100);
});

await balanced(t, "workers side by side", async (t) => {
  const workers = Array.from({ length: 3 }, () =>
    start(`
      for (let i = 0; i < 200; i++) {
        object.map("numbers").set(i % 10, i);
        object.program("count").testRun({ data: new Uint8Array(64) });
      }
      if (object.map("numbers").get(9) !== 199) throw new Error("another worker's map");
      object.close();
    `),
  );
  await Promise.all(workers.map(ready));
  await Promise.all(workers.map((worker) => worker.terminate()));
  t.pass("each had maps of its own");
});

await balanced(t, "closing under work on the thread pool", async (t) => {
  const data = new Uint8Array(64);
  for (let round = 0; round < 10; round++) {
    const object = await loadMachine();
    const before = readdirSync("/proc/self/fd").length;
    const runs = Array.from({ length: 4 }, () => object.program("count").testRunAsync({ data, repeat: 5000 }));
    const inner = object.map<number>("outer").setInner(0, object.map("inner_one"));
    object.close();
    // Numbers that were given back would be given out here.
    const strangers = Array.from({ length: 10 }, () => addon.createMap(1, "stranger", 4, 4, 1, 0, undefined));
    const results = await Promise.all(runs);
    t.ok(
      results.every(({ returnValue }) => returnValue === 3),
      "every run had its program",
    );
    await inner;
    for (const stranger of strangers) if (typeof stranger !== "number") addon.closeMap(stranger);
    t.ok(readdirSync("/proc/self/fd").length < before);
  }
});

t.test("what is forgotten is closed by the garbage collector", async (t) => {
  const script = `
    import { readdirSync, readlinkSync } from "node:fs";
    import { setImmediate } from "node:timers/promises";
    import { BpfMap, openObject } from ${JSON.stringify(library)};
    import { loadMachine, fixturePath } from ${JSON.stringify(fixture)};
    for (let i = 0; i < 5; i++) {
      await loadMachine();
      openObject(fixturePath("machine"));
      BpfMap.create({ type: "array", keySize: 4, valueSize: 4, maxEntries: 1, flags: 1024 }).mmap();
    }
    for (let i = 0; i < 10; i++) { gc(); await setImmediate(); }
    const left = readdirSync("/proc/self/fd").filter((fd) => { try { return readlinkSync("/proc/self/fd/" + fd).includes("bpf"); } catch { return false; } });
    console.log(left.length);
  `;
  const { stdout, stderr, status } = spawnSync(process.execPath, ["--expose-gc", "--input-type=module", "-e", script], {
    encoding: "utf8",
  });
  t.equal(stderr, "");
  t.equal(status, 0);
  t.equal(stdout.trim(), "0");
});

t.test("a process ends with everything open and under way", async (t) => {
  const script = `
    import { RingBuffer } from ${JSON.stringify(library)};
    import { loadMachine } from ${JSON.stringify(fixture)};
    const object = await loadMachine();
    object.map("numbers").mmap();
    new RingBuffer(object.map("events"), () => {});
    loadMachine();
    object.program("count").testRunAsync({ data: new Uint8Array(64), repeat: 100000 });
    process.exit(7);
  `;
  const { stderr, status } = spawnSync(process.execPath, ["--input-type=module", "-e", script], { encoding: "utf8" });
  t.equal(stderr, "");
  t.equal(status, 7);
});

t.test("descriptors are not inherited", async (t) => {
  using object = await loadMachine();
  t.ok(readlinkSync(`/proc/self/fd/${object.map("table").fd}`).includes("bpf"));
  const { stdout } = spawnSync("ls", ["-l", "/proc/self/fd"], { encoding: "utf8" });
  t.notMatch(stdout, /bpf/);
});
