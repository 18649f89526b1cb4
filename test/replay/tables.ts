/** What the kernel's tables hold after a trace's commands, and the desired state of ours that is the same. */
import {
  type DesiredState,
  endpointName,
  keepIdentity,
  type PlainRealServer,
  type RealServer,
  type RealServerKey,
  type ServiceKey,
  type SettingName,
  serviceName,
  validateDesiredState,
} from "../../src/model/index.js";
import type { Command, Service } from "./command.js";
import { changeRules, type FirewallChange, type MarkRules, markRules } from "./firewall.js";
import type { PacketEvent } from "./trace.js";

export interface Tables {
  readonly services: readonly KernelService[];
  /** Seconds, where they were set: by their names in ours. */
  readonly timeouts: Readonly<Record<string, number>>;
  readonly settings: Readonly<Partial<Record<SettingName, number>>>;
  /** In iptables' order. */
  readonly marks: readonly MarkRules[];
}

export interface KernelService extends Service {
  /** The last added first, with the ports that the kernel knows them by. */
  readonly realServers: readonly RealServer[];
}

export const EMPTY_TABLES: Tables = { services: [], timeouts: {}, settings: {}, marks: [] };

/** The kernel has no such service or real server, or has it already. */
export class Refusal extends Error {
  readonly code = "COMMAND_REFUSED";

  constructor(problem: string) {
    super(problem);
    this.name = "Refusal";
  }
}

/** @throws Refusal (ip_vs_ctl.c, do_ip_vs_set_ctl()) */
export function afterCommand(tables: Tables, command: Command): Tables {
  switch (command.kind) {
    case "clear":
      return { ...tables, services: [] };
    case "zero":
      if (command.service !== undefined) find(tables, command.service);
      return tables;
    case "timeouts": {
      const { tcp, tcpFin, udp } = command;
      const given = { tcp_established: tcp, tcp_fin_wait: tcpFin, udp };
      const set = Object.fromEntries(Object.entries(given).filter(([, seconds]) => seconds > 0));
      return { ...tables, timeouts: { ...tables.timeouts, ...set } };
    }
    case "add service":
      if (tables.services.some(isOf(command.service.key))) throw new Refusal("the service exists already");
      return { ...tables, services: [...tables.services, { ...command.service, realServers: [] }] };
    case "edit service": {
      const { realServers } = find(tables, command.service.key);
      return replaced(tables, { ...command.service, realServers });
    }
    case "delete service": {
      const gone = find(tables, command.service);
      return { ...tables, services: tables.services.filter((service) => service !== gone) };
    }
    case "add server":
    case "edit server":
    case "delete server": {
      const service = find(tables, command.service);
      return replaced(tables, { ...service, realServers: afterServerCommand(service.realServers, command) });
    }
    default:
      return command satisfies never;
  }
}

type ServerCommand = Extract<Command, { kind: "add server" | "edit server" | "delete server" }>;

/** New real servers go to the head of the list (ip_vs_add_dest()). */
function afterServerCommand(realServers: readonly RealServer[], command: ServerCommand): readonly RealServer[] {
  const at = realServers.findIndex(({ address, port }) => isSame({ address, port }, command.realServer));
  if (command.kind === "add server") {
    if (at !== -1) throw new Refusal("the real server exists already");
    return [command.realServer, ...realServers];
  }
  if (at === -1) throw new Refusal("there is no such real server");
  return command.kind === "edit server" ? realServers.with(at, command.realServer) : realServers.toSpliced(at, 1);
}

function isSame(a: RealServerKey, b: RealServerKey): boolean {
  return a.address === b.address && a.port === b.port;
}

function isOf(key: ServiceKey): (service: Service) => boolean {
  const name = serviceName(key);
  return (service) => serviceName(service.key) === name;
}

function find({ services }: Tables, key: ServiceKey): KernelService {
  const found = services.find(isOf(key));
  if (found === undefined) throw new Refusal("there is no such service");
  return found;
}

function replaced(tables: Tables, changed: KernelService): Tables {
  return { ...tables, services: tables.services.map((service) => (isOf(changed.key)(service) ? changed : service)) };
}

export function afterFirewallChange(tables: Tables, change: FirewallChange): Tables {
  return { ...tables, marks: changeRules(tables.marks, change) };
}

