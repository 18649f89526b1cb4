/**
 * `make demo`: real HTTP and UDP traffic balanced over three real servers by each forwarding method, in network namespaces
 * that are gone afterwards. Exit status 0 only if everything it claims held.
 */
import { fileURLToPath } from "node:url";
import { readConfiguration } from "../../src/config/configuration.js";
import { serviceName, type VirtualService } from "../../src/model/index.js";
import { contentSha256 } from "../network/content.js";
import { Director } from "../network/director.js";
import { Laboratory } from "../network/namespace.js";
import { run } from "../network/program.js";
import { realServerStatus, realServerUp, startEchoServer, startHttpServer } from "../network/servers.js";
import { buildTopology, type Topology } from "../network/topology.js";
import { Download, echoSpread, httpSpread, inProportion, type Spread, show } from "../network/traffic.js";
import { Report } from "./report.js";

const CONFIGURATION = fileURLToPath(new URL("../../../examples/demo.yaml", import.meta.url));

const MEGABYTE = 1_000_000;
const DOWNLOAD_BYTES = 100 * MEGABYTE;
/** Connections of each table, a multiple of the weights' sum. */
const CONNECTIONS = 60;

const PICTURE = `
             front                                             back
client ────────┬─────────┬──── c0  director  r0 ────┬──────┬─────┬──── real1  10.1.0.11
10.0.0.2       │         │ 10.0.0.1      10.1.0.1   │      │     ├──── real2  10.1.0.12
            (switch)     │ VIPs 10.0.0.100-104      │   (switch) └──── real3  10.1.0.13
                         │                          │
                         └───────── router ─────────┘
                             replies of dr and tun
`;

/** What happens to a packet, by method. */
const WAYS = {
  nat: "The director rewrites the destination to the real server and port, and the source of the replies, which come back through it.",
  dr: "The director changes the destination MAC address alone. The real server has the VIP itself and answers the client by way of the router.",
  tun: "The director wraps the packet into one to the real server (IPIP). The real server unwraps it and answers by way of the router.",
  fullnat:
    "The director rewrites source and destination: the real server sees a port of 10.1.0.1 and needs no route back to the client.",
} as const;
type Method = keyof typeof WAYS;

const report = new Report();

async function main(): Promise<void> {
  using laboratory = new Laboratory("demo");
  const { desired } = await readConfiguration(CONFIGURATION);
  const vips = [...new Set(desired.services.flatMap(({ address }) => address ?? []))];

  report.heading("A network of its own");
  report.say(
    "Every host is a network namespace of this machine, every wire a veth pair. The real servers' default gateway is the " +
      "director; what they send from a VIP goes by the router and passes the director by, as in a real dr or tun network.",
  );
  report.verbatim(PICTURE);
  const topology = await buildTopology(laboratory, vips);

  report.heading("The real servers");
  report.say(
    "Each runs an HTTP server and a UDP server that answer by their host's name. For dr and tun it also needs the VIPs, on an " +
      "interface that does no ARP, and for tun something that unwraps: this kernel has no ipip module, so an XDP program does.",
  );
  await serve(laboratory, topology, desired.services);

  report.heading("The director");
  const director = new Director(laboratory, topology.director);
  report.command(`sluice run --config examples/demo.yaml --instance ${director.instance}`);
  await director.start(CONFIGURATION);
  report.say(`${desired.services.length} virtual services from examples/demo.yaml are balanced by XDP on c0 and r0.`);

  for (const method of Object.keys(WAYS) as Method[]) await balance(topology, method, desired.services);
  await mix(topology, desired.services);
  await changeWeight(director, topology, desired.services);
  await drain(director, topology, desired.services);
  await survive(director, topology, desired.services);
  await look(laboratory, director, topology);

  report.heading("The end");
  report.command("sluice unload");
  await director.stop();
  report.verbatim(await director.sluice("unload"));
  const after = await httpSpread(topology.client, "http://10.0.0.100", 1);
  report.check("after unload the director balances nothing", after.get("failed") === 1);
}

