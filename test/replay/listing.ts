/** What `ipvsadm -L` and the kernel's list of connections would say of ours, and whether the trace's say the same. */
import { isDeepStrictEqual } from "node:util";
import { endpointName, type RealServer } from "../../src/model/index.js";
import type { Director } from "./director.js";
import { endpointOf, type KernelService, vipOf } from "./tables.js";
import type { ListedConnection, ListedRealServer, ListedService, ListingEvent, PacketEvent } from "./trace.js";

const METHOD_NAMES = { nat: "Masq", dr: "Route", tun: "Tunnel", fullnat: "Fullnat" } as const;

export function differ(what: string, ours: unknown, kernels: unknown): string | undefined {
  return isDeepStrictEqual(ours, kernels)
    ? undefined
    : `${what}: Sluice ${JSON.stringify(ours)}, IPVS ${JSON.stringify(kernels)}`;
}

/** The first of `ours` that the kernel has not, and the first of the kernel's that is not ours. */
function differInLines(what: string, ours: readonly string[], kernels: readonly string[]): string | undefined {
  const only = (these: readonly string[], those: readonly string[]): string | undefined => {
    const left = [...those];
    return these.find((line) => {
      const at = left.indexOf(line);
      if (at !== -1) left.splice(at, 1);
      return at === -1;
    });
  };
  const ourOwn = only(ours, kernels);
  const kernelsOwn = only(kernels, ours);
  if (ourOwn === undefined && kernelsOwn === undefined) return undefined;
  return `${what}: only Sluice has ${ourOwn ?? "nothing"}, only IPVS has ${kernelsOwn ?? "nothing"}`;
}

// -------------------------------------------------------------------------------------------------------- counts

type Counts = readonly (readonly [active: number, inactive: number])[];

/** The kernel lists several services in the order of its hash table: any order of them will do. */
export async function judgeCounts(director: Director, { counts }: PacketEvent): Promise<string | undefined> {
  if (counts === undefined) return undefined;
  const ours = await Promise.all(director.tables.services.map(async (service) => countsOf(director, service)));
  return isMadeOf(counts, ours) ? undefined : differ("active and inactive", ours.flat(), counts);
}

async function countsOf(director: Director, service: KernelService): Promise<Counts> {
  return (await director.counters(service)).map(({ active, inactive }) => [active, inactive] as const);
}

function isMadeOf(whole: Counts, parts: readonly Counts[]): boolean {
  if (parts.length === 0) return whole.length === 0;
  return parts.some(
    (part, index) =>
      isDeepStrictEqual(whole.slice(0, part.length), part) &&
      isMadeOf(whole.slice(part.length), parts.toSpliced(index, 1)),
  );
}

// ------------------------------------------------------------------------------------------------------ services

export async function judgeSnapshot(
  director: Director,
  services: readonly ListedService[],
): Promise<string | undefined> {
  const ours = await Promise.all(director.tables.services.map(async (service) => listed(director, service)));
  return differInLines("services", ours.map(asLine), services.map(asLine));
}

async function listed(director: Director, service: KernelService): Promise<ListedService> {
  const counters = await director.counters(service);
  const realServers = service.realServers.map((realServer, index): ListedRealServer => {
    const { active = 0, inactive = 0 } = counters[index] ?? {};
    return [endpointName(realServer), METHOD_NAMES[realServer.method], realServer.weight, active, inactive];
  });
  return { title: `${nameOf(service)} ${service.scheduler}`, realServers };
}

function nameOf({ key }: KernelService): string {
  return `${key.protocol?.toUpperCase() ?? "FWM"} ${endpointOf(key)}`;
}

/** Without the flags, which ipvsadm prints behind the scheduler. */
function asLine({ title, realServers }: ListedService): string {
  const [, named] = /^(\S+ \S+(?: IPv6)? \S+)/.exec(title) ?? [];
  return `${named ?? title} ${JSON.stringify(realServers)}`;
}

// ------------------------------------------------------------------------------------- what ipvsadm itself prints

/**
 * `ipvsadm -L -n` sorts its services and real servers, which is not compared; nor is how it orders a service's words. The kernel
 * counts templates, too, that lead no more connections.
 */
