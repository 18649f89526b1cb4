import { addon, type NativeTestRunResult, type ProgramHandle } from "./addon.js";
import { BpfError, errno, kernelError, type Reading, requireBytes, requireInteger, shown } from "./error.js";
import { BPF_F_TEST_RUN_ON_CPU, BPF_F_TEST_XDP_LIVE_FRAMES } from "./flags.js";
import { type ProgramType, programTypeName } from "./kernel-types.js";
import { openPin, pin, unpin } from "./pin.js";

export interface TestRunOptions {
  /** The packet. For XDP at least 14 bytes (an Ethernet header), and what fits a page with the headroom unless it takes fragments. */
  readonly data?: Uint8Array;
  /** The context: struct xdp_md, __sk_buff, or a syscall program's own struct. */
  readonly context?: Uint8Array;
  /** How often to run, default 1. The kernel does not restore the packet in between. */
  readonly repeat?: number;
  /** Room for the packet afterwards, bytes. Default: 256 more than came in; none with liveFrames. */
  readonly dataOutSize?: number;
  /** Room for the context afterwards, bytes. Default: as much as came in. */
  readonly contextOutSize?: number;
  /** BPF_F_TEST_XDP_LIVE_FRAMES: verdicts are carried out, XDP_TX and redirects really send. Linux 5.18. */
  readonly liveFrames?: boolean;
  /** Frames at a time with liveFrames, at most 256. */
  readonly batchSize?: number;
  /** BPF_F_TEST_*, besides those that the other options set. */
  readonly flags?: number;
  /** Run on this CPU, for program types that take BPF_F_TEST_RUN_ON_CPU (raw_tracepoint). */
  readonly cpu?: number;
}

export interface TestRunResult {
  readonly returnValue: number;
  /** Mean of one repeat, as the kernel measured it. */
  readonly durationNs: number;
  /** The packet afterwards; empty where none went in or no room was asked for. */
  readonly data: Uint8Array;
  /** The context afterwards. */
  readonly context: Uint8Array;
}

export interface ProgramInfo {
  readonly id: number;
  readonly type: ProgramType;
  /** At most 15 characters, as the kernel keeps it. */
  readonly name: string;
  /** SHA-1 of the instructions, shortened, in hexadecimal. */
  readonly tag: string;
  /** When it was loaded, nanoseconds since boot. */
  readonly loadTimeNs: bigint;
  readonly mapIds: number[];
  /** Instructions that the verifier went through. */
  readonly verifiedInstructions: number;
  readonly jitedBytes: number;
  readonly translatedBytes: number;
}

const HEADROOM_FOR_GROWTH = 256;
/** Beyond any packet: 64 KiB and the fragments of a multi-buffer frame. */
const MAX_BYTES = 1 << 24;

export let handleOfProgram: (what: string, program: unknown) => ProgramHandle;
/** Wraps a handle, which it then owns. */
export let wrapProgram: (handle: ProgramHandle, name?: string) => Program;

