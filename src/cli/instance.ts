import { join } from "node:path";
import { type Command, InvalidArgumentError, Option } from "commander";
import { ApiClient } from "../api/client.js";
import { DEFAULT_INSTANCE, isInstanceName } from "../model/index.js";
import { OUTPUT_FORMATS, type OutputFormat } from "./output.js";

/** Where sockets and locks are: /run/sluice, but for tests and for users who may not write there. */
export function runtimeDirectory(): string {
  return process.env["SLUICE_RUNTIME_DIRECTORY"] ?? "/run/sluice";
}

export function instanceOption(): Option {
  return new Option("--instance <name>", "which of several directors on this machine")
    .env("SLUICE_INSTANCE")
    .default(DEFAULT_INSTANCE)
    .argParser((name) => {
      if (!isInstanceName(name)) {
        throw new InvalidArgumentError("It takes 1 to 63 letters, digits, - and _, a letter or digit first.");
      }
      return name;
    });
}

export function bpffsOption(): Option {
  return new Option("--bpffs <directory>", "where the BPF file system is mounted")
    .env("SLUICE_BPFFS")
    .default("/sys/fs/bpf");
}

/** What every command that talks to a daemon takes. */
export interface ClientFlags {
  readonly instance: string;
  readonly socket?: string;
  readonly output: OutputFormat;
}

export function addClientOptions(command: Command): Command {
  return command
    .addOption(instanceOption())
    .addOption(
      new Option("--socket <path>", "the daemon's socket (default: /run/sluice/INSTANCE.sock)").env("SLUICE_SOCKET"),
    )
    .addOption(new Option("--output <format>", "for people or for programs").choices(OUTPUT_FORMATS).default("table"));
}

/** Runs `use` with a connection to the daemon that the flags name. */
export async function withClient(flags: ClientFlags, use: (client: ApiClient) => Promise<void>): Promise<void> {
  const client = new ApiClient(flags.socket ?? join(runtimeDirectory(), `${flags.instance}.sock`));
  try {
    await use(client);
  } finally {
    client.close();
  }
}
