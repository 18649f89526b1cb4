import type { handleUnaryCall } from "@grpc/grpc-js";
import {
  at,
  checkPools,
  checkPoolsInUse,
  checkRealServerPool,
  type DesiredState,
  keepSettings,
  ModelError,
  type Path,
  plainRealServer,
  plainService,
  poolsOf,
  type RealServer,
  type RealServerKey,
  readDirectorSettings,
  readRealServer,
  readService,
  readSettings,
  realServerName,
  SETTING_NAMES,
  type ServiceKey,
  sameRealServer,
  sameService,
  sameSettings,
  serviceName,
  TIMEOUT_NAMES,
  Violations,
  type VirtualService,
} from "../model/index.js";
import type { Director } from "./director.js";
import { applyMask, readMask, type UpdatableFields } from "./field-mask.js";
import type { Empty } from "./gen/google/protobuf/empty.js";
import type {
  CreateRealServerRequest,
  CreateVirtualServiceRequest,
  DeleteRealServerRequest,
  DeleteVirtualServiceRequest,
  DirectorServiceServer,
  GetRealServerRequest,
  GetSettingsRequest,
  GetVirtualServiceRequest,
  GetVirtualServiceStatisticsRequest,
  ListRealServersRequest,
  ListRealServersResponse,
  ListVirtualServiceStatisticsRequest,
  ListVirtualServiceStatisticsResponse,
  ListVirtualServicesRequest,
  ListVirtualServicesResponse,
  UpdateRealServerRequest,
  UpdateSettingsRequest,
  UpdateVirtualServiceRequest,
} from "./gen/sluice/v1/director_service.js";
import type { RealServer as RealServerMessage } from "./gen/sluice/v1/real_server.js";
import type { Settings as SettingsMessage } from "./gen/sluice/v1/settings.js";
import type { DropStatistics, VirtualServiceStatistics } from "./gen/sluice/v1/statistics.js";
import type { VirtualService as VirtualServiceMessage } from "./gen/sluice/v1/virtual_service.js";
import {
  dropStatisticsMessage,
  plainRealServerOf,
  plainServiceOf,
  realServerMessage,
  serviceMessage,
  serviceStatisticsMessage,
} from "./messages.js";
import {
  parseRealServerResource,
  parseServiceResource,
  parseStatisticsResource,
  realServerResource,
  requireSettingsResource,
  serviceResource,
} from "./names.js";
import { page } from "./page.js";
import { plainSettings, plainSettingsOf, settingsMessage } from "./settings-messages.js";
import { ResourceError, statusOf } from "./status.js";

/** A page of services ends early once it holds so many real servers: making and encoding it holds up the event loop, 10 µs each. */
const REAL_SERVERS_A_PAGE = 4_000;

/** sluice.v1.DirectorService over a Director. */
export class DirectorService {
  readonly #director: Director;
  /** serviceName of all services, sorted; made again when a list is asked for after a change. */
  #sortedNames: { readonly of: DesiredState; readonly names: readonly string[] } | undefined;

  constructor(director: Director) {
    this.#director = director;
  }

