/** Elements of the services map, read and written by the field offsets that the compiled object states. */
import { ADDRESS_BYTES } from "./address.js";
import { type Ring, readRing, writeRing } from "./ring-record.js";
import {
  AddressFamily,
  layout,
  type Protocol,
  type Scheduler,
  type SchedulerFlag,
  type ServiceKey,
} from "./sluice.bpf.js";
import { type ArrayMemory, clear } from "./tables.js";

/** How a service picks. */
export interface Scheduling {
  readonly scheduler: Scheduler;
  readonly flags: SchedulerFlag;
}

/** Which clients stay with their real server, and for how long. */
export interface PersistenceRecord {
  /** 16 bytes; of IPv4 the first four, the others are zero. */
  readonly mask: Uint8Array;
  /** 0: no persistence. */
  readonly ticks: number;
}

export interface ServiceRecord {
  readonly key: ServiceKey;
  readonly scheduling: Scheduling;
  readonly persistence: PersistenceRecord;
  readonly onePacket: boolean;
  readonly ring: Ring;
}

const offsets = layout.Service.offsets;

/** Undefined where the element is free. */
export function readService(services: ArrayMemory, index: number): ServiceRecord | undefined {
  const base = index * services.stride;
  const family = services.bytes[base + offsets.family] as AddressFamily;
  if (family === AddressFamily.FAMILY_NONE) {
    return undefined;
  }
  const address = (at: number): Uint8Array => services.bytes.slice(base + at, base + at + ADDRESS_BYTES);
  return {
    key: {
      vip: { bytes: address(offsets.vip) },
      port: services.u16[(base + offsets.port) / 2]!,
      protocol: services.bytes[base + offsets.protocol] as Protocol,
      family,
    },
    scheduling: {
      scheduler: services.bytes[base + offsets.scheduler] as Scheduler,
      flags: services.bytes[base + offsets.scheduler_flags] as SchedulerFlag,
    },
    persistence: {
      mask: address(offsets.persistence_mask),
      ticks: services.u32[(base + offsets.persistence) / 4]!,
    },
    onePacket: services.bytes[base + offsets.one_packet] !== 0,
    ring: readRing(services, base + offsets.ring),
  };
}

/** Its family is stored last, so an interrupted write leaves a free element. */
export function writeService(services: ArrayMemory, index: number, record: ServiceRecord): void {
  const base = index * services.stride;
  const { key } = record;
  clear(services, index);
  services.bytes.set(key.vip.bytes, base + offsets.vip);
  services.u16[(base + offsets.port) / 2] = key.port;
  services.bytes[base + offsets.protocol] = key.protocol;
  writeScheduling(services, index, record.scheduling);
  writePersistence(services, index, record.persistence);
  writeOnePacket(services, index, record.onePacket);
  writeServiceRing(services, index, record.ring);
  services.bytes[base + offsets.family] = key.family;
}

export function writeScheduling(services: ArrayMemory, index: number, { scheduler, flags }: Scheduling): void {
  const base = index * services.stride;
  services.bytes[base + offsets.scheduler] = scheduler;
  services.bytes[base + offsets.scheduler_flags] = flags;
}

/** Whoever sees the time sees a mask that it is for: an end comes before the mask goes, a beginning after it has come. */
export function writePersistence(services: ArrayMemory, index: number, { mask, ticks }: PersistenceRecord): void {
  const base = index * services.stride;
  const ticksAt = (base + offsets.persistence) / 4;
  if (ticks === 0) {
    Atomics.store(services.u32, ticksAt, 0);
  }
  services.bytes.set(mask, base + offsets.persistence_mask);
  Atomics.store(services.u32, ticksAt, ticks);
}

export function writeOnePacket(services: ArrayMemory, index: number, onePacket: boolean): void {
  Atomics.store(services.bytes, index * services.stride + offsets.one_packet, Number(onePacket));
}

/** A service without a ring opens no connections. */
export function writeServiceRing(services: ArrayMemory, index: number, ring: Ring): void {
  writeRing(services, index * services.stride + offsets.ring, ring);
}
