import t from "tap";
import {
  FORWARDING_METHODS,
  nearest,
  parseAddress,
  parseRealServerName,
  parseServiceName,
  plainService,
  REMOVED_CONNECTIONS,
  realServerName,
  SCHEDULERS,
  sameService,
  serviceName,
  type VirtualService,
  validateDesiredState,
  validateService,
} from "../../src/model/index.js";
import { violationsOf } from "./violations-of.js";

const realServer = { address: "10.1.0.11", port: 8080, method: "nat", weight: 3 };
const NO_THRESHOLDS = { upperThreshold: 0, lowerThreshold: 0 };
const service = { protocol: "tcp", address: "10.0.0.100", port: 80, scheduler: "wrr", real_servers: [realServer] };

t.test("a service is read with its defaults", async (t) => {
  t.same(validateService(service), {
    protocol: "tcp",
    address: "10.0.0.100",
    port: 80,
    scheduler: "wrr",
    schedulerFlags: [],
    onePacket: false,
    realServers: [{ ...realServer, ...NO_THRESHOLDS }],
  });
  const least = {
    protocol: "udp",
    address: "10.0.0.100",
    port: 53,
    real_servers: [{ address: "10.1.0.11", method: "dr" }],
  };
  t.same(validateService(least), {
    protocol: "udp",
    address: "10.0.0.100",
    port: 53,
    scheduler: "mh",
    schedulerFlags: ["mh-fallback"],
    onePacket: false,
    realServers: [{ address: "10.1.0.11", port: 53, method: "dr", weight: 1, ...NO_THRESHOLDS }],
  });
  t.same(validateService({ ...service, real_servers: null }).realServers, [], "a list left empty is an empty list");
  t.same(validateService({ ...service, scheduler: "mh", table_size: 251 }).tableSize, 251);
});

t.test("scheduler flags default to the fallback; a list that is given stands, an empty one too", async (t) => {
  const flags = (scheduler: string, scheduler_flags?: unknown): readonly string[] =>
    validateService({ ...service, scheduler, scheduler_flags }).schedulerFlags;
  for (const scheduler of SCHEDULERS) {
    const fallback = scheduler === "mh" || scheduler === "sh" ? [`${scheduler}-fallback`] : [];
    t.same(flags(scheduler), fallback, scheduler);
    t.same(flags(scheduler, []), [], `${scheduler}, none`);
  }
  t.same(flags("mh", null), [], "a list left empty is an empty list");
  t.same(flags("sh", ["sh-port", "sh-fallback", "sh-port"]), ["sh-fallback", "sh-port"], "in one order, each once");
  const mh = validateService({ ...service, scheduler: "mh" });
  t.same(plainService({ ...mh, schedulerFlags: [] }).scheduler_flags, [], "none is said, as it is not the default");
  t.equal(sameService(mh, { ...mh, schedulerFlags: [] }), false);
});

