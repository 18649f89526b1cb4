import { type Command, Option } from "commander";
import {
  type ApiClient,
  METHOD_MESSAGES,
  ForwardingMethod as MethodMessage,
  type RealServer,
  realServerResource,
  serviceResource,
} from "../api/client.js";
import { FORWARDING_METHODS, type ForwardingMethod, type RealServerKey, type ServiceKey } from "../model/index.js";
import { integerArgument, realServerArgument, serviceArgument } from "./arguments.js";
import { addClientOptions, type ClientFlags, withClient } from "./instance.js";
import { SERVICE_HELP } from "./service-command.js";
import { printRealServer, printRealServers } from "./service-output.js";

interface RealServerFlags extends ClientFlags {
  readonly method?: ForwardingMethod;
  readonly weight?: number;
  readonly upperThreshold?: number;
  readonly lowerThreshold?: number;
}

/** Adds `sluice real list|get|create|update|drain|delete`. */
export function registerRealCommand(program: Command): void {
  const command = program.command("real").description("real servers of a virtual service");

  addClientOptions(
    takingService(command.command("list").description("a service's real servers, in order of name")),
  ).action(async (service: ServiceKey, flags: ClientFlags) => {
    await withClient(flags, async (client) => {
      printRealServers(await client.listRealServers(serviceResource(service)), flags.output);
    });
  });

  addClientOptions(takingBoth(command.command("get").description("one real server"))).action(
    async (service: ServiceKey, realServer: RealServerKey, flags: ClientFlags) => {
      await withClient(flags, async (client) => {
        printRealServer(await client.getRealServer(realServerResource(service, realServer)), flags.output);
      });
    },
  );

  addClientOptions(withThresholds(takingBoth(command.command("create").description("add a real server to a service"))))
    .addOption(methodOption().makeOptionMandatory())
    .addOption(weightOption("share of new connections, 0 to 65535 (default: 1)"))
    .addHelpText("after", "\nExample:\n  sluice real create tcp:10.0.0.100:80 10.1.0.13:8080 --method nat --weight 2")
    .action(async (service: ServiceKey, realServer: RealServerKey, flags: RealServerFlags) => {
      await withClient(flags, async (client) => {
        const message = realServerMessage(service, realServer, flags);
        printRealServer(await client.createRealServer(serviceResource(service), message), flags.output);
      });
    });

  addClientOptions(
    withThresholds(
      takingBoth(command.command("update").description("change a real server's weight, method or thresholds")),
    ),
  )
    .addOption(methodOption())
    .addOption(weightOption("share of new connections, 0 to 65535"))
    .addHelpText("after", "\nExample:\n  sluice real update tcp:10.0.0.100:80 10.1.0.13:8080 --weight 5")
    .action(async (service: ServiceKey, realServer: RealServerKey, flags: RealServerFlags, self: Command) => {
      if (maskOf(flags).length === 0) {
        self.error("error: nothing to change: give --weight, --method, --upper-threshold or --lower-threshold");
      }
      await withClient(flags, (client) => update(client, service, realServer, flags));
    });

  addClientOptions(
    takingBoth(command.command("drain").description("set the weight to 0: no new connections, those there are stay")),
  ).action(async (service: ServiceKey, realServer: RealServerKey, flags: ClientFlags) => {
    await withClient(flags, (client) => update(client, service, realServer, { ...flags, weight: 0 }));
  });

  addClientOptions(
    takingBoth(
      command
        .command("delete")
        .description("remove a real server; --removed-connections of its service says what its connections get"),
    ),
  ).action(async (service: ServiceKey, realServer: RealServerKey, flags: ClientFlags) => {
    await withClient(flags, async (client) => {
      await client.deleteRealServer(realServerResource(service, realServer));
    });
  });
}

function takingService(command: Command): Command {
  return command.argument("<service>", SERVICE_HELP, serviceArgument);
}

function takingBoth(command: Command): Command {
  return takingService(command).argument(
    "<real-server>",
    "ADDRESS:PORT, as 10.1.0.11:8080; port 0: the one that the client asked for",
    realServerArgument,
  );
}

function withThresholds(command: Command): Command {
  return command
    .option("--upper-threshold <n>", "connections from which on it takes no new ones; 0: any number", integerArgument)
    .option(
      "--lower-threshold <n>",
      "connections below which it takes new ones again; 0: three quarters of the upper one",
      integerArgument,
    );
}

function methodOption(): Option {
  return new Option("--method <method>", "how packets reach it").choices(FORWARDING_METHODS);
}

function weightOption(description: string): Option {
  return new Option("--weight <weight>", description).argParser(integerArgument);
}

async function update(
  client: ApiClient,
  service: ServiceKey,
  realServer: RealServerKey,
  flags: RealServerFlags,
): Promise<void> {
  const message = realServerMessage(service, realServer, flags);
  printRealServer(await client.updateRealServer(message, maskOf(flags)), flags.output);
}

/** The fields that are to change. */
function maskOf({ method, weight, upperThreshold, lowerThreshold }: RealServerFlags): string[] {
  return [
    ...(method === undefined ? [] : ["method"]),
    ...(weight === undefined ? [] : ["weight"]),
    ...(upperThreshold === undefined ? [] : ["upper_threshold"]),
    ...(lowerThreshold === undefined ? [] : ["lower_threshold"]),
  ];
}

function realServerMessage(service: ServiceKey, realServer: RealServerKey, flags: RealServerFlags): RealServer {
  return {
    name: realServerResource(service, realServer),
    address: realServer.address,
    port: realServer.port,
    method: flags.method === undefined ? MethodMessage.UNSPECIFIED : METHOD_MESSAGES[flags.method],
    weight: flags.weight,
    upperThreshold: flags.upperThreshold,
    lowerThreshold: flags.lowerThreshold,
  };
}
