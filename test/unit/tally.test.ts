import t from "tap";
import { type FileTally, TapReader } from "../tally.js";

function read(text: string): { files: FileTally[]; bailout: string | undefined } {
  const files: FileTally[] = [];
  const reader = new TapReader((file) => files.push(file));
  reader.write(`TAP version 14\n${text}`);
  reader.end();
  return { files, bailout: reader.bailout };
}

function summary(text: string): unknown {
  return read(text).files.map(({ file, passed, failed, skipped }) => ({
    file,
    passed,
    failed: failed.map((failure) => failure.name),
    skipped: skipped.map((skip) => `${skip.name}: ${skip.reason}`),
  }));
}

t.test("a test counts once, whatever number of assertions it makes", async (t) => {
  const text = `# Subtest: a.test.js
    # Subtest: many
        ok 1 - one
        ok 2 - two
        1..2
    ok 1 - many # time=3ms
    # Subtest: group
        # Subtest: inner
            ok 1 - yes
            1..1
        ok 1 - inner
        1..1
    ok 2 - group
    ok 3 - at top level
    1..3
ok 1 - a.test.js # time=1500ms
1..1
`;
  t.same(summary(text), [{ file: "a.test.js", passed: 3, failed: [], skipped: [] }]);
  t.equal(read(text).files[0]?.seconds, 1.5);
});

t.test("a broken assertion fails its own test, and neither the group around it nor its neighbours", async (t) => {
  const text = `# Subtest: a.test.js
    # Subtest: group
        # Subtest: good
            ok 1 - yes
            1..1
        ok 1 - good
        # Subtest: bad
            ok 1 - yes
            not ok 2 - no
              ---
              diff: |
                -1
                +2
              ...
            1..2
        not ok 2 - bad
        1..2
    not ok 1 - group
    1..1
not ok 1 - a.test.js
1..1
`;
  t.same(summary(text), [{ file: "a.test.js", passed: 1, failed: ["a.test.js > group > bad"], skipped: [] }]);
  t.match(read(text).files[0]?.failed[0]?.details[0], /^no\n {2}diff:\n {4}-1\n {4}\+2$/);
});

t.test("skips keep their reasons, and a test that speaks by throwing counts", async (t) => {
  const text = `# Subtest: a.test.js
    ok 1 - tunnels # SKIP needs ipip
    ok 2 - later # TODO soon
    # Subtest: empty
        1..0
    ok 3 - empty
    # Subtest: planned
        1..0 # no bpffs
    ok 4 - planned # SKIP no bpffs
    1..4
ok 1 - a.test.js
# Subtest: b.test.js
    1..0 # needs root
ok 2 - b.test.js # SKIP needs root
1..2
`;
  t.same(summary(text), [
    {
      file: "a.test.js",
      passed: 1,
      failed: [],
      skipped: ["a.test.js > tunnels: needs ipip", "a.test.js > later: todo: soon", "a.test.js > planned: no bpffs"],
    },
    { file: "b.test.js", passed: 0, failed: [], skipped: ["b.test.js: needs root"] },
  ]);
});

t.test("a crash, an early exit and a file without tests are failures", async (t) => {
  // As tap 21.8 reports a process killed by SIGABRT in a test, an import that fails, and process.exit(0).
  const text = `# Subtest: crash.test.js
    # Subtest: first
        ok 1 - fine so far
    1..0 # no tests found
        # test count(1) != plan(null)
not ok 1 - crash.test.js
  ---
  signal: SIGABRT
  ...
# Subtest: import.test.js
    1..0 # no tests found
not ok 2 - import.test.js
  ---
  exitCode: 1
  ...
# Subtest: silent.test.js
    1..0 # no tests found
ok 3 - silent.test.js # SKIP no tests found
# Subtest: late.test.js
    # Subtest: first
        ok 1 - fine
        1..1
    ok 1 - first
    1..1
not ok 4 - late.test.js
  ---
  exitCode: 3
  ...
1..4
`;
  t.same(summary(text), [
    { file: "crash.test.js", passed: 0, failed: ["crash.test.js > first"], skipped: [] },
    { file: "import.test.js", passed: 0, failed: ["import.test.js"], skipped: [] },
    { file: "silent.test.js", passed: 0, failed: ["silent.test.js"], skipped: [] },
    { file: "late.test.js", passed: 1, failed: ["late.test.js"], skipped: [] },
  ]);
  t.same(
    read(text).files.map((file) => file.failed[0]?.details.at(-1)),
    [
      "the file's process was killed by SIGABRT",
      "the file's process ended with status 1",
      "the file contains no test",
      "the file's process ended with status 3",
    ],
  );
});

t.test("a file that ran out of time is one failure", async (t) => {
  // As tap 21.8 reports a test that outlives --timeout: by the test, by the file, and once more by the run.
  const text = `# Subtest: slow.test.js
    # Subtest: sleeps
        not ok 1 - timeout!
          ---
          signal: SIGALRM
          ...
        1..1
    not ok 1 - sleeps
    1..1
not ok 1 - slow.test.js
  ---
  signal: SIGALRM
  ...
not ok 2 - timeout!
  ---
  expired: slow.test.js
  ...
1..2
`;
  t.same(summary(text), [{ file: "slow.test.js", passed: 0, failed: ["slow.test.js > sleeps"], skipped: [] }]);
});

t.test("a bail-out is remembered with its reason", async (t) => {
  t.equal(read("1..2\nBail out! no bpffs\n").bailout, "no bpffs");
});
