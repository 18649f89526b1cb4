import { StoppingError } from "../api/status.js";
import { Daemon, type DaemonOptions } from "./daemon.js";
import { errorFields } from "./log.js";

/**
 * Runs a daemon until SIGTERM or SIGINT, which leave the data plane pinned and forwarding. SIGHUP reads the configuration again. Rejects
 * where the daemon could not start.
 */
export async function runDaemon(options: Omit<DaemonOptions, "signal">): Promise<void> {
  // Listened to from the start, so that a signal during the start is neither lost nor the end of a half-started daemon.
  const stopping = new AbortController();
  let stop: (signal: NodeJS.Signals) => void = () => undefined;
  const stopped = new Promise<NodeJS.Signals>((resolve) => {
    stop = (signal) => {
      stopping.abort(new StoppingError());
      resolve(signal);
    };
  });
  let start: (daemon: Daemon) => void = () => undefined;
  const started = new Promise<Daemon>((resolve) => {
    start = resolve;
  });
  let reloading: Promise<void> = Promise.resolve();
  const onHangup = (): void => {
    reloading = reloading.then(async () => reload(await started));
  };
  process.on("SIGTERM", stop);
  process.on("SIGINT", stop);
  process.on("SIGHUP", onHangup);
  try {
    const daemon = await Daemon.start({ ...options, signal: stopping.signal });
    start(daemon);
    const signal = await stopped;
    await reloading;
    daemon.log.info({ signal }, "stopping; the data plane stays in place");
    await daemon.stop();
  } catch (error) {
    // Stopped while it started.
    if (error !== stopping.signal.reason) {
      throw error;
    }
  } finally {
    process.off("SIGTERM", stop);
    process.off("SIGINT", stop);
    process.off("SIGHUP", onHangup);
  }
}

async function reload(daemon: Daemon): Promise<void> {
  try {
    await daemon.reload();
    daemon.log.info("configuration reloaded");
  } catch (error) {
    daemon.log.error(errorFields(error), "configuration not reloaded; nothing was changed");
  }
}
