import {
  type CallOptions,
  type ClientUnaryCall,
  credentials,
  Metadata,
  type ServiceError,
  status,
} from "@grpc/grpc-js";
import { BadRequest, ErrorInfo } from "./gen/google/rpc/error_details.js";
import { Status } from "./gen/google/rpc/status.js";
import {
  type Connection,
  type ConnectionFilter,
  ConnectionServiceClient,
  type CountConnectionsResponse,
  type ListConnectionsResponse,
} from "./gen/sluice/v1/connection_service.js";
import {
  DirectorServiceClient,
  type ListRealServersResponse,
  type ListVirtualServiceStatisticsResponse,
  type ListVirtualServicesResponse,
} from "./gen/sluice/v1/director_service.js";
import type { RealServer } from "./gen/sluice/v1/real_server.js";
import type { Settings } from "./gen/sluice/v1/settings.js";
import type { DropStatistics, VirtualServiceStatistics } from "./gen/sluice/v1/statistics.js";
import type { VirtualService } from "./gen/sluice/v1/virtual_service.js";

export { STATE_MESSAGES, TEMPLATES_MESSAGES } from "./connection-messages.js";
export {
  camel,
  durationMessage,
  plainPersistenceOf,
  plainTimeoutsOf,
  timeoutsMessage,
} from "./duration-messages.js";
export {
  type Connection,
  type ConnectionFilter,
  ConnectionState,
  TemplateSelection,
} from "./gen/sluice/v1/connection_service.js";
export { ForwardingMethod, type RealServer } from "./gen/sluice/v1/real_server.js";
export type { FullnatPool, MarkRule, PortRange, Settings } from "./gen/sluice/v1/settings.js";
export type {
  DropStatistics,
  RealServerStatistics,
  Traffic,
  VirtualServiceStatistics,
} from "./gen/sluice/v1/statistics.js";
export type { Timeouts } from "./gen/sluice/v1/timeouts.js";
export {
  AddressFamily,
  type Persistence,
  Protocol,
  RemovedConnections,
  Scheduler,
  SchedulerFlag,
  type VirtualService,
} from "./gen/sluice/v1/virtual_service.js";
export {
  FAMILY_MESSAGES,
  familyWord,
  keyMessage,
  METHOD_MESSAGES,
  methodWord,
  PROTOCOL_MESSAGES,
  plainRealServerOf,
  plainServiceOf,
  protocolWord,
  REMOVED_CONNECTIONS_MESSAGES,
  removedConnectionsWord,
  SCHEDULER_MESSAGES,
  schedulerFlagsMessage,
  schedulerFlagWords,
  schedulerWord,
} from "./messages.js";
export { realServerResource, serviceResource, statisticsResource } from "./names.js";
export { plainMarkRuleOf, plainPoolOf } from "./settings-messages.js";

/** What a call failed with. `code` is the stable code of the daemon's error (ErrorInfo.reason), or says why there is none. */
export class ApiError extends Error {
  override readonly name = "ApiError";
  readonly code: string;
  /** The gRPC status. */
  readonly status: status;
  /** For INVALID_ARGUMENT: every field that was refused. */
  readonly violations: readonly { readonly code: string; readonly field: string; readonly message: string }[];

  constructor(
    code: string,
    message: string,
    grpcStatus: status,
    violations: ApiError["violations"],
    options?: ErrorOptions,
  ) {
    super(message, options);
    this.code = code;
    this.status = grpcStatus;
    this.violations = violations;
  }
}

export interface ApiClientOptions {
  /** Deadline of a call, in milliseconds. Default: 30,000. */
  readonly timeoutMs?: number;
}

/** The most that the daemon gives. */
const PAGE_SIZE = 1000;

type Answer<Response> = (error: ServiceError | null, response: Response) => void;
type Start<Response> = (metadata: Metadata, options: CallOptions, answer: Answer<Response>) => ClientUnaryCall;

/** A connection to a daemon's API. Methods reject with ApiError. */
export class ApiClient {
  readonly #socket: string;
  readonly #stub: DirectorServiceClient;
  readonly #connections: ConnectionServiceClient;
  readonly #timeoutMs: number;

