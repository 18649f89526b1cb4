/** What the data plane counts: traffic by service and real server, and drops by reason, as what changed since the last look. */
import type { BpfMap, BpfObject } from "libbpf-ts";
import { DropReason, type Maps, type Traffic } from "../../src/dataplane/sluice.bpf.js";

export type DropName = Lowercase<
  Exclude<keyof typeof DropReason, "DROP_REASONS"> extends `DROP_${infer N}` ? N : never
>;

type Counts = Partial<Record<keyof Traffic, number>>;

/** What changed, zeros left out. Services go by "tcp:10.0.0.100:80", real servers by that and "10.1.0.11:8080". */
export interface Counted {
  services: Record<string, Counts>;
  realServers: Record<string, Counts>;
  drops: Partial<Record<DropName, { packets: number; bytes: number }>>;
}

type WholeCounts = Record<keyof Traffic, number>;

interface Counters {
  readonly services: readonly WholeCounts[];
  readonly realServers: readonly WholeCounts[];
  readonly drops: readonly { packets: number; bytes: number }[];
}

function dropNames(): DropName[] {
  const names: DropName[] = [];
  for (const [name, value] of Object.entries(DropReason)) {
    if (name !== "DROP_REASONS") names[value] = name.replace("DROP_", "").toLowerCase() as DropName;
  }
  return names;
}
const DROP_NAMES = dropNames();

const TRAFFIC_FIELDS: readonly (keyof Traffic)[] = [
  "connections",
  "in_packets",
  "in_bytes",
  "out_packets",
  "out_bytes",
];

/** A service's traffic is that of its real servers; `counts` are theirs, or one's by processor. */
function addTraffic(counts: readonly Record<keyof Traffic, number | bigint>[]): WholeCounts {
  const sum = { connections: 0, in_packets: 0, in_bytes: 0, out_packets: 0, out_bytes: 0 };
  for (const one of counts) for (const field of TRAFFIC_FIELDS) sum[field] += Number(one[field]);
  return sum;
}

export interface CountedRealServer {
  readonly name: string;
  /** Place among the services. */
  readonly service: number;
}

/** Whose counts they are, in the order of the maps' elements. */
export interface CountedNames {
  readonly services: readonly string[];
  readonly realServers: readonly CountedRealServer[];
}

export class Counting {
  readonly #realCounters: BpfMap<number, Maps["real_counters"]["value"]>;
  readonly #drops: BpfMap<number, Maps["drops"]["value"]>;
  #names: CountedNames = { services: [], realServers: [] };
  #before: Counters;

  constructor(object: BpfObject) {
    this.#realCounters = object.map("real_counters");
    this.#drops = object.map("drops");
    this.#before = this.#counters();
  }

  /** These are in the maps from now on; what was counted before is of no interest. */
  follow(names: CountedNames): void {
    this.#names = names;
    this.#before = this.#counters();
  }

  /** What was counted since the last call. */
  take(): Counted {
    const after = this.#counters();
    const counted = this.#difference(this.#before, after);
    this.#before = after;
    return counted;
  }

  #counters(): Counters {
    const realServers = this.#names.realServers.map((_, index) =>
      addTraffic(this.#realCounters.getPerCpu(index) ?? []),
    );
    return {
      services: this.#names.services.map((_, service) =>
        addTraffic(realServers.filter((_, index) => this.#names.realServers[index]?.service === service)),
      ),
      realServers,
      drops: DROP_NAMES.map((_, index) => {
        const perCpu = this.#drops.getPerCpu(index) ?? [];
        return {
          packets: perCpu.reduce((sum, { packets }) => sum + Number(packets), 0),
          bytes: perCpu.reduce((sum, { bytes }) => sum + Number(bytes), 0),
        };
      }),
    };
  }

  #difference(before: Counters, after: Counters): Counted {
    const counted: Counted = { services: {}, realServers: {}, drops: {} };
    const traffic = (kind: "services" | "realServers", names: readonly string[]): void => {
      for (const [index, name] of names.entries()) {
        const counts: Counts = {};
        for (const field of TRAFFIC_FIELDS) {
          const change = (after[kind][index]?.[field] ?? 0) - (before[kind][index]?.[field] ?? 0);
          if (change !== 0) counts[field] = change;
        }
        if (Object.keys(counts).length > 0) counted[kind][name] = counts;
      }
    };
    traffic("services", this.#names.services);
    traffic(
      "realServers",
      this.#names.realServers.map(({ name }) => name),
    );
    for (const [index, name] of DROP_NAMES.entries()) {
      const packets = (after.drops[index]?.packets ?? 0) - (before.drops[index]?.packets ?? 0);
      const bytes = (after.drops[index]?.bytes ?? 0) - (before.drops[index]?.bytes ?? 0);
      if (packets !== 0 || bytes !== 0) counted.drops[name] = { packets, bytes };
    }
    return counted;
  }
}
