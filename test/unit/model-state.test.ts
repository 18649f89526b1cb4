import { readFileSync } from "node:fs";
import { join } from "node:path";
import t from "tap";
import {
  afterChange,
  checkPoolsInUse,
  DEFAULT_SETTINGS,
  DEFAULT_TIMEOUTS,
  type DirectorSettings,
  EMPTY_STATE,
  keepIdentity,
  ModelError,
  plainDesiredState,
  SETTING_NAMES,
  sameSettings,
  VIOLATION_CODES,
  Violations,
  validateDesiredState,
} from "../../src/model/index.js";
import { violationsOf } from "./violations-of.js";

const realServer = { address: "10.1.0.11", port: 8080, method: "nat", weight: 3 };
const service = { protocol: "tcp", address: "10.0.0.100", port: 80, scheduler: "wrr", real_servers: [realServer] };

t.test("a state is refused with every violation in it", async (t) => {
  const other = {
    ...service,
    address: "10.0.0.101",
    port: 70000,
    real_servers: [realServer, { ...realServer, port: 65536 }],
  };
  const violations = violationsOf(() => validateDesiredState({ services: [service, other, service], service: [] }));
  t.match(violations, [
    { code: "UNKNOWN_FIELD", field: "service" },
    { code: "PORT_OUT_OF_RANGE", field: "services[1].port", value: 70000, allowed: "a port from 0 to 65535" },
    { code: "PORT_OUT_OF_RANGE", field: "services[1].real_servers[1].port", value: 65536 },
    { code: "DUPLICATE_SERVICE", field: "services[2]", value: "tcp:10.0.0.100:80" },
  ]);
  t.equal(violations.length, 4);

  const error = new ModelError([
    { code: "UNKNOWN_FIELD", field: "a", path: ["a"], value: 1, allowed: "b", message: "a is not known" },
    { code: "WRONG_TYPE", field: "b", path: ["b"], value: 1, allowed: "c", message: "b is wrong" },
  ]);
  t.equal(error.code, "UNKNOWN_FIELD");
  t.equal(error.message, "a is not known (and 1 more)");
});

t.test("fullnat needs local addresses", async (t) => {
  const fullnat = { ...service, real_servers: [{ ...realServer, method: "fullnat" }] };
  t.match(
    violationsOf(() => validateDesiredState({ services: [fullnat] })),
    [{ code: "FULLNAT_WITHOUT_LOCAL_ADDRESSES", field: "services[0].real_servers[0].method" }],
  );
  const pool = { local_addresses: ["10.1.0.1", "10.1.0.2"] };
  t.same(validateDesiredState({ services: [fullnat], fullnat: pool }).fullnat, {
    localAddresses: ["10.1.0.1", "10.1.0.2"],
    localPorts: [1024, 32767],
  });
  t.same(
    validateDesiredState({ fullnat: { ...pool, local_ports: 1024 } }).fullnat?.localPorts,
    [1024, 1024],
    "one port is a range",
  );
  const refused: readonly [unknown, string, string][] = [
    [{}, "MISSING_FIELD", "fullnat.local_addresses"],
    [{ local_addresses: [] }, "MISSING_FIELD", "fullnat.local_addresses"],
    [{ local_addresses: ["10.1.0.1", "10.1.0.1"] }, "DUPLICATE_LOCAL_ADDRESS", "fullnat.local_addresses[1]"],
    [{ local_addresses: addresses(4097) }, "CAPACITY_EXCEEDED", "fullnat.local_addresses"],
    [{ ...pool, local_ports: "2000-1000" }, "PORT_RANGE_MALFORMED", "fullnat.local_ports"],
    [{ ...pool, local_ports: "1024-65536" }, "PORT_RANGE_MALFORMED", "fullnat.local_ports"],
    [{ ...pool, local_ports: 0 }, "PORT_RANGE_MALFORMED", "fullnat.local_ports"],
    [{ ...pool, local_ports: true }, "WRONG_TYPE", "fullnat.local_ports"],
    [{ ...pool, ports: "1-2" }, "UNKNOWN_FIELD", "fullnat.ports"],
    ["10.1.0.1", "WRONG_TYPE", "fullnat"],
  ];
  for (const [input, code, field] of refused) {
    t.match(
      violationsOf(() => validateDesiredState({ fullnat: input })),
      [{ code, field }],
      JSON.stringify(input).slice(0, 60),
    );
  }
});

function addresses(count: number): string[] {
  return Array.from({ length: count }, (_, i) => `10.3.${i >> 8}.${i & 255}`);
}

