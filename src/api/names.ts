import {
  at,
  ModelError,
  parseRealServerName,
  parseServiceName,
  type RealServerKey,
  realServerName,
  type ServiceKey,
  serviceName,
  Violations,
} from "../model/index.js";

/*
 * Resource names: `virtualServices/{service}`, `virtualServices/{service}/realServers/{real server}` and
 * `virtualServices/{service}/statistics`, the ids being the model's names; and `settings`.
 */

/** There are no others. */
export const SETTINGS_RESOURCE = "settings";

const SERVICES = "virtualServices/";
const REAL_SERVERS = "/realServers/";
const STATISTICS = "/statistics";

export function serviceResource(service: ServiceKey): string {
  return SERVICES + serviceName(service);
}

export function realServerResource(service: ServiceKey, realServer: RealServerKey): string {
  return serviceResource(service) + REAL_SERVERS + realServerName(realServer);
}

export function statisticsResource(service: ServiceKey): string {
  return serviceResource(service) + STATISTICS;
}

/** Reads a service's resource name from the request's field `field`; throws a ModelError. */
export function parseServiceResource(resource: string, field: string): ServiceKey {
  const key = resource.startsWith(SERVICES) ? parseServiceName(resource.slice(SERVICES.length)) : undefined;
  return key ?? malformed(resource, field, "virtualServices/tcp:10.0.0.100:80");
}

/** Reads a service's statistics' resource name; throws a ModelError. */
export function parseStatisticsResource(resource: string, field: string): ServiceKey {
  const key =
    resource.startsWith(SERVICES) && resource.endsWith(STATISTICS)
      ? parseServiceName(resource.slice(SERVICES.length, -STATISTICS.length))
      : undefined;
  return key ?? malformed(resource, field, "virtualServices/tcp:10.0.0.100:80/statistics");
}

/** Reads a real server's resource name; throws a ModelError. */
export function parseRealServerResource(
  resource: string,
  field: string,
): { readonly service: ServiceKey; readonly realServer: RealServerKey } {
  const [serviceId, realServerId] = resource.startsWith(SERVICES)
    ? resource.slice(SERVICES.length).split(REAL_SERVERS, 2)
    : [];
  const service = serviceId === undefined ? undefined : parseServiceName(serviceId);
  const realServer = realServerId === undefined ? undefined : parseRealServerName(realServerId);
  return service === undefined || realServer === undefined
    ? malformed(resource, field, "virtualServices/tcp:10.0.0.100:80/realServers/10.1.0.11:8080")
    : { service, realServer };
}

/** Refuses any name but that of the settings; an empty one stands for them, too. Throws a ModelError. */
export function requireSettingsResource(resource: string, field: string): void {
  if (resource !== "" && resource !== SETTINGS_RESOURCE) {
    malformed(resource, field, SETTINGS_RESOURCE);
  }
}

function malformed(resource: string, field: string, example: string): never {
  const violations = new Violations();
  const path = field.split(".").reduce<ReturnType<typeof at> | undefined>((parent, key) => at(parent, key), undefined);
  const given = resource === "" ? undefined : resource;
  violations.add(
    given === undefined ? "MISSING_FIELD" : "NAME_MALFORMED",
    path,
    given,
    example === SETTINGS_RESOURCE ? example : `a name as ${example}`,
  );
  throw new ModelError(violations.list);
}
