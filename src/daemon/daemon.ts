import { join } from "node:path";
import { isDeepStrictEqual } from "node:util";
import { ApiServer } from "../api/server.js";
import {
  type Configuration,
  ConfigurationError,
  type ConfigurationProblem,
  type InstanceSettings,
  readConfiguration,
} from "../config/configuration.js";
import { keepIdentity } from "../model/index.js";
import { MemoryStore } from "../store/state-store.js";
import type { DataPlane, OpenDataPlane } from "./data-plane.js";
import { InstanceLock } from "./instance-lock.js";
import type { Log } from "./log.js";
import { SerialDirector } from "./serial-director.js";

export interface DaemonOptions {
  readonly configFile: string;
  readonly instance: string;
  /** Of the lock and, unless the configuration says otherwise, the API's socket. Made if it is not there. */
  readonly runtimeDirectory: string;
  readonly bpffs: string;
  readonly openDataPlane: OpenDataPlane;
  readonly openLog: (instance: string, level: string) => Log;
  /** Aborted when the daemon is to stop, be it only starting: what takes long is given up and rejects with its reason. */
  readonly signal: AbortSignal;
}

/** A running director: lock, data plane, state and API of one instance. */
export class Daemon {
  readonly log: Log;
  readonly #configFile: string;
  readonly #settings: InstanceSettings;
  readonly #lock: InstanceLock;
  readonly #dataPlane: DataPlane;
  readonly #director: SerialDirector;
  readonly #api: ApiServer;

  private constructor(
    log: Log,
    configFile: string,
    settings: InstanceSettings,
    lock: InstanceLock,
    dataPlane: DataPlane,
    director: SerialDirector,
    api: ApiServer,
  ) {
    this.log = log;
    this.#configFile = configFile;
    this.#settings = settings;
    this.#lock = lock;
    this.#dataPlane = dataPlane;
    this.#director = director;
    this.#api = api;
  }

  /**
   * Reads the configuration, takes the instance's lock, loads the data plane or adopts what is pinned, brings it to the configuration,
   * and serves the API. Where a step fails, those before it are undone, but for the data plane: what is pinned goes on forwarding.
   */
  static async start(options: DaemonOptions): Promise<Daemon> {
    const { instance, runtimeDirectory, bpffs, signal } = options;
    const { instance: settings, desired }: Configuration = await readConfiguration(options.configFile);
    signal.throwIfAborted();
    const log = options.openLog(instance, settings.logLevel);
    const undo: (() => Promise<void>)[] = [];
    try {
      const lock = await InstanceLock.acquire(instance, runtimeDirectory);
      undo.push(() => lock.release());
      const { interfaces, limits } = settings;
      const dataPlane = await options.openDataPlane({ instance, interfaces, limits, bpffs, signal, log });
      undo.push(() => dataPlane.close());
      await dataPlane.publish(desired);
      const director = new SerialDirector(new MemoryStore(desired), dataPlane, log);
      const api = await ApiServer.listen(director, settings.socket ?? join(runtimeDirectory, `${instance}.sock`));
      const names = interfaces.map(({ name }) => name);
      log.info({ socket: api.socket, interfaces: names, services: desired.services.length }, "ready");
      return new Daemon(log, options.configFile, settings, lock, dataPlane, director, api);
    } catch (error) {
      if (signal.aborted) {
        log.info("stopped before it was ready; what was in place stays");
      }
      for (const step of undo.reverse()) {
        await step();
      }
      throw error;
    }
  }

  get socket(): string {
    return this.#api.socket;
  }

  /**
   * Reads the configuration again and brings the data plane to it, changes made over the API undone. Rejects, nothing being changed, where
   * the file is not valid or changes what is fixed while the daemon runs.
   */
  async reload(): Promise<void> {
    const { instance, desired } = await readConfiguration(this.#configFile);
    const fixed = (["interfaces", "limits", "socket"] as const).filter(
      (name) => !isDeepStrictEqual(instance[name], this.#settings[name]),
    );
    if (fixed.length > 0) {
      throw new ConfigurationError(this.#configFile, fixed.map(restartRequired));
    }
    await this.#director.change(() => {
      const next = keepIdentity(this.#director.desired, desired);
      return { change: { kind: "replace", desired: next }, result: undefined };
    });
    this.log.level = instance.logLevel;
  }

  /**
   * Ends the API, then lets go of the data plane, which stays pinned and goes on forwarding. Where the signal was aborted, a change under
   * way takes effect at once or not at all; else it is waited for.
   */
  async stop(): Promise<void> {
    await this.#director.stop();
    await this.#api.close();
    await this.#dataPlane.close();
    await this.#lock.release();
  }
}

function restartRequired(name: "interfaces" | "limits" | "socket"): ConfigurationProblem {
  const field = name === "socket" ? "api.socket" : name;
  const message = `${field} is not what the daemon was started with; restart it to change it (connections stay)`;
  return { code: "RESTART_REQUIRED", field, position: undefined, message };
}
