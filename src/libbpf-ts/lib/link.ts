import { addon, type LinkHandle } from "./addon.js";
import { BpfError, errno, kernelError, type Reading, requireInteger, shown } from "./error.js";
import { type BpfMap, handleOfMap } from "./map.js";
import { openPin, pin, unpin } from "./pin.js";
import { handleOfProgram, type Program } from "./program.js";

/** `native`: in the driver; `generic`: after the driver, for any interface; `offload`: on the card; `default`: native where there is such. */
export type XdpMode = "native" | "generic" | "offload" | "default";

// XDP_FLAGS_* of include/uapi/linux/if_link.h
const xdpFlags: Readonly<Record<XdpMode, number>> = { default: 0, generic: 1 << 1, native: 1 << 2, offload: 1 << 3 };

export interface LinkInfo {
  readonly id: number;
  /** "xdp", "iter", ...; `type_` and a number where this libbpf does not know it. */
  readonly type: string;
  readonly programId: number;
  /** Of XDP links; 0 after the interface is gone or the link detached. */
  readonly ifindex?: number;
}

const noInterface: Reading = {
  code: "NO_SUCH_INTERFACE",
  advice: "there is no such interface in this network namespace",
};

/** As long as a JavaScript string may be. */
const ITERATOR_LIMIT = 0x1fffffe8;

/**
 * A program attached to something. The attachment lasts as long as anyone has the link: this object, or a pin. Closing the
 * last one detaches at once, on the calling thread; detach() first where that must not wait. The descriptor is this object's, as with BpfMap.
 */
export class Link {
  /** The kernel's, as bpftool shows it. */
  readonly id: number;
  #handle: LinkHandle | undefined;

  private constructor(handle: LinkHandle) {
    const info = addon.linkInfo(handle);
    if (typeof info === "number") {
      addon.closeLink(handle);
      throw kernelError("cannot read the link", "BPF_OBJ_GET_INFO_BY_FD", info);
    }
    this.#handle = handle;
    this.id = info.id;
  }

  /** Attaches an XDP program to an interface of the current network namespace. Linux 5.9. INTERFACE_BUSY if there is one already. */
  static async attachXdp(program: Program, ifindex: number, options: { readonly mode?: XdpMode } = {}): Promise<Link> {
    const { mode = "default" } = options;
    if (!Object.hasOwn(xdpFlags, mode))
      throw new BpfError(
        "INVALID_ARGUMENT",
        `the XDP mode is ${shown(mode)}, must be ${Object.keys(xdpFlags).join(", ")}`,
      );
    requireInteger("the interface's index", ifindex, 1, 0x7fffffff);
    const handle = handleOfProgram("the program", program);
    if (program.type !== "xdp")
      throw new BpfError("WRONG_PROGRAM_TYPE", `program ${program.name} is of type ${program.type}, must be xdp`);
    const made = await addon.attachXdp(handle, ifindex, xdpFlags[mode]);
    if (typeof made === "number")
      throw kernelError(
        `cannot attach program ${program.name} to interface ${ifindex} (${mode})`,
        "BPF_LINK_CREATE",
        made,
        {
          [errno.ENODEV]: noInterface,
          [errno.EBUSY]: {
            code: "INTERFACE_BUSY",
            advice: "another XDP program is attached there; bpftool net shows it",
          },
          [errno.EEXIST]: {
            code: "INTERFACE_BUSY",
            advice: "an XDP program is attached there in another mode; bpftool net shows it",
          },
          [errno.EOPNOTSUPP]: { code: "UNSUPPORTED", advice: `the interface's driver has no ${mode} XDP` },
          [errno.ERANGE]: { code: "UNSUPPORTED", advice: "the interface's MTU is too large for native XDP" },
          // The kernel's answer, too, where there is no such interface.
          [errno.EINVAL]:
            typeof addon.interfaceName(ifindex) === "number"
              ? noInterface
              : {
                  code: "INVALID_ARGUMENT",
                  advice:
                    "the interface does not take this program: native XDP can need a smaller MTU, no GRO_HW or LRO, or a program with fragment support",
                },
        },
      );
    return new Link(made);
  }

