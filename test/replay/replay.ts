/** A trace against a director: the first thing that is not as the kernel did it. */
import { setTimeout as sleep } from "node:timers/promises";
import { isDeepStrictEqual } from "node:util";
import { type ServiceKey, serviceName, type VirtualService } from "../../src/model/index.js";
import { realAddress } from "../packet/network.js";
import { type Command, parseCommand } from "./command.js";
import { type Difference, explain, SWEPT, TWOS, WRR_ROTATION } from "./differences.js";
import { Director, type Fate, type Packet } from "./director.js";
import type {
  ListedConnection,
  ListedService,
  Outgoing,
  PacketEvent,
  StatePath,
  StateTrace,
  Trace,
  TraceEvent,
} from "./trace.js";

export interface Judgement {
  /** Undefined: as in the kernel, the documented differences apart. */
  readonly failure: string | undefined;
  readonly differences: ReadonlySet<Difference>;
}

export async function replay(trace: Trace): Promise<Judgement> {
  const director = await Director.open();
  const differences = new Set<Difference>();
  try {
    for (const [index, event] of trace.events.entries()) {
      const failure = await step(director, trace.events, index, event, differences);
      if (failure !== undefined) return { failure: `event ${index}, ${failure}`, differences };
    }
    return { failure: undefined, differences };
  } finally {
    await director.close();
  }
}

async function step(
  director: Director,
  events: readonly TraceEvent[],
  index: number,
  event: TraceEvent,
  differences: Set<Difference>,
): Promise<string | undefined> {
  switch (event.kind) {
    case "ipvsadm": {
      if (event.status !== 0) return `ipvsadm ${event.line}: the kernel refused it, which is not compared yet`;
      const command = parseCommand(event.line);
      await director.apply(command);
      if (events[index + 1]?.kind !== "ipvsadm") alignTurns(director, events.slice(index + 1), differences);
      return undefined;
    }
    case "sysctl":
      return undefined; // waiting.ts lets only what is the behaviour anyway come here
    case "shell":
      throw new TypeError("a trace with shell commands is not replayed");
    case "sleep":
      await sleep(event.seconds * 1000);
      if (director.sweep() > 0) differences.add(SWEPT);
      return undefined;
    case "packet":
      return judgePacket(director, event, differences);
    case "snapshot":
      return differ("services", await listServices(director), event.services.map(byTitle).sort());
    case "connections":
      return differ("connections", director.connections().map(asLine).sort(), event.connections.map(asLine).sort());
    default:
      return event satisfies never;
  }
}

function differ(what: string, ours: unknown, kernels: unknown): string | undefined {
  return isDeepStrictEqual(ours, kernels)
    ? undefined
    : `${what}: Sluice ${JSON.stringify(ours)}, IPVS ${JSON.stringify(kernels)}`;
}

// ------------------------------------------------------------------------------------------------------- packets

async function judgePacket(
  director: Director,
  event: PacketEvent,
  differences: Set<Difference>,
): Promise<string | undefined> {
  const fate = director.run(packetOf(event));
  const line = `${event.side}:${event.flags || event.protocol} ${event.source}:${event.sourcePort}`;
  const failure = judgeFate(fate, event, director.services.length, differences) ?? (await judgeCounts(director, event));
  return failure === undefined ? undefined : `${line}: ${failure}`;
}

function packetOf(event: PacketEvent): Packet {
  const { protocol } = event;
  if (protocol !== "tcp" && protocol !== "udp") throw new TypeError(`a packet of ${protocol} is not replayed`);
  return { ...event, protocol };
}

function judgeFate(fate: Fate, event: PacketEvent, services: number, differences: Set<Difference>): string | undefined {
  const failure = compareFate(fate, event);
  if (failure === undefined) return undefined;
  const reason = fate.verdict === "drop" ? fate.reason : undefined;
  const difference = explain({ packet: event, verdict: fate.verdict, reason, services });
  if (difference === undefined) return failure;
  differences.add(difference);
  return undefined;
}

