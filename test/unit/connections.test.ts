import assert from "node:assert/strict";
import { mkdtempSync, readdirSync, readFileSync, readlinkSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import fc from "fast-check";
import t from "tap";
import { Column, type ConnectionText } from "../../src/dataplane/connection-text.js";
import { type Listing, readConnections } from "../../src/dataplane/connections.js";
import {
  at,
  CONNECTION_STATES,
  type ConnectionFilter,
  FORWARDING_METHODS,
  LISTED_PROTOCOLS,
  ModelError,
  readConnectionFilter,
  readListingLimit,
  Violations,
} from "../../src/model/index.js";
import { violationsOf } from "./violations-of.js";

const root = join(import.meta.dirname, "../../..");
const folder = mkdtempSync(join(tmpdir(), "sluice-connections-"));
t.teardown(() => rmSync(folder, { recursive: true }));

const TITLES = "proto state seconds client virtual local real method\n";

interface Connection {
  readonly protocol: string;
  readonly state: string;
  readonly secondsLeft: number;
  readonly client: string;
  readonly virtual: string;
  readonly local: string;
  readonly real: string;
  readonly method: string;
  readonly template: boolean;
}

/** As bpf/list_connections.h prints it. */
function line({ protocol, state, secondsLeft, client, virtual, local, real, method }: Connection): string {
  const seconds = String(secondsLeft).padStart(6);
  return `${protocol} ${state.padEnd(11)} ${seconds} ${client} ${virtual} ${local || "-"} ${real} ${method}\n`;
}

function connection(lines: ConnectionText): Connection {
  return {
    protocol: LISTED_PROTOCOLS[lines.protocol] ?? "?",
    state: CONNECTION_STATES[lines.state] ?? "?",
    secondsLeft: lines.secondsLeft,
    client: lines.column(Column.client),
    virtual: lines.column(Column.virtual),
    local: lines.column(Column.local),
    real: lines.column(Column.real),
    method: FORWARDING_METHODS[lines.method] ?? "?",
    template: lines.template,
  };
}

function filter(plain: unknown): ConnectionFilter {
  const violations = new Violations();
  const read = readConnectionFilter(plain, undefined, violations);
  if (read === undefined) throw new ModelError(violations.list);
  return read;
}

/** A file of this text, of which each read gives the next so many bytes; 0 is the kernel asking to be asked again. */
class Pieces implements Listing {
  closed = false;
  reads = 0;
  #at = 0;

  constructor(
    private readonly text: Buffer,
    private readonly sizes: readonly number[],
  ) {}

  // FileHandle.read has many overloads; this is the one in use.
  read = (async (into: Buffer, offset: number, length: number) => {
    const size = this.sizes[this.reads++ % this.sizes.length] ?? 1;
    if (size === 0) throw Object.assign(new Error("EAGAIN"), { code: "EAGAIN" });
    const bytesRead = this.text.copy(into, offset, this.#at, Math.min(this.#at + size, this.#at + length));
    this.#at += bytesRead;
    return { bytesRead, buffer: into };
  }) as unknown as Listing["read"];

  close = async (): Promise<void> => {
    this.closed = true;
  };
}

async function listed(listing: Listing | string, selected: ConnectionFilter): Promise<Connection[]> {
  const connections: Connection[] = [];
  const path = typeof listing === "string" ? listing : "connections";
  const open = typeof listing === "string" ? undefined : async () => listing;
  for await (const lines of readConnections(path, selected, open)) {
    while (lines.next()) connections.push(connection(lines));
  }
  return connections;
}

const TEXT = `${TITLES}tcp ESTABLISHED    899 10.0.0.2:37028 10.0.0.103:80 10.1.0.1:11194 10.1.0.12:8080 fullnat
tcp FIN_WAIT        77 10.0.0.2:49860 10.0.0.101:80 - 10.1.0.11:80 dr
udp UDP            257 10.0.0.20:35137 10.0.0.101:7000 - 10.1.0.12:7000 dr
sctp C-ECHOED         0 10.0.1.2:5000 10.0.0.100:36412 - 10.1.0.1:36412 nat
tcp NONE           360 10.0.0.0:0 10.0.0.100:80 - 10.1.0.11:8080 nat
udp ASSURED        360 10.0.2.7:0 10.0.0.101:0 - 10.1.0.12:0 dr
ip NONE           300 10.0.3.0:0 0.0.1.2:0 - 10.1.0.11:0 tun
`;

t.test("every line is read, with all that it says", async (t) => {
  const file = join(folder, "connections");
  writeFileSync(file, TEXT);
  const all = await listed(file, filter({}));
  t.equal(all.length, 7);
  t.same(all[0], {
    protocol: "tcp",
    state: "ESTABLISHED",
    secondsLeft: 899,
    client: "10.0.0.2:37028",
    virtual: "10.0.0.103:80",
    local: "10.1.0.1:11194",
    real: "10.1.0.12:8080",
    method: "fullnat",
    template: false,
  });
  t.equal(all[1]?.local, "");
  t.match(all[3], { protocol: "sctp", state: "C-ECHOED", secondsLeft: 0, template: false });
  t.match(all[6], { protocol: "ip", state: "NONE", client: "10.0.3.0:0", method: "tun", template: true });
  t.equal(TITLES + all.map(line).join(""), TEXT);
});

t.test("the names of states are those that the data plane prints", async (t) => {
  const source = readFileSync(join(root, "bpf/list_connections.h"), "utf8");
  const table = /state_names\[[^\]]*\]\[\d+\] = \{(.*?)\};/s.exec(source)?.[1] ?? "";
  const names = [...table.matchAll(/\] = "([^"]+)"/g)].map(([, name]) => name ?? "");
  t.ok(names.length >= 12, names.join(" "));
  for (const name of names) t.ok((CONNECTION_STATES as readonly string[]).includes(name), name);
});

