import t from "tap";
import { dataPlane, done, sluice } from "./cli-program.js";

t.test("whatever IPVS's services can is said by options, and taken back", async (t) => {
  t.same(
    await sluice("pool", "set", "blue", "--local-addresses", "10.1.0.2,10.1.0.3", "--local-ports", "1024-9999"),
    done("POOL  LOCAL PORTS  LOCAL ADDRESSES\nblue  1024-9999    10.1.0.2,10.1.0.3\n"),
  );
  const options = ["--persistence", "5m", "--netmask", "255.255.255.0", "--one-packet", "--timeout", "udp=30s"];
  const more = ["--timeout", "one_packet=5s", "--removed-connections", "keep", "--fullnat-pool", "blue"];
  t.same(
    await sluice("service", "create", "udp:10.0.0.100:0", ...options, ...more, "--real-server", "10.1.0.11,nat,1,8,4"),
    done(
      `SERVICE           SCHEDULER         REAL SERVERS  OPTIONS
udp:10.0.0.100:0  mh (mh-fallback)             1  ` +
        `persistent 300s mask 255.255.255.0, ops, udp 30s, one_packet 5s, removed connections keep, pool blue
REAL SERVER  METHOD  WEIGHT  UPPER  LOWER
10.1.0.11:0  nat          1      8      4
`,
    ),
  );
  const get = async (): Promise<Record<string, unknown>> =>
    JSON.parse((await sluice("service", "get", "udp:10.0.0.100:0", "--output", "json")).stdout) as Record<
      string,
      unknown
    >;
  t.same(await get(), {
    name: "udp:10.0.0.100:0",
    protocol: "udp",
    address: "10.0.0.100",
    port: 0,
    scheduler: "mh",
    scheduler_flags: ["mh-fallback"],
    persistence: { timeout: "300s", netmask: "255.255.255.0" },
    one_packet: true,
    timeouts: { udp: "30s", one_packet: "5s" },
    removed_connections: "keep",
    fullnat_pool: "blue",
    real_servers: [
      {
        name: "10.1.0.11:0",
        address: "10.1.0.11",
        port: 0,
        method: "nat",
        weight: 1,
        upper_threshold: 8,
        lower_threshold: 4,
      },
    ],
  });
  const update = async (...args: string[]): Promise<Record<string, unknown>> => {
    t.match(await sluice("service", "update", "udp:10.0.0.100:0", ...args), { status: 0 }, args.join(" "));
    return get();
  };
  t.match(await update("--netmask", "255.0.0.0"), { persistence: { timeout: "300s", netmask: "255.0.0.0" } });
  t.match(await update("--persistence", "1m"), { persistence: { timeout: "60s", netmask: "255.0.0.0" } });
  t.same((await update("--timeout", "udp=default"))["timeouts"], { one_packet: "5s" });
  const bare = await update("--no-persistence", "--no-one-packet", "--no-removed-connections", "--no-fullnat-pool");
  t.same(Object.keys(bare), [
    ...["name", "protocol", "address", "port", "scheduler", "scheduler_flags", "timeouts", "real_servers"],
  ]);
  t.match(await update("--netmask", "255.255.0.0"), { persistence: { timeout: "360s", netmask: "255.255.0.0" } });

  t.match(
    await sluice("real", "create", "udp:10.0.0.100:0", "10.1.0.12:0", "--method", "dr", "--upper-threshold", "9"),
    {
      status: 0,
      stdout: /LOWER|9\n$/,
    },
  );
  t.match(await sluice("real", "update", "udp:10.0.0.100:0", "10.1.0.12:0", "--lower-threshold", "10"), {
    status: 2,
    stderr: /^sluice: LOWER_THRESHOLD_TOO_HIGH: real_server.lower_threshold is 10; it takes at most .* 9\n$/,
  });
  t.match(await sluice("real", "update", "udp:10.0.0.100:0", "10.1.0.12:0", "--lower-threshold", "3"), { status: 0 });
  t.match(dataPlane.published.services[1]?.realServers[0], { upperThreshold: 9, lowerThreshold: 3 });
  t.same(await sluice("service", "delete", "udp:10.0.0.100:0"), done(""));
});

t.test("pools are changed and removed by name; the default one has none", async (t) => {
  t.match(await sluice("pool", "set", "--local-addresses", "10.1.0.1"), {
    status: 0,
    stdout: /^POOL .*\n\(default\) {2}1024-32767 {3}10.1.0.1\nblue/,
  });
  t.match(await sluice("pool", "set", "blue", "--local-addresses", "10.1.0.4"), {
    status: 0,
    stdout: /\nblue {7}1024-32767 {3}10.1.0.4\n$/,
  });
  const listed = JSON.parse((await sluice("pool", "list", "--output", "json")).stdout) as unknown;
  t.same(listed, [
    { local_addresses: ["10.1.0.1"], local_ports: "1024-32767" },
    { name: "blue", local_addresses: ["10.1.0.4"], local_ports: "1024-32767" },
  ]);
  await sluice("service", "create", "fwmark:9", "--real-server", "10.1.0.11,fullnat", "--fullnat-pool", "blue");
  t.match(await sluice("pool", "delete", "blue"), {
    status: 2,
    stderr: /^sluice: POOL_IN_USE: settings.fullnat_pools lacks blue, which fwmark:9 uses\n$/,
  });
  await sluice("service", "delete", "fwmark:9");
  t.match(await sluice("pool", "delete", "blue"), { status: 0 });
  t.match(await sluice("pool", "delete"), { status: 0 });
  t.match(await sluice("pool", "delete"), { status: 2, stderr: "sluice: USAGE: there is no default pool\n" });
  t.same(dataPlane.published.pools, []);
  t.equal(dataPlane.published.fullnat, undefined);
});

