/** Listing connections of a running daemon while traffic goes on: each filter selects exactly what the hosts' own sockets say. */
import { readFile } from "node:fs/promises";
import { setTimeout } from "node:timers/promises";
import { test } from "tap";
import {
  ApiClient,
  type Connection,
  type ConnectionFilter,
  ConnectionState,
  ForwardingMethod,
  Protocol,
  TemplateSelection,
} from "../../src/api/client.js";
import type { Namespace } from "../network/namespace.js";
import { eventually } from "../network/program.js";
import { CLIENT, DIRECTOR_BACK, type Topology } from "../network/topology.js";
import { Download, echoSpread, httpGet, httpSpread, lines } from "../network/traffic.js";
import {
  configuration,
  ECHO_PORT,
  HTTP_PORT,
  MAPPED_HTTP_PORT,
  MIXED_VIP,
  setUp,
  standardServices,
  VIP,
} from "./setup.js";

/** Their connections stay; dr's VIP has others that come and go. */
const LASTING = ["nat", "tun", "fullnat"] as const;
const DOWNLOADS_EACH = 4;
/** At this rate none ends before the test does. */
const RATE = 200_000;
const BYTES = 60 * RATE;

const METHOD_MESSAGES = {
  nat: ForwardingMethod.NAT,
  tun: ForwardingMethod.TUN,
  fullnat: ForwardingMethod.FULLNAT,
} as const;

const EVERYTHING: ConnectionFilter = {
  protocol: Protocol.UNSPECIFIED,
  state: ConnectionState.UNSPECIFIED,
  client: "",
  virtual: "",
  real: "",
  local: "",
  method: ForwardingMethod.UNSPECIFIED,
  templates: TemplateSelection.UNSPECIFIED,
};

/** A host's own view of its established TCP connections: the addresses and ports of both ends. */
async function sockets(host: Namespace, near: string): Promise<{ own: string; peer: string }[]> {
  const output = await host.run(["ss", "-Hnt", "state", "established", "src", near]);
  return lines(output).map((line) => {
    const [, , own = "", peer = ""] = line.trim().split(/\s+/);
    return { own: own.replace("[::ffff:", "").replace("]", ""), peer: peer.replace("[::ffff:", "").replace("]", "") };
  });
}

/** The mark of what goes to MIXED_VIP:8080; as four bytes 0.0.1.2. */
const MARK = 258;

/** YAML that goes behind the last service's: one that keeps clients by their network, and one of a mark that keeps them by address. */
function persistentServices({ reals }: Topology): string {
  const realServers = reals.map(({ address }) => ({ address, port: MAPPED_HTTP_PORT, method: "nat" }));
  const common = { scheduler: "rr", real_servers: realServers };
  const byNetwork = { timeout: "360s", netmask: "255.255.255.0" };
  const services = [
    { protocol: "tcp", address: MIXED_VIP, port: HTTP_PORT, persistence: byNetwork, ...common },
    { fwmark: MARK, persistence: { timeout: "600s" }, ...common },
  ];
  const marks = [{ mark: MARK, protocol: "tcp", destination: MIXED_VIP, destination_ports: MAPPED_HTTP_PORT }];
  return `${services.map((service) => `  - ${JSON.stringify(service)}\n`).join("")}marks: ${JSON.stringify(marks)}\n`;
}

