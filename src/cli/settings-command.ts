import type { Command } from "commander";
import { type ApiClient, camel, plainTimeoutsOf, type Settings } from "../api/client.js";
import {
  DEFAULT_SETTINGS,
  DEFAULT_TIMEOUTS,
  formatDuration,
  SETTING_NAMES,
  type SettingName,
  TIMEOUT_NAMES,
  type TimeoutName,
} from "../model/index.js";
import {
  type Assignment,
  assignedSettings,
  assignedTimeouts,
  settingAssignment,
  timeoutAssignment,
  timeoutMask,
} from "./assignments.js";
import { addClientOptions, type ClientFlags, withClient } from "./instance.js";
import { json, type OutputFormat, print, table } from "./output.js";

/** Adds `sluice settings show|set` and `sluice timeouts show|set`. */
export function registerSettingsCommands(program: Command): void {
  const settings = program.command("settings").description("what holds for all services, named as in net.ipv4.vs");
  addClientOptions(settings.command("show").description("all settings")).action(async (flags: ClientFlags) => {
    await withClient(flags, async (client) => {
      printSettings(await client.getSettings(), flags.output);
    });
  });
  addClientOptions(settings.command("set").description("change settings, at once and for all services"))
    .argument(
      "<assignments...>",
      `NAME=VALUE, or NAME=default; NAME is one of ${SETTING_NAMES.join(", ")}`,
      settingAssignment,
    )
    .addHelpText("after", "\nExample:\n  sluice settings set conn_reuse_mode=0 expire_nodest_conn=1")
    .action(async (assignments: readonly Assignment<SettingName>[], flags: ClientFlags) => {
      await withClient(flags, async (client) => {
        const mask = assignments.map(({ name }) => name);
        printSettings(await client.updateSettings(assignedSettings(assignments), mask), flags.output);
      });
    });

  const timeouts = program.command("timeouts").description("how long connections stay without a packet, by state");
  addClientOptions(timeouts.command("show").description("all timeouts")).action(async (flags: ClientFlags) => {
    await withClient(flags, async (client) => {
      printTimeouts(await client.getSettings(), flags.output);
    });
  });
  addClientOptions(timeouts.command("set").description("change timeouts of services that have none of their own"))
    .argument(
      "<assignments...>",
      `NAME=DURATION, or NAME=default; NAME is one of ${TIMEOUT_NAMES.join(", ")}`,
      timeoutAssignment,
    )
    .addHelpText("after", "\nExample:\n  sluice timeouts set tcp_established=2h tcp_fin_wait=30s udp=default")
    .action(async (assignments: readonly Assignment<TimeoutName>[], flags: ClientFlags) => {
      await withClient(flags, (client) => setTimeouts(client, assignments, flags.output));
    });
}

async function setTimeouts(
  client: ApiClient,
  assignments: readonly Assignment<TimeoutName>[],
  output: OutputFormat,
): Promise<void> {
  const message = { ...assignedSettings([]), timeouts: assignedTimeouts(assignments) };
  printTimeouts(await client.updateSettings(message, timeoutMask(assignments)), output);
}

function printSettings(settings: Settings, output: OutputFormat): void {
  const values = SETTING_NAMES.map((name) => [name, settings[camel(name)] ?? DEFAULT_SETTINGS[name]] as const);
  if (output === "json") {
    print(json(Object.fromEntries(values)));
  } else {
    print(
      valueTable(
        "SETTING",
        values.map(([name, value]) => [name, String(value), String(DEFAULT_SETTINGS[name])]),
      ),
    );
  }
}

function printTimeouts({ timeouts }: Settings, output: OutputFormat): void {
  const plain = plainTimeoutsOf(timeouts) ?? {};
  const values = TIMEOUT_NAMES.map((name) => {
    const otherwise = formatDuration(DEFAULT_TIMEOUTS[name]);
    return [name, plain[name] ?? otherwise, otherwise] as const;
  });
  if (output === "json") {
    print(json(Object.fromEntries(values)));
  } else {
    print(valueTable("TIMEOUT", values));
  }
}

function valueTable(title: string, rows: readonly (readonly string[])[]): string {
  return table([{ title }, { title: "VALUE", right: true }, { title: "DEFAULT", right: true }], rows);
}