t.test("a service takes local addresses from the pool that it names", async (t) => {
  const fullnat = { ...service, real_servers: [{ ...realServer, method: "fullnat" }], fullnat_pool: "blue" };
  const pool = { local_addresses: ["10.1.0.1"] };
  const blue = { name: "blue", ...pool };
  const state = validateDesiredState({ services: [fullnat], fullnat_pools: [blue] });
  t.same(state.pools, [{ name: "blue", localAddresses: ["10.1.0.1"], localPorts: [1024, 32767] }]);
  t.equal(state.services[0]?.fullnatPool, "blue");
  const refused: readonly [object, [string, string][]][] = [
    [{ services: [fullnat] }, [["UNKNOWN_POOL", "services[0].fullnat_pool"]]],
    [{ services: [fullnat], fullnat: pool }, [["UNKNOWN_POOL", "services[0].fullnat_pool"]]],
    [
      { services: [fullnat], fullnat_pools: [{ ...blue, name: "red" }] },
      [["UNKNOWN_POOL", "services[0].fullnat_pool"]],
    ],
    [{ fullnat_pools: [blue, blue] }, [["DUPLICATE_POOL", "fullnat_pools[1].name"]]],
    [{ fullnat_pools: [pool] }, [["MISSING_FIELD", "fullnat_pools[0].name"]]],
    [{ fullnat_pools: [{ ...blue, name: "-" }] }, [["POOL_NAME_MALFORMED", "fullnat_pools[0].name"]]],
    [{ fullnat_pools: [{ name: "blue" }] }, [["MISSING_FIELD", "fullnat_pools[0].local_addresses"]]],
    [{ fullnat_pools: { blue: pool } }, [["WRONG_TYPE", "fullnat_pools"]]],
    [
      { fullnat_pools: [{ name: "blue", local_addresses: addresses(4096) }], fullnat: pool },
      [["CAPACITY_EXCEEDED", "fullnat_pools"]],
    ],
    [
      { services: [{ ...fullnat, fullnat_pool: undefined }], fullnat_pools: [blue] },
      [["FULLNAT_WITHOUT_LOCAL_ADDRESSES", "services[0].real_servers[0].method"]],
    ],
  ];
  for (const [input, expected] of refused) {
    const violations = violationsOf(() => validateDesiredState(input));
    t.same(
      violations.map(({ code, field }) => [code, field]),
      expected,
      JSON.stringify(expected),
    );
  }
});

t.test("settings without a pool that is in use are refused", async (t) => {
  const fullnat = { ...service, real_servers: [{ ...realServer, method: "fullnat" }] };
  const pool = { local_addresses: ["10.1.0.1"] };
  const desired = validateDesiredState({
    services: [fullnat, { ...fullnat, address: "10.0.0.101", fullnat_pool: "blue" }],
    fullnat: pool,
    fullnat_pools: [{ name: "blue", ...pool }],
  });
  const missing = (settings: DirectorSettings): string[] => {
    const violations = new Violations();
    checkPoolsInUse(settings, desired.services, undefined, violations);
    return violations.list.map(({ code, message }) => `${code}: ${message}`);
  };
  t.same(missing(desired), []);
  t.same(missing(EMPTY_STATE), [
    "POOL_IN_USE: fullnat lacks the default pool, which tcp:10.0.0.100:80 uses",
    "POOL_IN_USE: fullnat_pools lacks blue, which tcp:10.0.0.101:80 uses",
  ]);
});

t.test("settings are IPVS's, by name and default", async (t) => {
  t.same(validateDesiredState({}), EMPTY_STATE);
  const { settings, timeouts } = validateDesiredState({
    settings: { conn_reuse_mode: 3, icmp_rate: 0 },
    timeouts: { sctp_init1: "2m" },
  });
  t.same(settings, { ...DEFAULT_SETTINGS, conn_reuse_mode: 3, icmp_rate: 0 });
  t.same(timeouts, { ...DEFAULT_TIMEOUTS, sctp_init1: 120 });
  const refused: readonly [object, string, string][] = [
    [{ settings: { conn_reuse_mode: 4 } }, "SETTING_OUT_OF_RANGE", "settings.conn_reuse_mode"],
    [{ settings: { sloppy_tcp: 2 } }, "SETTING_OUT_OF_RANGE", "settings.sloppy_tcp"],
    [{ settings: { sloppy_tcp: true } }, "WRONG_TYPE", "settings.sloppy_tcp"],
    [{ settings: { icmp_rate: 1_000_001 } }, "SETTING_OUT_OF_RANGE", "settings.icmp_rate"],
    [{ settings: { drop_entry: 1 } }, "UNKNOWN_FIELD", "settings.drop_entry"],
    [{ timeouts: { sctp: "1s" } }, "UNKNOWN_FIELD", "timeouts.sctp"],
    [{ timeouts: { udp: "0s" } }, "DURATION_OUT_OF_RANGE", "timeouts.udp"],
    [{ timeouts: { udp: null } }, "MISSING_FIELD", "timeouts.udp"],
  ];
  for (const [input, code, field] of refused) {
    const violations = violationsOf(() => validateDesiredState(input));
    t.match(violations, [{ code, field }], JSON.stringify(input));
    t.equal(violations.length, 1, "and nothing else");
  }
});

