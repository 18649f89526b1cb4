import type { Command } from "commander";
import { bpffsOption, instanceOption, runtimeDirectory } from "./instance.js";
import { print } from "./output.js";

interface InstanceFlags {
  readonly instance: string;
  readonly bpffs: string;
}

/** Adds `sluice run` and `sluice unload`, which need root. What they use is imported when they run, for it brings libbpf in. */
export function registerDaemonCommands(program: Command): void {
  program
    .command("run")
    .description("run a director: load the data plane or adopt what is in place, serve the API, log JSON to stdout")
    .requiredOption("--config <file>", "YAML; see examples/sluice.yaml")
    .addOption(instanceOption())
    .addOption(bpffsOption())
    .addHelpText(
      "after",
      `
Signals:
  SIGHUP            read the file again; one that is not valid changes nothing
  SIGTERM, SIGINT   stop; the data plane stays in place and goes on forwarding (sluice unload takes it down)`,
    )
    .action(async ({ config, instance, bpffs }: InstanceFlags & { readonly config: string }) => {
      const [{ runDaemon }, { openLog }, { openKernelDataPlane }] = await Promise.all([
        import("../daemon/run.js"),
        import("../daemon/log.js"),
        import("../daemon/kernel-data-plane.js"),
      ]);
      await runDaemon({
        configFile: config,
        instance,
        runtimeDirectory: runtimeDirectory(),
        bpffs,
        openDataPlane: openKernelDataPlane,
        openLog,
      });
    });

  program
    .command("unload")
    .description("take an instance's data plane down: detach from its interfaces, forget its connections")
    .addOption(instanceOption())
    .addOption(bpffsOption())
    .action(async ({ instance, bpffs }: InstanceFlags) => {
      const [{ unload }, { unloadKernelDataPlane }] = await Promise.all([
        import("../daemon/unload.js"),
        import("../daemon/kernel-data-plane.js"),
      ]);
      const { loaded, interfaces } = await unload({
        instance,
        runtimeDirectory: runtimeDirectory(),
        bpffs,
        unloadDataPlane: unloadKernelDataPlane,
      });
      print(
        loaded
          ? `${instance}: unloaded, detached from ${interfaces.join(", ") || "no interface"}\n`
          : `${instance}: is not loaded: nothing to do\n`,
      );
    });
}
