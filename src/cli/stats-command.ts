import type { Command } from "commander";
import { type DropStatistics, statisticsResource, type Traffic, type VirtualServiceStatistics } from "../api/client.js";
import type { ServiceKey } from "../model/index.js";
import { serviceArgument } from "./arguments.js";
import { addClientOptions, type ClientFlags, withClient } from "./instance.js";
import { json, print, table } from "./output.js";
import { shortName } from "./service-command.js";

/** Adds `sluice stats`. */
export function registerStatsCommand(program: Command): void {
  addClientOptions(
    program.command("stats").description("what services and real servers have carried, and what was dropped"),
  )
    .argument("[service]", "only this one: PROTOCOL:ADDRESS:PORT", serviceArgument)
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
    real_servers: statistics.realServers.map(({ realServer, traffic, activeConnections, inactiveConnections }) => ({
      name: shortName(realServer),
      active_connections: activeConnections,
      inactive_connections: inactiveConnections,
      ...plainTraffic(traffic),
    })),
  };
}

const NUMBERS = ["ACTIVE", "INACTIVE", "CONNECTIONS", "IN PACKETS", "IN BYTES", "OUT PACKETS", "OUT BYTES"];

/** A line a service, and below it one for each real server. */
function statisticsTable(services: readonly VirtualServiceStatistics[]): string {
  const columns = [{ title: "SERVICE" }, ...NUMBERS.map((title) => ({ title, right: true }))];
  const rows = services.flatMap((statistics) => {
    const { traffic, realServers } = statistics;
    const active = realServers.reduce((sum, { activeConnections }) => sum + activeConnections, 0n);
    const inactive = realServers.reduce((sum, { inactiveConnections }) => sum + inactiveConnections, 0n);
    return [
      [serviceOf(statistics), ...numbers(active, inactive, traffic)],
      ...realServers.map((counted) => [
        `  ${shortName(counted.realServer)}`,
        ...numbers(counted.activeConnections, counted.inactiveConnections, counted.traffic),
      ]),
    ];
  });
  return table(columns, rows);
}

function numbers(active: bigint, inactive: bigint, traffic: Traffic | undefined): string[] {
  return [active, inactive, ...Object.values(plainTraffic(traffic))].map(String);
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
