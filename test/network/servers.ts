/** What runs on the real servers. */
import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { sluice } from "./director.js";
import type { Laboratory, Namespace } from "./namespace.js";
import type { RealHost } from "./topology.js";

const HTTP_SERVER = fileURLToPath(new URL("http-server.js", import.meta.url));
const ECHO_SERVER = fileURLToPath(new URL("echo-server.js", import.meta.url));

/** An HTTP server on these ports of all addresses. */
export async function startHttpServer(host: Namespace, ports: readonly number[]): Promise<void> {
  const server = host.start([process.execPath, HTTP_SERVER, host.role, ...ports.map(String)]);
  for (const port of ports) await server.waitForOutput(new RegExp(`^listening on ${port}$`, "m"));
}

/** A UDP server on these ADDRESS:PORT. */
export async function startEchoServer(host: Namespace, endpoints: readonly string[]): Promise<void> {
  const server = host.start([process.execPath, ECHO_SERVER, host.role, ...endpoints]);
  for (const endpoint of endpoints) await server.waitForOutput(new RegExp(`^listening on ${endpoint}$`, "m"));
}

/** A DNS server on these addresses. It answers who.test (TXT) by the host's name, and many.test (A) by 200 addresses. */
export async function startDnsServer(
  laboratory: Laboratory,
  host: Namespace,
  addresses: readonly string[],
): Promise<void> {
  const file = join(laboratory.folder, `dnsmasq-${host.role}.conf`);
  const many = Array.from({ length: 200 }, (_, i) => `host-record=many.test,192.0.2.${i}`);
  const settings = [
    "no-resolv",
    "no-hosts",
    "bind-interfaces",
    "user=root",
    "pid-file",
    `txt-record=who.test,${host.role}`,
    ...many,
    ...addresses.map((address) => `listen-address=${address}`),
  ];
  await writeFile(file, `${settings.join("\n")}\n`);
  const server = host.start(["dnsmasq", "--no-daemon", `--conf-file=${file}`]);
  await server.waitForOutput(/started, version/);
}

export interface RealServerUp {
  readonly method: "dr" | "tun";
  readonly virtualAddresses: readonly string[];
  /** Left out: the command's default. */
  readonly mode?: "native" | "generic";
}

/** `sluice real-server up` on a host, under an instance that goes with the laboratory. Returns what it printed. */
export async function realServerUp(
  laboratory: Laboratory,
  { host }: RealHost,
  { method, virtualAddresses, mode }: RealServerUp,
): Promise<string> {
  const instance = realServerInstance(laboratory, host, method);
  const options = ["--vip", virtualAddresses.join(","), "--method", method, "--instance", instance];
  if (mode !== undefined) options.push("--mode", mode);
  return await host.run(sluice("real-server", "up", ...options));
}

/** What `sluice real-server status` prints of it. */
export async function realServerStatus(
  laboratory: Laboratory,
  { host }: RealHost,
  method: "dr" | "tun",
): Promise<string> {
  return await host.run(sluice("real-server", "status", "--instance", realServerInstance(laboratory, host, method)));
}

function realServerInstance(laboratory: Laboratory, host: Namespace, method: "dr" | "tun"): string {
  return laboratory.instance(`${host.role}-${method}`);
}
