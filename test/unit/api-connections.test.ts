import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { credentials, status } from "@grpc/grpc-js";
import t from "tap";
import {
  ApiClient,
  ApiError,
  type Connection,
  type ConnectionFilter,
  ConnectionState,
  ForwardingMethod,
  Protocol,
  TemplateSelection,
} from "../../src/api/client.js";
import { ConnectionEncoder } from "../../src/api/connection-encoder.js";
import { ConnectionServiceClient, ListConnectionsResponse } from "../../src/api/gen/sluice/v1/connection_service.js";
import { ApiServer } from "../../src/api/server.js";
import { SerialDirector } from "../../src/daemon/serial-director.js";
import type { ConnectionText } from "../../src/dataplane/connection-text.js";
import { readConnections } from "../../src/dataplane/connections.js";
import { CONNECTION_STATES, EMPTY_STATE, type ConnectionFilter as Filter } from "../../src/model/index.js";
import { MemoryStore } from "../../src/store/state-store.js";
import { FakeDataPlane } from "./fake-data-plane.js";

const silent = { level: "silent", debug() {}, info() {}, warn() {}, error() {} };

/** Counts what of the listing was read. */
class CountingDataPlane extends FakeDataPlane {
  pieces = 0;
  ended = 0;

  override async *connections(filter: Filter): AsyncGenerator<ConnectionText> {
    try {
      for await (const piece of super.connections(filter)) {
        this.pieces++;
        yield piece;
      }
    } finally {
      this.ended++;
    }
  }
}

const folder = mkdtempSync(join(tmpdir(), "sluice-connections-"));
const socket = join(folder, "api.sock");
const file = join(folder, "connections");
const dataPlane = new CountingDataPlane();
dataPlane.connectionsFile = file;
const server = await ApiServer.listen(new SerialDirector(new MemoryStore(EMPTY_STATE), dataPlane, silent), socket);
const client = new ApiClient(socket);
t.teardown(async () => {
  client.close();
  await server.close();
  rmSync(folder, { recursive: true });
});

const TITLES = "proto state seconds client virtual local real method\n";
const TEXT = `${TITLES}tcp ESTABLISHED    899 10.0.0.2:37028 10.0.0.103:80 10.1.0.1:11194 10.1.0.12:8080 fullnat
udp UDP            257 10.0.0.20:35137 10.0.0.101:7000 - 10.1.0.12:7000 dr
tcp SYN_RECV         0 10.0.0.2:1 10.0.0.100:80 - 10.1.0.11:8080 nat
tcp ASSURED    2678400 10.0.0.0:0 10.0.0.100:80 - 10.1.0.11:8080 nat
ip NONE            360 10.0.0.0:0 0.0.0.1:0 - 10.1.0.11:0 tun
`;

function filter(message: Partial<ConnectionFilter>): ConnectionFilter {
  return {
    protocol: Protocol.UNSPECIFIED,
    state: ConnectionState.UNSPECIFIED,
    client: "",
    virtual: "",
    real: "",
    local: "",
    method: ForwardingMethod.UNSPECIFIED,
    templates: TemplateSelection.UNSPECIFIED,
    ...message,
  };
}

async function list(message: Partial<ConnectionFilter>, limit?: number): Promise<Connection[]> {
  const all: Connection[] = [];
  for await (const batch of client.listConnections(filter(message), limit)) all.push(...batch);
  return all;
}

/** About 85 bytes a line, and as many in a message. */
function writeMany(count: number): void {
  const line = "tcp ESTABLISHED    899 10.0.0.2:37028 10.0.0.103:80 10.1.0.1:11194 10.1.0.12:8080 fullnat\n";
  writeFileSync(file, TITLES + line.repeat(count));
}

