import type { Command } from "commander";
import {
  type DropStatistics,
  type RealServerStatistics,
  statisticsResource,
  type Traffic,
  type VirtualServiceStatistics,
} from "../api/client.js";
import type { ServiceKey } from "../model/index.js";
import { serviceArgument } from "./arguments.js";
import { addClientOptions, type ClientFlags, withClient } from "./instance.js";
import { json, print, table, tableOfUsed } from "./output.js";
import { SERVICE_HELP } from "./service-command.js";
import { shortName } from "./service-output.js";

/** Adds `sluice stats`. */
export function registerStatsCommand(program: Command): void {
  addClientOptions(
    program.command("stats").description("what services and real servers have carried, and what was dropped"),
  )
    .argument("[service]", `only this one: ${SERVICE_HELP}`, serviceArgument)
    .action(async (service: ServiceKey | undefined, flags: ClientFlags) => {
      await withClient(flags, async (client) => {
        const services =
          service === undefined
            ? await client.listVirtualServiceStatistics()
            : [await client.getVirtualServiceStatistics(statisticsResource(service))];
        const { drops } = await client.getDropStatistics();
        print(
          flags.output === "json"
            ? json({ services: services.map(plainStatistics), drops })
            : statisticsTable(services) + dropsTable(drops),
        );
      });
    });
}

/** The name of `virtualServices/NAME/statistics`. */
function serviceOf(statistics: VirtualServiceStatistics): string {
  return shortName(statistics.name.slice(0, statistics.name.lastIndexOf("/")));
}

function plainTraffic(traffic: Traffic | undefined): Readonly<Record<string, bigint>> {
  return {
    connections: traffic?.connections ?? 0n,
    in_packets: traffic?.inPackets ?? 0n,
    in_bytes: traffic?.inBytes ?? 0n,
    out_packets: traffic?.outPackets ?? 0n,
    out_bytes: traffic?.outBytes ?? 0n,
  };
}

function plainStatistics(statistics: VirtualServiceStatistics): object {
  return {
    name: serviceOf(statistics),
    ...plainTraffic(statistics.traffic),
    real_servers: statistics.realServers.map((counted) => ({
      name: shortName(counted.realServer),
      active_connections: counted.activeConnections,
      inactive_connections: counted.inactiveConnections,
      persistent_connections: counted.persistentConnections,
      overloaded: counted.overloaded,
      ...(counted.localPorts === undefined
        ? {}
        : { local_ports_in_use: counted.localPortsInUse, local_ports: counted.localPorts }),
      ...plainTraffic(counted.traffic),
    })),
  };
}

const NUMBERS = [
  "ACTIVE",
  "INACTIVE",
  "PERSISTENT",
  "CONNECTIONS",
  "IN PACKETS",
  "IN BYTES",
  "OUT PACKETS",
  "OUT BYTES",
];

/** A line a service, and below it one for each real server. */
function statisticsTable(services: readonly VirtualServiceStatistics[]): string {
  const columns = [
    { title: "SERVICE" },
    ...NUMBERS.map((title) => ({ title, right: true })),
    { title: "LOCAL PORTS", right: true },
    { title: "OVERLOADED" },
  ];
  const rows = services.flatMap((statistics) => {
    const { traffic, realServers } = statistics;
    const sum = (countOf: (counted: RealServerStatistics) => bigint): bigint =>
      realServers.reduce((total, counted) => total + countOf(counted), 0n);
    const totals = {
      activeConnections: sum(({ activeConnections }) => activeConnections),
      inactiveConnections: sum(({ inactiveConnections }) => inactiveConnections),
      persistentConnections: sum(({ persistentConnections }) => persistentConnections),
    };
    return [
      [serviceOf(statistics), ...numbers(totals, traffic), "", ""],
      ...realServers.map((counted) => [
        `  ${shortName(counted.realServer)}`,
        ...numbers(counted, counted.traffic),
        localPorts(counted),
        counted.overloaded ? "yes" : "",
      ]),
    ];
  });
  return tableOfUsed(columns, rows);
}

type Load = Pick<RealServerStatistics, "activeConnections" | "inactiveConnections" | "persistentConnections">;

function numbers(load: Load, traffic: Traffic | undefined): string[] {
  const { activeConnections, inactiveConnections, persistentConnections } = load;
  const counts = [activeConnections, inactiveConnections, persistentConnections];
  return [...counts, ...Object.values(plainTraffic(traffic))].map(String);
}

/** How much of fullnat's pool is taken: `31744 (50 %)`. */
function localPorts({ localPortsInUse = 0n, localPorts = 0n }: RealServerStatistics): string {
  if (localPorts === 0n) {
    return "";
  }
  const share = (Number(localPortsInUse) / Number(localPorts)) * 100;
  return `${String(localPortsInUse)} (${share.toFixed(0)} %)`;
}

/** Only reasons that have occurred; nothing where none has. */
function dropsTable(drops: DropStatistics["drops"]): string {
  const occurred = drops.filter(({ packets }) => packets > 0n);
  if (occurred.length === 0) {
    return "";
  }
  const columns = [{ title: "DROPPED" }, { title: "PACKETS", right: true }, { title: "BYTES", right: true }];
  return `\n${table(
    columns,
    occurred.map(({ reason, packets, bytes }) => [reason, String(packets), String(bytes)]),
  )}`;
}