/** The real servers' programs, and what dr and tun need. */
async function serve(laboratory: Laboratory, topology: Topology, services: readonly VirtualService[]): Promise<void> {
  const vipsOf = (method: "dr" | "tun"): string[] => [
    ...new Set(
      services
        .filter(({ realServers }) => realServers.some((real) => real.method === method))
        .flatMap(({ address }) => address ?? []),
    ),
  ];
  await Promise.all(
    topology.reals.map(async (real) => {
      const outputs = [];
      for (const method of ["dr", "tun"] as const) {
        const virtualAddresses = vipsOf(method);
        outputs.push({
          method,
          virtualAddresses,
          output: await realServerUp(laboratory, real, { method, virtualAddresses }),
        });
      }
      if (real === topology.reals[0]) {
        for (const { method, virtualAddresses, output } of outputs) {
          report.command(
            `sluice real-server up --method ${method} --vip ${virtualAddresses.join(",")}      # on ${real.host.role}`,
          );
          report.verbatim(output);
        }
      }
      const ports = services.flatMap(({ protocol, realServers }) =>
        protocol === "tcp" ? realServers.map(({ port }) => port) : [],
      );
      const endpoints = services
        .filter(({ protocol }) => protocol === "udp")
        .flatMap(({ address, realServers }) =>
          realServers
            .filter((server) => server.address === real.address)
            // A UDP server must bind the address that it is to answer from.
            .map(({ method, port }) => `${method === "dr" || method === "tun" ? address : real.address}:${port}`),
        );
      await startHttpServer(real.host, [...new Set(ports)]);
      await startEchoServer(real.host, [...new Set(endpoints)]);
    }),
  );
}

/** One method: connections and datagrams by weight, and three large downloads. */
async function balance({ client }: Topology, method: Method, services: readonly VirtualService[]): Promise<void> {
  const http = serviceOf(services, method, "tcp", "wrr");
  const udp = serviceOf(services, method, "udp", "wrr");
  const turns = serviceOf(services, method, "tcp", "rr");
  const weights = weightsOf(http);

  report.heading(`${method}  ${http.address}`);
  report.say(WAYS[method]);
  const byHttp = await httpSpread(client, `http://${http.address}`, CONNECTIONS);
  const byUdp = await echoSpread(client, `${udp.address}:${udp.port}`, CONNECTIONS);
  showSpreads(http, { "HTTP connections": byHttp, "UDP datagrams": byUdp });
  report.check(
    `${CONNECTIONS} HTTP connections went by the weights ${weights.join(":")}`,
    inProportion(byHttp, weights),
  );
  report.check(
    `${CONNECTIONS} UDP datagrams, each from its own port, went by the weights`,
    inProportion(byUdp, weightsOf(udp)),
  );

  const expected = contentSha256(DOWNLOAD_BYTES);
  const downloads = [];
  for (const _ of turns.realServers) {
    downloads.push(await new Download(client, `http://${turns.address}:${turns.port}`, DOWNLOAD_BYTES).ended);
  }
  report.table(
    ["download from", "MB", "MB/s", "sha256"],
    downloads.map(({ realServer, bytes, seconds, sha256 }) => [
      realServer,
      bytes / MEGABYTE,
      Math.round(bytes / MEGABYTE / seconds),
      short(sha256),
    ]),
  );
  report.check(
    `a download of 100 MB from each, in turn (rr), has the right sha256, ${short(expected)}`,
    new Set(downloads.map(({ realServer }) => realServer)).size === turns.realServers.length &&
      downloads.every(({ sha256 }) => sha256 === expected),
  );
}

async function mix({ client }: Topology, services: readonly VirtualService[]): Promise<void> {
  const service = services.find(({ realServers }) => new Set(realServers.map(({ method }) => method)).size > 1);
  if (service === undefined) throw new Error("no service of the configuration mixes methods");
  report.heading(`Mixed  ${service.address}`);
  report.say(
    "The method belongs to the real server, not to the service: this one has a real server each by nat, dr and tun.",
  );
  const spread = await httpSpread(client, `http://${service.address}`, CONNECTIONS);
  report.table(
    ["real server", "method", "weight", "HTTP connections"],
    service.realServers.map((real) => [
      nameOf(real.address),
      real.method,
      real.weight,
      spread.get(nameOf(real.address)) ?? 0,
    ]),
  );
  report.check("each method served its part", inProportion(spread, weightsOf(service)));
}