  /** To be added to a gRPC server. */
  handlers(): DirectorServiceServer {
    return {
      createVirtualService: unary((request: CreateVirtualServiceRequest) => this.#createVirtualService(request)),
      getVirtualService: unary((request: GetVirtualServiceRequest) => this.#getVirtualService(request)),
      listVirtualServices: unary((request: ListVirtualServicesRequest) => this.#listVirtualServices(request)),
      updateVirtualService: unary((request: UpdateVirtualServiceRequest) => this.#updateVirtualService(request)),
      deleteVirtualService: unary((request: DeleteVirtualServiceRequest) => this.#deleteVirtualService(request)),
      createRealServer: unary((request: CreateRealServerRequest) => this.#createRealServer(request)),
      getRealServer: unary((request: GetRealServerRequest) => this.#getRealServer(request)),
      listRealServers: unary((request: ListRealServersRequest) => this.#listRealServers(request)),
      updateRealServer: unary((request: UpdateRealServerRequest) => this.#updateRealServer(request)),
      deleteRealServer: unary((request: DeleteRealServerRequest) => this.#deleteRealServer(request)),
      getSettings: unary((request: GetSettingsRequest) => this.#getSettings(request)),
      updateSettings: unary((request: UpdateSettingsRequest) => this.#updateSettings(request)),
      getVirtualServiceStatistics: unary((request: GetVirtualServiceStatisticsRequest) => this.#getStatistics(request)),
      listVirtualServiceStatistics: unary((request: ListVirtualServiceStatisticsRequest) =>
        this.#listStatistics(request),
      ),
      getDropStatistics: unary(() => this.#getDropStatistics()),
    };
  }

  #createVirtualService(request: CreateVirtualServiceRequest): Promise<VirtualServiceMessage> {
    const path = at(undefined, "virtual_service");
    const violations = new Violations();
    const { virtualService } = request;
    const plain = virtualService === undefined ? undefined : plainServiceOf(virtualService);
    const service = readService(plain, path, violations);
    if (service === undefined) {
      throw new ModelError(violations.list);
    }
    return this.#director.change(() => {
      this.#checkPools(service, path);
      if (this.#director.service(serviceName(service)) !== undefined) {
        throw new ResourceError("ALREADY_EXISTS", "sluice/VirtualService", serviceResource(service));
      }
      return { change: { kind: "put", service }, result: serviceMessage(service) };
    });
  }

  #getVirtualService(request: GetVirtualServiceRequest): VirtualServiceMessage {
    return serviceMessage(this.#service(parseServiceResource(request.name, "name")));
  }

  #listVirtualServices(request: ListVirtualServicesRequest): ListVirtualServicesResponse {
    const { items, nextPageToken } = this.#servicesPage(request);
    return { virtualServices: items.map(serviceMessage), nextPageToken };
  }

  #updateVirtualService(request: UpdateVirtualServiceRequest): Promise<VirtualServiceMessage> {
    const path = at(undefined, "virtual_service");
    const message = given(request.virtualService, path, "the virtual service with what to change");
    const key = parseServiceResource(message.name, "virtual_service.name");
    const update = plainServiceOf(message);
    const mask = readMask(request.updateMask, SERVICE_UPDATE, update);
    return this.#director.change(() => {
      const current = this.#service(key);
      checkImmutable(current, update, ["protocol", "address", "port", "fwmark", "family"], mask, path);
      const plain = applyMask(plainService(current), update, mask, SERVICE_UPDATE);
      const scheduler = plain["scheduler"] ?? "mh";
      if (!mask.has("table_size") && scheduler !== "mh") {
        plain["table_size"] = undefined; // goes with the scheduler that had it
      }
      if (!mask.has("scheduler_flags") && scheduler !== current.scheduler) {
        plain["scheduler_flags"] = undefined; // as do the flags: the new one has its own default
      }
      const violations = new Violations();
      const read = readService(plain, path, violations);
      if (read === undefined) {
        throw new ModelError(violations.list);
      }
      // Kept as they are, so that their identity says that they did not change.
      const service = mask.has("real_servers") ? read : { ...read, realServers: current.realServers };
      this.#checkPools(service, path);
      return sameService(service, current)
        ? { change: undefined, result: serviceMessage(current) }
        : { change: { kind: "put", service }, result: serviceMessage(service) };
    });
  }

  #deleteVirtualService(request: DeleteVirtualServiceRequest): Promise<Empty> {
    const key = parseServiceResource(request.name, "name");
    return this.#director.change(() => {
      this.#service(key);
      return { change: { kind: "remove", name: serviceName(key) }, result: {} };
    });
  }

  #createRealServer(request: CreateRealServerRequest): Promise<RealServerMessage> {
    const path = at(undefined, "real_server");
    const key = parseServiceResource(request.parent, "parent");
    const plain = request.realServer === undefined ? undefined : plainRealServerOf(request.realServer);
    return this.#director.change(() => {
      const current = this.#service(key);
      const realServer = readOneRealServer(plain, current, path);
      if (findRealServer(current, realServer) !== undefined) {
        throw new ResourceError("ALREADY_EXISTS", "sluice/RealServer", realServerResource(current, realServer));
      }
      this.#checkRealServerPool(realServer, current, path);
      const service = { ...current, realServers: [realServer, ...current.realServers] };
      return { change: { kind: "put", service }, result: realServerMessage(service, realServer) };
    });
  }

  #getRealServer(request: GetRealServerRequest): RealServerMessage {
    const { service: key, realServer } = parseRealServerResource(request.name, "name");
    const service = this.#service(key);
    return realServerMessage(service, realServerOf(service, realServer));
  }

