/** An API server over a data plane in memory, and a client of it. */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { status } from "@grpc/grpc-js";
import {
  AddressFamily,
  ApiClient,
  ApiError,
  ForwardingMethod,
  Protocol,
  type RealServer,
  RemovedConnections,
  Scheduler,
  type VirtualService,
} from "../../src/api/client.js";
import { ApiServer } from "../../src/api/server.js";
import { SerialDirector } from "../../src/daemon/serial-director.js";
import { type Change, type DesiredState, validateDesiredState } from "../../src/model/index.js";
import { MemoryStore } from "../../src/store/state-store.js";
import { FakeDataPlane } from "./fake-data-plane.js";

const silent = { level: "silent", debug() {}, info() {}, warn() {}, error() {} };

export const initial = validateDesiredState({
  services: [
    {
      protocol: "tcp",
      address: "10.0.0.100",
      port: 80,
      scheduler: "wrr",
      real_servers: [
        { address: "10.1.0.11", port: 8080, method: "nat", weight: 3 },
        { address: "10.1.0.12", method: "dr" },
      ],
    },
  ],
});

export const SERVICE = "virtualServices/tcp:10.0.0.100:80";
export const REAL_SERVER = `${SERVICE}/realServers/10.1.0.11:8080`;

class FailingStore extends MemoryStore {
  override commit(_change: Change, _next: DesiredState): Promise<void> {
    return Promise.reject(Object.assign(new Error("the disk is full"), { code: "STORE_FAILED" }));
  }
}

export async function start(
  t: { teardown: (undo: () => Promise<void>) => void },
  desired: DesiredState = initial,
  failing = false,
) {
  const folder = mkdtempSync(join(tmpdir(), "sluice-api-"));
  const socket = join(folder, "api.sock");
  const dataPlane = new FakeDataPlane();
  await dataPlane.publish(desired);
  const store = failing ? new FailingStore(desired) : new MemoryStore(desired);
  const director = new SerialDirector(store, dataPlane, silent);
  const server = await ApiServer.listen(director, socket);
  const client = new ApiClient(socket);
  t.teardown(async () => {
    client.close();
    await server.close();
    rmSync(folder, { recursive: true });
  });
  return { socket, folder, dataPlane, store, director, server, client };
}

export function service(message: Partial<VirtualService>): VirtualService {
  return {
    name: "",
    protocol: Protocol.UNSPECIFIED,
    address: "",
    port: undefined,
    fwmark: 0,
    family: AddressFamily.UNSPECIFIED,
    removedConnections: RemovedConnections.UNSPECIFIED,
    fullnatPool: "",
    scheduler: Scheduler.UNSPECIFIED,
    schedulerFlags: undefined,
    tableSize: undefined,
    realServers: [],
    ...message,
  };
}

export function realServer(message: Partial<RealServer>): RealServer {
  return {
    name: "",
    address: "",
    port: undefined,
    method: ForwardingMethod.UNSPECIFIED,
    weight: undefined,
    ...message,
  };
}

export async function refusal(call: Promise<unknown>): Promise<{ code: string; status: string; fields: string[] }> {
  try {
    await call;
  } catch (error) {
    if (!(error instanceof ApiError)) throw error;
    const fields = error.violations.map(({ code, field }) => `${code} ${field}`);
    return { code: error.code, status: status[error.status], fields };
  }
  return { code: "OK", status: "OK", fields: [] };
}
