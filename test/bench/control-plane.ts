/**
 * The control plane at its size: the daemon with 10,000 virtual services of 10 real servers each, in the bench's own network
 * namespace. How long until it serves, and how long one change takes, seen where it counts: in the maps that the data plane reads.
 */
import { spawnSync } from "node:child_process";
import { mkdtempSync, rmSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { setImmediate as nextTurn } from "node:timers/promises";
import { BpfMap, type MappedArray } from "libbpf-ts";
import { type ApiClient, ForwardingMethod } from "../../src/api/client.js";
import { layout, Protocol, type ServiceKey } from "../../src/dataplane/sluice.bpf.js";
import { ipv4Bytes } from "../packet/addresses.js";
import { randomIntegers } from "../prelude/flows.js";
import { addInterface, connected, Daemon, deleteInterface } from "./daemon.js";
import { quantile } from "./statistics.js";

const SERVICES = 10_000;
const REAL_SERVERS = 10;
/** The smallest of mh's list: with the default of 4093 ten thousand services need rings of 164 MB. */
const TABLE_SIZE = 251;
const CHANGES = 100;
const CHANGE_TIMEOUT_MS = 10_000;
const FAMILY_IPV4 = 2;

export interface ControlPlaneResult {
  readonly services: number;
  readonly realServersEach: number;
  readonly yamlBytes: number;
  /** From the start of the process until the API answers and the last service has a ring in the data plane. */
  readonly startMs: number;
  /** What of it the daemon computed, on all its threads: what is left on a machine with nothing else to do. */
  readonly startCpuMs: number;
  /** From the call of UpdateRealServer until the ring that the data plane reads is another. */
  readonly changeMs: { readonly median: number; readonly p99: number; readonly samples: readonly number[] };
  /** Until the API's answer. */
  readonly answerMs: { readonly median: number; readonly p99: number };
  /** What the daemon computes for one change, mean. */
  readonly changeCpuMs: number;
  readonly residentMb: number;
  readonly peakResidentMb: number;
  /** A start over a data plane that is in place. */
  readonly restartMs: number;
}

/** VIP of service n and address of its real server k: 10.192.0.0/16 and 10.64.0.0/12, behind one router. */
function vip(n: number): string {
  return `10.192.${n >> 8}.${n & 0xff}`;
}
function realAddress(n: number, k: number): string {
  const number = n * REAL_SERVERS + k;
  return `10.${64 + (number >> 16)}.${(number >> 8) & 0xff}.${number & 0xff}`;
}

function serviceName(n: number): string {
  return `virtualServices/tcp:${vip(n)}:80`;
}

function yaml(): string {
  const lines = [
    "interfaces: [bench0]",
    `limits: {connections: 1048576, services: ${SERVICES}, real_servers: ${2 * SERVICES * REAL_SERVERS}, ring_slots: ${4 * SERVICES * 256}}`,
    "services:",
  ];
  for (let n = 0; n < SERVICES; n++) {
    lines.push(
      `  - protocol: tcp\n    address: ${vip(n)}\n    port: 80\n    scheduler: mh\n    table_size: ${TABLE_SIZE}\n    real_servers:`,
    );
    for (let k = 0; k < REAL_SERVERS; k++) {
      lines.push(`      - {address: ${realAddress(n, k)}, port: 8080, method: nat, weight: 10}`);
    }
  }
  return `${lines.join("\n")}\n`;
}

/** The ring of one service as the data plane sees it. */
class Rings {
  readonly #maps: readonly BpfMap[];
  readonly #index: BpfMap<ServiceKey, number>;
  readonly #services: MappedArray;
  readonly #rings: MappedArray;

  constructor(pins: string) {
    this.#index = BpfMap.open<ServiceKey, number>(path.join(pins, "maps/service_index"));
    const services = BpfMap.open(path.join(pins, "maps/services"));
    const rings = BpfMap.open(path.join(pins, "maps/rings"));
    this.#maps = [this.#index, services, rings];
    this.#services = services.mmap();
    this.#rings = rings.mmap();
  }

  /** Index of service n; undefined while the data plane does not know it. */
  indexOf(n: number): number | undefined {
    const address = new Uint8Array(16);
    address.set(ipv4Bytes(vip(n)));
    return this.#index.get({
      vip: { bytes: address },
      port: 80,
      protocol: Protocol.PROTOCOL_TCP,
      family: FAMILY_IPV4,
    });
  }

  /** A copy of the slots in force. */
  slots(index: number): Uint32Array {
    const word = (index * this.#services.stride + layout.Service.offsets.ring) / 4;
    const chunk = this.#services.u32[word + layout.Ring.offsets.chunk / 4] ?? 0;
    const length = this.#services.u32[word + layout.Ring.offsets.length / 4] ?? 0;
    const first = (chunk * this.#rings.stride) / 4;
    return this.#rings.u32.slice(first, first + length);
  }

  close(): void {
    this.#services.close();
    this.#rings.close();
    for (const map of this.#maps) map.close();
  }
}

/** Resolves with a client when the API answers for the last service, and the data plane has a ring for it. */
async function serving(daemon: Daemon, socket: string, pins: string): Promise<ApiClient> {
  const client = await connected(daemon, socket, (one) => one.getVirtualService(serviceName(SERVICES - 1)));
  const rings = new Rings(pins);
  try {
    const index = rings.indexOf(SERVICES - 1);
    if (index === undefined || rings.slots(index).length !== TABLE_SIZE) {
      throw new Error(`the API serves ${serviceName(SERVICES - 1)}, but the data plane has no ring for it`);
    }
  } finally {
    rings.close();
  }
  return client;
}

/** Milliseconds of each change until it is seen in the data plane, and until the API answers. */
async function changeWeights(client: ApiClient, pins: string): Promise<{ seen: number[]; answered: number[] }> {
  const rings = new Rings(pins);
  const random = randomIntegers(7);
  const seen: number[] = [];
  const answered: number[] = [];
  try {
    for (let change = 0; change < CHANGES; change++) {
      const n = random(SERVICES);
      const k = random(REAL_SERVERS);
      const index = rings.indexOf(n);
      if (index === undefined) throw new Error(`the data plane does not know ${serviceName(n)}`);
      const before = bytesOf(rings.slots(index));
      const start = performance.now();
      const realServer = {
        name: `${serviceName(n)}/realServers/${realAddress(n, k)}:8080`,
        address: realAddress(n, k),
        method: ForwardingMethod.NAT,
        weight: 20 + change,
      };
      const answer = client.updateRealServer(realServer, ["weight"]).then(() => performance.now() - start);
      const visible = (async () => {
        while (performance.now() - start < CHANGE_TIMEOUT_MS) {
          if (Buffer.compare(bytesOf(rings.slots(index)), before) !== 0) return performance.now() - start;
          await nextTurn();
        }
        throw new Error(`a weight of ${serviceName(n)} changed, and its ring did not in ${CHANGE_TIMEOUT_MS} ms`);
      })();
      const [seenMs, answeredMs] = await Promise.all([visible, answer]);
      seen.push(seenMs);
      answered.push(answeredMs);
    }
  } finally {
    rings.close();
  }
  return { seen, answered };
}

function bytesOf(words: Uint32Array): Uint8Array {
  return new Uint8Array(words.buffer, words.byteOffset, words.byteLength);
}

export async function measureControlPlane(): Promise<ControlPlaneResult> {
  const main = path.resolve(import.meta.dirname, "../../src/cli/main.js");
  const instance = `bench-${process.pid}`;
  const pins = path.join("/sys/fs/bpf", instance);
  const folder = mkdtempSync(path.join(tmpdir(), "sluice-bench-"));
  const config = path.join(folder, "sluice.yaml");
  const log = path.join(folder, "sluice.log");
  const socket = `/run/sluice/${instance}.sock`;
  const daemons: Daemon[] = [];
  const start = async (): Promise<{ daemon: Daemon; client: ApiClient; ms: number }> => {
    const begin = performance.now();
    const daemon = Daemon.start(main, config, instance, log);
    daemons.push(daemon);
    const client = await serving(daemon, socket, pins);
    return { daemon, client, ms: performance.now() - begin };
  };
  try {
    addInterface([
      "route add 10.64.0.0/12 via 10.255.0.2",
      "neighbour add 10.255.0.2 lladdr 02:00:00:00:00:02 dev bench0 nud permanent",
    ]);
    writeFileSync(config, yaml());
    const { daemon, client, ms: startMs } = await start();
    const startCpuMs = daemon.cpuMs();
    const { seen, answered } = await changeWeights(client, pins);
    const changeCpuMs = (daemon.cpuMs() - startCpuMs) / CHANGES;
    client.close();
    const { resident, peak } = daemon.memory();
    await daemon.stop();
    const again = await start();
    again.client.close();
    return {
      services: SERVICES,
      realServersEach: REAL_SERVERS,
      yamlBytes: statSync(config).size,
      startMs,
      startCpuMs,
      changeMs: { median: quantile(seen, 0.5), p99: quantile(seen, 0.99), samples: seen },
      answerMs: { median: quantile(answered, 0.5), p99: quantile(answered, 0.99) },
      changeCpuMs,
      residentMb: resident,
      peakResidentMb: peak,
      restartMs: again.ms,
    };
  } finally {
    for (const daemon of daemons) await daemon.stop();
    spawnSync(process.execPath, [main, "unload", "--instance", instance]);
    deleteInterface();
    rmSync(folder, { recursive: true });
    // The daemon's own, which it leaves for the next of the same name: there is none.
    rmSync(`/run/sluice/${instance}.lock`, { force: true });
  }
}