/** A loaded program. The descriptor is this object's, as with BpfMap. */
export class Program {
  static {
    handleOfProgram = (what, program) => {
      if (typeof program !== "object" || program === null || !(#handle in program))
        throw new BpfError("INVALID_ARGUMENT", `${what} is ${shown(program)}, must be a Program`);
      return program.#open();
    };
    wrapProgram = (handle, name) => new Program(handle, name);
  }

  readonly name: string;
  readonly type: ProgramType;
  /** The kernel's, as bpftool shows it. */
  readonly id: number;
  #handle: ProgramHandle | undefined;

  private constructor(handle: ProgramHandle, name?: string) {
    const info = addon.programInfo(handle);
    if (typeof info === "number") {
      addon.closeProgram(handle);
      throw kernelError("cannot read the program's parameters", "BPF_OBJ_GET_INFO_BY_FD", info);
    }
    this.#handle = handle;
    this.name = name ?? info.name;
    this.type = programTypeName(info.type);
    this.id = info.id;
  }

  /** Opens a pinned program. Its name is the kernel's, of at most 15 characters. */
  static open(pinPath: string): Program {
    return new Program(openPin("program", pinPath));
  }

  #open(): ProgramHandle {
    if (this.#handle === undefined) throw new BpfError("CLOSED", `program ${this.name} is closed`);
    return this.#handle;
  }

  /** Borrowed: valid while this object is open, and never to be closed by anyone else. */
  get fd(): number {
    return addon.descriptor(this.#open());
  }

  info(): ProgramInfo {
    const info = addon.programInfo(this.#open());
    if (typeof info === "number") throw kernelError(`cannot read program ${this.name}`, "BPF_OBJ_GET_INFO_BY_FD", info);
    return { ...info, type: programTypeName(info.type) };
  }

  /** Runs the program (BPF_PROG_TEST_RUN) and waits: for few repeats. Leaving it can take milliseconds, for RCU. */
  testRun(options: TestRunOptions): TestRunResult {
    return this.#result(addon.testRun(...this.#prepare(options)));
  }

  /** As testRun, on the thread pool. The buffers are copied before this returns. */
  async testRunAsync(options: TestRunOptions): Promise<TestRunResult> {
    return this.#result(await addon.testRunAsync(...this.#prepare(options)));
  }

  #prepare(options: TestRunOptions): Parameters<typeof addon.testRun> {
    const { data, context, liveFrames = false, batchSize = 0, cpu } = options;
    if (data !== undefined) requireBytes("the option data", data);
    if (context !== undefined) requireBytes("the option context", context);
    // The kernel takes nothing but a context for these and writes it back in place (bpf_prog_test_run_syscall, net/bpf/test_run.c).
    const contextOnly = this.type === "syscall";
    const {
      repeat = 1,
      dataOutSize = data === undefined || contextOnly || liveFrames ? 0 : data.byteLength + HEADROOM_FOR_GROWTH,
      contextOutSize = contextOnly ? 0 : (context?.byteLength ?? 0),
      flags = 0,
    } = options;
    requireInteger("the option repeat", repeat, 1, 0x7fffffff);
    requireInteger("the option dataOutSize", dataOutSize, 0, MAX_BYTES);
    requireInteger("the option contextOutSize", contextOutSize, 0, MAX_BYTES);
    requireInteger("the option flags", flags, 0, 0xffffffff);
    requireInteger("the option batchSize", batchSize, 0, 256);
    if (cpu !== undefined) requireInteger("the option cpu", cpu, 0, 0xffff);
    if (batchSize !== 0 && !liveFrames)
      throw new BpfError("INVALID_ARGUMENT", "the option batchSize is for liveFrames alone");
    if (contextOnly && (data !== undefined || repeat !== 1 || dataOutSize !== 0 || contextOutSize !== 0 || liveFrames))
      throw new BpfError(
        "INVALID_ARGUMENT",
        `program ${this.name} is of type syscall: a test run takes a context, once, and nothing else`,
      );
    const allFlags =
      flags | (liveFrames ? BPF_F_TEST_XDP_LIVE_FRAMES : 0) | (cpu === undefined ? 0 : BPF_F_TEST_RUN_ON_CPU);
    return [
      this.#open(),
      data,
      context,
      dataOutSize,
      contextOutSize,
      contextOnly ? 0 : repeat,
      allFlags >>> 0,
      cpu ?? 0,
      batchSize,
    ];
  }

  #result(result: NativeTestRunResult | number): TestRunResult {
    if (typeof result === "number")
      throw kernelError(`cannot test-run program ${this.name}`, "BPF_PROG_TEST_RUN", result, this.#readings);
    return result;
  }

  get #readings(): Readonly<Record<number, Reading>> {
    return {
      [errno.EINVAL]: {
        code: "INVALID_ARGUMENT",
        advice:
          this.type === "xdp"
            ? "the packet must have at least 14 bytes and fit a page with its headroom, and a context's data_end must be at most the packet's length"
            : `the kernel refuses these inputs for a program of type ${this.type}`,
      },
      [errno.EINTR]: { code: "INTERRUPTED", advice: "a signal came between two repeats: testRunAsync keeps them off" },
      [errno.ENOSPC]: { code: "OUTPUT_TOO_SMALL", advice: "the packet afterwards does not fit: raise dataOutSize" },
      [errno.EOPNOTSUPP]: {
        code: "WRONG_PROGRAM_TYPE",
        advice: `the kernel has no test run for programs of type ${this.type}`,
      },
      [errno.ENOTSUPP]: {
        code: "WRONG_PROGRAM_TYPE",
        advice: `the kernel has no test run for programs of type ${this.type}`,
      },
    };
  }

  /** Gives the program a name on a BPF file system, which keeps it alive after this process. */
  pin(path: string): void {
    pin(`program ${this.name}`, this.#open(), path);
  }

  /** PIN_DIFFERS if something else is pinned there. */
  unpin(path: string): void {
    this.#open();
    unpin(`program ${this.name}`, "program", this.id, path);
  }

  /** Closing twice is harmless. The program lives on where it is attached or pinned. */
  close(): void {
    if (this.#handle === undefined) return;
    addon.closeProgram(this.#handle);
    this.#handle = undefined;
  }

  [Symbol.dispose](): void {
    this.close();
  }
}
