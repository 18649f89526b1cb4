import { spawn } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import t from "tap";
import { ApiServer } from "../../src/api/server.js";
import { SerialDirector } from "../../src/daemon/serial-director.js";
import { EMPTY_STATE } from "../../src/model/index.js";
import { MemoryStore } from "../../src/store/state-store.js";
import { FakeDataPlane } from "./fake-data-plane.js";

const program = join(import.meta.dirname, "../../src/cli/main.js");

const folder = mkdtempSync(join(tmpdir(), "sluice-cli-connections-"));
const silent = { level: "silent", debug() {}, info() {}, warn() {}, error() {} };
const dataPlane = new FakeDataPlane();
dataPlane.connectionsFile = join(folder, "connections");
const server = await ApiServer.listen(
  new SerialDirector(new MemoryStore(EMPTY_STATE), dataPlane, silent),
  join(folder, "test.sock"),
);
t.teardown(async () => {
  await server.close();
  rmSync(folder, { recursive: true });
});

interface Outcome {
  readonly status: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

/** A command, or a pipeline of the shell that begins with it. */
function sluice(args: readonly string[], rest = ""): Promise<Outcome> {
  const env = { ...process.env, SLUICE_RUNTIME_DIRECTORY: folder, SLUICE_INSTANCE: "test" };
  const pipeline = `set -o pipefail; "$0" "$@" ${rest}`;
  const command = ["-c", pipeline, process.execPath, program, "connections", ...args];
  return new Promise((resolve, reject) => {
    const child = spawn("bash", command, { env, stdio: ["ignore", "pipe", "pipe"] });
    let stdout = "";
    let stderr = "";
    child.stdout.on("data", (chunk: Buffer) => {
      stdout += chunk.toString();
    });
    child.stderr.on("data", (chunk: Buffer) => {
      stderr += chunk.toString();
    });
    child.on("error", reject);
    child.on("close", (status) => {
      resolve({ status, stdout, stderr });
    });
  });
}

const done = (stdout: string): Outcome => ({ status: 0, stdout, stderr: "" });

const TITLES = "proto state seconds client virtual local real method";
const LINES = [
  "tcp ESTABLISHED    899 10.0.0.2:37028 10.0.0.103:80 10.1.0.1:11194 10.1.0.12:8080 fullnat",
  "udp UDP            257 10.0.0.20:35137 10.0.0.101:7000 - 10.1.0.12:7000 dr",
  "sctp S-ACK-SENT       0 10.0.1.2:1 10.0.0.100:80 - 10.1.0.11:8080 nat",
  "tcp ASSURED     360000 10.0.0.0:0 10.0.0.100:80 - 10.1.0.11:8080 nat",
  "ip NONE          1000 10.0.0.0:0 0.0.0.1:0 - 10.1.0.11:0 tun",
];
const text = (places: readonly number[]): string =>
  [TITLES, ...places.map((place) => LINES[place])].map((line) => `${line ?? ""}\n`).join("");

t.test("connections are printed as the kernel lists them, those that the options select", async (t) => {
  writeFileSync(dataPlane.connectionsFile, text([0, 1, 2, 3, 4]));
  const rows: [string, number[]][] = [
    ["", [0, 1, 2, 3, 4]],
    ["--protocol tcp", [0, 3]],
    ["--state ESTABLISHED", [0]],
    ["--state s-ack-sent", [2]],
    ["--client 10.0.0.0/24", [0, 1, 3, 4]],
    ["--client 10.0.0.2:37028", [0]],
    ["--service tcp:10.0.0.100:80", [3]],
    ["--service 10.0.0.100:80", [2, 3]],
    ["--service fwmark:1", [4]],
    ["--real 10.1.0.11:8080", [2, 3]],
    ["--local 10.1.0.1", [0]],
    ["--method dr", [1]],
    ["--templates", [3, 4]],
    ["--no-templates", [0, 1, 2]],
    ["--limit 2", [0, 1]],
    ["--client 192.0.2.0/24", []],
  ];
  for (const [options, places] of rows) {
    const args = options.split(" ").filter((word) => word !== "");
    t.same(await sluice(args), done(text(places)), options);
  }
  t.same(await sluice(["--count"]), done("5\n"));
  t.same(await sluice(["--count", "--protocol", "tcp", "--no-templates"]), done("1\n"));
});

t.test("for programs, as JSON", async (t) => {
  writeFileSync(dataPlane.connectionsFile, text([0, 4]));
  const { status, stdout } = await sluice(["--output", "json"]);
  t.equal(status, 0);
  t.same(JSON.parse(stdout), [
    {
      protocol: "tcp",
      state: "ESTABLISHED",
      seconds_left: 899,
      client: "10.0.0.2:37028",
      virtual: "10.0.0.103:80",
      local: "10.1.0.1:11194",
      real: "10.1.0.12:8080",
      method: "fullnat",
      template: false,
    },
    {
      protocol: "ip",
      state: "NONE",
      seconds_left: 1000,
      client: "10.0.0.0:0",
      virtual: "0.0.0.1:0",
      real: "10.1.0.11:0",
      method: "tun",
      template: true,
    },
  ]);
  t.same(JSON.parse((await sluice(["--output", "json", "--templates", "--protocol", "udp"])).stdout), []);
  t.same(JSON.parse((await sluice(["--output", "json", "--count"])).stdout), { connections: 2 });
});

t.test("a long listing comes whole, and ends in peace with who reads it", async (t) => {
  const count = 30_000;
  const long = text(Array.from({ length: count }, (_, i) => i % LINES.length));
  writeFileSync(dataPlane.connectionsFile, long);
  t.same(await sluice([], `| cmp - ${dataPlane.connectionsFile}`), done(""));
  t.same(await sluice([], "| head -2"), done(text([0])));
  t.equal((JSON.parse((await sluice(["--output", "json"])).stdout) as unknown[]).length, count);
});

t.test("what is not understood is refused in one line, and nothing is listed", async (t) => {
  const rows: [string, number, RegExp][] = [
    ["--client 10.0.0.0/40", 2, /^sluice: NETWORK_MALFORMED: filter.client is .*\n$/],
    ["--real 10.1.0.11:99999", 2, /^sluice: ENDPOINT_MALFORMED: filter.real is "10.1.0.11:99999"; it takes .*\n$/],
    ["--service udp:10.0.0.100:53 --protocol tcp", 2, /^sluice: PROTOCOL_CONTRADICTED: filter.protocol is tcp, .*\n$/],
    ["--limit -1", 2, /^sluice: LISTING_LIMIT_NEGATIVE: limit is -1; it takes 0 or more\n$/],
    ["--limit many", 2, /^sluice: USAGE: .*whole number.*\n$/],
    ["--limit 1 --count", 2, /^sluice: USAGE: .*--limit.*--count.*\n$/],
    ["--state OPEN", 2, /^sluice: USAGE: .*It takes one of NONE, ESTABLISHED, .*\n$/],
    ["--protocol icmp", 2, /^sluice: USAGE: .*tcp, udp, sctp.*\n$/],
    ["--method masq", 2, /^sluice: USAGE: .*nat, dr, tun, fullnat.*\n$/],
    ["--instance nobody", 3, /^sluice: DAEMON_UNREACHABLE: .*\n$/],
    ["--instance nobody --count", 3, /^sluice: DAEMON_UNREACHABLE: .*\n$/],
  ];
  for (const [options, status, stderr] of rows) {
    t.match(await sluice(options.split(" ")), { status, stdout: /^$/, stderr }, options);
  }
});
