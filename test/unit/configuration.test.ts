import { mkdtempSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import fc from "fast-check";
import t from "tap";
import {
  type Configuration,
  ConfigurationError,
  describeProblem,
  parseConfiguration,
  readConfiguration,
} from "../../src/config/configuration.js";
import { DEFAULT_LIMITS, DEFAULT_TIMEOUTS, EMPTY_STATE, plainDesiredState } from "../../src/model/index.js";

const valid = `# A director with two interfaces
interfaces:
  - c0
  - {name: r0, mode: generic}
limits:
  connections: 4096
timeouts:
  tcp_established: 15m
  udp: 30s
fullnat:
  local_addresses: [10.1.0.1]
  local_ports: 1024-2047
api:
  socket: /run/sluice/other.sock
log:
  level: debug
services:
  - protocol: tcp
    address: 10.0.0.100
    port: 80
    scheduler: wrr
    real_servers: &pool
      - {address: 10.1.0.11, port: 8080, method: nat, weight: 3}
      - {address: 10.1.0.12, method: fullnat}
  - {protocol: udp, address: 10.0.0.100, port: 53, real_servers: *pool}
`;

/** Every problem, as "line:column code field". */
function problemsOf(text: string): string[] {
  try {
    parseConfiguration(text, "test.yaml");
  } catch (error) {
    if (!(error instanceof ConfigurationError)) throw error;
    return error.problems.map(({ code, field, position }) =>
      `${position?.line}:${position?.column} ${code} ${field}`.trim(),
    );
  }
  return [];
}

t.test("a configuration is read with its defaults", async (t) => {
  const { instance, desired } = parseConfiguration(valid, "test.yaml");
  t.same(instance, {
    interfaces: [
      { name: "c0", mode: "native" },
      { name: "r0", mode: "generic" },
    ],
    limits: { ...DEFAULT_LIMITS, connections: 4096 },
    socket: "/run/sluice/other.sock",
    logLevel: "debug",
  });
  t.same(desired.timeouts, { ...DEFAULT_TIMEOUTS, tcp_established: 900, udp: 30 });
  t.equal(desired.services.length, 2);
  t.same(desired.services[1]?.realServers[1], {
    address: "10.1.0.12",
    port: 53,
    method: "fullnat",
    weight: 1,
    upperThreshold: 0,
    lowerThreshold: 0,
  });
  const least: Configuration = parseConfiguration("interfaces: [eth0]", "test.yaml");
  t.same(least.instance.limits, DEFAULT_LIMITS);
  t.same(least.desired, EMPTY_STATE);
  t.equal(least.instance.socket, undefined);
  t.equal(least.instance.logLevel, "info");
  t.same(parseConfiguration(`\uFEFF${valid}`, "test.yaml").desired, desired, "with a byte order mark");
  t.same(parseConfiguration(valid.replaceAll("\n", "\r\n"), "test.yaml").desired, desired, "with lines as on Windows");
});

t.test("what holds for all services stands beside them", async (t) => {
  const { desired } = parseConfiguration(
    `${valid}
  - {fwmark: 1, persistence: {netmask: 255.255.255.0}, fullnat_pool: blue}
settings: {conn_reuse_mode: 0}
marks:
  - {mark: 1, source: 198.18.0.0/15, protocol: tcp, destination_ports: 8000-8999}
fullnat_pools:
  - {name: blue, local_addresses: [10.1.0.2], local_ports: 40000}
`,
    "test.yaml",
  );
  t.match(desired, {
    services: [{}, {}, { fwmark: 1, persistence: { netmask: "255.255.255.0" }, fullnatPool: "blue" }],
    settings: { conn_reuse_mode: 0, icmp_rate: 1000 },
    marks: [{ mark: 1, source: { address: "198.18.0.0", prefixLength: 15 }, destinationPorts: [8000, 8999] }],
    pools: [{ name: "blue", localPorts: [40000, 40000] }],
  });
});

/** A text of `valid`, what it becomes, and the problems. */
const refused: readonly [string, string, string[]][] = [
  ["port: 80\n", "port: 70000\n", ["20:11 PORT_OUT_OF_RANGE services[0].port"]],
  [
    "port: 8080",
    "port: 70000",
    [
      "23:36 PORT_OUT_OF_RANGE services[0].real_servers[0].port",
      "23:36 PORT_OUT_OF_RANGE services[1].real_servers[0].port",
    ],
  ],
  [
    "weight: 3",
    "wieght: 3",
    [
      "23:55 UNKNOWN_FIELD services[0].real_servers[0].wieght",
      "23:55 UNKNOWN_FIELD services[1].real_servers[0].wieght",
    ],
  ],
  ["    address: 10.0.0.100\n", "", ["18:5 MISSING_FIELD services[0].address"]],
  ["    port: 80\n", "    port:\n", ["20:5 MISSING_FIELD services[0].port"]],
  ["scheduler: wrr", "scheduler: wlcx", ["21:16 UNKNOWN_SCHEDULER services[0].scheduler"]],
  [
    "scheduler: wrr",
    "scheduler: mh\n    scheduler_flags: [mh-port, sh-port]",
    ["22:32 SCHEDULER_FLAG_NOT_APPLICABLE services[0].scheduler_flags[1]"],
  ],
  ["udp: 30s", "udp: 30", ["9:8 WRONG_TYPE timeouts.udp"]],
  ["udp: 30s", "udp: 0s", ["9:8 DURATION_OUT_OF_RANGE timeouts.udp"]],
  ["udp: 30s", "udp: 32d", ["9:8 DURATION_OUT_OF_RANGE timeouts.udp"]],
  ["udp: 30s", "upd: 30s", ["9:3 UNKNOWN_FIELD timeouts.upd"]],
  ["log:", "settings: {sloppy_tcp: 2}\nlog:", ["15:24 SETTING_OUT_OF_RANGE settings.sloppy_tcp"]],
  ["log:", "marks: [{mark: 1, source: 10.0.0.1/8}]\nlog:", ["15:27 NETWORK_MALFORMED marks[0].source"]],
  ["log:", "fullnat_pools: [{name: blue}]\nlog:", ["15:17 MISSING_FIELD fullnat_pools[0].local_addresses"]],
  ["scheduler: wrr", "fullnat_pool: blue", ["21:19 UNKNOWN_POOL services[0].fullnat_pool"]],
  ["scheduler: wrr", "persistence: {timeout: 360}", ["21:28 WRONG_TYPE services[0].persistence.timeout"]],
  ["connections: 4096", "connections: 1", ["6:16 LIMIT_OUT_OF_RANGE limits.connections"]],
  ["connections: 4096", "services: 1", ["18:3 CAPACITY_EXCEEDED services"]],
  ["connections: 4096", "real_servers: 3", ["18:3 CAPACITY_EXCEEDED services"]],
  ["mode: generic", "mode: offload", ["4:22 UNKNOWN_MODE interfaces[1].mode"]],
  ["name: r0", "name: c0", ["4:5 DUPLICATE_INTERFACE interfaces[1]"]],
  ["  - c0", "  - interface-with-a-long-name", ["3:5 INTERFACE_NAME_MALFORMED interfaces[0]"]],
  ["  - c0", "  - 7", ["3:5 WRONG_TYPE interfaces[0]"]],
  ["level: debug", "level: loud", ["16:10 UNKNOWN_LOG_LEVEL log.level"]],
  ["socket: /run/sluice/other.sock", "socket: other.sock", ["14:11 SOCKET_PATH_INVALID api.socket"]],
  ["socket: /run/sluice/other.sock", `socket: /${"x".repeat(107)}`, ["14:11 SOCKET_PATH_INVALID api.socket"]],
  ["protocol: udp", "protocol: tcp, port: 80", ["25:52 YAML_SYNTAX"]],
  [
    "protocol: udp, address: 10.0.0.100, port: 53",
    "protocol: tcp, address: 10.0.0.100, port: 80",
    ["25:5 DUPLICATE_SERVICE services[1]"],
  ],
  [
    "fullnat:\n  local_addresses: [10.1.0.1]\n  local_ports: 1024-2047\n",
    "",
    [
      "21:38 FULLNAT_WITHOUT_LOCAL_ADDRESSES services[0].real_servers[1].method",
      "21:38 FULLNAT_WITHOUT_LOCAL_ADDRESSES services[1].real_servers[1].method",
    ],
  ],
  ["services:\n", "service:\n", ["17:1 UNKNOWN_FIELD service"]],
  ["limits:\n", "limits: [\n", ["7:1 YAML_SYNTAX"]],
  ["*pool", "*pond", ["25:67 YAML_SYNTAX"]],
];

t.test("everything that is wrong is told with its place in the file", async (t) => {
  for (const [from, to, problems] of refused) {
    const text = valid.replace(from, to);
    t.not(text, valid);
    t.same(problemsOf(text), problems, JSON.stringify(to.slice(0, 60)));
  }
  t.same(problemsOf(""), ["1:1 WRONG_TYPE"]);
  t.same(problemsOf("- a"), ["1:1 WRONG_TYPE"]);
  t.same(problemsOf("services: []"), ["1:1 MISSING_FIELD interfaces"]);
  t.same(problemsOf("interfaces: []"), ["1:13 MISSING_FIELD interfaces"]);
  t.same(problemsOf("interfaces: [a]\n---\ninterfaces: [b]"), ["3:1 YAML_SYNTAX"]);
  t.same(problemsOf("interfaces: [a]\n__proto__: {services: []}"), ["2:1 UNKNOWN_FIELD __proto__"]);
});

t.test("a problem is one line that names file, place, field, value and what is allowed", async (t) => {
  t.throws(() => parseConfiguration(valid.replace("port: 80\n", "port: 70000\n"), "test.yaml"), {
    code: "PORT_OUT_OF_RANGE",
    message: "test.yaml:20:11: services[0].port is 70000; it takes a port from 0 to 65535",
  });
  t.throws(() => parseConfiguration(valid.replace("weight: 3", "wieght: 3"), "test.yaml"), {
    message:
      /^test.yaml:23:55: services\[0\].real_servers\[0\].wieght is not a known field; did you mean weight\? \(and 1 more\)$/,
  });
});

t.test("a file that cannot be read says why", async (t) => {
  const folder = mkdtempSync(join(tmpdir(), "sluice-configuration-"));
  t.teardown(async () => (await import("node:fs/promises")).rm(folder, { recursive: true }));
  await t.rejects(readConfiguration(join(folder, "none.yaml")), {
    code: "FILE_UNREADABLE",
    message: /there is no such file/,
  });
  await t.rejects(readConfiguration(folder), { code: "FILE_UNREADABLE", message: /is a directory/ });
  writeFileSync(join(folder, "binary.yaml"), Buffer.from([0x69, 0xff, 0xfe]));
  await t.rejects(readConfiguration(join(folder, "binary.yaml")), {
    code: "FILE_UNREADABLE",
    message: /is not UTF-8 text/,
  });
  writeFileSync(join(folder, "valid.yaml"), valid);
  t.equal((await readConfiguration(join(folder, "valid.yaml"))).desired.services.length, 2);
});

t.test("malformed files are refused with codes and places, or accepted and round-tripped", async (t) => {
  const characters = fc.constantFrom(
    ..."{}[]:,-&*!|>'\"%@` \t\n#?~0a.".split(""),
    "\0",
    "é",
    "\u2028",
    "<<",
    "---\n",
    "null",
    "1e9",
    "!!map ",
  );
  const mutation = fc.record({
    at: fc.nat(valid.length),
    remove: fc.nat(12),
    insert: fc.array(characters, { maxLength: 3 }),
  });
  let accepted = 0;
  fc.assert(
    fc.property(fc.array(mutation, { minLength: 1, maxLength: 3 }), (mutations) => {
      let text = valid;
      for (const { at, remove, insert } of mutations) {
        text = text.slice(0, at) + insert.join("") + text.slice(at + remove);
      }
      try {
        const { desired } = parseConfiguration(text, "fuzz.yaml");
        accepted++;
        // JSON is YAML.
        const again = parseConfiguration(
          JSON.stringify({ interfaces: ["c0"], ...plainDesiredState(desired) }),
          "again.yaml",
        );
        return JSON.stringify(again.desired) === JSON.stringify(desired);
      } catch (error) {
        if (!(error instanceof ConfigurationError)) throw error;
        const lines = text.split("\n").length;
        return error.problems.every((problem) => {
          const { code, position }: { code: string; position: { line: number; column: number } | undefined } = problem;
          const placed = position !== undefined && position.line >= 1 && position.line <= lines && position.column >= 1;
          return code !== "" && placed && describeProblem("fuzz.yaml", problem).startsWith("fuzz.yaml:");
        });
      }
    }),
    { numRuns: 3000 },
  );
  t.ok(accepted > 0, `${accepted} were accepted`);
});

t.test("10,000 services with 10 real servers each are read in time", async (t) => {
  const lines = ["interfaces: [c0, r0]", "limits: {services: 10000, real_servers: 100000}", "services:"];
  for (let i = 0; i < 10_000; i++) {
    lines.push(
      `  - protocol: tcp\n    address: 10.${i >> 8}.${i & 255}.1\n    port: 80\n    scheduler: wrr\n    real_servers:`,
    );
    for (let j = 1; j <= 10; j++) {
      lines.push(`      - {address: 10.200.${i % 250}.${j}, port: 8080, method: nat, weight: ${j}}`);
    }
  }
  const text = lines.join("\n");
  // Processor time, for the tests of a suite run side by side.
  const start = process.cpuUsage();
  const { desired } = parseConfiguration(text, "big.yaml");
  const { user } = process.cpuUsage(start);
  t.equal(desired.services.length, 10_000);
  t.ok(user < 3_000_000, `took ${Math.round(user / 1000)} ms`);
  const startOfError = process.cpuUsage();
  t.equal(problemsOf(text.replaceAll("weight: 10}", "wieght: 10}")).length, 10_000, "10,000 problems are told");
  const { user: userOfError } = process.cpuUsage(startOfError);
  t.ok(userOfError < 6_000_000, `took ${Math.round(userOfError / 1000)} ms`);
});