t.test("mark rules are read in order", async (t) => {
  const marks = [
    { mark: 1, protocol: "tcp", destination: "10.0.0.100", destination_ports: 80 },
    { mark: 1, protocol: "tcp", destination: "10.0.0.100/32", destination_ports: "443-8443" },
    { mark: 2, source: "198.18.0.0/15", protocol: "udp", source_ports: "53" },
    { mark: 3, family: "ipv4" },
    { mark: 4, family: "ipv4", source: "0.0.0.0/0" },
  ];
  const host = { family: "ipv4", address: "10.0.0.100", prefixLength: 32 };
  const state = validateDesiredState({ marks });
  t.same(state.marks, [
    { mark: 1, family: "ipv4", protocol: "tcp", destination: host, destinationPorts: [80, 80] },
    { mark: 1, family: "ipv4", protocol: "tcp", destination: host, destinationPorts: [443, 8443] },
    {
      mark: 2,
      family: "ipv4",
      protocol: "udp",
      source: { family: "ipv4", address: "198.18.0.0", prefixLength: 15 },
      sourcePorts: [53, 53],
    },
    { mark: 3, family: "ipv4" },
    { mark: 4, family: "ipv4", source: { family: "ipv4", address: "0.0.0.0", prefixLength: 0 } },
  ]);
  t.same(plainDesiredState(state).marks, [
    { mark: 1, protocol: "tcp", destination: "10.0.0.100", destination_ports: "80" },
    { mark: 1, protocol: "tcp", destination: "10.0.0.100", destination_ports: "443-8443" },
    { mark: 2, protocol: "udp", source: "198.18.0.0/15", source_ports: "53" },
    { mark: 3, family: "ipv4" },
    { mark: 4, source: "0.0.0.0/0" },
  ]);
  const rule = { mark: 1, source: "10.0.0.0/8" };
  const refused: readonly [object, [string, string][]][] = [
    [{ ...rule, mark: 0 }, [["FWMARK_OUT_OF_RANGE", "mark"]]],
    [{ source: "10.0.0.0/8" }, [["MISSING_FIELD", "mark"]]],
    [{ mark: 1 }, [["MISSING_FIELD", "family"]]],
    [{ mark: 1, protocol: "tcp" }, [["MISSING_FIELD", "family"]]],
    [{ ...rule, protocol: "icmp" }, [["UNKNOWN_PROTOCOL", "protocol"]]],
    [{ ...rule, source: "10.0.0.1/8" }, [["NETWORK_MALFORMED", "source"]]],
    [{ ...rule, source: "10.0.0.0/33" }, [["NETWORK_MALFORMED", "source"]]],
    [{ ...rule, source: "10.0.0.0/08" }, [["NETWORK_MALFORMED", "source"]]],
    [{ ...rule, source: "10.0.0.0/255.0.0.0" }, [["NETWORK_MALFORMED", "source"]]],
    [{ ...rule, source: "any" }, [["NETWORK_MALFORMED", "source"]]],
    [{ ...rule, source: 10 }, [["WRONG_TYPE", "source"]]],
    [{ ...rule, source: "2001:db8::/32" }, [["UNSUPPORTED_ADDRESS_FAMILY", "source"]]],
    [
      { ...rule, source: "2001:db8::1/32" },
      [
        ["UNSUPPORTED_ADDRESS_FAMILY", "source"],
        ["NETWORK_MALFORMED", "source"],
      ],
    ],
    [
      { ...rule, destination: "2001:db8::/32" },
      [
        ["UNSUPPORTED_ADDRESS_FAMILY", "destination"],
        ["FAMILY_MISMATCH", "destination"],
      ],
    ],
    [
      { ...rule, family: "ipv6" },
      [
        ["UNSUPPORTED_ADDRESS_FAMILY", "family"],
        ["FAMILY_MISMATCH", "source"],
      ],
    ],
    [{ ...rule, source_ports: 80 }, [["PORTS_WITHOUT_PROTOCOL", "source_ports"]]],
    [{ ...rule, protocol: "udp", source_ports: 0 }, [["PORT_RANGE_MALFORMED", "source_ports"]]],
    [{ ...rule, protocol: "udp", destination_ports: "9-1" }, [["PORT_RANGE_MALFORMED", "destination_ports"]]],
    [{ ...rule, ports: 80 }, [["UNKNOWN_FIELD", "ports"]]],
  ];
  for (const [input, expected] of refused) {
    const violations = violationsOf(() => validateDesiredState({ marks: [input] }));
    t.same(
      violations.map(({ code, field }) => [code, field]),
      expected.map(([code, field]) => [code, `marks[0].${field}`]),
      JSON.stringify(input),
    );
  }
  t.equal(validateDesiredState({ marks: Array<unknown>(1024).fill(rule) }).marks.length, 1024);
  t.match(
    violationsOf(() => validateDesiredState({ marks: Array<unknown>(1025).fill(rule) })),
    [{ code: "CAPACITY_EXCEEDED", field: "marks" }],
  );
});