t.test("mark rules are added where they are to stand, and removed by position", async (t) => {
  t.same(
    await sluice(
      "mark",
      "add",
      "1",
      "--protocol",
      "tcp",
      "--destination",
      "10.0.0.100",
      "--destination-ports",
      "80-90",
    ),
    done("RULE  MARK  FAMILY  PROTOCOL  DESTINATION  PORTS\n   1     1  ipv4    tcp       10.0.0.100   80-90\n"),
  );
  await sluice("mark", "add", "4294967295", "--source", "198.18.0.0/15");
  await sluice("mark", "add", "3", "--family", "ipv4", "--position", "1");
  const listed = async (): Promise<unknown> => JSON.parse((await sluice("mark", "list", "--output", "json")).stdout);
  const rules = [
    { mark: 3, family: "ipv4" },
    { mark: 1, family: "ipv4", protocol: "tcp", destination: "10.0.0.100", destination_ports: "80-90" },
    { mark: 4294967295, family: "ipv4", source: "198.18.0.0/15" },
  ];
  t.same(await listed(), rules);
  const refused: [string[], RegExp][] = [
    [["add", "1", "--family", "ipv4", "--position", "5"], /^sluice: USAGE: --position is 5; it takes 1 to 4\n$/],
    [["add", "1"], /^sluice: MISSING_FIELD: settings.marks\[3\].family .*\n$/],
    [["add", "0", "--family", "ipv4"], /^sluice: MISSING_FIELD: settings.marks\[3\].mark .*\n$/],
    [["add", "4294967296"], /^sluice: USAGE: .*4294967295.\n$/],
    [["add", "1", "--source", "10.0.0.1/8"], /^sluice: NETWORK_MALFORMED: .*10.0.0.0\/8\?\n$/],
    [["delete", "4"], /^sluice: USAGE: there is no rule 4; there are 3\n$/],
    [["delete", "0"], /^sluice: USAGE: /],
  ];
  await Promise.all(
    refused.map(async ([args, stderr]) => {
      t.match(await sluice("mark", ...args), { status: 2, stdout: "", stderr }, args.join(" "));
    }),
  );
  t.match(await sluice("mark", "delete", "2"), { status: 0 });
  t.same(await listed(), [rules[0], rules[2]]);
  await sluice("mark", "delete", "1");
  await sluice("mark", "delete", "1");
  t.same(dataPlane.published.marks, []);
});

t.test("settings and timeouts are shown and set by name", async (t) => {
  const shown = await sluice("settings", "show");
  t.match(shown, { status: 0, stdout: /^SETTING +VALUE +DEFAULT\nconn_reuse_mode +1 +1\n/ });
  t.match(await sluice("settings", "set", "conn_reuse_mode=0", "sloppy_tcp=1"), {
    status: 0,
    stdout: /conn_reuse_mode +0 +1\n(.*\n)*sloppy_tcp +1 +0\n/,
  });
  const json = async (what: string): Promise<unknown> =>
    JSON.parse((await sluice(what, "show", "--output", "json")).stdout);
  t.match(await json("settings"), { conn_reuse_mode: 0, sloppy_tcp: 1, icmp_rate: 1000 });
  t.match(await sluice("timeouts", "set", "udp=30s", "tcp_established=2h"), {
    status: 0,
    stdout: /tcp_established +7200s +900s\n(.*\n)*udp +30s +300s\n/,
  });
  t.match(await json("timeouts"), { udp: "30s", tcp_established: "7200s", sctp_init1: "4s" });
  await sluice("settings", "set", "conn_reuse_mode=default", "sloppy_tcp=default");
  await sluice("timeouts", "set", "udp=default", "tcp_established=default");
  t.match(await json("settings"), { conn_reuse_mode: 1, sloppy_tcp: 0 });
  t.match(await json("timeouts"), { udp: "300s", tcp_established: "900s" });
  const refused: [string[], RegExp][] = [
    [["settings", "set", "conn_reuse_mode=4"], /^sluice: SETTING_OUT_OF_RANGE: settings.conn_reuse_mode is 4; .*\n$/],
    [["settings", "set", "con_reuse_mode=1"], /^sluice: USAGE: .*Did you mean conn_reuse_mode\?\n$/],
    [["settings", "set", "drop_entry=1"], /^sluice: USAGE: .*There is no drop_entry. There are .*\n$/],
    [["settings", "set", "sloppy_tcp"], /^sluice: USAGE: .*sloppy_tcp=VALUE.*\n$/],
    [["settings", "set", "sloppy_tcp=on"], /^sluice: USAGE: .*whole number.*\n$/],
    [["settings", "set"], /^sluice: USAGE: missing required argument.*\n$/],
    [["timeouts", "set", "udp=30"], /^sluice: USAGE: .*unit.*\n$/],
    [["timeouts", "set", "udp=0s"], /^sluice: DURATION_OUT_OF_RANGE: settings.timeouts.udp is "0s"; .*\n$/],
    [["service", "update", "tcp:10.0.0.100:80", "--timeout", "udp=1s"], /^sluice: TIMEOUT_NOT_APPLICABLE: .*\n$/],
  ];
  await Promise.all(
    refused.map(async ([args, stderr]) => {
      t.match(await sluice(...args), { status: 2, stdout: "", stderr }, args.join(" "));
    }),
  );
});