/** What is changed in a service, the violation's code, and its field. */
const refusedServices: readonly [object, string, string][] = [
  [{ protocol: "icmp" }, "UNKNOWN_PROTOCOL", "protocol"],
  [{ protocol: 6 }, "WRONG_TYPE", "protocol"],
  [{ protocol: undefined }, "MISSING_FIELD", "protocol"],
  [{ address: "10.0.0" }, "ADDRESS_MALFORMED", "address"],
  [{ address: "10.0.0.010" }, "ADDRESS_MALFORMED", "address"],
  [{ address: "10.0.0.256" }, "ADDRESS_MALFORMED", "address"],
  [{ address: "::ffff:10.0.0.1" }, "ADDRESS_MALFORMED", "address"],
  [{ address: "fe80::1%eth0" }, "ADDRESS_MALFORMED", "address"],
  [{ address: "2001:db8::1" }, "UNSUPPORTED_ADDRESS_FAMILY", "address"],
  [{ address: "0.0.0.0" }, "ADDRESS_NOT_UNICAST", "address"],
  [{ address: "127.0.0.1" }, "ADDRESS_NOT_UNICAST", "address"],
  [{ address: "224.0.0.1" }, "ADDRESS_NOT_UNICAST", "address"],
  [{ address: "255.255.255.255" }, "ADDRESS_NOT_UNICAST", "address"],
  [{ address: null }, "MISSING_FIELD", "address"],
  [{ port: -1 }, "PORT_OUT_OF_RANGE", "port"],
  [{ port: 70000 }, "PORT_OUT_OF_RANGE", "port"],
  [{ port: 80.5 }, "PORT_OUT_OF_RANGE", "port"],
  [{ port: Number.NaN }, "PORT_OUT_OF_RANGE", "port"],
  [{ port: "80" }, "WRONG_TYPE", "port"],
  [{ scheduler_flags: ["mh-port"] }, "SCHEDULER_FLAG_NOT_APPLICABLE", "scheduler_flags[0]"],
  [{ scheduler: "sh", scheduler_flags: ["sh-port", "mh-port"] }, "SCHEDULER_FLAG_NOT_APPLICABLE", "scheduler_flags[1]"],
  [{ scheduler: "mh", scheduler_flags: ["port"] }, "UNKNOWN_SCHEDULER_FLAG", "scheduler_flags[0]"],
  [{ scheduler: "mh", scheduler_flags: "mh-port" }, "WRONG_TYPE", "scheduler_flags"],
  [{ scheduler: "random" }, "UNKNOWN_SCHEDULER", "scheduler"],
  [{ table_size: 251 }, "TABLE_SIZE_NOT_APPLICABLE", "table_size"],
  [{ scheduler: "mh", table_size: 250 }, "TABLE_SIZE_UNKNOWN", "table_size"],
  [{ scheduler: "mh", table_size: "251" }, "WRONG_TYPE", "table_size"],
  [{ prot: "tcp" }, "UNKNOWN_FIELD", "prot"],
  [{ realServers: [] }, "UNKNOWN_FIELD", "realServers"],
  [{ real_servers: {} }, "WRONG_TYPE", "real_servers"],
  [{ real_servers: ["10.1.0.11"] }, "WRONG_TYPE", "real_servers[0]"],
  [{ real_servers: [{ ...realServer, weight: 65536 }] }, "WEIGHT_OUT_OF_RANGE", "real_servers[0].weight"],
  [{ real_servers: [{ ...realServer, weight: -1 }] }, "WEIGHT_OUT_OF_RANGE", "real_servers[0].weight"],
  [{ real_servers: [{ ...realServer, method: "masq" }] }, "UNKNOWN_METHOD", "real_servers[0].method"],
  [{ real_servers: [{ ...realServer, method: undefined }] }, "MISSING_FIELD", "real_servers[0].method"],
  [
    { real_servers: [{ ...realServer, address: "2001:db8::11" }] },
    "UNSUPPORTED_ADDRESS_FAMILY",
    "real_servers[0].address",
  ],
  [{ real_servers: [{ ...realServer, port: 65536 }] }, "PORT_OUT_OF_RANGE", "real_servers[0].port"],
  [{ real_servers: [{ ...realServer, method: "dr" }] }, "PORT_MAPPING_IMPOSSIBLE", "real_servers[0].port"],
  [{ real_servers: [{ ...realServer, method: "tun" }] }, "PORT_MAPPING_IMPOSSIBLE", "real_servers[0].port"],
  [{ real_servers: [realServer, { ...realServer, weight: 1 }] }, "DUPLICATE_REAL_SERVER", "real_servers[1]"],
  [{ real_servers: [{ ...realServer, port: 0 }] }, "PORT_OUT_OF_RANGE", "real_servers[0].port"],
  [{ port: 0 }, "PORT_MAPPING_IMPOSSIBLE", "real_servers[0].port"],
  [{ fwmark: 1, address: undefined, port: undefined }, "FWMARK_NOT_ALONE", "protocol"],
  [{ family: "ipv4" }, "FAMILY_NOT_APPLICABLE", "family"],
  [{ persistence: 360 }, "WRONG_TYPE", "persistence"],
  [{ persistence: { timeout: 360 } }, "WRONG_TYPE", "persistence.timeout"],
  [{ persistence: { timeout: "0s" } }, "DURATION_OUT_OF_RANGE", "persistence.timeout"],
  [{ persistence: { timeout: "32d" } }, "DURATION_OUT_OF_RANGE", "persistence.timeout"],
  [{ persistence: { netmask: 24 } }, "WRONG_TYPE", "persistence.netmask"],
  [{ persistence: { netmask: "24" } }, "NETMASK_MALFORMED", "persistence.netmask"],
  [{ persistence: { netmask: "255.255.255" } }, "NETMASK_MALFORMED", "persistence.netmask"],
  [{ persistence: { mask: "255.255.255.0" } }, "UNKNOWN_FIELD", "persistence.mask"],
  [{ one_packet: true }, "ONE_PACKET_NOT_APPLICABLE", "one_packet"],
  [{ one_packet: 1 }, "WRONG_TYPE", "one_packet"],
  [{ timeouts: { udp: "30s" } }, "TIMEOUT_NOT_APPLICABLE", "timeouts.udp"],
  [{ timeouts: { sctp_closed: "30s" } }, "TIMEOUT_NOT_APPLICABLE", "timeouts.sctp_closed"],
  [{ timeouts: { tcp_close: 30 } }, "WRONG_TYPE", "timeouts.tcp_close"],
  [{ timeouts: { tcp_closed: "30s" } }, "UNKNOWN_FIELD", "timeouts.tcp_closed"],
  [{ removed_connections: "kill" }, "UNKNOWN_REMOVED_CONNECTIONS", "removed_connections"],
  [{ fullnat_pool: "a b" }, "POOL_NAME_MALFORMED", "fullnat_pool"],
  [{ fullnat_pool: 1 }, "WRONG_TYPE", "fullnat_pool"],
  [
    { real_servers: [{ ...realServer, upper_threshold: 2 ** 31 }] },
    "THRESHOLD_OUT_OF_RANGE",
    "real_servers[0].upper_threshold",
  ],
  [
    { real_servers: [{ ...realServer, upper_threshold: 8, lower_threshold: 9 }] },
    "LOWER_THRESHOLD_TOO_HIGH",
    "real_servers[0].lower_threshold",
  ],
  [
    { real_servers: [{ ...realServer, lower_threshold: 1 }] },
    "LOWER_THRESHOLD_TOO_HIGH",
    "real_servers[0].lower_threshold",
  ],
];