  #listRealServers(request: ListRealServersRequest): ListRealServersResponse {
    const service = this.#service(parseServiceResource(request.parent, "parent"));
    const byName = new Map(service.realServers.map((realServer) => [realServerName(realServer), realServer]));
    const { items, nextPageToken } = page(
      [...byName.keys()].sort(),
      (name) => byName.get(name),
      request,
      () => 1,
      REAL_SERVERS_A_PAGE,
    );
    return { realServers: items.map((realServer) => realServerMessage(service, realServer)), nextPageToken };
  }

  #updateRealServer(request: UpdateRealServerRequest): Promise<RealServerMessage> {
    const path = at(undefined, "real_server");
    const message = given(request.realServer, path, "the real server with what to change");
    const { service: serviceKey, realServer: key } = parseRealServerResource(message.name, "real_server.name");
    const update = plainRealServerOf(message);
    const mask = readMask(request.updateMask, REAL_SERVER_UPDATE, update);
    return this.#director.change(() => {
      const service = this.#service(serviceKey);
      const current = realServerOf(service, key);
      checkImmutable(current, update, ["address", "port"], mask, path);
      const plain = applyMask(plainRealServer(current), update, mask, REAL_SERVER_UPDATE);
      const realServer = readOneRealServer(plain, service, path);
      if (sameRealServer(realServer, current)) {
        return { change: undefined, result: realServerMessage(service, current) };
      }
      this.#checkRealServerPool(realServer, service, path);
      const realServers = service.realServers.with(service.realServers.indexOf(current), realServer);
      return {
        change: { kind: "put", service: { ...service, realServers } },
        result: realServerMessage(service, realServer),
      };
    });
  }

  #deleteRealServer(request: DeleteRealServerRequest): Promise<Empty> {
    const { service: serviceKey, realServer: key } = parseRealServerResource(request.name, "name");
    return this.#director.change(() => {
      const current = this.#service(serviceKey);
      const removed = realServerOf(current, key);
      const realServers = current.realServers.filter((realServer) => realServer !== removed);
      return { change: { kind: "put", service: { ...current, realServers } }, result: {} };
    });
  }

  #getSettings(request: GetSettingsRequest): SettingsMessage {
    requireSettingsResource(request.name, "name");
    return settingsMessage(this.#director.desired);
  }

  #updateSettings(request: UpdateSettingsRequest): Promise<SettingsMessage> {
    const path = at(undefined, "settings");
    const message = given(request.settings, path, "the settings with what to change");
    requireSettingsResource(message.name, "settings.name");
    const update = plainSettingsOf(message);
    const mask = readMask(request.updateMask, SETTINGS_UPDATE, update);
    return this.#director.change(() => {
      const { desired } = this.#director;
      const plain = applyMask(plainSettings(desired), update, mask, SETTINGS_UPDATE);
      const violations = new Violations();
      const own = Object.fromEntries(SETTING_NAMES.map((name) => [name, plain[name]]));
      const read = { ...readDirectorSettings(plain, path, violations), settings: readSettings(own, path, violations) };
      violations.throwIfAny();
      const settings = keepSettings(desired, read);
      checkPoolsInUse(settings, desired.services, path, violations);
      violations.throwIfAny();
      return {
        change: sameSettings(desired, settings) ? undefined : { kind: "configure", settings },
        result: settingsMessage(settings),
      };
    });
  }

  #getStatistics(request: GetVirtualServiceStatisticsRequest): Promise<VirtualServiceStatistics> {
    return this.#statisticsOf(this.#service(parseStatisticsResource(request.name, "name")));
  }

  async #listStatistics(request: ListVirtualServiceStatisticsRequest): Promise<ListVirtualServiceStatisticsResponse> {
    const { items, nextPageToken } = this.#servicesPage(request);
    const virtualServiceStatistics: VirtualServiceStatistics[] = [];
    for (const service of items) {
      virtualServiceStatistics.push(await this.#statisticsOf(service));
    }
    return { virtualServiceStatistics, nextPageToken };
  }

  async #statisticsOf(service: VirtualService): Promise<VirtualServiceStatistics> {
    return serviceStatisticsMessage(service, await this.#director.serviceCounters(serviceName(service)));
  }

  #getDropStatistics(): DropStatistics {
    return dropStatisticsMessage(this.#director.drops());
  }

  #service(key: ServiceKey): VirtualService {
    const service = this.#director.service(serviceName(key));
    if (service === undefined) {
      throw new ResourceError("NOT_FOUND", "sluice/VirtualService", serviceResource(key));
    }
    return service;
  }

  #servicesPage(request: { readonly pageSize: number; readonly pageToken: string }): {
    readonly items: VirtualService[];
    readonly nextPageToken: string;
  } {
    const { desired } = this.#director;
    if (this.#sortedNames?.of !== desired) {
      this.#sortedNames = { of: desired, names: desired.services.map(serviceName).sort() };
    }
    return page(
      this.#sortedNames.names,
      (name) => this.#director.service(name),
      request,
      (service) => service.realServers.length,
      REAL_SERVERS_A_PAGE,
    );
  }

  #checkPools(service: VirtualService, path: Path): void {
    const violations = new Violations();
    checkPools(service, poolsOf(this.#director.desired), path, violations);
    violations.throwIfAny();
  }

  #checkRealServerPool(realServer: RealServer, service: VirtualService, path: Path): void {
    const violations = new Violations();
    checkRealServerPool(realServer, service, poolsOf(this.#director.desired), path, violations);
    violations.throwIfAny();
  }
}

const SERVICE_UPDATE: UpdatableFields = {
  mutable: [
    "scheduler",
    "scheduler_flags",
    "table_size",
    "persistence",
    "one_packet",
    "timeouts",
    "removed_connections",
    "fullnat_pool",
    "real_servers",
  ],
  parts: { persistence: ["timeout", "netmask"], timeouts: TIMEOUT_NAMES },
  immutable: ["name", "protocol", "address", "port", "fwmark", "family"],
};
const REAL_SERVER_UPDATE: UpdatableFields = {
  mutable: ["method", "weight", "upper_threshold", "lower_threshold"],
  parts: {},
  immutable: ["name", "address", "port"],
};
const SETTINGS_UPDATE: UpdatableFields = {
  mutable: [...SETTING_NAMES, "timeouts", "marks", "fullnat", "fullnat_pools"],
  parts: { timeouts: TIMEOUT_NAMES },
  immutable: ["name"],
};

function checkImmutable(
  current: object,
  update: Readonly<Record<string, unknown>>,
  names: readonly string[],
  mask: ReadonlySet<string>,
  path: Path,
): void {
  const violations = new Violations();
  const fields = new Map<string, unknown>(Object.entries(current));
  for (const name of names) {
    if (mask.has(name) && update[name] !== fields.get(name)) {
      const allowed = `${String(fields.get(name))}, for it is part of the name: delete and create to change it`;
      violations.add("IMMUTABLE_FIELD", at(path, name), update[name], allowed);
    }
  }
  violations.throwIfAny();
}

function given<Message>(message: Message | undefined, path: Path, allowed: string): Message {
  if (message === undefined) {
    const violations = new Violations();
    violations.add("MISSING_FIELD", path, undefined, allowed);
    throw new ModelError(violations.list);
  }
  return message;
}

function readOneRealServer(plain: unknown, service: VirtualService, path: Path): RealServer {
  const violations = new Violations();
  const realServer = readRealServer(plain, service, path, violations);
  if (realServer === undefined || violations.list.length > 0) {
    throw new ModelError(violations.list);
  }
  return realServer;
}

function findRealServer(service: VirtualService, key: RealServerKey): RealServer | undefined {
  return service.realServers.find(({ address, port }) => address === key.address && port === key.port);
}

function realServerOf(service: VirtualService, key: RealServerKey): RealServer {
  const realServer = findRealServer(service, key);
  if (realServer === undefined) {
    throw new ResourceError("NOT_FOUND", "sluice/RealServer", realServerResource(service, key));
  }
  return realServer;
}

/** Turns a function that answers or throws into a gRPC handler. */
function unary<Request, Response>(
  answer: (request: Request) => Response | Promise<Response>,
): handleUnaryCall<Request, Response> {
  const respond = async (request: Request): Promise<Response> => answer(request);
  return (call, callback) => {
    respond(call.request).then(
      (response) => callback(null, response),
      (error: unknown) => callback(statusOf(error)),
    );
  };
}