export async function judgeListing(
  director: Director,
  { lines, persistent, connections }: ListingEvent,
): Promise<string | undefined> {
  const known = director.connections();
  const isOursToo = (leftover: ListedConnection): boolean => known.some(isKept(leftover));
  const left = leftovers(connections).filter((leftover) => !isOursToo(leftover));
  const ours = await Promise.all(
    director.tables.services.map(async (service) => {
      const counters = await director.counters(service);
      const title = wordsOf(service);
      return [
        sortedWords(title),
        ...service.realServers.map((realServer, index) => {
          const { weight, method } = realServer;
          const { active = 0, inactive = 0, persistentConnections = 0 } = counters[index] ?? {};
          const templates = persistentConnections + left.filter(isTemplateOf(service, realServer)).length;
          const numbers = persistent ? [weight, templates] : [METHOD_NAMES[method], weight];
          return [...title.slice(0, 2), endpointName(realServer), ...numbers, active, inactive].join(" ");
        }),
      ];
    }),
  );
  return differInLines("ipvsadm -L", ours.flat(), withService(lines));
}

/** Its ports say nothing any more. */
function isTemplateOf({ key }: KernelService, { address }: RealServer): (template: ListedConnection) => boolean {
  return ({ protocol, virtual, real }) =>
    protocol === (key.protocol ?? "ip") && virtual.startsWith(`${vipOf(key)} `) && real.startsWith(`${address} `);
}

/** ipvsadm's print_service_entry(). */
function wordsOf(service: KernelService): string[] {
  const { scheduler, flags, persistence, onePacket } = service;
  const { timeout, netmask } = persistence ?? {};
  const isWhole = netmask === undefined || netmask === "255.255.255.255" || netmask === 128;
  return [
    ...nameOf(service).split(" "),
    scheduler,
    ...(flags.length > 0 ? [`(${flags.toSorted().join(",")})`] : []),
    ...(timeout === undefined ? [] : ["persistent", String(timeout), ...(isWhole ? [] : ["mask", String(netmask)])]),
    ...(onePacket ? ["ops"] : []),
  ];
}

function sortedWords(words: readonly string[]): string {
  return words.toSorted().join(" ");
}

/** Each real server's line with its service's name in the arrow's place. */
function withService(lines: readonly string[]): string[] {
  let title: readonly string[] = [];
  return lines.map((line) => {
    if (line.startsWith("-> ")) return [...title.slice(0, 2), line.slice(3)].join(" ");
    title = line.split(" ");
    return sortedWords(title);
  });
}

// --------------------------------------------------------------------------------------------------- connections

/**
 * How far apart the times of a listed connection may be: what it takes the kernel and us to come to the list is not the same. Wide enough
 * for that, and not for the time of another state.
 */
function isNear(ours: number, kernels: number): boolean {
  return Math.abs(ours - kernels) <= 5 + Math.max(ours, kernels) / 4;
}

/** What is in our list alone: the translations by which replies of one-packet scheduling find their way. */
const ONE_PACKET_STATE = "ONE_PACKET";
/** ip_vs_check_template(): the port that a template gets which is to lead no more connections. */
const INVALID_PORT = " 65535";

/** The kernel's templates that lead no more connections, which it lists until they expire. */
export function leftovers(connections: readonly ListedConnection[]): readonly ListedConnection[] {
  return connections.filter(({ virtual, client }) => virtual.endsWith(INVALID_PORT) && client.endsWith(" 0"));
}

/** Whether `ours` is the template that the kernel has made a leftover of: while there is no other real server, ours stays one. */
function isKept(leftover: ListedConnection): (ours: ListedConnection) => boolean {
  const address = (endpoint: string): string | undefined => endpoint.split(" ")[0];
  return ({ protocol, client, virtual, real }) =>
    protocol === leftover.protocol &&
    client === leftover.client &&
    address(virtual) === address(leftover.virtual) &&
    address(real) === address(leftover.real);
}

export function judgeConnections(director: Director, kernels: readonly ListedConnection[]): string | undefined {
  const left = leftovers(kernels);
  const isInBoth = (connection: ListedConnection): boolean =>
    kernels.some((other) => connectionLine(other) === connectionLine(connection));
  const ours = director
    .connections()
    .filter(({ state }) => state !== ONE_PACKET_STATE)
    .filter((connection) => isInBoth(connection) || !left.some((leftover) => isKept(leftover)(connection)));
  const compared = kernels.filter((connection) => !left.includes(connection));
  const failure = differInLines("connections", ours.map(connectionLine), compared.map(connectionLine));
  if (failure !== undefined) return failure;
  const times = new Map(compared.map((connection) => [connectionLine(connection), connection.seconds]));
  const late = ours.find((connection) => {
    const expected = times.get(connectionLine(connection)) ?? connection.seconds;
    return !isNear(connection.seconds, expected);
  });
  return late && differ(`seconds of ${connectionLine(late)}`, late.seconds, times.get(connectionLine(late)));
}

function connectionLine({ protocol, client, virtual, real, state }: ListedConnection): string {
  return [protocol, client, virtual, real, state].join(" ");
}