t.test("a filter selects what has all that it names", async (t) => {
  const file = join(folder, "filtered");
  writeFileSync(file, TEXT);
  // By the places of the lines in TEXT.
  const rows: [object, number[]][] = [
    [{}, [0, 1, 2, 3, 4, 5, 6]],
    [{ protocol: "udp" }, [2, 5]],
    [{ protocol: "sctp", state: "C-ECHOED" }, [3]],
    [{ state: "NONE" }, [4, 6]],
    [{ client: "10.0.0.2" }, [0, 1]],
    [{ client: "10.0.0.2:49860" }, [1]],
    [{ client: "10.0.0.2:9860" }, []],
    [{ client: "10.0.0.0/24" }, [0, 1, 2, 4]],
    [{ client: "10.0.0.0/24:37028" }, [0]],
    [{ client: "0.0.0.0/0" }, [0, 1, 2, 3, 4, 5, 6]],
    [{ client: "10.0.2.0/23", templates: "only" }, [5, 6]],
    [{ virtual: "10.0.0.101" }, [1, 2, 5]],
    [{ virtual: "10.0.0.10" }, []],
    [{ virtual: "10.0.0.101:7000" }, [2]],
    [{ virtual: "10.0.0.101:700" }, []],
    [{ virtual: "10.0.0.101:0" }, [5]],
    [{ virtual: "tcp:10.0.0.101:80" }, [1]],
    [{ virtual: "udp:10.0.0.101:80" }, []],
    [{ virtual: "udp:10.0.0.101:0" }, [2, 5]],
    [{ virtual: "fwmark:258" }, [6]],
    [{ virtual: "fwmark:1" }, []],
    [{ real: "10.1.0.1" }, [3]],
    [{ real: "10.1.0.11" }, [1, 4, 6]],
    [{ real: "10.1.0.11:8080" }, [4]],
    [{ local: "10.1.0.1" }, [0]],
    [{ local: "10.1.0.1:11194" }, [0]],
    [{ local: "10.1.0.1:1119" }, []],
    [{ method: "nat" }, [3, 4]],
    [{ method: "tun", templates: "exclude" }, []],
    [{ templates: "exclude" }, [0, 1, 2, 3]],
    [{ templates: "only" }, [4, 5, 6]],
    [{ protocol: "tcp", virtual: "tcp:10.0.0.101:80", real: "10.1.0.11", method: "dr", state: "FIN_WAIT" }, [1]],
  ];
  const lines = TEXT.split("\n").slice(1);
  for (const [plain, places] of rows) {
    t.same(
      (await listed(file, filter(plain))).map((one) => line(one).trimEnd()),
      places.map((place) => lines[place]),
      JSON.stringify(plain),
    );
  }
});