async function changeWeight(
  director: Director,
  { client }: Topology,
  services: readonly VirtualService[],
): Promise<void> {
  report.heading("A weight changes");
  report.say("The command line is a client of the daemon's gRPC API. The change is in force when the call returns.");
  const service = serviceOf(services, "nat", "tcp", "wrr");
  const real = service.realServers[2];
  if (real === undefined) throw new Error("too few real servers");
  await setWeight(director, service, real, 5);
  const spread = await httpSpread(client, `http://${service.address}`, CONNECTIONS);
  showSpreads(
    { ...service, realServers: service.realServers.map((other) => (other === real ? { ...other, weight: 5 } : other)) },
    { "HTTP connections": spread },
  );
  report.check("new connections go by 3:2:5", inProportion(spread, [3, 2, 5]));
  await setWeight(director, service, real, real.weight);
}

async function drain(director: Director, { client }: Topology, services: readonly VirtualService[]): Promise<void> {
  report.heading("A real server is drained");
  report.say("With weight 0 a real server gets no new connection, and those it has go on to their end.");
  const service = serviceOf(services, "fullnat", "tcp", "wrr");
  const [real] = service.realServers;
  if (real === undefined) throw new Error("too few real servers");
  const bytes = 24 * MEGABYTE;
  const downloads = Array.from(
    { length: 6 },
    () => new Download(client, `http://${service.address}`, bytes, { rate: 6 * MEGABYTE }),
  );
  await Promise.all(downloads.map(async (download) => await received(download, MEGABYTE)));
  report.command(`sluice real drain ${serviceName(service)} ${real.address}:${real.port}`);
  await director.sluice("real", "drain", serviceName(service), `${real.address}:${real.port}`);
  const spread = await httpSpread(client, `http://${service.address}`, CONNECTIONS);
  const stillRunning = downloads.filter((download) => download.received < bytes).length;
  report.say(`New connections while ${stillRunning} of six downloads begun before are still running: ${show(spread)}.`);
  report.check(
    "none of the new connections went to real1, while it served on",
    inProportion(spread, [0, 2, 1]) && stillRunning > 0,
  );
  const ended = await Promise.all(downloads.map(async (download) => await download.ended));
  const from = ended.filter(({ realServer }) => realServer === nameOf(real.address)).length;
  report.check(
    `all six downloads ended intact, ${from} of them from real1`,
    from > 0 && ended.every(({ sha256 }) => sha256 === contentSha256(bytes)),
  );
  await setWeight(director, service, real, real.weight);
}

async function survive(director: Director, { client }: Topology, services: readonly VirtualService[]): Promise<void> {
  report.heading("The daemon is killed");
  report.say(
    "The data plane is pinned in the BPF file system and forwards by itself. A download of 100 MB by each method is under way " +
      "when the daemon gets kill -9.",
  );
  const methods = Object.keys(WAYS) as Method[];
  const downloads = methods.map((method) => {
    const { address } = serviceOf(services, method, "tcp", "wrr");
    return new Download(client, `http://${address}`, DOWNLOAD_BYTES, { rate: 25 * MEGABYTE });
  });
  await Promise.all(downloads.map(async (download) => await received(download, 10 * MEGABYTE)));
  report.command(`kill -9 ${director.pid ?? ""}`);
  await director.kill();
  const atKill = downloads.map((download) => download.received);
  const without = await httpSpread(client, `http://${serviceOf(services, "dr", "tcp", "wrr").address}`, CONNECTIONS);
  report.check(
    `without a daemon ${CONNECTIONS} new connections were balanced: ${show(without)}`,
    inProportion(without, weightsOf(serviceOf(services, "dr", "tcp", "wrr"))),
  );

  report.command("sluice run --config examples/demo.yaml      # adopts what is pinned");
  await director.start(CONFIGURATION);
  const atRestart = downloads.map((download) => download.received);
  const ended = await Promise.all(downloads.map(async (download) => await download.ended));
  report.table(
    ["method", "from", "MB at kill -9", "MB at restart", "MB at the end", "sha256"],
    ended.map(({ realServer, bytes, sha256 }, i) => [
      methods[i] ?? "",
      realServer,
      Math.round((atKill[i] ?? 0) / MEGABYTE),
      Math.round((atRestart[i] ?? 0) / MEGABYTE),
      bytes / MEGABYTE,
      short(sha256),
    ]),
  );
  report.check(
    "all downloads were in the middle when the daemon was killed",
    atKill.every((bytes) => bytes < DOWNLOAD_BYTES / 2),
  );
  report.check(
    "all downloads ended intact",
    ended.every(({ sha256 }) => sha256 === contentSha256(DOWNLOAD_BYTES)),
  );
}

