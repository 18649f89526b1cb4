/**
 * What all packet rows share: the data plane in a bed (test/packet/bed.ts) with a table of the size that a large director
 * has, the reference programs, and the prelude that drives them in turns.
 */
import path from "node:path";
import { type BpfObject, interfaceIndex, Link, openObject, type Program } from "libbpf-ts";
import { ENTRIES_PER_BUCKET } from "../../src/dataplane/sizes.js";
import { Bed, type Sizes } from "../packet/bed.js";
import { network } from "../packet/network.js";
import { type Packets, Prelude, preludeFolder } from "../prelude/prelude.js";
import { pairwise, type Summary, summarize } from "./statistics.js";

/** As the control plane sizes the connection table. */
export function bucketsFor(entries: number): number {
  return Math.ceil(entries / ENTRIES_PER_BUCKET);
}

/** Entries: a million connections by nat have two million. */
export const TABLE_ENTRIES = 2 ** 21;

/** The most flows that a row walks through. */
export const MAX_FLOWS = 2 ** 20;

export type ReferenceName = "transmit" | "swap_macs" | "push_ipip" | "drop";

/** One of the programs that take turns in a row. */
export interface Contender {
  readonly name: string;
  readonly program: Program;
  /** Before each sample, not measured: for what a sample uses up. */
  readonly prepare?: () => void;
}

export interface Measured extends Summary {
  readonly name: string;
  readonly samples: readonly number[];
}

/** Nanoseconds a packet. */
export interface RowResult {
  readonly name: string;
  readonly title: string;
  /** What the reference that the row is read against costs, and each program of ours. */
  readonly floor: Measured;
  readonly measured: readonly Measured[];
  /** Each above the floor: of the differences within a round. */
  readonly above: readonly Summary[];
  /** Of two programs of ours: the second's cost above the floor as a multiple of the first's. */
  readonly ratio?: Summary;
}

export interface RowPlan {
  readonly name: string;
  readonly title: string;
  readonly packets: Packets;
  readonly packetsPerSample: number;
  /** The first is the floor. */
  readonly contenders: readonly [Contender, ...Contender[]];
  /** Frames really leave (BPF_F_TEST_XDP_LIVE_FRAMES). */
  readonly live?: boolean;
}

/** Frames in one turn of the kernel's live loop, as a driver's poll takes at most 64. */
const LIVE_BATCH = 64;

export interface Settings {
  readonly rounds: number;
  /** Multiplies the packets of a sample. */
  readonly scale: number;
}

export class Bench {
  readonly bed: Bed;
  readonly prelude: Prelude;
  readonly settings: Settings;
  readonly #references: BpfObject;
  readonly #beds: Bed[] = [];
  readonly #links = new Map<string, Link>();
  #scene: { readonly key: string; readonly value: unknown } | undefined;

  private constructor(bed: Bed, prelude: Prelude, references: BpfObject, settings: Settings) {
    this.bed = bed;
    this.prelude = prelude;
    this.settings = settings;
    this.#references = references;
  }

  static async open(settings: Settings): Promise<Bench> {
    const bed = await Bed.open({ buckets: bucketsFor(TABLE_ENTRIES) });
    const prelude = await Prelude.load(MAX_FLOWS, network().c0);
    const references = await openObject(path.join(preludeFolder, "reference.bpf.o")).load();
    return new Bench(bed, prelude, references, settings);
  }

  reference(name: ReferenceName): Program {
    return this.#references.program(`reference_${name}`);
  }

  get sluice(): Program {
    return this.bed.object.program("sluice");
  }

  /** Another data plane with a table of its own, in the same network; closed with the bench. */
  async anotherBed(entries: number, sizes: Omit<Sizes, "buckets"> = {}): Promise<Bed> {
    const bed = await Bed.open({ ...sizes, buckets: bucketsFor(entries) });
    this.#beds.push(bed);
    return bed;
  }

  /** Makes the far end of a veth receive frames, and drop them. */
  async swallow(name: string): Promise<void> {
    if (this.#links.has(name)) return;
    this.#links.set(name, await Link.attachXdp(this.reference("drop"), interfaceIndex(name)));
  }

  /** What several rows in a row need and is dear to make; made anew when another was made in between. */
  async scene<T>(key: string, make: () => Promise<T>): Promise<T> {
    if (this.#scene?.key === key) return this.#scene.value as T;
    const value = await make();
    this.#scene = { key, value };
    return value;
  }

  /** Sends packets through a program to bring its tables into a state; throws if the last of them has another verdict. */
  async send(program: Program, packets: Packets, count: number, verdict: number): Promise<void> {
    this.prelude.setProgram(program);
    this.prelude.setPackets(packets);
    const { returnValue } = await this.prelude.run(count);
    if (returnValue !== verdict) throw new Error(`${program.name} returned ${returnValue} and not ${verdict}`);
  }

  /**
   * Lets the programs take turns over the same packets, round by round. Each sample is preceded by some packets that are not
   * measured, so that no program pays for what the one before it left in the caches.
   */
  async compare({ name, title, packets, packetsPerSample, contenders, live = false }: RowPlan): Promise<RowResult> {
    const repeat = Math.max(1000, Math.round(packetsPerSample * this.settings.scale));
    const run = (count: number) => (live ? this.prelude.runLive(count, LIVE_BATCH) : this.prelude.run(count));
    const samples = contenders.map(() => [] as number[]);
    this.prelude.setPackets(packets);
    for (let round = 0; round < this.settings.rounds; round++) {
      for (const [place, contender] of contenders.entries()) {
        this.prelude.setProgram(contender.program);
        contender.prepare?.();
        await run(Math.ceil(repeat / 10));
        samples[place]?.push((await run(repeat)).durationNs);
      }
    }
    const [floor, ...measured] = contenders.map((contender, place) => {
      const own = samples[place] ?? [];
      return { name: contender.name, samples: own, ...summarize(own) };
    });
    if (floor === undefined) throw new RangeError("a row has a floor");
    return {
      name,
      title,
      floor,
      measured,
      above: measured.map((one) => summarize(pairwise(one.samples, floor.samples, (a, b) => a - b))),
    };
  }

  async close(): Promise<void> {
    for (const link of this.#links.values()) {
      await link.detach();
      link.close();
    }
    for (const bed of this.#beds) bed.close();
    this.prelude.close();
    this.bed.close();
    this.#references.close();
  }
}