function compareFate(fate: Fate, event: PacketEvent): string | undefined {
  switch (fate.verdict) {
    case "forward":
      return differ("out", [fate.out], event.out.map(withSortedFlags));
    case "pass":
      return event.out.every((out) => isOfHost(event, out)) ? undefined : differ("out", "left to the host", event.out);
    case "drop":
      return event.out.length === 0 ? undefined : differ("out", `dropped: ${fate.reason ?? "uncounted"}`, event.out);
    default:
      return fate satisfies never;
  }
}

/** Flags in the order in which frames have them. */
function withSortedFlags(out: Outgoing): Outgoing {
  if (out.flags === undefined) return out;
  const { flags } = out;
  return {
    ...out,
    flags: Array.from("FSRPAUEC")
      .filter((letter) => flags.includes(letter))
      .join(""),
  };
}

const HOST_TTL = 64;
const PROTOCOL_ICMP = 1;

/** Whether the director's own stack makes this of a packet that is left to it: a reset, an ICMP error, or the packet routed on. */
function isOfHost(packet: PacketEvent, out: Outgoing): boolean {
  const answers = out.source === packet.destination && out.destination === packet.source && out.ttl === HOST_TTL;
  if (out.protocol === PROTOCOL_ICMP) return answers && packet.protocol === "udp";
  const reset = out.flags?.includes("R") === true && out.sourcePort === packet.destinationPort;
  const routed = out.source === packet.source && out.destination === packet.destination && out.side !== packet.side;
  return (answers && reset) || routed;
}

/** The kernel lists several services in the order of its hash table: any order of them will do. */
async function judgeCounts(director: Director, { counts }: PacketEvent): Promise<string | undefined> {
  if (counts === undefined) return undefined;
  const ours = await Promise.all(director.services.map(async (service) => countsOf(director, service)));
  return isMadeOf(counts, ours) ? undefined : differ("active and inactive", ours.flat(), counts);
}

type Counts = readonly (readonly [active: number, inactive: number])[];