test("connections are listed while traffic goes on", async (t) => {
  const { topology, director } = await setUp(t);
  const { client: host, reals } = topology;
  await director.startWith(configuration(standardServices(topology)) + persistentServices(topology));
  const api = new ApiClient(`/run/sluice/${director.instance}.sock`);
  t.teardown(() => api.close());

  const list = async (filter: Partial<ConnectionFilter>): Promise<Connection[]> => {
    const all: Connection[] = [];
    for await (const batch of api.listConnections({ ...EVERYTHING, ...filter })) all.push(...batch);
    return all;
  };
  const clientsOf = async (filter: Partial<ConnectionFilter>): Promise<string[]> =>
    (await list(filter)).map(({ client }) => client).sort();

  const downloads = LASTING.flatMap((method) =>
    Array.from({ length: DOWNLOADS_EACH }, () => new Download(host, `http://${VIP[method]}`, BYTES, { rate: RATE })),
  );
  const running = (async () => await Promise.race(downloads.map(async ({ ended }) => await ended)))();
  await Promise.race([
    eventually("all downloads have begun", async () =>
      downloads.every(({ received }) => received > 0) ? 1 : undefined,
    ),
    running.then(() => {
      throw new Error("a download has ended");
    }),
  ]);
  const before = downloads.map(({ received }) => received);

  const stop = new AbortController();
  const passing = (async () => {
    while (!stop.signal.aborted) {
      await httpSpread(host, `http://${VIP.dr}`, 20);
      await echoSpread(host, `${VIP.dr}:${ECHO_PORT}`, 5);
    }
  })();
  t.teardown(async () => {
    stop.abort();
    await passing;
  });
  await eventually("other connections come and go", async () =>
    (await list({ virtual: VIP.dr })).length > 40 ? 1 : undefined,
  );

  const open = await sockets(host, CLIENT);
  const lasting = (method: keyof typeof METHOD_MESSAGES): string[] =>
    open
      .filter(({ peer }) => peer === `${VIP[method]}:${HTTP_PORT}`)
      .map(({ own }) => own)
      .sort();
  const all = LASTING.flatMap(lasting).sort();
  t.equal(all.length, LASTING.length * DOWNLOADS_EACH, "the client's sockets are those of the downloads");

  for (const method of LASTING) {
    const expected = lasting(method);
    const service = `tcp:${VIP[method]}:${HTTP_PORT}`;
    const found = await list({ virtual: service });
    t.same(found.map(({ client }) => client).sort(), expected, `to ${service}`);
    for (const one of found) {
      t.match(one, {
        protocol: Protocol.TCP,
        state: ConnectionState.ESTABLISHED,
        virtual: `${VIP[method]}:${HTTP_PORT}`,
        method: METHOD_MESSAGES[method],
        template: false,
      });
      t.ok(one.secondsLeft > 600 && one.secondsLeft <= 900, `${one.secondsLeft} s of tcp_established are left`);
    }
    t.same(await clientsOf({ method: METHOD_MESSAGES[method], state: ConnectionState.ESTABLISHED }), expected, method);
    t.same(await clientsOf({ virtual: VIP[method] }), expected, `to ${VIP[method]}`);
    t.equal(await api.countConnections({ ...EVERYTHING, virtual: service }), BigInt(expected.length));
    t.same(await clientsOf({ virtual: `udp:${VIP[method]}:${HTTP_PORT}` }), [], "of another protocol");
    t.same(await clientsOf({ virtual: service, state: ConnectionState.CLOSE }), [], "in another state");

    // Each real server has its own, and by its own account the very same ones.
    const port = method === "tun" ? HTTP_PORT : MAPPED_HTTP_PORT;
    const byReal = await Promise.all(
      reals.map(async ({ host: real, address }) => {
        const chosen = await list({ virtual: service, real: `${address}:${port}` });
        const near = method === "tun" ? VIP.tun : address;
        const peers = (await sockets(real, near))
          .filter(({ own }) => own === `${near}:${port}`)
          .map(({ peer }) => peer);
        const seen = chosen.map(({ local, client }) => (method === "fullnat" ? local : client));
        for (const peer of seen) t.ok(peers.includes(peer), `${real.role} has ${peer}`);
        return chosen.map(({ client }) => client);
      }),
    );
    t.same(byReal.flat().sort(), expected, "each has one real server");
    t.ok(byReal.filter((some) => some.length > 0).length > 1, "not the same for all");
  }

  const fullnat = await list({ local: DIRECTOR_BACK });
  t.same(fullnat.map(({ client }) => client).sort(), lasting("fullnat"), "by fullnat's source");
  const [first] = fullnat;
  t.same(await clientsOf({ local: first?.local ?? "" }), [first?.client], "by its source and port");
  t.same(await clientsOf({ client: first?.client ?? "" }), [first?.client], "by client and port");
  const established = { state: ConnectionState.ESTABLISHED, client: "10.0.0.0/30" };
  const busy = await clientsOf(established);
  t.same(
    all.filter((client) => !busy.includes(client)),
    [],
    "every lasting one is among those of its network",
  );
  t.equal(new Set(busy).size, busy.length, "and none is listed twice");
  t.same(await clientsOf({ client: "10.0.0.4/30" }), [], "and none is of the next network");
  t.same(await clientsOf({ templates: TemplateSelection.ONLY }), [], "no persistent service has a client");
  const datagrams = await list({ protocol: Protocol.UDP });
  t.ok(datagrams.length > 0);
  t.ok(datagrams.every(({ state, virtual }) => state === ConnectionState.UDP && virtual === `${VIP.dr}:${ECHO_PORT}`));

  // Persistence: each service leads its client by a template.
  for (const port of [HTTP_PORT, MAPPED_HTTP_PORT]) await httpGet(host, `http://${MIXED_VIP}:${port}`);
  const byNetwork = {
    protocol: Protocol.TCP,
    client: "10.0.0.0:0",
    virtual: `${MIXED_VIP}:${HTTP_PORT}`,
    local: "",
    method: ForwardingMethod.NAT,
    template: true,
  };
  const byMark = { ...byNetwork, protocol: Protocol.UNSPECIFIED, client: `${CLIENT}:0`, virtual: "0.0.1.2:0" };
  const templates = await list({ templates: TemplateSelection.ONLY });
  t.match(
    templates.sort((a, b) => b.virtual.localeCompare(a.virtual)),
    [byNetwork, byMark],
  );
  t.equal(templates.length, 2);
  t.match(await list({ virtual: `fwmark:${MARK}` }), [byMark]);
  for (const port of [HTTP_PORT, MAPPED_HTTP_PORT]) {
    const led = await list({ virtual: `tcp:${MIXED_VIP}:${port}`, templates: TemplateSelection.EXCLUDE });
    t.equal(led.length, 1);
    const template = templates[port === HTTP_PORT ? 0 : 1];
    t.match(led, [{ real: template?.real ?? "", template: false }], "the connection is where its template leads");
  }

  // The command line prints what the file in the BPF file system has.
  const sameButForTime = (text: string): string[] =>
    lines(text)
      .filter((line) => line.includes(` ${VIP.fullnat}:`))
      .map((line) => line.replace(/^(\w+ \w+ +)\d+/, "$1"))
      .sort();
  const printed = await director.sluice("connections", "--service", `tcp:${VIP.fullnat}:${HTTP_PORT}`);
  t.equal(lines(printed).length, 1 + DOWNLOADS_EACH);
  t.same(sameButForTime(printed), sameButForTime(await readFile(`${director.pins}/connections`, "utf8")));
  const counted = await director.sluice("connections", "--method", "nat", "--state", "ESTABLISHED", "--count");
  t.equal(counted, `${DOWNLOADS_EACH}\n`);
  t.equal(lines(await director.sluice("connections", "--limit", "3")).length, 1 + 3);

  await setTimeout(500);
  t.ok(
    downloads.every(({ received }, i) => received > (before[i] ?? 0)),
    "the downloads went on",
  );
  stop.abort();
  await passing;
});
