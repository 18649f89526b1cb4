import { type Command, Option } from "commander";
import {
  durationMessage,
  keyMessage,
  METHOD_MESSAGES,
  type Persistence,
  REMOVED_CONNECTIONS_MESSAGES,
  type RealServer,
  RemovedConnections as RemovedConnectionsMessage,
  SCHEDULER_MESSAGES,
  Scheduler,
  schedulerFlagsMessage,
  serviceResource,
  type VirtualService,
} from "../api/client.js";
import {
  REMOVED_CONNECTIONS,
  type RemovedConnections,
  SCHEDULER_FLAGS,
  SCHEDULERS,
  type SchedulerFlag,
  type SchedulerName,
  type ServiceKey,
  type TimeoutName,
} from "../model/index.js";
import {
  integerArgument,
  type RealServerSpecification,
  realServerSpecification,
  schedulerFlagsArgument,
  serviceArgument,
} from "./arguments.js";
import { type Assignment, assignedTimeouts, durationArgument, timeoutAssignment, timeoutMask } from "./assignments.js";
import { addClientOptions, type ClientFlags, withClient } from "./instance.js";
import { printService, printServices } from "./service-output.js";

interface ServiceFlags extends ClientFlags {
  readonly scheduler?: SchedulerName;
  readonly schedFlags?: readonly SchedulerFlag[];
  readonly tableSize?: number;
  /** Seconds; false: none. */
  readonly persistence?: number | false;
  readonly netmask?: string;
  readonly onePacket?: boolean;
  readonly timeout?: readonly Assignment<TimeoutName>[];
  readonly removedConnections?: RemovedConnections | false;
  readonly fullnatPool?: string | false;
  readonly realServer?: readonly RealServerSpecification[];
}

const SERVICE = "<service>";
export const SERVICE_HELP = "PROTOCOL:ADDRESS:PORT, as tcp:10.0.0.100:80 (port 0: every port), or fwmark:MARK";

/** Adds `sluice service list|get|create|update|delete`. */
export function registerServiceCommand(program: Command): void {
  const command = program.command("service").description("virtual services: what the director balances");

  addClientOptions(command.command("list").description("all virtual services, in order of name")).action(
    async (flags: ClientFlags) => {
      await withClient(flags, async (client) => {
        printServices(await client.listVirtualServices(), flags.output);
      });
    },
  );

  addClientOptions(command.command("get").description("one virtual service with its real servers"))
    .argument(SERVICE, SERVICE_HELP, serviceArgument)
    .action(async (key: ServiceKey, flags: ClientFlags) => {
      await withClient(flags, async (client) => {
        printService(await client.getVirtualService(serviceResource(key)), flags.output);
      });
    });

  addClientOptions(withServiceOptions(command.command("create").description("add a virtual service")))
    .argument(SERVICE, SERVICE_HELP, serviceArgument)
    .option(
      "--real-server <spec>",
      "ADDRESS[:PORT],METHOD[,WEIGHT[,UPPER[,LOWER]]] with METHOD nat, dr, tun or fullnat; may be repeated",
      realServerSpecification,
    )
    .addHelpText(
      "after",
      `
Example:
  sluice service create tcp:10.0.0.100:80 --scheduler wrr \\
    --real-server 10.1.0.11:8080,nat,3 --real-server 10.1.0.12:8080,nat
  sluice service create tcp:10.0.0.100:0 --persistence 5m --netmask 255.255.255.0 --real-server 10.1.0.11,dr`,
    )
    .action(async (key: ServiceKey, flags: ServiceFlags) => {
      await withClient(flags, async (client) => {
        const realServers = (flags.realServer ?? []).map(({ method, ...rest }) => {
          return { name: "", method: METHOD_MESSAGES[method], ...rest };
        });
        const created = await client.createVirtualService(serviceMessage(key, flags, realServers));
        printService(created, flags.output);
      });
    });

  addClientOptions(
    withResets(withServiceOptions(command.command("update").description("change what a virtual service does"))),
  )
    .argument(SERVICE, SERVICE_HELP, serviceArgument)
    .action(async (key: ServiceKey, flags: ServiceFlags, self: Command) => {
      const mask = maskOf(flags);
      if (mask.length === 0) {
        self.error("error: nothing to change: give an option that says what");
      }
      await withClient(flags, async (client) => {
        printService(await client.updateVirtualService(serviceMessage(key, flags, []), mask), flags.output);
      });
    });

  addClientOptions(command.command("delete").description("remove a virtual service and its real servers"))
    .argument(SERVICE, SERVICE_HELP, serviceArgument)
    .action(async (key: ServiceKey, flags: ClientFlags) => {
      await withClient(flags, async (client) => {
        await client.deleteVirtualService(serviceResource(key));
      });
    });
}

