// Why an object did not load, in words that name the culprit.
import type { LoadFailure, MapDescription } from "./addon.js";
import { BpfError, errno, kernelError, type Reading } from "./error.js";
import { mapTypeName } from "./kernel-types.js";
import { mapAdvice } from "./map-definition.js";
import { pinReadings } from "./pin.js";

/** Of the verifier's output: statistics, which follow the reason. */
const statistics = /^(processed \d+ insns|verification time|stack depth|max_states_per_insn|$)/;

/** What libbpf puts around the verifier's output (bpf_object_load_prog in libbpf.c). */
const programLog = /prog '([^']*)': -- BEGIN PROG LOAD LOG --\n([^]*?)-- END PROG LOAD LOG --/;

const failedMap = /map '([^']*)': failed to create: .*\(-(\d+)\)/;

function lastMeaningfulLine(log: string): string {
  const lines = log.split("\n").map((line) => line.trim());
  return lines.findLast((line) => !statistics.test(line)) ?? "it gave no reason";
}

export function explainLoadFailure(
  object: string,
  failure: LoadFailure,
  map: { readonly name: string; readonly pinPath: string | undefined } | undefined,
  descriptions: readonly MapDescription[],
): BpfError {
  const { stage, log } = failure;
  const where = `map ${map?.name ?? ""} at ${map?.pinPath ?? ""}`;
  switch (stage) {
    case "fit": {
      const show = (value: number): string | number => (failure.parameter === "type" ? mapTypeName(value) : value);
      return new BpfError(
        "PIN_DOES_NOT_FIT",
        `object ${object} cannot reuse the pinned ${where}: its ${failure.parameter} is ${show(failure.found)}, must be ${show(failure.wanted)}`,
        { errno: failure.errno, syscall: "BPF_OBJ_GET", log },
      );
    }
    case "kind":
      return new BpfError("WRONG_KIND", `object ${object} cannot reuse the pinned ${where}: it is no map`, {
        errno: failure.errno,
        log,
      });
    case "pin":
      return kernelError(`object ${object} cannot pin ${where}`, "BPF_OBJ_PIN", failure.errno, pinReadings, log);
    case "load":
      return explainLoad(object, failure, descriptions);
  }
}

function explainLoad(
  object: string,
  { errno: number, log }: LoadFailure,
  descriptions: readonly MapDescription[],
): BpfError {
  const rejected = programLog.exec(log);
  if (rejected !== null) {
    const [, program = "", output = ""] = rejected;
    return new BpfError(
      "VERIFIER_REJECTED",
      `the verifier rejected program ${program} of ${object}: ${lastMeaningfulLine(output)}`,
      {
        errno: number,
        syscall: "BPF_PROG_LOAD",
        log: output,
      },
    );
  }
  const refused = failedMap.exec(log);
  if (refused !== null) {
    const [, name = "", code] = refused;
    const description = descriptions.find((candidate) => candidate.name === name);
    const advice = description && mapAdvice({ ...description, type: mapTypeName(description.type) });
    const reading: Reading = { code: "INVALID_ARGUMENT", ...(advice === undefined ? {} : { advice }) };
    return kernelError(
      `object ${object} cannot create map ${name}`,
      "BPF_MAP_CREATE",
      Number(code),
      { [errno.EINVAL]: reading },
      log,
    );
  }
  const line =
    log
      .trimEnd()
      .split("\n")
      .at(-1)
      ?.replace(/^libbpf: /, "") ?? "";
  const general = kernelError(
    `cannot load object ${object}${line === "" ? "" : `: ${line}`}`,
    "bpf_object__load",
    number,
    {},
    log,
  );
  const known = general.code === "PERMISSION_DENIED" || general.code === "OUT_OF_MEMORY";
  return known
    ? general
    : new BpfError("LOAD_FAILED", general.message, { errno: number, syscall: "bpf_object__load", log });
}