t.test("every code that something is refused with is explained to users", async (t) => {
  const reference = readFileSync(join(import.meta.dirname, "../../../docs/reference.md"), "utf8");
  t.same(
    VIOLATION_CODES.filter((code) => !reference.includes(`\`${code}\``)),
    [],
  );
  for (const name of [...SETTING_NAMES, "tcp_established", "sctp_init1", "one_packet"]) {
    t.ok(reference.includes(`\`${name}\``), name);
  }
});

t.test("of a new state, services that did not change are the old objects", async (t) => {
  const second = { ...service, address: "10.0.0.101" };
  const before = validateDesiredState({ services: [service, second] });
  const changed = { ...second, real_servers: [{ ...realServer, weight: 4 }] };
  const after = keepIdentity(before, validateDesiredState({ services: [changed, service] }));
  t.equal(after.services[1], before.services[0]);
  t.not(after.services[0], before.services[1]);
  t.equal(after.services[0]?.realServers[0]?.weight, 4);
});

t.test("of settings, rules and pools that did not change, too", async (t) => {
  const plain = {
    settings: { sloppy_tcp: 1 },
    timeouts: { udp: "1m" },
    marks: [{ mark: 1, source: "10.0.0.0/8" }],
    fullnat: { local_addresses: ["10.1.0.1"] },
    fullnat_pools: [{ name: "blue", local_addresses: ["10.1.0.2"] }],
  };
  const before = validateDesiredState(plain);
  const names = ["settings", "timeouts", "marks", "fullnat", "pools"] as const;
  const kept = (changed: object): string[] => {
    const after = keepIdentity(before, validateDesiredState({ ...plain, ...changed }));
    return names.filter((name) => after[name] === before[name]);
  };
  t.same(kept({}), names);
  t.same(kept({ settings: { sloppy_tcp: 0 } }), ["timeouts", "marks", "fullnat", "pools"]);
  t.same(kept({ timeouts: { udp: "60s" } }), names, "another spelling is no change");
  t.same(kept({ marks: [] }), ["settings", "timeouts", "fullnat", "pools"]);
  t.same(kept({ fullnat: undefined, fullnat_pools: [] }), ["settings", "timeouts", "marks"]);
  t.ok(sameSettings(before, validateDesiredState(plain)));
  for (const [name, value] of Object.entries({
    settings: {},
    timeouts: { udp: "61s" },
    marks: [{ mark: 2, source: "10.0.0.0/8" }],
    fullnat: { local_addresses: ["10.1.0.1"], local_ports: "1-2" },
    fullnat_pools: [{ name: "red", local_addresses: ["10.1.0.2"] }],
  })) {
    t.notOk(sameSettings(before, validateDesiredState({ ...plain, [name]: value })), name);
  }
});

t.test("a change to the settings leaves the services as they are", async (t) => {
  const before = validateDesiredState({ services: [service] });
  const settings = validateDesiredState({ settings: { sloppy_tcp: 1 } });
  const after = afterChange(before, { kind: "configure", settings }, undefined);
  t.equal(after.services, before.services);
  t.equal(after.settings.sloppy_tcp, 1);
});