/** The same of services that a firewall mark identifies. */
const refusedMarks: readonly [object, string, string][] = [
  [{ fwmark: 0 }, "FWMARK_OUT_OF_RANGE", "fwmark"],
  [{ fwmark: 2 ** 32 }, "FWMARK_OUT_OF_RANGE", "fwmark"],
  [{ fwmark: "1" }, "WRONG_TYPE", "fwmark"],
  [{ fwmark: null }, "MISSING_FIELD", "fwmark"],
  [{ fwmark: 1, family: "inet" }, "UNKNOWN_FAMILY", "family"],
  [{ fwmark: 1, family: "ipv6" }, "UNSUPPORTED_ADDRESS_FAMILY", "family"],
  [{ fwmark: 1, port: 80 }, "FWMARK_NOT_ALONE", "port"],
  [
    { fwmark: 1, real_servers: [{ address: "10.1.0.11", port: 80, method: "dr" }] },
    "PORT_MAPPING_IMPOSSIBLE",
    "real_servers[0].port",
  ],
];

t.test("what a service must not be is refused by code and field", async (t) => {
  for (const [change, code, field] of refusedServices) {
    const violations = violationsOf(() => validateService({ ...service, ...change }));
    t.match(violations, [{ code, field }], `${JSON.stringify(change)} is ${code}`);
    t.equal(violations.length, 1, "and nothing else");
  }
  for (const [plain, code, field] of refusedMarks) {
    const violations = violationsOf(() => validateService(plain));
    t.match(violations, [{ code, field }], `${JSON.stringify(plain)} is ${code}`);
    t.equal(violations.length, 1, "and nothing else");
  }
  const ipv6 = (netmask: unknown): string[] =>
    violationsOf(() => validateService({ ...service, address: "2001:db8::1", persistence: { netmask } })).map(
      ({ code }) => code,
    );
  t.same(ipv6(64), ["UNSUPPORTED_ADDRESS_FAMILY"], "a prefix length is IPv6's netmask");
  for (const netmask of [0, 129, 64.5]) {
    t.same(ipv6(netmask), ["UNSUPPORTED_ADDRESS_FAMILY", "NETMASK_MALFORMED"], String(netmask));
  }
  t.same(ipv6("255.255.255.0"), ["UNSUPPORTED_ADDRESS_FAMILY", "WRONG_TYPE"]);
  const many = Array.from({ length: 252 }, (_, i) => ({ address: `10.2.0.${i + 1}`, method: "nat" }));
  t.match(
    violationsOf(() => validateService({ ...service, scheduler: "mh", table_size: 251, real_servers: many })),
    [{ code: "TABLE_TOO_SMALL", field: "table_size", value: 251 }],
  );
  for (const input of [undefined, null, 7, "tcp:10.0.0.100:80", [service]]) {
    t.equal(violationsOf(() => validateService(input)).length, 1, `${JSON.stringify(input)} is no service`);
  }
});