async function countsOf(director: Director, service: VirtualService): Promise<Counts> {
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

// ------------------------------------------------------------------------------------------------------- listings

const METHOD_NAMES = { nat: "Masq", dr: "Route", tun: "Tunnel", fullnat: "Fullnat" } as const;

async function listServices(director: Director): Promise<string[]> {
  const lines = director.services.map(async (service) => {
    const counters = await director.counters(service);
    const realServers = service.realServers.map(({ address, port, method, weight }, index) => {
      const { active = 0, inactive = 0 } = counters[index] ?? {};
      return [`${address}:${port}`, METHOD_NAMES[method], weight, active, inactive] as const;
    });
    const title = `${service.protocol?.toUpperCase()} ${service.address}:${service.port} ${service.scheduler}`;
    return byTitle({ title, realServers });
  });
  return (await Promise.all(lines)).sort();
}

/** Without the flags, which `ipvsadm -L` prints behind the scheduler. */
function byTitle({ title, realServers }: ListedService): string {
  return `${title.split(" ").slice(0, 3).join(" ")} ${JSON.stringify(realServers)}`;
}

function asLine({ protocol, client, virtual, real, state }: ListedConnection): string {
  return [protocol, client, virtual, real, state].join(" ");
}

// ------------------------------------------------------------------------------------------- where wrr's cycle begins

/**
 * Turns every wrr service's cycle to where the kernel's stands, which is all that may differ: if some rotation gives the real servers
 * that the trace's connections get up to the next command, it is taken, else the first packet will tell.
 */
function alignTurns(director: Director, events: readonly TraceEvent[], differences: Set<Difference>): void {
  for (const service of director.services) {
    if (service.scheduler === "twos") differences.add(TWOS);
    if (service.scheduler !== "wrr") continue;
    const turns = director.turns(service);
    const picks = nextPicks(service, events, new Set(director.connections().map(({ client }) => client)));
    const fits = (slot: number): boolean =>
      picks.every((pick, index) => turns[(slot + index) % turns.length] === realAddress(pick));
    const slot = turns.findIndex((_, candidate) => fits(candidate));
    if (slot > 0) differences.add(WRR_ROTATION);
    if (slot >= 0) director.turnTo(service, slot);
  }
}

/** The real servers that new connections of a service get before the next command. */
function nextPicks(service: ServiceKey, events: readonly TraceEvent[], known: Set<string>): number[] {
  const picks: number[] = [];
  for (const event of events) {
    if (event.kind === "ipvsadm") break;
    if (event.kind !== "packet" || event.side !== "c" || event.picked === undefined) continue;
    const { protocol, destination: address, destinationPort: port } = event;
    if (serviceName(service) !== `${protocol}:${address}:${port}`) continue;
    const client = `${event.source} ${event.sourcePort}`;
    if (!known.has(client)) picks.push(event.picked);
    known.add(client);
  }
  return picks;
}

// --------------------------------------------------------------------------------------------------------- states

const VIP = "10.0.0.100";
const METHOD_OPTIONS: Readonly<Record<string, string>> = { nat: "-m", dr: "-g", tun: "-i" };

/** Each path by a connection of its own: state, timeout, changes of the counts and packets out after its last packet. */
export async function replayStates(trace: StateTrace): Promise<Judgement> {
  const [protocol, method = ""] = trace.name.split("-");
  if ((protocol !== "tcp" && protocol !== "udp") || METHOD_OPTIONS[method] === undefined) {
    throw new TypeError(`${trace.name} is no PROTOCOL-METHOD that is replayed`);
  }
  const director = await Director.open();
  const name = `-${protocol === "tcp" ? "t" : "u"} ${VIP}:80`;
  const port = method === "nat" ? 8080 : 80;
  const commands: Command[] = [
    parseCommand(`-A ${name} -s rr`),
    parseCommand(`-a ${name} -r ${realAddress(1)}:${port} ${METHOD_OPTIONS[method]}`),
  ];
  try {
    for (const command of commands) await director.apply(command);
    for (const [index, path] of trace.paths.entries()) {
      const failure = await judgePath(director, path, protocol, port, index);
      if (failure !== undefined) return { failure: `${path.steps.join(" ")}: ${failure}`, differences: new Set() };
    }
    return { failure: undefined, differences: new Set() };
  } finally {
    await director.close();
  }
}

async function judgePath(
  director: Director,
  path: StatePath,
  protocol: "tcp" | "udp",
  port: number,
  index: number,
): Promise<string | undefined> {
  const client = `198.18.${100 + Math.floor(index / 250)}.${1 + (index % 250)}`;
  const fromClient = { source: client, sourcePort: 1000, destination: VIP, destinationPort: 80 };
  const fromReal = { source: realAddress(1), sourcePort: port, destination: client, destinationPort: 1000 };
  const find = (): { state: string; seconds: number } | undefined =>
    director.connections().find((connection) => connection.client === `${client} 1000`);
  const counts = async (): Promise<{ active: number; inactive: number }> => {
    const [service] = director.services;
    const [counters] = service === undefined ? [] : await director.counters(service);
    return { active: counters?.active ?? 0, inactive: counters?.inactive ?? 0 };
  };
  const last = path.steps.length - 1;
  let out = 0;
  let before = await counts();
  let replaced = -Infinity;
  for (const [at, step] of path.steps.entries()) {
    if (at === last) before = await counts();
    if (at >= last - 1 && isReplacement(step, find()?.state)) replaced = at;
    const flags = protocol === "tcp" ? step.slice(2) : "";
    const side = step.startsWith("c") ? "c" : "r";
    const length = protocol === "udp" ? 18 : 0;
    const fate = director.run({ ...(side === "c" ? fromClient : fromReal), side, protocol, flags, length });
    out = fate.verdict === "forward" ? 1 : 0;
  }
  const now = await counts();
  const connection = find();
  const left = connection?.seconds ?? -1;
  return (
    differ("state", connection?.state, path.state) ??
    differ("packets out", out, path.packetsOut) ??
    (left <= path.timeout && left >= path.timeout - 2 ? undefined : differ("timeout", left, path.timeout)) ??
    (replaced >= last - 1
      ? undefined
      : differ(
          "changes of active and inactive",
          [now.active - before.active, now.inactive - before.inactive],
          [path.activeChange, path.inactiveChange],
        ))
  );
}

/**
 * A client's SYN replaces a connection that is over. The kernel counts that one for a moment still, so its counts say nothing after the
 * SYN nor how they change with the next packet.
 */
function isReplacement(step: string, state: string | undefined): boolean {
  return step.startsWith("c:S") && (state === "TIME_WAIT" || state === "CLOSE");
}
