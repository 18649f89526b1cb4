import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import t from "tap";
import { dataPlane, done, folder, sluice } from "./cli-program.js";

const root = join(import.meta.dirname, "../../..");

t.test("services and real servers are managed", async (t) => {
  t.same(
    await sluice("service", "list"),
    done("SERVICE            SCHEDULER  REAL SERVERS\ntcp:10.0.0.100:80  wrr                   1\n"),
  );
  t.same(
    await sluice(
      "service",
      "create",
      "udp:10.0.0.100:53",
      "--table-size",
      "251",
      "--real-server",
      "10.1.0.11:5353,nat,2",
      "--real-server",
      "10.1.0.12,tun",
    ),
    done(`SERVICE            SCHEDULER             REAL SERVERS
udp:10.0.0.100:53  mh (251,mh-fallback)             2
REAL SERVER     METHOD  WEIGHT
10.1.0.11:5353  nat          2
10.1.0.12:53    tun          1
`),
  );
  const got = await sluice("service", "get", "udp:10.0.0.100:53", "--output", "json");
  t.same(JSON.parse(got.stdout), {
    name: "udp:10.0.0.100:53",
    protocol: "udp",
    address: "10.0.0.100",
    port: 53,
    scheduler: "mh",
    scheduler_flags: ["mh-fallback"],
    table_size: 251,
    real_servers: [
      { name: "10.1.0.11:5353", address: "10.1.0.11", port: 5353, method: "nat", weight: 2 },
      { name: "10.1.0.12:53", address: "10.1.0.12", port: 53, method: "tun", weight: 1 },
    ],
  });
  const flags = async (...args: string[]): Promise<string | undefined> =>
    / (\S+ \(.*\)) /.exec((await sluice("service", "update", "udp:10.0.0.100:53", ...args)).stdout)?.[1];
  t.equal(await flags("--sched-flags", "mh-port"), "mh (251,mh-port)");
  t.equal(await flags("--sched-flags", "none"), "mh (251)");
  t.equal(await flags("--scheduler", "sh", "--sched-flags", "sh-port,sh-fallback"), "sh (sh-fallback,sh-port)");
  t.match(await sluice("service", "update", "udp:10.0.0.100:53", "--sched-flags", "port"), {
    status: 2,
    stderr: /sh-fallback, sh-port, mh-fallback, mh-port, separated by commas, or none/,
  });
  t.match(await sluice("service", "update", "udp:10.0.0.100:53", "--scheduler", "rr"), { status: 0, stdout: / rr / });
  t.same(await sluice("service", "delete", "udp:10.0.0.100:53"), done(""));
  t.equal(dataPlane.published.services.length, 1);

  const service = "tcp:10.0.0.100:80";
  t.same(
    await sluice("real", "create", service, "10.1.0.12:8080", "--method", "nat"),
    done("REAL SERVER     METHOD  WEIGHT\n10.1.0.12:8080  nat          1\n"),
  );
  t.match(await sluice("real", "update", service, "10.1.0.12:8080", "--weight", "5"), {
    status: 0,
    stdout: /nat {10}5\n$/,
  });
  t.match(await sluice("real", "drain", service, "10.1.0.11:8080"), { status: 0, stdout: /nat {10}0\n$/ });
  const listed = await sluice("real", "list", service, "--output", "json");
  t.match(JSON.parse(listed.stdout), [
    { name: "10.1.0.11:8080", weight: 0 },
    { name: "10.1.0.12:8080", weight: 5 },
  ]);
  t.match(await sluice("real", "get", service, "10.1.0.12:8080"), { status: 0, stdout: /10.1.0.12:8080/ });
  t.same(await sluice("real", "delete", service, "10.1.0.12:8080"), done(""));
});

t.test("statistics are shown", async (t) => {
  t.same(
    await sluice("stats"),
    done(`SERVICE            ACTIVE  INACTIVE  PERSISTENT  CONNECTIONS  IN PACKETS  IN BYTES  OUT PACKETS  OUT BYTES  OVERLOADED
tcp:10.0.0.100:80       2         3           4            1           1         1            1          1
  10.1.0.11:8080        2         3           4            1           1         1            1          1  yes

DROPPED         PACKETS  BYTES
no_real_server        7    420
`),
  );
  const { stdout } = await sluice("stats", "tcp:10.0.0.100:80", "--output", "json");
  t.match(JSON.parse(stdout), {
    services: [
      {
        name: "tcp:10.0.0.100:80",
        in_bytes: 1,
        real_servers: [{ active_connections: 2, persistent_connections: 4, overloaded: true }],
      },
    ],
    drops: [{}, {}],
  });
});