t.test("connections are listed with all that is known of them", async (t) => {
  writeFileSync(file, TEXT);
  const all = await list({});
  t.same(all, [
    {
      protocol: Protocol.TCP,
      state: ConnectionState.ESTABLISHED,
      secondsLeft: 899,
      client: "10.0.0.2:37028",
      virtual: "10.0.0.103:80",
      local: "10.1.0.1:11194",
      real: "10.1.0.12:8080",
      method: ForwardingMethod.FULLNAT,
      template: false,
    },
    {
      protocol: Protocol.UDP,
      state: ConnectionState.UDP,
      secondsLeft: 257,
      client: "10.0.0.20:35137",
      virtual: "10.0.0.101:7000",
      local: "",
      real: "10.1.0.12:7000",
      method: ForwardingMethod.DR,
      template: false,
    },
    {
      protocol: Protocol.TCP,
      state: ConnectionState.SYN_RECV,
      secondsLeft: 0,
      client: "10.0.0.2:1",
      virtual: "10.0.0.100:80",
      local: "",
      real: "10.1.0.11:8080",
      method: ForwardingMethod.NAT,
      template: false,
    },
    {
      protocol: Protocol.TCP,
      state: ConnectionState.ASSURED,
      secondsLeft: 2678400,
      client: "10.0.0.0:0",
      virtual: "10.0.0.100:80",
      local: "",
      real: "10.1.0.11:8080",
      method: ForwardingMethod.NAT,
      template: true,
    },
    {
      protocol: Protocol.UNSPECIFIED,
      state: ConnectionState.NONE,
      secondsLeft: 360,
      client: "10.0.0.0:0",
      virtual: "0.0.0.1:0",
      local: "",
      real: "10.1.0.11:0",
      method: ForwardingMethod.TUN,
      template: true,
    },
  ]);
  t.equal(await client.countConnections(filter({})), 5n);

  const rows: [Partial<ConnectionFilter>, number[]][] = [
    [{ protocol: Protocol.TCP }, [0, 2, 3]],
    [{ state: ConnectionState.SYN_RECV }, [2]],
    [{ client: "10.0.0.2" }, [0, 2]],
    [{ virtual: "tcp:10.0.0.100:80" }, [2, 3]],
    [{ virtual: "fwmark:1" }, [4]],
    [{ real: "10.1.0.12" }, [0, 1]],
    [{ local: "10.1.0.1:11194" }, [0]],
    [{ method: ForwardingMethod.NAT }, [2, 3]],
    [{ templates: TemplateSelection.ONLY }, [3, 4]],
    [{ templates: TemplateSelection.EXCLUDE }, [0, 1, 2]],
    [{ client: "10.9.0.0/16" }, []],
  ];
  for (const [message, places] of rows) {
    const expected = places.map((place) => all[place]);
    t.same(await list(message), expected, JSON.stringify(message));
    t.equal(await client.countConnections(filter(message)), BigInt(expected.length));
  }
  t.same(await list({ protocol: Protocol.TCP }, 2), [all[0], all[2]]);
  t.same(await list({}, 100), all);

  const stub = new ConnectionServiceClient(`unix:${socket}`, credentials.createInsecure());
  t.teardown(() => stub.close());
  let connections = 0;
  for await (const response of stub.listConnections({ limit: 0 }) as AsyncIterable<ListConnectionsResponse>) {
    connections += response.connections.length;
  }
  t.equal(connections, 5, "a request without a filter selects everything");
});

t.test("messages are those that generated code would make, for every state and any length of addresses", async (t) => {
  const longest = "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff:65535"; // as the listing will have IPv6
  const lines = CONNECTION_STATES.flatMap((state, i) => [
    `tcp ${state.padEnd(11)} ${i} 10.0.0.2:0 10.0.0.103:80 10.1.0.1:1 10.1.0.12:8080 fullnat\n`,
    `sctp ${state.padEnd(11)} ${2 ** (i % 31)} ${longest} ${longest} ${longest} ${longest} dr\n`,
  ]);
  writeFileSync(file, TITLES + lines.join(""));
  const encoder = new ConnectionEncoder();
  let added = 0;
  const everything = { client: undefined, virtual: undefined, real: undefined, local: undefined, method: undefined };
  for await (const piece of readConnections(file, {
    ...everything,
    protocol: undefined,
    state: undefined,
    templates: "include",
  })) {
    while (piece.next()) {
      encoder.add(piece);
      added++;
    }
  }
  const message = encoder.take();
  t.ok(encoder.isEmpty);
  const decoded = ListConnectionsResponse.decode(message);
  t.equal(decoded.connections.length, added);
  t.equal(added, lines.length);
  t.same(Buffer.from(ListConnectionsResponse.encode(decoded).finish()), message);
  for (const [i, { state, template }] of decoded.connections.entries()) {
    t.not(state, ConnectionState.UNSPECIFIED);
    const isTemplate = i % 2 === 0 && (state === ConnectionState.NONE || state === ConnectionState.ASSURED);
    t.equal(template, isTemplate, state);
  }
});

