import { type Command, InvalidArgumentError, Option } from "commander";
import {
  type ApiClient,
  FAMILY_MESSAGES,
  AddressFamily as FamilyMessage,
  familyWord,
  type MarkRule,
  type PortRange,
  PROTOCOL_MESSAGES,
  Protocol as ProtocolMessage,
  plainMarkRuleOf,
  protocolWord,
} from "../api/client.js";
import { ADDRESS_FAMILIES, type AddressFamily, formatPortRange, PROTOCOLS, type Protocol } from "../model/index.js";
import { integerArgument, markArgument, portRangeArgument } from "./arguments.js";
import { assignedSettings } from "./assignments.js";
import { addClientOptions, type ClientFlags, withClient } from "./instance.js";
import { json, type OutputFormat, print, tableOfUsed } from "./output.js";

interface RuleFlags extends ClientFlags {
  readonly family?: AddressFamily;
  readonly protocol?: Protocol;
  readonly source?: string;
  readonly destination?: string;
  readonly sourcePorts?: PortRange;
  readonly destinationPorts?: PortRange;
  readonly position?: number;
}

/** Adds `sluice mark list|add|delete`. */
export function registerMarkCommand(program: Command): void {
  const command = program
    .command("mark")
    .description(
      "firewall marks: which packets the services named fwmark:MARK are for; the first rule that matches counts",
    );

  addClientOptions(command.command("list").description("all rules, in the order in which they are tried")).action(
    async (flags: ClientFlags) => {
      await withClient(flags, async (client) => {
        printRules((await client.getSettings()).marks, flags.output);
      });
    },
  );

  addClientOptions(command.command("add").description("add a rule, the last one unless it is told its position"))
    .argument("<mark>", "1 to 4294967295", markArgument)
    .addOption(new Option("--protocol <protocol>", "only packets of this one").choices(PROTOCOLS))
    .option("--source <network>", "only packets from it, as 198.18.0.0/15")
    .option("--destination <network>", "only packets to it")
    .option(
      "--source-ports <ports>",
      "only packets from them: a port or FIRST-LAST; with --protocol",
      portRangeArgument,
    )
    .option("--destination-ports <ports>", "only packets to them", portRangeArgument)
    .addOption(new Option("--family <family>", "with neither source nor destination").choices(ADDRESS_FAMILIES))
    .option("--position <n>", "where among the rules, counted from 1; those from there on follow it", integerArgument)
    .addHelpText(
      "after",
      `
Example:
  sluice mark add 1 --protocol tcp --destination 10.0.0.100 --destination-ports 8000-8999
  sluice service create fwmark:1 --real-server 10.1.0.11,nat`,
    )
    .action(async (mark: number, flags: RuleFlags, self: Command) => {
      await withClient(flags, (client) =>
        changeRules(client, flags.output, (rules) => {
          const at = (flags.position ?? rules.length + 1) - 1;
          if (at < 0 || at > rules.length) {
            self.error(`error: --position is ${String(at + 1)}; it takes 1 to ${String(rules.length + 1)}`);
          }
          return rules.toSpliced(at, 0, ruleMessage(mark, flags));
        }),
      );
    });

  addClientOptions(command.command("delete").description("remove a rule"))
    .argument("<position>", "which one, as sluice mark list has it", positionArgument)
    .action(async (position: number, flags: ClientFlags, self: Command) => {
      await withClient(flags, (client) =>
        changeRules(client, flags.output, (rules) => {
          if (position > rules.length) {
            self.error(`error: there is no rule ${String(position)}; there are ${String(rules.length)}`);
          }
          return rules.toSpliced(position - 1, 1);
        }),
      );
    });
}

function positionArgument(text: string): number {
  const position = integerArgument(text);
  if (position < 1) {
    throw new InvalidArgumentError("It takes a position from 1 on.");
  }
  return position;
}

async function changeRules(
  client: ApiClient,
  output: OutputFormat,
  change: (rules: readonly MarkRule[]) => MarkRule[],
): Promise<void> {
  const { marks } = await client.getSettings();
  const message = { ...assignedSettings([]), marks: change(marks) };
  printRules((await client.updateSettings(message, ["marks"])).marks, output);
}

function ruleMessage(mark: number, flags: RuleFlags): MarkRule {
  const { family, protocol, source = "", destination = "", sourcePorts, destinationPorts } = flags;
  return {
    mark,
    family: family === undefined ? FamilyMessage.UNSPECIFIED : FAMILY_MESSAGES[family],
    protocol: protocol === undefined ? ProtocolMessage.UNSPECIFIED : PROTOCOL_MESSAGES[protocol],
    source,
    destination,
    sourcePorts,
    destinationPorts,
  };
}

function printRules(rules: readonly MarkRule[], output: OutputFormat): void {
  if (output === "json") {
    print(json(rules.map(plainMarkRuleOf)));
    return;
  }
  const columns = [
    { title: "RULE", right: true },
    { title: "MARK", right: true },
    { title: "FAMILY" },
    { title: "PROTOCOL" },
    { title: "SOURCE" },
    { title: "PORTS" },
    { title: "DESTINATION" },
    { title: "PORTS" },
  ];
  const ports = (range: PortRange | undefined): string =>
    range === undefined ? "" : formatPortRange([range.first, range.last]);
  const rows = rules.map((rule, index) => [
    String(index + 1),
    String(rule.mark),
    familyWord(rule.family) ?? "",
    protocolWord(rule.protocol) ?? "",
    rule.source,
    ports(rule.sourcePorts),
    rule.destination,
    ports(rule.destinationPorts),
  ]);
  print(tableOfUsed(columns, rows));
}