t.test("errors are one line with a code, and the exit status tells their kind", async (t) => {
  const invalid = join(folder, "invalid.yaml");
  writeFileSync(
    invalid,
    "interfaces: [c0]\nservices:\n  - {protocol: tcp, address: 10.0.0.1, port: 70000, sheduler: rr}\n",
  );
  const rows: [string[], number, RegExp][] = [
    [
      ["service", "get", "tcp:10.0.0.9:80"],
      1,
      /^sluice: NOT_FOUND: virtualServices\/tcp:10.0.0.9:80 does not exist\n$/,
    ],
    [["service", "create", "tcp:10.0.0.100:80"], 1, /^sluice: ALREADY_EXISTS: .*\n$/],
    [
      ["service", "create", "tcp:10.0.0.100:81", "--table-size", "250"],
      2,
      /^sluice: TABLE_SIZE_UNKNOWN: virtual_service.table_size is 250; .*\n$/,
    ],
    [
      ["real", "update", "tcp:10.0.0.100:80", "10.1.0.11:8080", "--weight", "65536"],
      2,
      /^sluice: WEIGHT_OUT_OF_RANGE: .*\n$/,
    ],
    [["real", "update", "tcp:10.0.0.100:80", "10.1.0.11:8080"], 2, /^sluice: USAGE: nothing to change.*\n$/],
    [
      ["real", "update", "tcp:10.0.0.100:80", "10.1.0.11:8080", "--weight", "3x"],
      2,
      /^sluice: USAGE: .*whole number.*\n$/,
    ],
    [["service", "get", "10.0.0.100:80"], 2, /^sluice: USAGE: .*PROTOCOL:ADDRESS:PORT.*\n$/],
    [["service", "create", "tcp:10.0.0.100:81", "--real-server", "10.1.0.11"], 2, /^sluice: USAGE: .*METHOD.*\n$/],
    [["service", "list", "--instance", "../x"], 2, /^sluice: USAGE: .*\n$/],
    [["service", "list", "--output", "xml"], 2, /^sluice: USAGE: .*\n$/],
    [
      ["service", "list", "--instance", "nobody"],
      3,
      /^sluice: DAEMON_UNREACHABLE: no daemon answers on .*nobody.sock\n$/,
    ],
    [["frobnicate"], 2, /^sluice: USAGE: unknown command 'frobnicate'\n$/],
    [["run"], 2, /^sluice: USAGE: .*--config.*\n$/],
    [["check", join(folder, "none.yaml")], 2, /^sluice: FILE_UNREADABLE: .*none.yaml: there is no such file\n$/],
    [
      ["run", "--config", invalid],
      2,
      /^sluice: PORT_OUT_OF_RANGE: .*invalid.yaml:3:46: .*\nsluice: UNKNOWN_FIELD: .*:3:53: .*did you mean scheduler\?\n$/,
    ],
  ];
  for (const [args, status, stderr] of rows) {
    const outcome = await sluice(...args);
    t.match(outcome, { status, stdout: "", stderr }, args.join(" "));
  }
  const checked = await sluice("check", invalid);
  t.equal(checked.status, 2);
  t.equal(checked.stderr.split("\n").length, 3, "a line for each violation");
});

t.test("the example and the help are in order", async (t) => {
  t.match(await sluice("check", join(root, "examples/sluice.yaml")), {
    status: 0,
    stdout: /valid: \d+ virtual services, \d+ real servers\n$/,
  });
  const manifest = JSON.parse(readFileSync(join(root, "package.json"), "utf8")) as { version: string };
  t.same(await sluice("--version"), done(`${manifest.version}\n`));
  t.match(await sluice("--help"), { status: 0, stdout: /Exit status:/, stderr: "" });
  t.match(await sluice("service", "create", "--help"), { status: 0, stdout: /Example:/, stderr: "" });
});
