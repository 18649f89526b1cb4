/** What the wire tests have in common: the laboratory, the services they balance, and the servers behind them. */
import type { Test } from "tap";
import { Director } from "../network/director.js";
import { Laboratory } from "../network/namespace.js";
import { realServerUp, startDnsServer, startEchoServer, startHttpServer } from "../network/servers.js";
import { buildTopology, DIRECTOR_BACK, type RealHost, type Topology } from "../network/topology.js";

export const METHODS = ["nat", "dr", "tun", "fullnat"] as const;
export type Method = (typeof METHODS)[number];

export const VIP: Readonly<Record<Method, string>> = {
  nat: "10.0.0.100",
  dr: "10.0.0.101",
  tun: "10.0.0.102",
  fullnat: "10.0.0.103",
};
/** Its services mix the methods. */
export const MIXED_VIP = "10.0.0.104";

/** Of real1, real2 and real3. */
export const WEIGHTS = [3, 2, 1] as const;

export const HTTP_PORT = 80;
/** Where nat and fullnat map the HTTP port to. */
export const MAPPED_HTTP_PORT = 8080;
/** The same again, as another real server on the same host. */
export const SECOND_MAPPED_HTTP_PORT = 8081;
export const ECHO_PORT = 7000;
export const MAPPED_ECHO_PORT = 7777;
export const IPERF_PORT = 5201;
export const DNS_PORT = 53;

/** One service of a configuration, as YAML in flow style, which JSON is. */
export interface ServiceYaml {
  readonly protocol: "tcp" | "udp";
  readonly address: string;
  readonly port: number;
  readonly scheduler: string;
  readonly real_servers: readonly {
    readonly address: string;
    readonly port?: number;
    readonly method: Method;
    readonly weight?: number;
  }[];
}

export function configuration(
  services: readonly ServiceYaml[],
  {
    interfaces = ["c0", "r0"],
    localAddress = DIRECTOR_BACK,
  }: { interfaces?: readonly unknown[]; localAddress?: string } = {},
): string {
  return [
    `interfaces: ${JSON.stringify(interfaces)}`,
    "limits: {connections: 65536, services: 256, real_servers: 1024, ring_slots: 65536}",
    `fullnat: {local_addresses: [${localAddress}], local_ports: 1024-32767}`,
    "services:",
    ...services.map((service) => `  - ${JSON.stringify(service)}`),
    "",
  ].join("\n");
}

export function mapsPorts(method: Method): boolean {
  return method === "nat" || method === "fullnat";
}

/** A service of a method on all three real servers with the WEIGHTS; `mapped` is RPORT where the method maps ports. */
export function weighted(
  topology: Topology,
  method: Method,
  protocol: "tcp" | "udp",
  port: number,
  mapped: number,
): ServiceYaml {
  return {
    protocol,
    address: VIP[method],
    port,
    scheduler: "wrr",
    real_servers: topology.reals.map(({ address }, i) => ({
      address,
      port: mapsPorts(method) ? mapped : port,
      method,
      weight: WEIGHTS[i] ?? 1,
    })),
  };
}

/** The services that most tests use: HTTP and UDP echo by each method. */
export function standardServices(topology: Topology): ServiceYaml[] {
  return METHODS.flatMap((method) => [
    weighted(topology, method, "tcp", HTTP_PORT, MAPPED_HTTP_PORT),
    weighted(topology, method, "udp", ECHO_PORT, MAPPED_ECHO_PORT),
  ]);
}

/** What a test file runs in. It goes when the test does. */
export interface Setup {
  readonly laboratory: Laboratory;
  readonly topology: Topology;
  readonly director: Director;
}

/** The topology with its real servers set up for dr and tun and their servers running; the daemon not yet started. */
export async function setUp(t: Test): Promise<Setup> {
  const laboratory = new Laboratory("test");
  t.teardown(() => {
    laboratory.remove();
  });
  const topology = await buildTopology(laboratory, [...Object.values(VIP), MIXED_VIP]);
  // Each way for the decapsulation program to be attached is somewhere: native, generic, and the choice left to the command.
  const modes = ["native", "generic", undefined] as const;
  await Promise.all(topology.reals.map(async (real, i) => await serve(laboratory, real, modes[i])));
  return { laboratory, topology, director: new Director(laboratory, topology.director) };
}

async function serve(laboratory: Laboratory, real: RealHost, mode: "native" | "generic" | undefined): Promise<void> {
  await realServerUp(laboratory, real, { method: "dr", virtualAddresses: [VIP.dr, MIXED_VIP] });
  await realServerUp(laboratory, real, {
    method: "tun",
    virtualAddresses: [VIP.tun, MIXED_VIP],
    ...(mode !== undefined && { mode }),
  });
  const { host, address } = real;
  const own = [VIP.dr, VIP.tun, MIXED_VIP];
  await Promise.all([
    startHttpServer(host, [HTTP_PORT, MAPPED_HTTP_PORT, SECOND_MAPPED_HTTP_PORT]),
    startEchoServer(host, [`${address}:${MAPPED_ECHO_PORT}`, ...own.map((vip) => `${vip}:${ECHO_PORT}`)]),
    startDnsServer(laboratory, host, [address, ...own]),
  ]);
}
