// The native functions as TypeScript sees them. Not public: they check no more than memory safety needs.
// A number where a handle or an object could be is a negative errno.
import { createRequire } from "node:module";

declare const kind: unique symbol;
interface Handle<Kind extends string> {
  readonly [kind]: Kind;
}
export type MapHandle = Handle<"map">;
export type ProgramHandle = Handle<"program">;
export type LinkHandle = Handle<"link">;
export type ObjectHandle = Handle<"object">;
export type RingHandle = Handle<"ring">;
export type AnyHandle = MapHandle | ProgramHandle | LinkHandle;

export type OpenedPin =
  | { readonly kind: "map"; readonly handle: MapHandle }
  | { readonly kind: "program"; readonly handle: ProgramHandle }
  | { readonly kind: "link"; readonly handle: LinkHandle };

export interface MapInfo {
  readonly type: number;
  readonly id: number;
  readonly keySize: number;
  readonly valueSize: number;
  readonly maxEntries: number;
  readonly flags: number;
  readonly name: string;
  readonly btfId: number;
  readonly keyTypeId: number;
  readonly valueTypeId: number;
  readonly transferSize: number;
}

export interface MapDescription {
  readonly name: string;
  readonly type: number;
  readonly keySize: number;
  readonly valueSize: number;
  readonly maxEntries: number;
  readonly flags: number;
  readonly internal: boolean;
  readonly keyTypeId: number;
  readonly valueTypeId: number;
  readonly pinPath?: string;
}

export interface ProgramDescription {
  readonly name: string;
  readonly section: string;
  readonly type: number;
  readonly autoload: boolean;
}

export interface NativeProgramInfo {
  readonly type: number;
  readonly id: number;
  readonly name: string;
  readonly tag: string;
  readonly loadTimeNs: bigint;
  readonly mapIds: number[];
  readonly verifiedInstructions: number;
  readonly jitedBytes: number;
  readonly translatedBytes: number;
}

export interface NativeTestRunResult {
  readonly returnValue: number;
  readonly durationNs: number;
  readonly data: Uint8Array;
  readonly context: Uint8Array;
}

export interface NativeLinkInfo {
  readonly id: number;
  readonly type: string;
  readonly programId: number;
  readonly ifindex?: number;
}

export interface OpenFailure {
  readonly errno: number;
  readonly log: string;
}

export interface LoadFailure extends OpenFailure {
  readonly stage: "load" | "pin" | "kind" | "fit";
  readonly map: number;
  readonly parameter: string;
  readonly wanted: number;
  readonly found: number;
}

export interface Loaded {
  readonly maps: (MapHandle | undefined)[];
  readonly programs: (ProgramHandle | undefined)[];
}

type BatchResult = readonly [error: number, done: number];
type TestRunArguments = [
  program: ProgramHandle,
  data: Uint8Array | undefined,
  context: Uint8Array | undefined,
  dataOutSize: number,
  contextOutSize: number,
  repeat: number,
  flags: number,
  cpu: number,
  batchSize: number,
];

interface Addon {
  btfById(id: number): Uint8Array | number;

  interfaceIndex(name: string): number;
  interfaceName(index: number): string | number;

  openPin(path: string): OpenedPin | number;
  pin(handle: AnyHandle, path: string): number;
  descriptor(handle: AnyHandle): number;
  closeMap(handle: MapHandle): void;
  closeProgram(handle: ProgramHandle): void;
  closeLink(handle: LinkHandle): void;

  createMap(
    type: number,
    name: string,
    keySize: number,
    valueSize: number,
    maxEntries: number,
    flags: number,
    inner: MapHandle | undefined,
  ): MapHandle | number;
  mapInfo(map: MapHandle): MapInfo | number;
  lookup(map: MapHandle, key: Uint8Array, value: Uint8Array): number;
  update(map: MapHandle, key: Uint8Array, value: Uint8Array, flags: number): number;
  remove(map: MapHandle, key: Uint8Array): number;
  nextKey(map: MapHandle, key: Uint8Array | undefined, next: Uint8Array): number;
  lookupBatch(
    map: MapHandle,
    position: Uint8Array | undefined,
    next: Uint8Array,
    keys: Uint8Array,
    values: Uint8Array,
    count: number,
  ): BatchResult;
  updateBatch(map: MapHandle, keys: Uint8Array, values: Uint8Array, count: number): BatchResult;
  removeBatch(map: MapHandle, keys: Uint8Array, count: number): BatchResult;
  setInner(outer: MapHandle, key: Uint8Array, inner: MapHandle): Promise<number>;
  freeze(map: MapHandle): number;
  mmap(map: MapHandle, writable: boolean): ArrayBuffer | number;
  detach(buffer: ArrayBuffer): void;

  programInfo(program: ProgramHandle): NativeProgramInfo | number;
  testRun(...run: TestRunArguments): NativeTestRunResult | number;
  testRunAsync(...run: TestRunArguments): Promise<NativeTestRunResult | number>;

  attachXdp(program: ProgramHandle, ifindex: number, flags: number): Promise<LinkHandle | number>;
  attachIterator(program: ProgramHandle, map: MapHandle | undefined): Promise<LinkHandle | number>;
  updateLink(link: LinkHandle, program: ProgramHandle, expected: ProgramHandle | undefined): Promise<number>;
  detachLink(link: LinkHandle): Promise<number>;
  linkInfo(link: LinkHandle): NativeLinkInfo | number;
  readIterator(link: LinkHandle, limit: number): Promise<Uint8Array | number>;

  openObject(bytes: Uint8Array, name: string, pinRoot: string | undefined): ObjectHandle | OpenFailure;
  closeObject(object: ObjectHandle): void;
  objectBtf(object: ObjectHandle): Uint8Array | undefined;
  objectMaps(object: ObjectHandle): MapDescription[];
  objectPrograms(object: ObjectHandle): ProgramDescription[];
  findSection(object: ObjectHandle, name: string): number;
  setMaxEntries(object: ObjectHandle, map: number, count: number): number;
  maxEntries(object: ObjectHandle, map: number): number;
  setAutocreate(object: ObjectHandle, map: number, on: boolean): number;
  setAutoload(object: ObjectHandle, program: number, on: boolean): number;
  reuse(object: ObjectHandle, map: number, existing: MapHandle): number;
  setInnerTemplate(object: ObjectHandle, map: number, inner: MapHandle): number;
  initialValue(object: ObjectHandle, map: number): Uint8Array | undefined;
  setInitialValue(object: ObjectHandle, map: number, bytes: Uint8Array): number;
  loadObject(object: ObjectHandle, pins: (string | undefined)[], reused: boolean[]): Promise<Loaded | LoadFailure>;

  openRing(
    map: MapHandle,
    callback: (records: Uint8Array, sizes: Uint32Array) => void,
    limit: number,
  ): RingHandle | number;
  closeRing(ring: RingHandle): void;

  mapTypeNames(): string[];
  programTypeNames(): string[];
  probeProgramType(type: number): number;
  probeMapType(type: number): number;
  probeHelper(type: number, id: number): number;
  helperNames(): string[];
  libbpfVersion(): string;
  possibleCpus(): number;
  errorText(errno: number): string;
}

export const addon = createRequire(import.meta.url)("../../build/Release/bpf_native.node") as Addon;