t.test("a filter that is not understood is refused with every violation in it", async (t) => {
  const rows: [unknown, string[]][] = [
    ["tcp", ["WRONG_TYPE "]],
    [{ protcol: "tcp" }, ["UNKNOWN_FIELD protcol"]],
    [{ protocol: "icmp", state: "OPEN" }, ["UNKNOWN_PROTOCOL protocol", "UNKNOWN_STATE state"]],
    [{ protocol: 6 }, ["WRONG_TYPE protocol"]],
    [{ client: "10.0.0.0/33" }, ["NETWORK_MALFORMED client"]],
    [{ client: "10.0.0.1/24" }, ["NETWORK_MALFORMED client"]],
    [{ client: "10.0.0.1:65536" }, ["ENDPOINT_MALFORMED client"]],
    [{ client: ":80" }, ["ENDPOINT_MALFORMED client"]],
    [{ client: "2001:db8::/32" }, ["ENDPOINT_MALFORMED client"]],
    [{ client: "[2001:db8::]:80" }, ["UNSUPPORTED_ADDRESS_FAMILY client"]],
    [{ real: "2001:db8::1" }, ["UNSUPPORTED_ADDRESS_FAMILY real"]],
    [{ real: "10.1.0.11:x" }, ["ENDPOINT_MALFORMED real"]],
    [{ local: "10.1.0" }, ["ENDPOINT_MALFORMED local"]],
    [{ local: 1 }, ["WRONG_TYPE local"]],
    [{ virtual: "tcp:10.0.0.100" }, ["ENDPOINT_MALFORMED virtual"]],
    [{ virtual: "tcp:[2001:db8::1]:80" }, ["UNSUPPORTED_ADDRESS_FAMILY virtual"]],
    [{ virtual: "fwmark6:1" }, ["UNSUPPORTED_ADDRESS_FAMILY virtual"]],
    [{ virtual: "fwmark:0" }, ["ENDPOINT_MALFORMED virtual"]],
    [{ virtual: "tcp:10.0.0.100:80", protocol: "udp" }, ["PROTOCOL_CONTRADICTED protocol"]],
    [{ virtual: "fwmark:1", protocol: "tcp" }, ["PROTOCOL_CONTRADICTED protocol"]],
    [{ method: "masq" }, ["UNKNOWN_METHOD method"]],
    [{ templates: true }, ["WRONG_TYPE templates"]],
    [{ templates: "all" }, ["UNKNOWN_TEMPLATE_SELECTION templates"]],
  ];
  for (const [plain, expected] of rows) {
    const found = violationsOf(() => filter(plain)).map(({ code, field }) => `${code} ${field}`);
    t.same(found, expected, JSON.stringify(plain));
  }
  const violations = new Violations();
  t.equal(readListingLimit(0, at(undefined, "limit"), violations), Number.POSITIVE_INFINITY);
  t.equal(readListingLimit(7, at(undefined, "limit"), violations), 7);
  readListingLimit(-1, at(undefined, "limit"), violations);
  t.match(violations.list, [{ code: "LISTING_LIMIT_NEGATIVE", field: "limit", value: -1 }]);
  t.equal(violations.list.length, 1);
});

const addresses = fc.integer({ min: 0, max: 7 }).map((host) => `10.0.${host >> 2}.${host & 3}`);
const endpoints = fc.tuple(addresses, fc.integer({ min: 79, max: 81 })).map(([address, port]) => `${address}:${port}`);
const connections: fc.Arbitrary<Connection> = fc
  .record({
    protocol: fc.constantFrom("tcp", "udp", "sctp"),
    state: fc.constantFrom(...CONNECTION_STATES),
    secondsLeft: fc.nat(2_678_400),
    client: endpoints,
    virtual: endpoints,
    local: endpoints,
    real: endpoints,
    method: fc.constantFrom(...FORWARDING_METHODS),
    template: fc.boolean(),
  })
  .map((one) => ({
    ...one,
    local: one.method === "fullnat" ? one.local : "",
    ...(one.template && {
      state: one.secondsLeft % 2 === 0 ? "NONE" : "ASSURED",
      client: one.client.replace(/:.*/, ":0"),
    }),
  }));

const choices = fc.record(
  {
    protocol: fc.constantFrom("tcp", "udp"),
    state: fc.constantFrom("ESTABLISHED", "NONE", "ASSURED"),
    client: fc.oneof(addresses, endpoints, fc.constantFrom("10.0.0.0/31", "10.0.1.0/24", "10.0.0.2/31:80")),
    virtual: fc.oneof(
      addresses,
      endpoints,
      endpoints.map((endpoint) => `tcp:${endpoint}`),
    ),
    real: fc.oneof(addresses, endpoints),
    local: fc.oneof(addresses, endpoints),
    method: fc.constantFrom(...FORWARDING_METHODS),
    templates: fc.constantFrom("include", "exclude", "only"),
  },
  { requiredKeys: [] },
);