t.test("a filter or limit that is not understood is refused with every violation", async (t) => {
  const refusal = async (call: Promise<unknown>): Promise<ApiError> => {
    try {
      await call;
    } catch (error) {
      if (error instanceof ApiError) return error;
      throw error;
    }
    throw new Error("it was not refused");
  };
  const bad = { client: "10.0.0.0/40", real: "x", virtual: "udp:10.0.0.1:53", protocol: Protocol.TCP };
  const violations = [
    { code: "PROTOCOL_CONTRADICTED", field: "filter.protocol" },
    { code: "NETWORK_MALFORMED", field: "filter.client" },
    { code: "ENDPOINT_MALFORMED", field: "filter.real" },
  ];
  t.match(await refusal(list(bad, -1)), {
    status: status.INVALID_ARGUMENT,
    violations: [...violations, { code: "LISTING_LIMIT_NEGATIVE", field: "limit" }],
  });
  t.match(await refusal(client.countConnections(filter(bad))), { status: status.INVALID_ARGUMENT, violations });
  const unknown = { state: ConnectionState.UNRECOGNIZED };
  t.match(await refusal(list(unknown)), { violations: [{ code: "UNKNOWN_STATE", field: "filter.state" }] });

  dataPlane.connectionsFile = join(folder, "none");
  for (const call of [list({}), client.countConnections(filter({}))]) {
    t.match(await refusal(call), { code: "PINS_DAMAGED", status: status.INTERNAL, message: /cannot be read/ });
  }
  dataPlane.connectionsFile = file;
  const nobody = new ApiClient(join(folder, "nobody.sock"));
  t.match(await refusal(nobody.listConnections(filter({})).next()), { code: "DAEMON_UNREACHABLE" });
  nobody.close();
});

t.test("many connections come in many messages, none above what clients take by default", async (t) => {
  const count = 50_000;
  writeMany(count);
  const stub = new ConnectionServiceClient(`unix:${socket}`, credentials.createInsecure());
  t.teardown(() => stub.close());
  const sizes: number[] = [];
  for await (const response of stub.listConnections({ limit: 0 }) as AsyncIterable<ListConnectionsResponse>) {
    sizes.push(response.connections.length);
  }
  t.equal(
    sizes.reduce((sum, size) => sum + size, 0),
    count,
  );
  t.ok(sizes.length > 10, `${sizes.length} messages`);
});

t.test("a client that takes no more stops the reading, and one that goes away ends it", async (t) => {
  const count = 400_000;
  writeMany(count);
  const piecesInAll = 600;
  dataPlane.pieces = 0;
  dataPlane.ended = 0;
  const call = client.listConnections(filter({}));
  const first = await call.next();
  t.ok((first.value?.length ?? 0) > 1000);
  await sleep(300);
  const halted = dataPlane.pieces;
  t.ok(halted < piecesInAll / 2, `${halted} pieces were read`);
  await sleep(100);
  t.equal(dataPlane.pieces, halted, "none meanwhile");
  t.equal((await call.next()).done, false);
  t.equal(dataPlane.ended, 0);
  await call.return(undefined);
  for (let i = 0; i < 100 && dataPlane.ended === 0; i++) await sleep(20);
  t.equal(dataPlane.ended, 1, "the reading has ended");
  t.ok(dataPlane.pieces < piecesInAll / 2, `${dataPlane.pieces} pieces were read`);

  dataPlane.pieces = 0;
  t.equal((await list({}, 1)).length, 1);
  t.equal(dataPlane.pieces, 1, "no more is read than a limit asks for");
});
