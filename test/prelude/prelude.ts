/**
 * Drives test/prelude/prelude.bpf.c: many packets of many flows through one program, in one call of test_run.
 */
import path from "node:path";
import { type BpfMap, type BpfObject, type MappedArray, openObject, type Program } from "libbpf-ts";
import { encodeFlows, type Flows } from "./flows.js";

/** Compiled next to what it tests: build/test/prelude in the project. */
export const preludeFolder = path.resolve(import.meta.dirname, "../../../build/test/prelude");

/** What the packets are: the flows one after the other and round again, or every packet of a flow never seen. */
export interface Packets {
  /** At least 64 bytes: Ethernet, IPv4 without options, TCP, UDP or ICMP. Its addresses, ports and checksums are replaced. */
  readonly frame: Uint8Array;
  /** "new": clients count up from the frame's source address and port 32768 (test/prelude/prelude.h). */
  readonly flows: Flows | "new";
  /** The flow, or the number of the new flow, to begin with; left out: 0. */
  readonly first?: number;
}

export interface PreludeRun {
  /** Mean of one packet, the prelude's own work included, as the kernel measures it. */
  readonly durationNs: number;
  /** Of the last packet: what the program under test returned. */
  readonly returnValue: number;
  /** The last packet, as the program under test left it. */
  readonly data: Uint8Array;
}

interface PreludeSettings {
  headers: bigint[];
  length: number;
  flows: number;
  next: number;
}

/** struct xdp_md of linux/bpf.h as test_run takes it: data, data_end, data_meta, ingress_ifindex, rx_queue_index, egress_ifindex. */
function ingressContext(ifindex: number, length: number): Uint8Array {
  const words = new Uint32Array(6);
  words[1] = length;
  words[3] = ifindex;
  return new Uint8Array(words.buffer);
}

export class Prelude {
  readonly #object: BpfObject;
  readonly #settings: BpfMap<number, PreludeSettings>;
  readonly #flows: MappedArray;
  readonly #ingressIfindex: number;
  #frame: Uint8Array | undefined;

  private constructor(object: BpfObject, ingressIfindex: number) {
    this.#object = object;
    this.#settings = object.map("prelude_settings");
    this.#flows = object.map("prelude_flows").mmap({ writable: true });
    this.#ingressIfindex = ingressIfindex;
  }

  /**
   * `maxFlows` sizes the list of flows. `ingressIfindex` is where the packets seem to come in; the interface must have an
   * XDP program or NAPI. 0: the loopback interface of the current network namespace.
   */
  static async load(maxFlows: number, ingressIfindex = 0): Promise<Prelude> {
    const open = openObject(path.join(preludeFolder, "prelude.bpf.o"));
    open.map("prelude_flows").setMaxEntries(maxFlows);
    return new Prelude(await open.load(), ingressIfindex);
  }

  /** The program under test from now on; it stays the caller's. */
  setProgram(program: Program): void {
    this.#object.map<number>("prelude_programs").setFd(0, program);
  }

  /** The packets from now on. */
  setPackets({ frame, flows, first = 0 }: Packets): void {
    if (flows !== "new") encodeFlows(flows, frame, this.#object.btf.codec("prelude_flow"), this.#flows.bytes);
    this.#frame = frame;
    this.#settings.set(0, {
      headers: Array.from(new BigUint64Array(frame.slice(0, 64).buffer)),
      length: frame.length,
      flows: flows === "new" ? 0 : flows.source.length,
      next: first,
    });
  }

  /** One call of the kernel, on the thread pool. The next run goes on where this one ended. */
  async run(repeat: number): Promise<PreludeRun> {
    const frame = this.#requireFrame();
    const context = this.#ingressIfindex === 0 ? {} : { context: ingressContext(this.#ingressIfindex, frame.length) };
    return this.#object.program("prelude").testRunAsync({ data: frame, repeat, dataOutSize: 256, ...context });
  }

  /** Frames that really leave (BPF_F_TEST_XDP_LIVE_FRAMES); the kernel returns neither a verdict nor a packet. */
  async runLive(repeat: number, batchSize: number): Promise<{ durationNs: number }> {
    const frame = this.#requireFrame();
    const context = ingressContext(this.#ingressIfindex, frame.length);
    const options = { data: frame, repeat, context, contextOutSize: 0, liveFrames: true, batchSize };
    return this.#object.program("prelude").testRunAsync(options);
  }

  #requireFrame(): Uint8Array {
    if (this.#frame === undefined) throw new Error("setPackets comes before a run");
    return this.#frame;
  }

  close(): void {
    this.#flows.close();
    this.#object.close();
  }
}