/** The filter's meaning once more, over values. */
function selects(wanted: ConnectionFilter, one: Connection): boolean {
  const [address = "", port] = one.client.split(":");
  const bits = (text: string): number => text.split(".").reduce((sum, part) => sum * 256 + Number(part), 0);
  const endpoint = (text: string, given: { address: string; port: number | undefined } | undefined): boolean =>
    given === undefined ||
    (given.port === undefined ? text.split(":")[0] === given.address : text === `${given.address}:${given.port}`);
  const { network, port: clientPort } = wanted.client ?? {};
  const size = network === undefined ? 0 : 2 ** (32 - network.prefixLength);
  return (
    [undefined, one.protocol].includes(wanted.protocol) &&
    [undefined, one.state].includes(wanted.state) &&
    [undefined, one.method].includes(wanted.method) &&
    (wanted.templates === "include" || (wanted.templates === "only") === one.template) &&
    endpoint(one.virtual, wanted.virtual) &&
    endpoint(one.real, wanted.real) &&
    endpoint(one.local, wanted.local) &&
    (network === undefined ||
      (bits(address) >= bits(network.address) && bits(address) < bits(network.address) + size)) &&
    (clientPort === undefined || Number(port) === clientPort)
  );
}

t.test("whatever the pieces in which the kernel gives the text, exactly what a filter selects comes out", async () => {
  const pieces = fc.array(fc.oneof(fc.constant(0), fc.integer({ min: 1, max: 300 })), { minLength: 1, maxLength: 20 });
  await fc.assert(
    fc.asyncProperty(fc.array(connections, { maxLength: 60 }), choices, pieces, async (table, plain, sizes) => {
      let wanted: ConnectionFilter;
      try {
        wanted = filter(plain);
      } catch (error) {
        if (error instanceof ModelError && error.code === "PROTOCOL_CONTRADICTED") return;
        throw error;
      }
      const listing = new Pieces(Buffer.from(TITLES + table.map(line).join("")), [...sizes, 64]);
      assert.deepEqual(
        await listed(listing, wanted),
        table.filter((one) => selects(wanted, one)),
      );
      assert.ok(listing.closed);
    }),
    { numRuns: 300 },
  );
});

t.test("a listing longer than the buffers comes whole", async (t) => {
  const file = join(folder, "long");
  const table = Array.from({ length: 20_000 }, (_, i) => ({
    protocol: "tcp",
    state: "ESTABLISHED",
    secondsLeft: i % 900,
    client: `10.1.${i >> 8}.${i & 255}:${1024 + i}`,
    virtual: "10.0.0.100:80",
    local: "",
    real: "10.1.0.11:8080",
    method: "nat",
    template: false,
  }));
  writeFileSync(file, TITLES + table.map(line).join(""));
  t.same(await listed(file, filter({})), table);
});

t.test("reading ends when nobody wants more, and reads one piece ahead at most", async (t) => {
  const listing = new Pieces(Buffer.from(TEXT.repeat(500)), [32_768]);
  for await (const lines of readConnections("connections", filter({}), async () => listing)) {
    t.ok(lines.next());
    t.equal(listing.reads, 2);
    break;
  }
  t.ok(listing.closed);
  t.equal(listing.reads, 2);

  const file = join(folder, "long");
  for await (const lines of readConnections(file, filter({}))) {
    t.ok(lines.next());
    break;
  }
  const open = readdirSync("/proc/self/fd").map((fd) => {
    try {
      return readlinkSync(`/proc/self/fd/${fd}`);
    } catch {
      return ""; // the one that the folder was read by
    }
  });
  t.notOk(open.includes(file), "the file is closed");
});

t.test("what cannot be read is told", async (t) => {
  await t.rejects(listed(join(folder, "none"), filter({})), {
    name: "DataPlaneError",
    code: "PINS_DAMAGED",
    message: /cannot be read from .*none; restart the daemon/,
  });
  const noLines = new Pieces(Buffer.alloc(200_000, "x"), [32_768]);
  await t.rejects(listed(noLines, filter({})), { code: "PINS_DAMAGED" });
  t.ok(noLines.closed);
  const failing: Listing = {
    read: () => Promise.reject(Object.assign(new Error("EIO"), { code: "EIO" })),
    close: () => Promise.resolve(),
  };
  await t.rejects(listed(failing, filter({})), { code: "EIO" });
});
