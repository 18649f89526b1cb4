/**
 * What sweeping costs: production's sweeper over a table that is full to its configured capacity, once with connections that
 * live and once with the same when all have expired.
 */
import { setTimeout as sleep } from "node:timers/promises";
import { layout } from "../../src/dataplane/sluice.bpf.js";
import { Sweeper } from "../../src/dataplane/sweeper.js";
import { Bed, type Method } from "../packet/bed.js";
import { CLIENT, realAddress, realMac, VIP } from "../packet/network.js";
import { clientFlows } from "../prelude/flows.js";
import { Prelude } from "../prelude/prelude.js";
import { bucketsFor } from "./bench.js";
import { tcpFrame } from "./frames.js";

const ENTRIES = 1_000_000;
const VIP_NUMBER = 0x0a00_0064;
const LIVE_PASSES = 3;
/** Seconds: longer than the passes over connections that live take, and what they have left when they are closed. */
const TIMEOUTS = { SYN_RECV: 300, TIME_WAIT: 0.5 };

export interface Pass {
  /** Of all slices, as the kernel measures it. */
  readonly totalMs: number;
  readonly longestSliceMs: number;
  readonly slices: number;
}

export interface SweepResult {
  readonly method: Method;
  readonly entries: number;
  readonly connections: number;
  /** Over connections that live; the first looks at each twin of nat's. */
  readonly live: readonly Pass[];
  /** In which all connections were removed. */
  readonly expired: Pass;
}

const quiet = (): void => undefined;
const log = {
  debug: quiet,
  info: quiet,
  warn: quiet,
  error: (fields: object, message: string) => {
    throw new Error(`${message}: ${JSON.stringify(fields)}`);
  },
};

/** Lets production's sweeper pass the table, and records how long its slices take. */
async function passes(bed: Bed, buckets: number, count: number): Promise<Pass[]> {
  const found: Pass[] = [];
  let slices: number[] = [];
  const { count: countAt, first: firstAt } = layout.SweepRequest.offsets;
  const program = bed.object.program("sweep");
  const sweeper = new Sweeper(
    async (request) => {
      const answer = await program.testRunAsync({ data: request });
      slices.push(answer.durationNs / 1e6);
      const words = new DataView(answer.data.buffer, answer.data.byteOffset);
      if (words.getUint32(firstAt, true) + words.getUint32(countAt, true) >= buckets) {
        const totalMs = slices.reduce((sum, ms) => sum + ms, 0);
        found.push({ totalMs, longestSliceMs: Math.max(...slices), slices: slices.length });
        slices = [];
      }
      return answer;
    },
    buckets,
    () => false,
    log,
  );
  sweeper.start();
  while (found.length < count) await sleep(50);
  await sweeper.close();
  return found.slice(0, count);
}

async function measure(method: Method): Promise<SweepResult> {
  const connections = method === "nat" || method === "fullnat" ? ENTRIES / 2 : ENTRIES;
  const buckets = bucketsFor(ENTRIES);
  const bed = await Bed.open({ buckets });
  try {
    bed.configure({
      services: [
        {
          protocol: "tcp",
          vip: VIP,
          port: 80,
          realServers: [1, 2, 3, 4].map((n) => ({ address: realAddress(n), method, hop: { mac: realMac(n) } })),
        },
      ],
      timeouts: TIMEOUTS,
    });
    const prelude = await Prelude.load(connections, bed.interfaces.c0);
    prelude.setProgram(bed.object.program("sluice"));
    const flows = clientFlows(connections, VIP_NUMBER, 80);
    prelude.setPackets({ frame: tcpFrame(CLIENT, VIP, 80, "S"), flows });
    await prelude.run(connections);
    const live = await passes(bed, buckets, LIVE_PASSES);
    const held = bed.loads().reduce((sum, { active }) => sum + active, 0);
    prelude.setPackets({ frame: tcpFrame(CLIENT, VIP, 80, "FA"), flows });
    await prelude.run(connections);
    prelude.close();
    await sleep(1000);
    const [expired] = await passes(bed, buckets, 1);
    const left = bed.loads().reduce((sum, { active, inactive }) => sum + active + inactive, 0);
    if (held !== connections || left !== 0 || expired === undefined) {
      throw new Error(`${held} of ${connections} connections lived, and ${left} did after they had expired`);
    }
    return { method, entries: ENTRIES, connections, live, expired };
  } finally {
    bed.close();
  }
}

export async function measureSweep(): Promise<SweepResult[]> {
  return [await measure("dr"), await measure("nat")];
}
