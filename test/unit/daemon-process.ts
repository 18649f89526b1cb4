// A daemon with a data plane in memory, as a process of its own: CONFIG INSTANCE RUNTIME_DIRECTORY. The environment variable
// REFUSE_TO_OPEN makes the data plane fail to open; at OPEN_FOREVER it opens until it is told to stop. For daemon.test.ts.
import { once } from "node:events";
import { failureOf } from "../../src/cli/failure.js";
import { openLog } from "../../src/daemon/log.js";
import { runDaemon } from "../../src/daemon/run.js";
import { FakeDataPlane } from "./fake-data-plane.js";

const [configFile = "", instance = "", runtimeDirectory = ""] = process.argv.slice(2);

try {
  await runDaemon({
    configFile,
    instance,
    runtimeDirectory,
    bpffs: "/sys/fs/bpf",
    openDataPlane: async ({ signal, log }) => {
      if (process.env["OPEN_FOREVER"] !== undefined) {
        log.info("opening");
        const timer = setInterval(() => undefined, 1000);
        await once(signal, "abort");
        clearInterval(timer);
        throw signal.reason;
      }
      const refusal = process.env["REFUSE_TO_OPEN"];
      return refusal === undefined
        ? Promise.resolve(new FakeDataPlane())
        : Promise.reject(Object.assign(new Error("there is no interface c9"), { code: refusal }));
    },
    openLog,
  });
} catch (error) {
  const { status, lines } = failureOf(error);
  process.stderr.write(lines.map((line) => `${line}\n`).join(""));
  process.exitCode = status;
}
