import { type Command, InvalidArgumentError, Option } from "commander";
import type { Item } from "./real-server.js";
import type { DecapsulationMode } from "./requirement.js";

interface UpFlags {
  vip: string[];
  method: "dr" | "tun";
  interface?: string;
  vipInterface: string;
  tunnelAddress?: string[];
  mode: DecapsulationMode;
  instance: string;
  bpffs: string;
}

/** Adds `sluice real-server up|down|status`: the real server's side of the methods dr and tun. Needs root. */
export function registerRealServerCommand(program: Command): void {
  const command = program
    .command("real-server")
    .description("make this host a real server of the dr or tun method (nat and fullnat need nothing of it)");

  command
    .command("up")
    .description("put the VIPs on an interface that does no ARP, and for tun unwrap what directors send")
    .requiredOption("--vip <addresses>", "virtual addresses to serve, separated by commas", addressList)
    .addOption(
      new Option("--method <method>", "forwarding method of the director").choices(["dr", "tun"]).makeOptionMandatory(),
    )
    .option("--interface <name>", "interface that faces the director (default: that of the default route)")
    .option("--vip-interface <name>", "interface that carries the VIPs", "lo")
    .option(
      "--tunnel-address <addresses>",
      "tun: outer destinations to unwrap (default: the IPv4 addresses of the interface)",
      addressList,
    )
    .addOption(
      new Option(
        "--mode <mode>",
        "tun: how the program is attached; auto is native where the driver takes it, else generic",
      )
        .choices(["auto", "native", "generic"])
        .default("auto"),
    )
    .addOption(instanceOption())
    .addOption(
      new Option("--bpffs <directory>", "where the BPF file system is mounted")
        .env("SLUICE_BPFFS")
        .default("/sys/fs/bpf"),
    )
    .action(async (flags: UpFlags) => {
      const { up } = await implementation();
      const options = {
        instance: flags.instance,
        method: flags.method,
        virtualAddresses: flags.vip,
        vipInterface: flags.vipInterface,
        mode: flags.mode,
        bpffs: flags.bpffs,
        ...(flags.interface !== undefined && { interface: flags.interface }),
        ...(flags.tunnelAddress !== undefined && { tunnelAddresses: flags.tunnelAddress }),
      };
      printItems(await up(options, runtimeDirectory()));
    });

  command
    .command("down")
    .description("undo exactly what up changed")
    .addOption(instanceOption())
    .action(async ({ instance }: { instance: string }) => {
      const { down } = await implementation();
      const items = await down(instance, runtimeDirectory());
      if (items.length === 0) console.log(`real server instance "${instance}" is not up: nothing to undo`);
      else printItems(items);
    });

  command
    .command("status")
    .description("tell whether everything still holds, and what became of tunnelled packets; exit status 1 if not")
    .addOption(
      new Option("--output <format>", "for people or for programs").choices(["table", "json"]).default("table"),
    )
    .addOption(instanceOption())
    .action(async ({ output, instance }: { output: "table" | "json"; instance: string }) => {
      const { status } = await implementation();
      const found = await status(instance, runtimeDirectory());
      if (found === undefined || found.items.some(({ result }) => result === "missing")) process.exitCode = 1;
      if (output === "json") {
        console.log(
          JSON.stringify(
            found ?? null,
            (_, value: unknown) => (typeof value === "bigint" ? value.toString() : value),
            2,
          ),
        );
        return;
      }
      if (found === undefined) {
        console.log(`real server instance "${instance}" is not up`);
        return;
      }
      printItems(found.items);
      for (const { outcome, packets, bytes } of found.outcomes) {
        if (packets > 0n) console.log(`${outcome.padEnd(32)}${packets} packets, ${bytes} bytes`);
      }
    });
}

/** Only when it is needed: it brings libbpf in, which the rest of the command line does without. */
const implementation = async () => await import("./real-server.js");

function instanceOption(): Option {
  return new Option("--instance <name>", "name of this setup, for several on one host")
    .env("SLUICE_INSTANCE")
    .default("sluice");
}

/** Where the state files are; as for directors' sockets, users may say otherwise. */
function runtimeDirectory(): string {
  return process.env["SLUICE_RUNTIME_DIRECTORY"] ?? "/run/sluice";
}

function addressList(text: string): string[] {
  const addresses = text.split(",").map((address) => address.trim());
  if (addresses.includes("")) throw new InvalidArgumentError("expected addresses separated by commas.");
  return addresses;
}

function printItems(items: readonly Item[]): void {
  const width = Math.max(...items.map(({ result }) => result.length)) + 2;
  for (const { description, result } of items) console.log(`${result.padEnd(width)}${description}`);
}
