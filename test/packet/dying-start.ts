/** A start over a running data plane that dies with the new program on its interface and the last steps of the upgrade undone. */
import { DataPlane, type DataPlaneOptions } from "../../src/dataplane/index.js";

const quiet = (): void => undefined;
const given = JSON.parse(process.argv[2] ?? "") as Pick<DataPlaneOptions, "instance" | "limits">;

await DataPlane.open({
  ...given,
  interfaces: [{ name: "c0", mode: "native" }],
  log: {
    debug: quiet,
    warn: quiet,
    error: quiet,
    info: (_, message) => {
      // That comes after the new program is attached everywhere, and before the former program table goes.
      if (message.startsWith("detached from interfaces")) {
        process.kill(process.pid, "SIGKILL");
      }
    },
  },
});
