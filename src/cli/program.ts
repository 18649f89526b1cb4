import { readFileSync } from "node:fs";
import { Command } from "commander";
import { registerRealServerCommand } from "../real-server/command.js";
import { registerCheckCommand } from "./check-command.js";
import { registerConnectionsCommand } from "./connections-command.js";
import { registerDaemonCommands } from "./daemon-commands.js";
import { registerMarkCommand } from "./mark-command.js";
import { registerPoolCommand } from "./pool-command.js";
import { registerRealCommand } from "./real-command.js";
import { registerServiceCommand } from "./service-command.js";
import { registerSettingsCommands } from "./settings-command.js";
import { registerStatsCommand } from "./stats-command.js";

/** The command line of `sluice`. Parsing throws a CommanderError for usage errors and for --help and --version. */
export function sluiceProgram(): Command {
  const program = new Command("sluice");
  program
    .description("A layer-4 load balancer on XDP.")
    .version(version())
    .exitOverride()
    .configureOutput({
      outputError: (text, write) => {
        write(text.replace(/^error: /, "sluice: USAGE: "));
      },
    })
    .addHelpText(
      "after",
      `
Examples:
  sluice check sluice.yaml
  sluice run --config sluice.yaml
  sluice service list
  sluice real update tcp:10.0.0.100:80 10.1.0.11:8080 --weight 5
  sluice real drain tcp:10.0.0.100:80 10.1.0.12:8080
  sluice settings set conn_reuse_mode=0
  sluice timeouts set tcp_established=2h
  sluice stats --output json
  sluice connections --client 10.0.0.0/24 --state SYN_RECV

Environment:
  SLUICE_INSTANCE            default of --instance
  SLUICE_SOCKET              default of --socket
  SLUICE_BPFFS               default of --bpffs
  SLUICE_RUNTIME_DIRECTORY   where sockets and locks are, instead of /run/sluice

Exit status:
  0  done
  1  it could not be done
  2  not valid: the usage, the file, or a value that the daemon refused
  3  no daemon answers`,
    );
  registerDaemonCommands(program);
  registerCheckCommand(program);
  registerServiceCommand(program);
  registerRealCommand(program);
  registerMarkCommand(program);
  registerPoolCommand(program);
  registerSettingsCommands(program);
  registerStatsCommand(program);
  registerConnectionsCommand(program);
  registerRealServerCommand(program);
  return program;
}

function version(): string {
  // From dist/src/cli, where this is compiled to.
  const manifest: unknown = JSON.parse(readFileSync(new URL("../../../package.json", import.meta.url), "utf8"));
  if (typeof manifest !== "object" || manifest === null || !("version" in manifest)) {
    throw new TypeError("package.json has no version");
  }
  return String(manifest.version);
}