t.test("what a service may say beside its scheduler is read with its defaults", async (t) => {
  const read = (more: object): VirtualService => validateService({ ...service, ...more });
  t.same(read({ persistence: {} }).persistence, { timeout: 360, netmask: "255.255.255.255" }, "as ipvsadm's -p");
  t.same(read({ persistence: { timeout: "1h", netmask: "255.255.0.255" } }).persistence, {
    timeout: 3600,
    netmask: "255.255.0.255",
  });
  t.same(read({ persistence: { netmask: "0.0.0.0" } }).persistence?.netmask, "0.0.0.0", "all clients are one");
  t.same(read({ timeouts: { tcp_close: "1m" } }).timeouts, { tcp_close: 60 });
  t.notOk("timeouts" in read({ timeouts: {} }), "none is none");
  const sctp = { ...service, protocol: "sctp", timeouts: { sctp_established: "1h" } };
  t.same(validateService(sctp).timeouts, { sctp_established: 3600 });
  t.equal(read({ protocol: "udp", one_packet: true }).onePacket, true);
  t.same(read({ protocol: "udp", timeouts: { one_packet: "5s", udp: "9s" } }).timeouts, { one_packet: 5, udp: 9 });
  for (const removed of REMOVED_CONNECTIONS) {
    t.equal(read({ removed_connections: removed }).removedConnections, removed);
  }
  t.match(read({ real_servers: [{ ...realServer, upper_threshold: 8, lower_threshold: 8 }] }).realServers, [
    { upperThreshold: 8, lowerThreshold: 8 },
  ]);
});

t.test("a service may have every port, or be of a firewall mark; then packets keep their ports", async (t) => {
  const portOf = (plain: object): number | undefined => validateService(plain).realServers[0]?.port;
  for (const method of FORWARDING_METHODS) {
    const real = { address: "10.1.0.11", method };
    t.equal(portOf({ ...service, port: 0, real_servers: [real] }), 0, `${method}, every port`);
    t.equal(portOf({ ...service, port: 0, real_servers: [{ ...real, port: 0 }] }), 0, `${method}, every port, said`);
    t.equal(portOf({ fwmark: 1, real_servers: [real] }), 0, `${method}, a mark`);
    t.equal(portOf({ fwmark: 1, real_servers: [{ ...real, port: 0 }] }), 0, `${method}, a mark, said`);
  }
  for (const method of ["nat", "fullnat"]) {
    const real = { address: "10.1.0.11", port: 8080, method };
    t.equal(portOf({ fwmark: 1, real_servers: [real] }), 8080, `${method} may map the ports of a mark`);
  }
  const mark = { fwmark: 2 ** 32 - 1, timeouts: { tcp_close: "1s", udp: "2s" }, one_packet: true };
  t.match(validateService(mark), { fwmark: 2 ** 32 - 1, family: "ipv4", timeouts: { udp: 2 }, onePacket: true });
  t.match(
    violationsOf(() => validateDesiredState({ services: [mark, { fwmark: 1 }, { fwmark: 1, family: "ipv4" }] })),
    [{ code: "DUPLICATE_SERVICE", field: "services[2]", value: "fwmark:1" }],
  );
});

