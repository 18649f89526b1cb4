import { type Command, Option } from "commander";
import {
  keyMessage,
  METHOD_MESSAGES,
  methodWord,
  protocolWord,
  type RealServer,
  RemovedConnections,
  SCHEDULER_MESSAGES,
  Scheduler,
  schedulerFlagsMessage,
  schedulerFlagWords,
  schedulerWord,
  serviceResource,
  type VirtualService,
} from "../api/client.js";
import {
  SCHEDULER_FLAGS,
  SCHEDULERS,
  type SchedulerFlag,
  type SchedulerName,
  type ServiceKey,
} from "../model/index.js";
import {
  integerArgument,
  type RealServerSpecification,
  realServerSpecification,
  schedulerFlagsArgument,
  serviceArgument,
} from "./arguments.js";
import { addClientOptions, type ClientFlags, withClient } from "./instance.js";
import { json, type OutputFormat, print, table } from "./output.js";

interface ServiceFlags extends ClientFlags {
  readonly scheduler?: SchedulerName;
  readonly schedFlags?: readonly SchedulerFlag[];
  readonly tableSize?: number;
  readonly realServer?: readonly RealServerSpecification[];
}

const SERVICE = "<service>";
const SERVICE_HELP = "PROTOCOL:ADDRESS:PORT, as tcp:10.0.0.100:80";

/** Adds `sluice service list|get|create|update|delete`. */
export function registerServiceCommand(program: Command): void {
  const command = program.command("service").description("virtual services: what the director balances");

  addClientOptions(command.command("list").description("all virtual services, in order of name")).action(
    async (flags: ClientFlags) => {
      await withClient(flags, async (client) => {
        const services = await client.listVirtualServices();
        print(flags.output === "json" ? json(services.map(plainService)) : serviceTable(services));
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
      "ADDRESS[:PORT],METHOD[,WEIGHT] with METHOD nat, dr, tun or fullnat; may be repeated",
      realServerSpecification,
    )
    .addHelpText(
      "after",
      `
Example:
  sluice service create tcp:10.0.0.100:80 --scheduler wrr \\
    --real-server 10.1.0.11:8080,nat,3 --real-server 10.1.0.12:8080,nat`,
    )
    .action(async (key: ServiceKey, flags: ServiceFlags) => {
      await withClient(flags, async (client) => {
        const realServers = (flags.realServer ?? []).map(({ address, port, method, weight }) => {
          return { name: "", address, port, method: METHOD_MESSAGES[method], weight };
        });
        const created = await client.createVirtualService(serviceMessage(key, flags, realServers));
        printService(created, flags.output);
      });
    });

  addClientOptions(withServiceOptions(command.command("update").description("change a virtual service's scheduler")))
    .argument(SERVICE, SERVICE_HELP, serviceArgument)
    .action(async (key: ServiceKey, flags: ServiceFlags, self: Command) => {
      const mask = [
        ...(flags.scheduler === undefined ? [] : ["scheduler"]),
        ...(flags.schedFlags === undefined ? [] : ["scheduler_flags"]),
        ...(flags.tableSize === undefined ? [] : ["table_size"]),
      ];
      if (mask.length === 0) {
        self.error("error: nothing to change: give --scheduler, --sched-flags or --table-size");
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
    .option("--table-size <slots>", "mh: slots of its table", integerArgument);
}

function serviceMessage(key: ServiceKey, flags: ServiceFlags, realServers: RealServer[]): VirtualService {
  return {
    ...keyMessage(key),
    scheduler: flags.scheduler === undefined ? Scheduler.UNSPECIFIED : SCHEDULER_MESSAGES[flags.scheduler],
    schedulerFlags: flags.schedFlags === undefined ? undefined : schedulerFlagsMessage(flags.schedFlags),
    tableSize: flags.tableSize,
    removedConnections: RemovedConnections.UNSPECIFIED,
    fullnatPool: "",
    realServers,
  };
}

function printService(service: VirtualService, output: OutputFormat): void {
  print(
    output === "json" ? json(plainService(service)) : serviceTable([service]) + realServerTable(service.realServers),
  );
}

/** As in YAML, with the name. */
function plainService(service: VirtualService): object {
  const { address, port, schedulerFlags, tableSize } = service;
  return {
    name: shortName(service.name),
    protocol: protocolWord(service.protocol),
    address,
    port,
    scheduler: schedulerWord(service.scheduler),
    ...(schedulerFlags === undefined ? {} : { scheduler_flags: schedulerFlagWords(schedulerFlags) }),
    ...(tableSize === undefined ? {} : { table_size: tableSize }),
    real_servers: service.realServers.map(plainRealServer),
  };
}

export function plainRealServer(realServer: RealServer): object {
  const { address, port, weight } = realServer;
  return { name: shortName(realServer.name), address, port, method: methodWord(realServer.method), weight };
}

function serviceTable(services: readonly VirtualService[]): string {
  const columns = [{ title: "SERVICE" }, { title: "SCHEDULER" }, { title: "REAL SERVERS", right: true }];
  const rows = services.map(({ name, scheduler, schedulerFlags, tableSize, realServers }) => {
    const options = [
      ...(tableSize === undefined ? [] : [String(tableSize)]),
      ...(schedulerFlagWords(schedulerFlags) ?? []),
    ];
    const suffix = options.length === 0 ? "" : ` (${options.join(",")})`; // as ipvsadm -L lists flags
    return [shortName(name), `${schedulerWord(scheduler) ?? ""}${suffix}`, String(realServers.length)];
  });
  return table(columns, rows);
}

export function realServerTable(realServers: readonly RealServer[]): string {
  const columns = [{ title: "REAL SERVER" }, { title: "METHOD" }, { title: "WEIGHT", right: true }];
  const rows = realServers.map(({ name, method, weight }) => {
    return [shortName(name), methodWord(method) ?? "", String(weight ?? "")];
  });
  return table(columns, rows);
}

/** The last id of a resource name: what people type. */
export function shortName(resource: string): string {
  return resource.slice(resource.lastIndexOf("/") + 1);
}
