/** Paths through the states of one connection against a director. */
import { realAddress } from "../packet/network.js";
import { parseCommand } from "./command.js";
import { Director } from "./director.js";
import type { Packet } from "./frames.js";
import { differ } from "./listing.js";
import type { Judgement } from "./replay.js";
import { afterCommand } from "./tables.js";
import type { Side, StatePath, StateTrace } from "./trace.js";

const VIP = "10.0.0.100";
const PORT = 80;
const METHOD_OPTIONS: Readonly<Record<string, string>> = { nat: "-m", dr: "-g", tun: "-i" };
const SERVICE_OPTIONS = { tcp: "-t", udp: "-u", sctp: "--sctp-service" } as const;

/** Each path by a connection of its own: state, timeout, changes of the counts and packets out after its last packet. */
export async function replayStates(trace: StateTrace): Promise<Judgement> {
  const [protocol = "", method = ""] = trace.name.split("-");
  const option = METHOD_OPTIONS[method];
  if (!isProtocol(protocol) || option === undefined) {
    throw new TypeError(`${trace.name} is no PROTOCOL-METHOD that is replayed`);
  }
  const director = await Director.open();
  const name = `${SERVICE_OPTIONS[protocol]} ${VIP}:${PORT}`;
  const port = method === "nat" ? 8080 : PORT;
  try {
    for (const line of [`-A ${name} -s rr`, `-a ${name} -r ${realAddress(1)}:${port} ${option}`]) {
      await director.apply(afterCommand(director.tables, parseCommand(line)));
    }
    for (const [index, path] of trace.paths.entries()) {
      const failure = await judgePath(director, path, protocol, port, index);
      if (failure !== undefined) return { failure: `${path.steps.join(" ")}: ${failure}`, differences: new Set() };
    }
    return { failure: undefined, differences: new Set() };
  } finally {
    await director.close();
  }
}

function isProtocol(name: string): name is keyof typeof SERVICE_OPTIONS {
  return name in SERVICE_OPTIONS;
}

async function judgePath(
  director: Director,
  path: StatePath,
  protocol: keyof typeof SERVICE_OPTIONS,
  port: number,
  index: number,
): Promise<string | undefined> {
  const client = `198.18.${100 + Math.floor(index / 250)}.${1 + (index % 250)}`;
  const fromClient = { source: client, sourcePort: 1000, destination: VIP, destinationPort: PORT };
  const fromReal = { source: realAddress(1), sourcePort: port, destination: client, destinationPort: 1000 };
  const find = (): { state: string; seconds: number } | undefined =>
    director.connections().find((connection) => connection.client === `${client} 1000`);
  const counts = async (): Promise<{ active: number; inactive: number }> => {
    const [service] = director.tables.services;
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
    const side: Side = step.startsWith("c") ? "c" : "r";
    const packet: Packet = {
      ...(side === "c" ? fromClient : fromReal),
      side,
      protocol,
      ...contentOf(protocol, step.slice(2)),
    };
    out = director.run(packet).verdict === "forward" ? 1 : 0;
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

/** What "SA", "x" or "INIT" of a step is in a packet. */
function contentOf(protocol: keyof typeof SERVICE_OPTIONS, what: string): Pick<Packet, "flags" | "chunk" | "length"> {
  switch (protocol) {
    case "tcp":
      return { flags: what, length: 0 };
    case "udp":
      return { flags: "", length: 18 };
    case "sctp":
      return { flags: "", chunk: what, length: 0 };
    default:
      return protocol satisfies never;
  }
}

/** States in which a client's packet of these replaces the connection. */
const REPLACED: Readonly<Record<string, readonly string[]>> = {
  "c:S": ["TIME_WAIT", "CLOSE"],
  "c:SA": ["TIME_WAIT", "CLOSE"],
  "c:INIT": ["CLOSED"],
};

/**
 * A client's SYN replaces a connection that is over. The kernel counts that one for a moment still, so its counts say nothing after the
 * SYN nor how they change with the next packet.
 */
function isReplacement(step: string, state: string | undefined): boolean {
  return state !== undefined && REPLACED[step]?.includes(state) === true;
}