  /** Connects with the first call. `socket`: absolute path. */
  constructor(socket: string, options: ApiClientOptions = {}) {
    this.#socket = socket;
    this.#timeoutMs = options.timeoutMs ?? 30_000;
    this.#stub = new DirectorServiceClient(`unix:${socket}`, credentials.createInsecure(), {
      // A page of a list may be big where services are; the daemon is trusted with it.
      "grpc.max_receive_message_length": 64 * 1024 * 1024,
      "grpc.enable_retries": 0,
    });
    this.#connections = new ConnectionServiceClient("", credentials.createInsecure(), {
      channelOverride: this.#stub.getChannel(),
    });
  }

  createVirtualService(virtualService: VirtualService): Promise<VirtualService> {
    return this.#call((...rest) => this.#stub.createVirtualService({ virtualService }, ...rest));
  }

  getVirtualService(name: string): Promise<VirtualService> {
    return this.#call((...rest) => this.#stub.getVirtualService({ name }, ...rest));
  }

  /** All of them, fetched page by page. */
  listVirtualServices(): Promise<VirtualService[]> {
    return this.#pages<ListVirtualServicesResponse, VirtualService>(
      (page) =>
        (...rest) =>
          this.#stub.listVirtualServices(page, ...rest),
      (response) => response.virtualServices,
    );
  }

  updateVirtualService(virtualService: VirtualService, updateMask: string[]): Promise<VirtualService> {
    return this.#call((...rest) => this.#stub.updateVirtualService({ virtualService, updateMask }, ...rest));
  }

  async deleteVirtualService(name: string): Promise<void> {
    await this.#call<object>((...rest) => this.#stub.deleteVirtualService({ name }, ...rest));
  }

  createRealServer(parent: string, realServer: RealServer): Promise<RealServer> {
    return this.#call((...rest) => this.#stub.createRealServer({ parent, realServer }, ...rest));
  }

  getRealServer(name: string): Promise<RealServer> {
    return this.#call((...rest) => this.#stub.getRealServer({ name }, ...rest));
  }

  /** All of a service's, fetched page by page. */
  listRealServers(parent: string): Promise<RealServer[]> {
    return this.#pages<ListRealServersResponse, RealServer>(
      (page) =>
        (...rest) =>
          this.#stub.listRealServers({ parent, ...page }, ...rest),
      (response) => response.realServers,
    );
  }

  updateRealServer(realServer: RealServer, updateMask: string[]): Promise<RealServer> {
    return this.#call((...rest) => this.#stub.updateRealServer({ realServer, updateMask }, ...rest));
  }

  async deleteRealServer(name: string): Promise<void> {
    await this.#call<object>((...rest) => this.#stub.deleteRealServer({ name }, ...rest));
  }

  getSettings(): Promise<Settings> {
    return this.#call((...rest) => this.#stub.getSettings({ name: "" }, ...rest));
  }

  updateSettings(settings: Settings, updateMask: string[]): Promise<Settings> {
    return this.#call((...rest) => this.#stub.updateSettings({ settings, updateMask }, ...rest));
  }

  getVirtualServiceStatistics(name: string): Promise<VirtualServiceStatistics> {
    return this.#call((...rest) => this.#stub.getVirtualServiceStatistics({ name }, ...rest));
  }

  /** Of all services, fetched page by page. */
  listVirtualServiceStatistics(): Promise<VirtualServiceStatistics[]> {
    return this.#pages<ListVirtualServiceStatisticsResponse, VirtualServiceStatistics>(
      (page) =>
        (...rest) =>
          this.#stub.listVirtualServiceStatistics(page, ...rest),
      (response) => response.virtualServiceStatistics,
    );
  }

  getDropStatistics(): Promise<DropStatistics> {
    return this.#call((...rest) => this.#stub.getDropStatistics({}, ...rest));
  }

  /**
   * The connections that a filter selects, at most `limit` of them (0: all), in batches as they come. The daemon reads them no faster than
   * they are taken, and returning early ends the call. There is no deadline.
   */
  async *listConnections(filter: ConnectionFilter, limit = 0): AsyncGenerator<readonly Connection[], undefined> {
    const call = this.#connections.listConnections({ filter, limit });
    try {
      for await (const { connections } of call as AsyncIterable<ListConnectionsResponse>) {
        yield connections;
      }
    } catch (error) {
      throw this.#errorOf(error as ServiceError);
    } finally {
      call.cancel();
    }
  }

  async countConnections(filter: ConnectionFilter): Promise<bigint> {
    const { connections } = await this.#call<CountConnectionsResponse>((...rest) =>
      this.#connections.countConnections({ filter }, ...rest),
    );
    return connections;
  }

  close(): void {
    this.#connections.close();
    this.#stub.close();
  }

  [Symbol.dispose](): void {
    this.close();
  }

  async #pages<Response extends { readonly nextPageToken: string }, Item>(
    start: (page: { pageSize: number; pageToken: string }) => Start<Response>,
    itemsOf: (response: Response) => readonly Item[],
  ): Promise<Item[]> {
    const items: Item[] = [];
    let pageToken = "";
    do {
      const response = await this.#call(start({ pageSize: PAGE_SIZE, pageToken }));
      items.push(...itemsOf(response));
      pageToken = response.nextPageToken;
    } while (pageToken !== "");
    return items;
  }

  #call<Response>(start: Start<Response>): Promise<Response> {
    return new Promise((resolve, reject) => {
      start(new Metadata(), { deadline: Date.now() + this.#timeoutMs }, (error, response) => {
        if (error === null) {
          resolve(response);
        } else {
          reject(this.#errorOf(error));
        }
      });
    });
  }

  #errorOf(error: ServiceError): ApiError {
    const trailer = error.metadata.get("grpc-status-details-bin")[0];
    if (trailer === undefined || typeof trailer === "string") {
      const code = error.code === status.UNAVAILABLE ? "DAEMON_UNREACHABLE" : status[error.code];
      const message = code === "DAEMON_UNREACHABLE" ? `no daemon answers on ${this.#socket}` : error.details;
      return new ApiError(code, message, error.code, [], { cause: error });
    }
    let code = "UNKNOWN";
    let violations: ApiError["violations"] = [];
    for (const { typeUrl, value } of Status.decode(trailer).details) {
      if (typeUrl.endsWith("/google.rpc.ErrorInfo")) {
        code = ErrorInfo.decode(value).reason;
      } else if (typeUrl.endsWith("/google.rpc.BadRequest")) {
        violations = BadRequest.decode(value).fieldViolations.map(({ reason, field, description }) => ({
          code: reason,
          field,
          message: description,
        }));
      }
    }
    return new ApiError(code, error.details, error.code, violations, { cause: error });
  }
}
