import {
  type AddressFamily,
  type Drops,
  type ForwardingMethod,
  hasSchedulerFlags,
  type Protocol,
  type RealServer,
  type RemovedConnections,
  realServerName,
  type SchedulerFlag,
  type SchedulerName,
  type ServiceCounters,
  type ServiceKey,
  type TrafficCounters,
  type VirtualService,
} from "../model/index.js";
import { persistenceMessage, plainPersistenceOf, plainTimeoutsOf, timeoutsMessage } from "./duration-messages.js";
import {
  ForwardingMethod as MethodMessage,
  type RealServer as RealServerMessage,
} from "./gen/sluice/v1/real_server.js";
import type { DropStatistics, Traffic, VirtualServiceStatistics } from "./gen/sluice/v1/statistics.js";
import {
  AddressFamily as FamilyMessage,
  Protocol as ProtocolMessage,
  RemovedConnections as RemovedConnectionsMessage,
  SchedulerFlag as SchedulerFlagMessage,
  type SchedulerFlags as SchedulerFlagsMessage,
  Scheduler as SchedulerMessage,
  type VirtualService as VirtualServiceMessage,
} from "./gen/sluice/v1/virtual_service.js";
import { realServerResource, serviceResource, statisticsResource } from "./names.js";

export const PROTOCOL_MESSAGES: Readonly<Record<Protocol, ProtocolMessage>> = {
  tcp: ProtocolMessage.TCP,
  udp: ProtocolMessage.UDP,
  sctp: ProtocolMessage.SCTP,
};

export const FAMILY_MESSAGES: Readonly<Record<AddressFamily, FamilyMessage>> = {
  ipv4: FamilyMessage.IPV4,
  ipv6: FamilyMessage.IPV6,
};

export const REMOVED_CONNECTIONS_MESSAGES: Readonly<Record<RemovedConnections, RemovedConnectionsMessage>> = {
  drop: RemovedConnectionsMessage.DROP,
  keep: RemovedConnectionsMessage.KEEP,
  reset: RemovedConnectionsMessage.RESET,
};

export const SCHEDULER_MESSAGES: Readonly<Record<SchedulerName, SchedulerMessage>> = {
  mh: SchedulerMessage.MH,
  rr: SchedulerMessage.RR,
  wrr: SchedulerMessage.WRR,
  lc: SchedulerMessage.LC,
  wlc: SchedulerMessage.WLC,
  sh: SchedulerMessage.SH,
  dh: SchedulerMessage.DH,
  sed: SchedulerMessage.SED,
  nq: SchedulerMessage.NQ,
  lblc: SchedulerMessage.LBLC,
  lblcr: SchedulerMessage.LBLCR,
  fo: SchedulerMessage.FO,
  ovf: SchedulerMessage.OVF,
  twos: SchedulerMessage.TWOS,
};

const SCHEDULER_FLAG_MESSAGES: Readonly<Record<SchedulerFlag, SchedulerFlagMessage>> = {
  "sh-fallback": SchedulerFlagMessage.SH_FALLBACK,
  "sh-port": SchedulerFlagMessage.SH_PORT,
  "mh-fallback": SchedulerFlagMessage.MH_FALLBACK,
  "mh-port": SchedulerFlagMessage.MH_PORT,
};

export const METHOD_MESSAGES: Readonly<Record<ForwardingMethod, MethodMessage>> = {
  nat: MethodMessage.NAT,
  dr: MethodMessage.DR,
  tun: MethodMessage.TUN,
  fullnat: MethodMessage.FULLNAT,
};

/** The part of a message that identifies a service. */
export function keyMessage(
  service: ServiceKey,
): Pick<VirtualServiceMessage, "name" | "protocol" | "address" | "port" | "fwmark" | "family"> {
  const name = serviceResource(service);
  if (service.fwmark !== undefined) {
    const family = FAMILY_MESSAGES[service.family];
    return {
      name,
      protocol: ProtocolMessage.UNSPECIFIED,
      address: "",
      port: undefined,
      fwmark: service.fwmark,
      family,
    };
  }
  const { address, port } = service;
  const protocol = PROTOCOL_MESSAGES[service.protocol];
  return { name, protocol, address, port, fwmark: 0, family: FamilyMessage.UNSPECIFIED };
}

export function serviceMessage(service: VirtualService): VirtualServiceMessage {
  const { persistence, timeouts, removedConnections } = service;
  return {
    ...keyMessage(service),
    scheduler: SCHEDULER_MESSAGES[service.scheduler],
    schedulerFlags: hasSchedulerFlags(service.scheduler) ? schedulerFlagsMessage(service.schedulerFlags) : undefined,
    tableSize: service.tableSize,
    persistence: persistence === undefined ? undefined : persistenceMessage(persistence),
    onePacket: service.onePacket,
    timeouts: timeouts === undefined ? undefined : timeoutsMessage(timeouts),
    removedConnections:
      removedConnections === undefined
        ? RemovedConnectionsMessage.UNSPECIFIED
        : REMOVED_CONNECTIONS_MESSAGES[removedConnections],
    fullnatPool: service.fullnatPool ?? "",
    realServers: service.realServers.map((realServer) => realServerMessage(service, realServer)),
  };
}

