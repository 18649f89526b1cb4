/**
 * How long a million connections take to be listed: by `cat`, by the API and on the command line, from the daemon that has them. They
 * are real entries of its table, opened by its own program; no traffic runs meanwhile.
 */
import { spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { interfaceIndex, Program } from "libbpf-ts";
import {
  type ApiClient,
  type ConnectionFilter,
  ConnectionState,
  ForwardingMethod,
  Protocol,
  TemplateSelection,
} from "../../src/api/client.js";
import { clientFlows } from "../prelude/flows.js";
import { Prelude } from "../prelude/prelude.js";
import { addInterface, connected, Daemon, deleteInterface } from "./daemon.js";
import { tcpFrame } from "./frames.js";

const CONNECTIONS = 1_000_000;
const ROUNDS = 3;
const VIP = "10.192.0.1";
const VIP_NUMBER = 0x0ac0_0001;
const CLIENT = "198.18.0.1";
const LOCAL_ADDRESSES = Array.from({ length: 8 }, (_, i) => `10.255.0.${101 + i}`);
const REAL_SERVERS = Array.from({ length: 10 }, (_, i) => `10.255.0.${11 + i}`);
const XDP_TX = 3;
const METHODS = ["dr", "fullnat"] as const;

type Method = (typeof METHODS)[number];

export interface ListingResult {
  readonly method: Method;
  readonly connections: number;
  /** Seconds, of each round. */
  readonly seconds: Readonly<Record<"cat" | "api" | "count" | "filtered" | "cli" | "cliCount", readonly number[]>>;
  /** What the daemon computes for one listing over the API, mean. */
  readonly daemonCpuMs: number;
}

/** fullnat has the longest lines and, with the replies' entries, twice as many to go over. */
function yaml(method: Method): string {
  const port = method === "dr" ? 80 : 8080;
  return [
    "interfaces: [bench0]",
    `limits: {connections: ${method === "dr" ? 2 ** 20 : 2 ** 21}}`,
    `fullnat: {local_addresses: [${LOCAL_ADDRESSES.join(", ")}], local_ports: 1024-60999}`,
    // Long enough for half-open ones to live until the last round.
    "timeouts: {tcp_syn_recv: 600s}",
    "services:",
    `  - {protocol: tcp, address: ${VIP}, port: 80, scheduler: rr, real_servers: [`,
    ...REAL_SERVERS.map((address) => `      {address: ${address}, port: ${port}, method: ${method}},`),
    "    ]}",
    "",
  ].join("\n");
}

/** Opens the connections as their clients would; by dr, which sees no replies, they are ESTABLISHED then. */
async function open(pins: string, method: Method): Promise<void> {
  const program = Program.open(path.join(pins, "programs/sluice"));
  const prelude = await Prelude.load(CONNECTIONS, interfaceIndex("bench0"));
  try {
    prelude.setProgram(program);
    const flows = clientFlows(CONNECTIONS, VIP_NUMBER, 80);
    for (const flags of method === "dr" ? ["S", "A"] : ["S"]) {
      prelude.setPackets({ frame: tcpFrame(CLIENT, VIP, 80, flags), flows });
      const { returnValue } = await prelude.run(CONNECTIONS);
      if (returnValue !== XDP_TX) throw new Error(`${flags} got the verdict ${returnValue}`);
    }
  } finally {
    prelude.close();
    program.close();
  }
}

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

async function list(client: ApiClient, filter: ConnectionFilter): Promise<number> {
  let count = 0;
  for await (const connections of client.listConnections(filter)) count += connections.length;
  return count;
}

/** Seconds until the program has ended, its output thrown away. */
async function run(command: string, ...args: readonly string[]): Promise<number> {
  const start = performance.now();
  const child = spawn(command, args, { stdio: ["ignore", "ignore", "inherit"] });
  const [status] = (await once(child, "exit")) as [number | null];
  if (status !== 0) throw new Error(`${command} ${args.join(" ")} ended with ${status}`);
  return (performance.now() - start) / 1000;
}

async function measure(method: Method, main: string, folder: string): Promise<ListingResult> {
  const instance = `bench-${process.pid}`;
  const pins = path.join("/sys/fs/bpf", instance);
  const socket = `/run/sluice/${instance}.sock`;
  const config = path.join(folder, `${method}.yaml`);
  writeFileSync(config, yaml(method));
  const daemon = Daemon.start(main, config, instance, path.join(folder, "sluice.log"));
  try {
    const client = await connected(daemon, socket, (one) => one.countConnections(EVERYTHING));
    await open(pins, method);
    const seconds: Record<keyof ListingResult["seconds"], number[]> = {
      cat: [],
      api: [],
      count: [],
      filtered: [],
      cli: [],
      cliCount: [],
    };
    const timed = async (name: keyof typeof seconds, expected: number, listing: () => Promise<number>) => {
      const start = performance.now();
      const count = await listing();
      seconds[name].push((performance.now() - start) / 1000);
      if (count !== expected) throw new Error(`${name} listed ${count} connections of ${expected}`);
    };
    const perReal = { ...EVERYTHING, real: REAL_SERVERS[0] ?? "" };
    const sluice = [main, "connections", "--instance", instance];
    let daemonCpuMs = 0;
    for (let round = 0; round < ROUNDS; round++) {
      seconds.cat.push(await run("cat", path.join(pins, "connections")));
      const before = daemon.cpuMs();
      await timed("api", CONNECTIONS, () => list(client, EVERYTHING));
      daemonCpuMs += (daemon.cpuMs() - before) / ROUNDS;
      await timed("count", CONNECTIONS, async () => Number(await client.countConnections(EVERYTHING)));
      await timed("filtered", CONNECTIONS / REAL_SERVERS.length, () => list(client, perReal));
      seconds.cli.push(await run(process.execPath, ...sluice));
      seconds.cliCount.push(await run(process.execPath, ...sluice, "--count"));
    }
    client.close();
    return { method, connections: CONNECTIONS, seconds, daemonCpuMs };
  } finally {
    await daemon.stop();
    spawnSync(process.execPath, [main, "unload", "--instance", instance]);
    // The daemon's own, which it leaves for the next of the same name: there is none.
    rmSync(`/run/sluice/${instance}.lock`, { force: true });
  }
}

export async function measureListing(): Promise<ListingResult[]> {
  const main = path.resolve(import.meta.dirname, "../../src/cli/main.js");
  const folder = mkdtempSync(path.join(tmpdir(), "sluice-bench-"));
  try {
    addInterface(
      REAL_SERVERS.map(
        (address, i) => `neighbour add ${address} lladdr 02:00:00:00:01:${10 + i} dev bench0 nud permanent`,
      ),
    );
    const results: ListingResult[] = [];
    for (const method of METHODS) results.push(await measure(method, main, folder));
    return results;
  } finally {
    deleteInterface();
    rmSync(folder, { recursive: true });
  }
}