t.test("names are read back, and nothing else is", async (t) => {
  const keys = [
    { protocol: "tcp" as const, address: "10.0.0.100", port: 80, name: "tcp:10.0.0.100:80" },
    { protocol: "udp" as const, address: "2001:db8::1", port: 53, name: "udp:[2001:db8::1]:53" },
    { protocol: "sctp" as const, address: "10.0.0.100", port: 0, name: "sctp:10.0.0.100:0" },
  ];
  for (const { name, ...key } of keys) {
    t.equal(serviceName(key), name);
    t.same(parseServiceName(name), key);
    t.same(parseRealServerName(realServerName(key)), { address: key.address, port: key.port });
  }
  const marks = [
    { fwmark: 1, family: "ipv4" as const, name: "fwmark:1" },
    { fwmark: 2 ** 32 - 1, family: "ipv6" as const, name: "fwmark6:4294967295" },
  ];
  for (const { name, ...key } of marks) {
    t.equal(serviceName(key), name);
    t.same(parseServiceName(name), key);
  }
  t.same(parseServiceName("udp:[2001:DB8:0::1]:53")?.address, "2001:db8::1", "another spelling becomes canonical");
  const none = [
    "",
    "tcp",
    "tcp:",
    "10.0.0.1:80",
    "tcp:10.0.0.1",
    "tcp:10.0.0.1:65536",
    "tcp:10.0.0.1:080",
    "tcp:[10.0.0.1]:80",
    "udp:2001:db8::1:53",
    "icmp:10.0.0.1:80",
    "tcp:10.0.0.1:00",
    "fwmark:0",
    "fwmark:01",
    "fwmark:4294967296",
    "fwmark4:1",
    "fwmark:1:80",
    "tcp:10.0.0.1:80/x",
    "tcp:10.0.0.1:80\n",
    " tcp:10.0.0.1:80",
  ];
  for (const name of none) {
    t.equal(parseServiceName(name), undefined, JSON.stringify(name));
  }
});

t.test("addresses have one spelling", async (t) => {
  t.same(parseAddress("2001:DB8:0:0:0:0:0:1"), { family: "ipv6", address: "2001:db8::1", unicast: true });
  for (const address of ["::", "::1", "ff02::1", "fe80::1", "169.254.0.1"]) {
    t.equal(parseAddress(address)?.unicast, false, address);
  }
});

t.test("the nearest name is suggested, and no far one", async (t) => {
  const known = ["address", "port", "method", "weight", "real_servers"];
  t.equal(nearest("prot", known), "port");
  t.equal(nearest("wieght", known), "weight");
  t.equal(nearest("Real-Servers", known), "real_servers");
  t.equal(nearest("realServers", known), "real_servers");
  t.equal(nearest("tls", known), undefined);
  t.equal(nearest("x".repeat(100_000), known), undefined, "and a long one takes no time");
});

t.test("services differ by whatever they say", async (t) => {
  const rest = { ...service, protocol: "udp" };
  const plain = validateService(rest);
  const others = [
    { protocol: "sctp" },
    { port: 81 },
    { scheduler: "rr" },
    { persistence: {} },
    { one_packet: true },
    { timeouts: { udp: "300s" } },
    { removed_connections: "drop" },
    { fullnat_pool: "blue" },
    { real_servers: [] },
    { real_servers: [{ ...realServer, upper_threshold: 1 }] },
    { real_servers: [{ ...realServer, upper_threshold: 1, lower_threshold: 1 }] },
  ].map((change) => validateService({ ...rest, ...change }));
  const all = [plain, ...others, validateService({ fwmark: 1 }), validateService({ fwmark: 2 })];
  for (const [i, a] of all.entries()) {
    for (const [j, b] of all.entries()) {
      t.equal(sameService(a, structuredClone(b)), i === j, `${i} ${j}`);
    }
  }
});