export function realServerMessage(service: ServiceKey, realServer: RealServer): RealServerMessage {
  return {
    name: realServerResource(service, realServer),
    address: realServer.address,
    port: realServer.port,
    method: METHOD_MESSAGES[realServer.method],
    weight: realServer.weight,
    upperThreshold: realServer.upperThreshold,
    lowerThreshold: realServer.lowerThreshold,
  };
}

/** The model's word for an enum's value: undefined for the unspecified one, the value itself where there is no such word. */
export function word<Word extends string>(words: Readonly<Record<Word, string>>, message: string): string | undefined {
  if (message.endsWith("UNSPECIFIED")) {
    return undefined;
  }
  const entry = Object.entries<string>(words).find(([, value]) => value === message);
  return entry?.[0] ?? message;
}

export function protocolWord(message: ProtocolMessage): string | undefined {
  return word(PROTOCOL_MESSAGES, message);
}

export function familyWord(message: FamilyMessage): string | undefined {
  return word(FAMILY_MESSAGES, message);
}

export function removedConnectionsWord(message: RemovedConnectionsMessage): string | undefined {
  return word(REMOVED_CONNECTIONS_MESSAGES, message);
}

export function schedulerWord(message: SchedulerMessage): string | undefined {
  return word(SCHEDULER_MESSAGES, message);
}

export function schedulerFlagsMessage(flags: readonly SchedulerFlag[]): SchedulerFlagsMessage {
  return { flags: flags.map((flag) => SCHEDULER_FLAG_MESSAGES[flag]) };
}

/** Undefined where the message says nothing of flags; an element is undefined where the message names none. */
export function schedulerFlagWords(
  message: SchedulerFlagsMessage | undefined,
): readonly (string | undefined)[] | undefined {
  return message?.flags.map((flag) => word(SCHEDULER_FLAG_MESSAGES, flag));
}

export function methodWord(message: MethodMessage): string | undefined {
  return word(METHOD_MESSAGES, message);
}

/** The model's plain form of a message, unvalidated. A field at proto3's default value counts as absent where it has no presence. */
export function plainServiceOf(message: VirtualServiceMessage): Readonly<Record<string, unknown>> {
  return {
    protocol: protocolWord(message.protocol),
    address: message.address === "" ? undefined : message.address,
    port: message.port,
    fwmark: message.fwmark === 0 ? undefined : message.fwmark,
    family: familyWord(message.family),
    scheduler: schedulerWord(message.scheduler),
    scheduler_flags: schedulerFlagWords(message.schedulerFlags),
    table_size: message.tableSize,
    persistence: plainPersistenceOf(message.persistence),
    one_packet: message.onePacket,
    timeouts: plainTimeoutsOf(message.timeouts),
    removed_connections: removedConnectionsWord(message.removedConnections),
    fullnat_pool: message.fullnatPool === "" ? undefined : message.fullnatPool,
    real_servers: message.realServers.map(plainRealServerOf),
  };
}

export function plainRealServerOf(message: RealServerMessage): Readonly<Record<string, unknown>> {
  return {
    address: message.address === "" ? undefined : message.address,
    port: message.port,
    method: methodWord(message.method),
    weight: message.weight,
    upper_threshold: message.upperThreshold,
    lower_threshold: message.lowerThreshold,
  };
}

const NO_TRAFFIC: TrafficCounters = { connections: 0n, inPackets: 0n, inBytes: 0n, outPackets: 0n, outBytes: 0n };

/** A service that the data plane has not counted for has zeros. */
export function serviceStatisticsMessage(
  service: VirtualService,
  counters: ServiceCounters | undefined,
): VirtualServiceStatistics {
  return {
    name: statisticsResource(service),
    traffic: trafficMessage(counters ?? NO_TRAFFIC),
    realServers: service.realServers.map((realServer) => {
      const counted = counters?.realServers.get(realServerName(realServer));
      return {
        realServer: realServerResource(service, realServer),
        traffic: trafficMessage(counted ?? NO_TRAFFIC),
        activeConnections: BigInt(counted?.active ?? 0),
        inactiveConnections: BigInt(counted?.inactive ?? 0),
        persistentConnections: BigInt(counted?.persistentConnections ?? 0),
        overloaded: counted?.overloaded ?? false,
        localPortsInUse: count(counted?.localPortsInUse),
        localPorts: count(counted?.localPorts),
      };
    }),
  };
}

function count(value: number | undefined): bigint | undefined {
  return value === undefined ? undefined : BigInt(value);
}

function trafficMessage({ connections, inPackets, inBytes, outPackets, outBytes }: TrafficCounters): Traffic {
  return { connections, inPackets, inBytes, outPackets, outBytes };
}

export function dropStatisticsMessage(drops: Drops): DropStatistics {
  return { drops: Object.entries(drops).map(([reason, { packets, bytes }]) => ({ reason, packets, bytes })) };
}
