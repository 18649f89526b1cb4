import {
  methodWord,
  plainPersistenceOf,
  plainRealServerOf,
  plainServiceOf,
  plainTimeoutsOf,
  type RealServer,
  removedConnectionsWord,
  schedulerFlagWords,
  schedulerWord,
  type VirtualService,
} from "../api/client.js";
import { json, type OutputFormat, print, tableOfUsed } from "./output.js";

export function printService(service: VirtualService, output: OutputFormat): void {
  print(
    output === "json" ? json(plainService(service)) : serviceTable([service]) + realServerTable(service.realServers),
  );
}

export function printServices(services: readonly VirtualService[], output: OutputFormat): void {
  print(output === "json" ? json(services.map(plainService)) : serviceTable(services));
}

export function printRealServer(realServer: RealServer, output: OutputFormat): void {
  print(output === "json" ? json(plainRealServer(realServer)) : realServerTable([realServer]));
}

export function printRealServers(realServers: readonly RealServer[], output: OutputFormat): void {
  print(output === "json" ? json(realServers.map(plainRealServer)) : realServerTable(realServers));
}

/** As in YAML, with the name. */
function plainService(service: VirtualService): object {
  const { one_packet, ...plain } = plainServiceOf(service);
  return {
    name: shortName(service.name),
    ...plain,
    ...(one_packet === true ? { one_packet } : {}),
    real_servers: service.realServers.map(plainRealServer),
  };
}

function plainRealServer(realServer: RealServer): object {
  const { upper_threshold, lower_threshold, ...plain } = plainRealServerOf(realServer);
  return {
    name: shortName(realServer.name),
    ...plain,
    ...(upper_threshold === 0 ? {} : { upper_threshold }),
    ...(lower_threshold === 0 ? {} : { lower_threshold }),
  };
}

function serviceTable(services: readonly VirtualService[]): string {
  const columns = [
    { title: "SERVICE" },
    { title: "SCHEDULER" },
    { title: "REAL SERVERS", right: true },
    { title: "OPTIONS" },
  ];
  const rows = services.map((service) => {
    const { name, scheduler, schedulerFlags, tableSize, realServers } = service;
    const options = [
      ...(tableSize === undefined ? [] : [String(tableSize)]),
      ...(schedulerFlagWords(schedulerFlags) ?? []),
    ];
    const suffix = options.length === 0 ? "" : ` (${options.join(",")})`; // as ipvsadm -L lists flags
    return [
      shortName(name),
      `${schedulerWord(scheduler) ?? ""}${suffix}`,
      String(realServers.length),
      optionsOf(service).join(", "),
    ];
  });
  return tableOfUsed(columns, rows);
}

/** What a service says beside its scheduler, the first two as ipvsadm -L has them. */
function optionsOf(service: VirtualService): string[] {
  const { onePacket, timeouts, removedConnections, fullnatPool } = service;
  const persistence = plainPersistenceOf(service.persistence);
  const removed = removedConnectionsWord(removedConnections);
  const options: string[] = [];
  if (persistence !== undefined) {
    options.push(`persistent ${persistence.timeout ?? ""} mask ${String(persistence.netmask)}`);
  }
  if (onePacket === true) {
    options.push("ops");
  }
  for (const [name, duration] of Object.entries(plainTimeoutsOf(timeouts) ?? {})) {
    if (duration !== undefined) {
      options.push(`${name} ${duration}`);
    }
  }
  if (removed !== undefined) {
    options.push(`removed connections ${removed}`);
  }
  if (fullnatPool !== "") {
    options.push(`pool ${fullnatPool}`);
  }
  return options;
}

function realServerTable(realServers: readonly RealServer[]): string {
  const columns = [
    { title: "REAL SERVER" },
    { title: "METHOD" },
    { title: "WEIGHT", right: true },
    { title: "UPPER", right: true },
    { title: "LOWER", right: true },
  ];
  const rows = realServers.map(({ name, method, weight, upperThreshold, lowerThreshold }) => {
    const thresholds = [upperThreshold, lowerThreshold].map((threshold = 0) =>
      threshold === 0 ? "" : String(threshold),
    );
    return [shortName(name), methodWord(method) ?? "", String(weight ?? ""), ...thresholds];
  });
  return tableOfUsed(columns, rows);
}

/** The last id of a resource name: what people type. */
export function shortName(resource: string): string {
  return resource.slice(resource.lastIndexOf("/") + 1);
}
