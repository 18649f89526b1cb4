import fc from "fast-check";
import t from "tap";
import {
  type DesiredState,
  hasSchedulerFlags,
  keepIdentity,
  ModelError,
  nearest,
  parseAddress,
  parseRealServerName,
  parseServiceName,
  plainDesiredState,
  plainService,
  realServerName,
  SCHEDULERS,
  sameService,
  serviceName,
  TABLE_SIZES,
  VIOLATION_CODES,
  validateDesiredState,
  validateService,
} from "../../src/model/index.js";

const realServer = { address: "10.1.0.11", port: 8080, method: "nat", weight: 3 };
const service = { protocol: "tcp", address: "10.0.0.100", port: 80, scheduler: "wrr", real_servers: [realServer] };

function violationsOf(validate: () => unknown): { code: string; field: string; value: unknown; allowed: string }[] {
  try {
    validate();
  } catch (error) {
    if (error instanceof ModelError) {
      return error.violations.map(({ code, field, value, allowed }) => ({ code, field, value, allowed }));
    }
    throw error;
  }
  return [];
}

t.test("a service is read with its defaults", async (t) => {
  t.same(validateService(service), {
    protocol: "tcp",
    address: "10.0.0.100",
    port: 80,
    scheduler: "wrr",
    schedulerFlags: [],
    realServers: [realServer],
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
    realServers: [{ address: "10.1.0.11", port: 53, method: "dr", weight: 1 }],
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
  [{ protocol: "sctp" }, "UNKNOWN_PROTOCOL", "protocol"],
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
  [{ port: 0 }, "PORT_OUT_OF_RANGE", "port"],
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
];

t.test("what a service must not be is refused by code and field", async (t) => {
  for (const [change, code, field] of refusedServices) {
    const violations = violationsOf(() => validateService({ ...service, ...change }));
    t.match(violations, [{ code, field }], `${JSON.stringify(change)} is ${code}`);
    t.equal(violations.length, 1, "and nothing else");
  }
  const many = Array.from({ length: 252 }, (_, i) => ({ address: `10.2.0.${i + 1}`, method: "nat" }));
  t.match(
    violationsOf(() => validateService({ ...service, scheduler: "mh", table_size: 251, real_servers: many })),
    [{ code: "TABLE_TOO_SMALL", field: "table_size", value: 251 }],
  );
  for (const input of [undefined, null, 7, "tcp:10.0.0.100:80", [service]]) {
    t.equal(violationsOf(() => validateService(input)).length, 1, `${JSON.stringify(input)} is no service`);
  }
});

t.test("a state is refused with every violation in it", async (t) => {
  const other = {
    ...service,
    address: "10.0.0.101",
    port: 70000,
    real_servers: [realServer, { ...realServer, port: 0 }],
  };
  const violations = violationsOf(() => validateDesiredState({ services: [service, other, service], service: [] }));
  t.match(violations, [
    { code: "UNKNOWN_FIELD", field: "service" },
    { code: "PORT_OUT_OF_RANGE", field: "services[1].port", value: 70000, allowed: "a port from 1 to 65535" },
    { code: "PORT_OUT_OF_RANGE", field: "services[1].real_servers[1].port", value: 0 },
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
  const refused: readonly [unknown, string, string][] = [
    [{}, "MISSING_FIELD", "fullnat.local_addresses"],
    [{ local_addresses: [] }, "MISSING_FIELD", "fullnat.local_addresses"],
    [{ local_addresses: ["10.1.0.1", "10.1.0.1"] }, "DUPLICATE_LOCAL_ADDRESS", "fullnat.local_addresses[1]"],
    [
      { local_addresses: Array.from({ length: 257 }, (_, i) => `10.3.${i >> 8}.${i & 255}`) },
      "CAPACITY_EXCEEDED",
      "fullnat.local_addresses",
    ],
    [{ ...pool, local_ports: "2000-1000" }, "PORT_RANGE_MALFORMED", "fullnat.local_ports"],
    [{ ...pool, local_ports: "1024-65536" }, "PORT_RANGE_MALFORMED", "fullnat.local_ports"],
    [{ ...pool, local_ports: 1024 }, "PORT_RANGE_MALFORMED", "fullnat.local_ports"],
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

t.test("names are read back, and nothing else is", async (t) => {
  const keys = [
    { protocol: "tcp" as const, address: "10.0.0.100", port: 80, name: "tcp:10.0.0.100:80" },
    { protocol: "udp" as const, address: "2001:db8::1", port: 53, name: "udp:[2001:db8::1]:53" },
  ];
  for (const { name, ...key } of keys) {
    t.equal(serviceName(key), name);
    t.same(parseServiceName(name), key);
    t.same(parseRealServerName(realServerName(key)), { address: key.address, port: key.port });
  }
  t.same(parseServiceName("udp:[2001:DB8:0::1]:53")?.address, "2001:db8::1", "another spelling becomes canonical");
  const none = [
    "",
    "tcp",
    "tcp:",
    "10.0.0.1:80",
    "tcp:10.0.0.1",
    "tcp:10.0.0.1:0",
    "tcp:10.0.0.1:65536",
    "tcp:10.0.0.1:080",
    "tcp:[10.0.0.1]:80",
    "udp:2001:db8::1:53",
    "sctp:10.0.0.1:80",
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

t.test("of a new state, services that did not change are the old objects", async (t) => {
  const second = { ...service, address: "10.0.0.101" };
  const before = validateDesiredState({ services: [service, second] });
  const changed = { ...second, real_servers: [{ ...realServer, weight: 4 }] };
  const after = keepIdentity(before, validateDesiredState({ services: [changed, service] }));
  t.equal(after.services[1], before.services[0]);
  t.not(after.services[0], before.services[1]);
  t.equal(after.services[0]?.realServers[0]?.weight, 4);
});

/** Valid desired states in their plain form. */
const plainStates = fc
  .uniqueArray(
    fc.record({
      protocol: fc.constantFrom("tcp", "udp"),
      address: fc
        .tuple(fc.integer({ min: 1, max: 126 }), fc.nat(255), fc.nat(255), fc.nat(255))
        .map((octets) => octets.join(".")),
      port: fc.integer({ min: 1, max: 65535 }),
      mh: fc.option(fc.constantFrom(...TABLE_SIZES), { nil: undefined }),
      scheduler: fc.constantFrom(...SCHEDULERS),
      flags: fc.subarray(["fallback", "port"]),
      real_servers: fc.uniqueArray(
        fc.record({
          address: fc
            .tuple(fc.integer({ min: 128, max: 168 }), fc.nat(255), fc.nat(255))
            .map((octets) => `${octets.join(".")}.1`),
          port: fc.integer({ min: 1, max: 65535 }),
          method: fc.constantFrom("nat", "dr", "tun", "fullnat"),
          weight: fc.nat(65535),
        }),
        { maxLength: 6, selector: ({ address }) => address },
      ),
    }),
    { maxLength: 6, selector: ({ protocol, address, port }) => `${protocol} ${address} ${port}` },
  )
  .map((services) => ({
    fullnat: { local_addresses: ["10.1.0.1"], local_ports: "1024-2047" },
    services: services.map(({ mh, flags, real_servers, ...rest }) => ({
      ...rest,
      ...(hasSchedulerFlags(rest.scheduler)
        ? { scheduler_flags: flags.map((flag) => `${rest.scheduler}-${flag}`) }
        : {}),
      ...(rest.scheduler === "mh" && mh !== undefined ? { table_size: mh } : {}),
      real_servers: real_servers.map((r) => (r.method === "dr" || r.method === "tun" ? { ...r, port: rest.port } : r)),
    })),
  }));

t.test("valid states are accepted and round-tripped", async (t) => {
  fc.assert(
    fc.property(plainStates, (plain) => {
      const state: DesiredState = validateDesiredState(plain);
      t.same(plainDesiredState(state), plain);
      for (const read of state.services) {
        t.same(validateService(plainService(read)), read);
      }
    }),
    { numRuns: 200 },
  );
});

t.test("anything at all is refused with a code and a field, or accepted and round-tripped", async () => {
  const junk = fc.oneof(
    fc.anything({ withBigInt: true, withDate: true, withMap: true, withNullPrototype: true, withSparseArray: true }),
    fc.constantFrom(null, undefined, "", 0, -1, 65536, 1e308, Number.NaN, "__proto__", "constructor"),
    // New ones each time: one that was put into itself would never end.
    fc.constantFrom("[]", "{}", "[[]]").map((text) => JSON.parse(text) as unknown),
  );
  // A valid state in which some value, at any depth, was replaced, added or removed.
  const mutated = fc
    .tuple(
      plainStates,
      fc.array(fc.tuple(fc.nat(), fc.string({ maxLength: 8 }), junk, fc.nat(2)), { minLength: 1, maxLength: 3 }),
    )
    .map(([plain, mutations]) => {
      const copy = structuredClone(plain) as unknown;
      for (const [pick, name, value, how] of mutations) {
        const places: [Record<string, unknown>, string][] = [];
        const walk = (node: unknown): void => {
          if (typeof node === "object" && node !== null) {
            for (const key of Object.keys(node)) {
              places.push([node as Record<string, unknown>, key]);
              walk((node as Record<string, unknown>)[key]);
            }
          }
        };
        walk(copy);
        const place = places[pick % Math.max(places.length, 1)];
        if (place === undefined) continue;
        const [parent, key] = place;
        if (how === 0) parent[key] = value;
        else if (how === 1)
          Reflect.defineProperty(parent, name, { value, enumerable: true, configurable: true, writable: true });
        else Reflect.deleteProperty(parent, key);
      }
      return copy;
    });
  const codes = new Set<string>(VIOLATION_CODES);
  fc.assert(
    fc.property(fc.oneof(mutated, mutated, junk), (input) => {
      try {
        const state = validateDesiredState(input);
        return JSON.stringify(validateDesiredState(plainDesiredState(state))) === JSON.stringify(state);
      } catch (error) {
        if (!(error instanceof ModelError)) throw error;
        return error.violations.every(({ code, field, message, allowed }) => {
          return codes.has(code) && typeof field === "string" && message !== "" && allowed !== "";
        });
      }
    }),
    { numRuns: 3000 },
  );
});