/** What operators see. */
async function look(laboratory: Laboratory, director: Director, { reals }: Topology): Promise<void> {
  report.heading("Looking inside");
  const service = "tcp:10.0.0.100:80";
  report.command(`sluice stats ${service}`);
  report.verbatim(await director.sluice("stats", service));
  const pins = `/sys/fs/bpf/${director.instance}`;
  report.command(`cat ${pins}/connections | head -5`);
  report.verbatim(firstLines(await run(["cat", `${pins}/connections`]), 5));
  report.command(`bpftool map dump pinned ${pins}/maps/services | head -15`);
  report.verbatim(firstLines(await run(["bpftool", "map", "dump", "pinned", `${pins}/maps/services`]), 15));
  const [real] = reals;
  if (real === undefined) throw new Error("no real server");
  report.command(`sluice real-server status      # on ${real.host.role}`);
  report.verbatim(await realServerStatus(laboratory, real, "tun"));
}

function firstLines(text: string, count: number): string {
  return text.split("\n").slice(0, count).join("\n");
}

async function setWeight(
  director: Director,
  service: VirtualService,
  real: VirtualService["realServers"][number],
  weight: number,
): Promise<void> {
  report.command(`sluice real update ${serviceName(service)} ${real.address}:${real.port} --weight ${weight}`);
  await director.setWeight(serviceName(service), `${real.address}:${real.port}`, weight);
}

/** The real servers with their weights, what these say, and what went where. */
function showSpreads(service: VirtualService, spreads: Readonly<Record<string, Spread>>): void {
  const total = weightsOf(service).reduce((sum, weight) => sum + weight, 0);
  report.table(
    ["real server", "weight", "the weights say", ...Object.keys(spreads)],
    service.realServers.map(({ address, weight }) => [
      nameOf(address),
      weight,
      (CONNECTIONS * weight) / total,
      ...Object.values(spreads).map((spread) => spread.get(nameOf(address)) ?? 0),
    ]),
  );
  for (const [what, spread] of Object.entries(spreads)) {
    for (const trouble of ["failed", "lost", "damaged"]) {
      const count = spread.get(trouble);
      if (count !== undefined) report.say(`${what}: ${count} ${trouble}`);
    }
  }
}

async function received(download: Download, bytes: number): Promise<void> {
  while (download.received < bytes) {
    // A download that fails ends the waiting; its error is met where its end is awaited.
    await Promise.race([new Promise((resolve) => setTimeout(resolve, 10)), download.ended]);
  }
}

/** The service of this kind that has all its real servers by one method. */
function serviceOf(
  services: readonly VirtualService[],
  method: Method,
  protocol: "tcp" | "udp",
  scheduler: "wrr" | "rr",
): VirtualService {
  const service = services.find(
    (candidate) =>
      candidate.protocol === protocol &&
      candidate.scheduler === scheduler &&
      candidate.realServers.every((real) => real.method === method),
  );
  if (service === undefined)
    throw new Error(`${CONFIGURATION} has no ${protocol} service by ${method} and ${scheduler}`);
  return service;
}

function short(sha256: string): string {
  return `${sha256.slice(0, 24)}…`;
}

function weightsOf(service: VirtualService): number[] {
  return service.realServers.map(({ weight }) => weight);
}

/** The topology numbers addresses and names alike. */
function nameOf(address: string): string {
  return `real${address.at(-1) ?? ""}`;
}

try {
  await main();
} catch (error) {
  report.check("the demo came to its end", false);
  report.verbatim(error instanceof Error ? error.message : String(error));
}
process.exitCode = report.conclude() ? 0 : 1;
