import type { Command } from "commander";
import { readConfiguration } from "../config/configuration.js";
import { print } from "./output.js";

/** Adds `sluice check`. */
export function registerCheckCommand(program: Command): void {
  program
    .command("check")
    .description("tell whether a configuration is valid, and if not, everything that is wrong with it")
    .argument("<file>", "YAML, as for sluice run")
    .action(async (file: string) => {
      const { desired } = await readConfiguration(file);
      const realServers = desired.services.reduce((sum, service) => sum + service.realServers.length, 0);
      const counts = `${String(desired.services.length)} virtual services, ${String(realServers)} real servers`;
      print(`${file}: valid: ${counts}\n`);
    });
}
