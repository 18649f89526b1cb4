// libbpf for Node. See README.md.
export { Btf, decodeRecord } from "./btf.js";
export type { BtfType, Composite, Enumerator, Member, Section, SectionVariable } from "./btf-types.js";
export type { Codec } from "./codec.js";
export { BpfError, type BpfErrorCode, type BpfErrorDetails, errorCodes } from "./error.js";
export * from "./flags.js";
export { type GenerateOptions, generate } from "./generate.js";
export { interfaceIndex, interfaceName } from "./interface.js";
export type { MapType, ProgramType } from "./kernel-types.js";
export { Link, type LinkInfo, type XdpMode } from "./link.js";
export {
  BpfMap,
  type CreateOptions,
  type OpenMapOptions,
  possibleCpus,
  type RawBatch,
  type UpdateMode,
} from "./map.js";
export { MappedArray } from "./mapped-array.js";
export { BpfObject, OpenMap, OpenObject, type OpenOptions, OpenProgram, openObject } from "./object.js";
export { probe } from "./probe.js";
export { Program, type ProgramInfo, type TestRunOptions, type TestRunResult } from "./program.js";
export { RingBuffer, type RingBufferOptions } from "./ring-buffer.js";
