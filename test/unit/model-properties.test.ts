import fc from "fast-check";
import t from "tap";
import {
  type DesiredState,
  hasSchedulerFlags,
  ModelError,
  plainDesiredState,
  plainService,
  REMOVED_CONNECTIONS,
  SCHEDULERS,
  serviceName,
  TABLE_SIZES,
  VIOLATION_CODES,
  validateDesiredState,
  validateService,
} from "../../src/model/index.js";

/** Fields that may be absent. */
const OPTIONAL: { readonly requiredKeys: [] } = { requiredKeys: [] };

const clients = fc.tuple(fc.nat(2 ** 32 - 1), fc.integer({ min: 1, max: 32 })).map(([bits, length]) => {
  const network = (bits & -(2 ** (32 - length))) >>> 0;
  const address = [24, 16, 8, 0].map((shift) => (network >>> shift) & 255).join(".");
  return length === 32 ? address : `${address}/${length}`;
});
const ports = fc
  .tuple(fc.integer({ min: 1, max: 65535 }), fc.integer({ min: 1, max: 65535 }))
  .map(([a, b]) => (a === b ? String(a) : `${Math.min(a, b)}-${Math.max(a, b)}`));
const durations = fc.integer({ min: 1, max: 2678400 }).map((seconds) => `${seconds}s`);

const plainRules = fc
  .tuple(
    fc.integer({ min: 1, max: 2 ** 32 - 1 }),
    fc.record({ source: clients, destination: clients }, OPTIONAL),
    fc.option(
      fc.tuple(
        fc.constantFrom("tcp", "udp", "sctp"),
        fc.record({ source_ports: ports, destination_ports: ports }, OPTIONAL),
      ),
      { nil: undefined },
    ),
  )
  .map(([mark, networks, transport]) => ({
    mark,
    ...(Object.keys(networks).length === 0 ? { family: "ipv4" } : {}),
    ...(transport === undefined ? {} : { protocol: transport[0] }),
    ...networks,
    ...transport?.[1],
  }));

const plainKeys = fc.oneof(
  fc.record({
    protocol: fc.constantFrom("tcp", "udp", "sctp"),
    address: fc
      .tuple(fc.integer({ min: 1, max: 126 }), fc.nat(255), fc.nat(255), fc.nat(255))
      .map((octets) => octets.join(".")),
    port: fc.integer({ min: 0, max: 65535 }),
  }),
  fc.record({ fwmark: fc.integer({ min: 1, max: 2 ** 32 - 1 }), family: fc.constant("ipv4") }),
);

const plainOptions = fc.record(
  {
    persistence: fc.record({
      timeout: durations,
      netmask: fc.tuple(fc.nat(255), fc.nat(255)).map(([a, b]) => `255.${a}.${b}.0`),
    }),
    one_packet: fc.constant(true),
    timeouts: fc.record({ tcp_established: durations, udp: durations, sctp_closed: durations }, OPTIONAL),
    removed_connections: fc.constantFrom(...REMOVED_CONNECTIONS),
    fullnat_pool: fc.constant("blue"),
  },
  OPTIONAL,
);

const plainServers = fc.uniqueArray(
  fc.record({
    address: fc
      .tuple(fc.integer({ min: 128, max: 168 }), fc.nat(255), fc.nat(255))
      .map((octets) => `${octets.join(".")}.1`),
    port: fc.integer({ min: 1, max: 65535 }),
    method: fc.constantFrom("nat", "dr", "tun", "fullnat"),
    weight: fc.nat(65535),
    thresholds: fc.option(
      fc.record({
        upper_threshold: fc.integer({ min: 100, max: 2 ** 31 - 1 }),
        lower_threshold: fc.integer({ min: 1, max: 100 }),
      }),
      { nil: undefined },
    ),
  }),
  { maxLength: 6, selector: ({ address }) => address },
);

const plainServices = fc
  .record({
    key: plainKeys,
    options: plainOptions,
    mh: fc.option(fc.constantFrom(...TABLE_SIZES), { nil: undefined }),
    scheduler: fc.constantFrom(...SCHEDULERS),
    flags: fc.subarray(["fallback", "port"]),
    realServers: plainServers,
  })
  .map(({ key, options, mh, scheduler, flags, realServers }) => {
    const isMark = "fwmark" in key;
    const { one_packet, timeouts, ...others } = options;
    const applicable = Object.fromEntries(
      Object.entries(timeouts ?? {}).filter(([name]) => isMark || name.startsWith(key.protocol)),
    );
    const port = isMark ? 0 : key.port;
    return {
      ...key,
      scheduler,
      ...(hasSchedulerFlags(scheduler) ? { scheduler_flags: flags.map((flag) => `${scheduler}-${flag}`) } : {}),
      ...(scheduler === "mh" && mh !== undefined ? { table_size: mh } : {}),
      ...(one_packet === true && (isMark || key.protocol === "udp") ? { one_packet } : {}),
      ...(Object.keys(applicable).length === 0 ? {} : { timeouts: applicable }),
      ...others,
      real_servers: realServers.map(({ thresholds, ...rest }) => {
        const keeps = rest.method === "dr" || rest.method === "tun" || (!isMark && port === 0);
        return { ...rest, ...(keeps ? { port } : {}), ...thresholds };
      }),
    };
  });

/** Valid desired states in their plain form. */
const plainStates = fc
  .record({
    settings: fc.option(
      fc.record({ conn_reuse_mode: fc.constantFrom(0, 2, 3), sloppy_tcp: fc.constant(1) }, OPTIONAL),
      { nil: {} },
    ),
    timeouts: fc.option(fc.record({ tcp_close: fc.constant("11s"), sctp_init1: fc.constant("5s") }, OPTIONAL), {
      nil: {},
    }),
    marks: fc.array(plainRules, { maxLength: 3 }),
    services: fc.uniqueArray(plainServices, { maxLength: 6, selector: (plain) => serviceName(validateService(plain)) }),
  })
  .map(({ settings, timeouts, marks, services }) => ({
    ...(Object.keys(settings).length === 0 ? {} : { settings }),
    ...(Object.keys(timeouts).length === 0 ? {} : { timeouts }),
    ...(marks.length === 0 ? {} : { marks }),
    fullnat: { local_addresses: ["10.1.0.1"], local_ports: "1024-2047" },
    fullnat_pools: [{ name: "blue", local_addresses: ["10.1.0.2", "10.1.0.3"], local_ports: "5000" }],
    services,
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
