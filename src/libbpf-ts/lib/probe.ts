// What the running kernel offers, found by trying, and remembered.
import { addon } from "./addon.js";
import { BpfError, errno, kernelError, requireInteger, shown } from "./error.js";
import { type MapType, mapTypeNumber, type ProgramType, programTypeNumber } from "./kernel-types.js";

const answers = new Map<string, boolean>();

function remember(question: string, ask: () => number): boolean {
  let answer = answers.get(question);
  if (answer === undefined) {
    const result = ask();
    // libbpf has no way to probe this one: a type it does not know, or helpers of a type that needs a target to load.
    if (result === -errno.EOPNOTSUPP || result === -errno.EINVAL)
      throw new BpfError("UNSUPPORTED", `libbpf ${addon.libbpfVersion()} cannot probe for ${question}`);
    if (result < 0) throw kernelError(`cannot probe for ${question}`, "BPF_PROG_LOAD", result);
    answer = result === 1;
    answers.set(question, answer);
  }
  return answer;
}

function helperNumber(helper: number | string): number {
  if (typeof helper === "number") {
    requireInteger("the helper's id", helper, 1, 0xffff);
    return helper;
  }
  const names = addon.helperNames();
  const id = names.indexOf(helper.replace(/^bpf_/, ""));
  if (id < 1)
    throw new BpfError(
      "NO_SUCH_TYPE",
      `the headers this was compiled with have no helper ${shown(helper)}: give its number`,
    );
  return id;
}

export const probe = {
  programType: (type: ProgramType): boolean =>
    remember(`program type ${type}`, () => addon.probeProgramType(programTypeNumber(type))),
  mapType: (type: MapType): boolean => remember(`map type ${type}`, () => addon.probeMapType(mapTypeNumber(type))),
  /** Whether programs of a type may call a helper: by number or name, with or without "bpf_". */
  helper: (type: ProgramType, helper: number | string): boolean => {
    const id = helperNumber(helper);
    return remember(`helper ${id} in program type ${type}`, () => addon.probeHelper(programTypeNumber(type), id));
  },
  /** Of the libbpf that runs, "v1.1". */
  libbpfVersion: (): string => addon.libbpfVersion(),
};