function withServiceOptions(command: Command): Command {
  return command
    .addOption(new Option("--scheduler <name>", "how a real server is picked (default: mh)").choices(SCHEDULERS))
    .option(
      "--sched-flags <flags>",
      `some of ${SCHEDULER_FLAGS.join(", ")}, with commas, or none (default: the fallback of mh and sh)`,
      schedulerFlagsArgument,
    )
    .option("--table-size <slots>", "mh: slots of its table", integerArgument)
    .option(
      "--persistence <duration>",
      "a client's connections keep their real server, until so long after the last new one (with --netmask alone: 360s)",
      durationArgument,
    )
    .option("--netmask <mask>", "persistence: clients alike in these bits are one; IPv4 as 255.255.255.0, IPv6 as 64")
    .option("--one-packet", "udp: schedule every packet by itself")
    .option(
      "--timeout <name=duration>",
      "one that is not the director's, as udp=30s, or as it is there, udp=default; may be repeated",
      timeoutAssignment,
    )
    .addOption(
      new Option(
        "--removed-connections <what>",
        "what the connections of removed real servers get (default: drop, or reset with expire_nodest_conn=1)",
      ).choices(REMOVED_CONNECTIONS),
    )
    .option("--fullnat-pool <name>", "where fullnat takes local addresses from (default: the default pool)");
}

function withResets(command: Command): Command {
  return command
    .option("--no-persistence", "schedule every connection by itself")
    .option("--no-one-packet", "schedule connections, not packets")
    .option("--no-removed-connections", "the default")
    .option("--no-fullnat-pool", "the default pool")
    .addHelpText("after", "\nExample:\n  sluice service update udp:10.0.0.100:53 --timeout udp=30s --no-persistence");
}

/** The fields that are to change. */
function maskOf(flags: ServiceFlags): string[] {
  const { persistence, netmask } = flags;
  const parts = [
    ...(persistence === undefined ? [] : ["persistence.timeout"]),
    ...(netmask === undefined ? [] : ["persistence.netmask"]),
  ];
  return [
    ...(flags.scheduler === undefined ? [] : ["scheduler"]),
    ...(flags.schedFlags === undefined ? [] : ["scheduler_flags"]),
    ...(flags.tableSize === undefined ? [] : ["table_size"]),
    ...(persistence === false ? ["persistence"] : parts),
    ...(flags.onePacket === undefined ? [] : ["one_packet"]),
    ...timeoutMask(flags.timeout ?? []),
    ...(flags.removedConnections === undefined ? [] : ["removed_connections"]),
    ...(flags.fullnatPool === undefined ? [] : ["fullnat_pool"]),
  ];
}

function persistenceMessage({ persistence, netmask }: ServiceFlags): Persistence | undefined {
  if (persistence === false || (persistence === undefined && netmask === undefined)) {
    return undefined;
  }
  return {
    timeout: persistence === undefined ? undefined : durationMessage(persistence),
    netmask: netmask ?? "",
  };
}

function serviceMessage(key: ServiceKey, flags: ServiceFlags, realServers: RealServer[]): VirtualService {
  return {
    ...keyMessage(key),
    scheduler: flags.scheduler === undefined ? Scheduler.UNSPECIFIED : SCHEDULER_MESSAGES[flags.scheduler],
    schedulerFlags: flags.schedFlags === undefined ? undefined : schedulerFlagsMessage(flags.schedFlags),
    tableSize: flags.tableSize,
    persistence: persistenceMessage(flags),
    onePacket: flags.onePacket,
    timeouts: flags.timeout === undefined ? undefined : assignedTimeouts(flags.timeout),
    removedConnections: flags.removedConnections
      ? REMOVED_CONNECTIONS_MESSAGES[flags.removedConnections]
      : RemovedConnectionsMessage.UNSPECIFIED,
    fullnatPool: flags.fullnatPool || "",
    realServers,
  };
}
