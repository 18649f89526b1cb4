import type { Command } from "commander";
import { type ApiClient, type FullnatPool, type PortRange, plainPoolOf, type Settings } from "../api/client.js";
import { formatPortRange } from "../model/index.js";
import { listArgument, portRangeArgument } from "./arguments.js";
import { assignedSettings } from "./assignments.js";
import { addClientOptions, type ClientFlags, withClient } from "./instance.js";
import { json, type OutputFormat, print, table } from "./output.js";

interface PoolFlags extends ClientFlags {
  readonly localAddresses: readonly string[];
  readonly localPorts?: PortRange;
}

const NAME_HELP = "which one; left out: the default one, of services that name none";

/** Adds `sluice pool list|set|delete`. */
export function registerPoolCommand(program: Command): void {
  const command = program
    .command("pool")
    .description("local addresses and ports that fullnat sends to real servers from");

  addClientOptions(command.command("list").description("all pools, the default one first")).action(
    async (flags: ClientFlags) => {
      await withClient(flags, async (client) => {
        printPools(await client.getSettings(), flags.output);
      });
    },
  );

  addClientOptions(command.command("set").description("make a pool, or change the one that there is"))
    .argument("[name]", NAME_HELP)
    .requiredOption("--local-addresses <addresses>", "addresses of the director's, separated by commas", listArgument)
    .option("--local-ports <ports>", "FIRST-LAST (default: 1024-32767)", portRangeArgument)
    .addHelpText(
      "after",
      "\nExample:\n  sluice pool set blue --local-addresses 10.1.0.2,10.1.0.3 --local-ports 1024-9999",
    )
    .action(async (name: string | undefined, flags: PoolFlags) => {
      const { localAddresses, localPorts } = flags;
      await withClient(flags, (client) =>
        changePools(client, name, flags.output, {
          name: name ?? "",
          localAddresses: [...localAddresses],
          localPorts,
        }),
      );
    });

  addClientOptions(command.command("delete").description("remove a pool that no service uses"))
    .argument("[name]", NAME_HELP)
    .action(async (name: string | undefined, flags: ClientFlags, self: Command) => {
      await withClient(flags, async (client) => {
        const { fullnat, fullnatPools } = await client.getSettings();
        const found = name === undefined ? fullnat !== undefined : fullnatPools.some((pool) => pool.name === name);
        if (!found) {
          self.error(`error: there is no ${name === undefined ? "default pool" : `pool ${name}`}`);
        }
        await changePools(client, name, flags.output, undefined);
      });
    });
}

/** Puts `pool` in the place of the one of that name, or takes that away. */
async function changePools(
  client: ApiClient,
  name: string | undefined,
  output: OutputFormat,
  pool: FullnatPool | undefined,
): Promise<void> {
  if (name === undefined) {
    const message = { ...assignedSettings([]), fullnat: pool };
    printPools(await client.updateSettings(message, ["fullnat"]), output);
    return;
  }
  const { fullnatPools } = await client.getSettings();
  const place = fullnatPools.findIndex((other) => other.name === name);
  const added = pool === undefined ? [] : [pool];
  const changed = fullnatPools.toSpliced(place === -1 ? fullnatPools.length : place, place === -1 ? 0 : 1, ...added);
  const message = { ...assignedSettings([]), fullnatPools: changed };
  printPools(await client.updateSettings(message, ["fullnat_pools"]), output);
}

function printPools({ fullnat, fullnatPools }: Settings, output: OutputFormat): void {
  const pools = fullnat === undefined ? fullnatPools : [fullnat, ...fullnatPools];
  if (output === "json") {
    print(json(pools.map(plainPoolOf)));
    return;
  }
  const rows = pools.map(({ name, localAddresses, localPorts }) => [
    name === "" ? "(default)" : name,
    localPorts === undefined ? "" : formatPortRange([localPorts.first, localPorts.last]),
    localAddresses.join(","),
  ]);
  print(table([{ title: "POOL" }, { title: "LOCAL PORTS" }, { title: "LOCAL ADDRESSES" }], rows));
}