/** IPVS has one size compiled in (CONFIG_IP_VS_MH_TAB_INDEX = 12). */
const KERNEL_TABLE_SIZE = 4093;
/** The kernel's ICMP was not limited when the traces were taken. */
const UNLIMITED = 1_000_000;

/** @throws ModelError */
export function desiredState(tables: Tables, previous: DesiredState): DesiredState {
  const next = validateDesiredState({
    settings: { icmp_rate: UNLIMITED, ...tables.settings },
    timeouts: Object.fromEntries(Object.entries(tables.timeouts).map(([name, seconds]) => [name, `${seconds}s`])),
    marks: markRules(tables.marks),
    services: tables.services.map(({ key, scheduler, flags, persistence, onePacket, realServers }) => ({
      ...key,
      scheduler,
      ...(["mh", "sh"].includes(scheduler) && { scheduler_flags: flags }), // ipvsadm's default is none
      ...(scheduler === "mh" && { table_size: KERNEL_TABLE_SIZE }),
      ...(persistence !== undefined && {
        persistence: {
          timeout: `${persistence.timeout}s`,
          ...(persistence.netmask !== undefined && { netmask: persistence.netmask }),
        },
      }),
      ...(onePacket && { one_packet: true }),
      real_servers: realServers.map((realServer) => plainOf(key, realServer)),
    })),
  });
  return keepIdentity(previous, next);
}

function plainOf(key: ServiceKey, realServer: RealServer): PlainRealServer {
  const { address, method, weight, upperThreshold, lowerThreshold } = realServer;
  const { port } = ownKey(key, realServer);
  return { address, port, method, weight, upper_threshold: upperThreshold, lower_threshold: lowerThreshold };
}

/** How ours names the real server: the kernel lets it have a port that it does not use. */
export function ownKey(key: ServiceKey, { address, port, method }: RealServer): RealServerKey {
  const isUnused = key.port === 0 || (key.port === undefined && method !== "nat");
  return { address, port: isUnused ? 0 : port };
}

/** "10.0.0.100:80", as ipvsadm prints services by address; their marks with a sign, as it prints them. */
export function endpointOf(key: ServiceKey): string {
  return key.fwmark === undefined ? endpointName(key) : `${key.fwmark | 0}${key.family === "ipv6" ? " IPv6" : ""}`;
}

/** A service's address, in whose place a firewall mark is. */
export function vipOf({ address, fwmark = 0 }: ServiceKey): string {
  return address ?? [24, 16, 8, 0].map((shift) => (fwmark >>> shift) & 255).join(".");
}

/** Which service a client's packet is for (ip_vs_service_find()). */
export function serviceOf(tables: Tables, packet: PacketEvent): KernelService | undefined {
  const { services } = tables;
  const { protocol, destination: address, destinationPort } = packet;
  const { marks } = desiredState({ ...EMPTY_TABLES, marks: tables.marks }, NOTHING);
  const mark = marks.find((rule) => matches(rule, packet))?.mark;
  return (
    services.find(({ key }) => mark !== undefined && key.fwmark === mark) ??
    [destinationPort, 0]
      .map((port) =>
        services.find(({ key }) => key.protocol === protocol && key.address === address && key.port === port),
      )
      .find((service) => service !== undefined)
  );
}

const NOTHING = validateDesiredState({ services: [] });
type Rule = DesiredState["marks"][number];

function matches(rule: Rule, packet: PacketEvent): boolean {
  const { protocol, source, destination, sourcePorts, destinationPorts } = rule;
  return (
    (protocol === undefined || protocol === packet.protocol) &&
    isWithin(packet.source, source) &&
    isWithin(packet.destination, destination) &&
    isBetween(packet.sourcePort, sourcePorts) &&
    isBetween(packet.destinationPort, destinationPorts)
  );
}

function isWithin(address: string, network: Rule["source"]): boolean {
  if (network === undefined || network.prefixLength === 0) return true;
  const bits = (text: string): number => text.split(".").reduce((sum, byte) => (sum << 8) | Number(byte), 0);
  return (bits(address) ^ bits(network.address)) >>> (32 - network.prefixLength) === 0;
}

function isBetween(port: number, range: Rule["sourcePorts"]): boolean {
  return range === undefined || (port >= range[0] && port <= range[1]);
}