  /** Attaches an iterator program (SEC("iter/...")); `map` is what iterators over map elements go through. Linux 5.8. */
  static async attachIterator(program: Program, options: { readonly map?: BpfMap } = {}): Promise<Link> {
    const handle = handleOfProgram("the program", program);
    if (program.type !== "tracing")
      throw new BpfError(
        "WRONG_PROGRAM_TYPE",
        `program ${program.name} is of type ${program.type}, must be an iterator (tracing)`,
      );
    const map = options.map === undefined ? undefined : handleOfMap("the option map", options.map);
    const made = await addon.attachIterator(handle, map);
    if (typeof made === "number")
      throw kernelError(`cannot attach iterator ${program.name}`, "BPF_LINK_CREATE", made, {
        [errno.EINVAL]: {
          code: "INVALID_ARGUMENT",
          advice: "the program is no iterator, or its map is missing or of a type it does not go through",
        },
        [errno.EBADF]: { code: "INVALID_ARGUMENT", advice: "this iterator goes through a map: give the option map" },
        [errno.EACCES]: {
          code: "INVALID_ARGUMENT",
          advice: "the program reads or writes beyond the map's key or value",
        },
      });
    return new Link(made);
  }

  /** Opens a pinned link. */
  static open(pinPath: string): Link {
    return new Link(openPin("link", pinPath));
  }

  #open(): LinkHandle {
    if (this.#handle === undefined) throw new BpfError("CLOSED", `link ${this.id} is closed`);
    return this.#handle;
  }

  /** Borrowed: valid while this object is open, and never to be closed by anyone else. */
  get fd(): number {
    return addon.descriptor(this.#open());
  }

  info(): LinkInfo {
    const info = addon.linkInfo(this.#open());
    if (typeof info === "number") throw kernelError(`cannot read link ${this.id}`, "BPF_OBJ_GET_INFO_BY_FD", info);
    return info;
  }

  /**
   * Replaces the program; no packet goes without one or the other. With `expected`, only if that is the present one
   * (EXPECTED_PROGRAM_DIFFERS). Takes 8 to 16 ms, on the thread pool.
   */
  async update(program: Program, options: { readonly expected?: Program } = {}): Promise<void> {
    const { expected } = options;
    const handle = handleOfProgram("the program", program);
    const present = expected === undefined ? undefined : handleOfProgram("the expected program", expected);
    const error = await addon.updateLink(this.#open(), handle, present);
    if (error < 0)
      throw kernelError(`cannot update link ${this.id} to program ${program.name}`, "BPF_LINK_UPDATE", error, {
        ...(expected !== undefined && {
          [errno.EPERM]: {
            code: "EXPECTED_PROGRAM_DIFFERS",
            advice: `the link runs another program than ${expected.name} (${expected.id})`,
          },
        }),
        [errno.ENOLINK]: { code: "LINK_DETACHED", advice: "the link is detached, or its interface gone" },
        [errno.EINVAL]: {
          code: "INVALID_ARGUMENT",
          advice: "the new program must be of the present one's type and attach type, and fit the interface",
        },
        [errno.EOPNOTSUPP]: { code: "UNSUPPORTED", advice: "links of this type cannot be updated" },
      });
  }

  /** Detaches, whoever else has the link. It stays as an empty shell until closed. */
  async detach(): Promise<void> {
    const error = await addon.detachLink(this.#open());
    if (error < 0)
      throw kernelError(`cannot detach link ${this.id}`, "BPF_LINK_DETACH", error, {
        [errno.EOPNOTSUPP]: { code: "UNSUPPORTED", advice: "links of this type end when they are closed and unpinned" },
      });
  }

  /** Runs an iterator from its beginning and returns its whole text (UTF-8). OUTPUT_TOO_LARGE beyond 512 MB. */
  async readIterator(): Promise<string> {
    const text = await addon.readIterator(this.#open(), ITERATOR_LIMIT);
    if (typeof text === "number")
      throw kernelError(`cannot read iterator link ${this.id}`, "BPF_ITER_CREATE", text, {
        [errno.EINVAL]: { code: "INVALID_ARGUMENT", advice: "the link is no iterator" },
        [errno.EOVERFLOW]: {
          code: "OUTPUT_TOO_LARGE",
          advice: `its text is longer than ${ITERATOR_LIMIT} bytes: read a pin of it as a file`,
        },
      });
    return new TextDecoder().decode(text);
  }

  /** Gives the link a name on a BPF file system, which keeps the attachment after this process. An iterator's pin can be read as a file. */
  pin(path: string): void {
    pin(`link ${this.id}`, this.#open(), path);
  }

  /** PIN_DIFFERS if something else is pinned there. */
  unpin(path: string): void {
    this.#open();
    unpin(`link ${this.id}`, "link", this.id, path);
  }

  /** Closing twice is harmless. */
  close(): void {
    if (this.#handle === undefined) return;
    addon.closeLink(this.#handle);
    this.#handle = undefined;
  }

  [Symbol.dispose](): void {
    this.close();
  }
}
