/** A trace against a director: the first thing that is not as the kernel did it. */
import { setTimeout as sleep } from "node:timers/promises";
import { ModelError, type SettingName } from "../../src/model/index.js";
import { type Frame, parse } from "../packet/frame.js";
import { CommandError, parseCommand } from "./command.js";
import { type Difference, explain, INVALID_TEMPLATE, TWOS, WRR_ROTATION } from "./differences.js";
import { Director, type Fate } from "./director.js";
import { parseFirewallCommand } from "./firewall.js";
import { type Packet, PROTOCOL_NUMBERS, sortedFlags } from "./frames.js";
import { differ, judgeConnections, judgeCounts, judgeListing, judgeSnapshot, leftovers } from "./listing.js";
import { afterCommand, afterFirewallChange, Refusal, type Tables } from "./tables.js";
import type { FrameEvent, Outgoing, PacketEvent, Trace, TraceEvent } from "./trace.js";
import { alignTurns } from "./turns.js";
import { settingName } from "./waiting.js";

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
      const failure = await step(director, event, differences);
      if (failure !== undefined) return { failure: `event ${index}, ${failure}`, differences };
      const rest = trace.events.slice(index + 1);
      if (event.kind === "ipvsadm" && rest[0]?.kind !== "ipvsadm") {
        if (alignTurns(director, rest)) differences.add(WRR_ROTATION);
        if (director.tables.services.some(({ scheduler }) => scheduler === "twos")) differences.add(TWOS);
      }
    }
    return { failure: undefined, differences };
  } finally {
    await director.close();
  }
}

async function step(director: Director, event: TraceEvent, differences: Set<Difference>): Promise<string | undefined> {
  switch (event.kind) {
    case "ipvsadm":
      return ipvsadm(director, event.line, event.status);
    case "shell":
      await director.apply(afterFirewallChange(director.tables, parseFirewallCommand(event.command)));
      return undefined;
    case "sysctl":
      await director.apply(withSetting(director.tables, event.name, event.value));
      return undefined;
    case "sleep":
      await sleep(event.seconds * 1000);
      director.sweep();
      return undefined;
    case "packet":
      return judgePacket(director, event, differences);
    case "snapshot":
      return judgeSnapshot(director, event.services);
    case "listing":
      return judgeListing(director, event);
    case "frame":
      return judgeFrame(director, event);
    case "connections":
      if (leftovers(event.connections).length > 0) differences.add(INVALID_TEMPLATE);
      return judgeConnections(director, event.connections);
    default:
      return event satisfies never;
  }
}

/** What the kernel refused must be refused here, and the other way round. */
async function ipvsadm(director: Director, line: string, status: number): Promise<string | undefined> {
  try {
    await director.apply(afterCommand(director.tables, parseCommand(line)));
  } catch (error) {
    if (!isRefusal(error)) throw error;
    return status === 0 ? `ipvsadm ${line}: ${error.message}` : undefined;
  }
  // With expire_nodest_conn the kernel ends the connections of what was removed at once; here the data plane's sweeper does.
  director.sweep();
  return status === 0 ? undefined : `ipvsadm ${line}: the kernel refused it with ${status}`;
}

function isRefusal(error: unknown): error is Error {
  return [CommandError, Refusal, ModelError].some((kind) => error instanceof kind);
}

/** IPVS's settings that ours has none for have their defaults: waiting.ts lets nothing else come here. */
function withSetting(tables: Tables, name: string, value: number): Tables {
  const setting: SettingName | undefined = settingName(name);
  return setting === undefined ? tables : { ...tables, settings: { ...tables.settings, [setting]: value } };
}

// ------------------------------------------------------------------------------------------------------- packets

async function judgePacket(
  director: Director,
  event: PacketEvent,
  differences: Set<Difference>,
): Promise<string | undefined> {
  const fate = director.run(packetOf(event));
  const what = event.flags || event.chunk || event.protocol;
  const line = `${event.side}:${what} ${event.source}:${event.sourcePort}`;
  const failure = judgeFate(fate, event, director.tables, differences) ?? (await judgeCounts(director, event));
  return failure === undefined ? undefined : `${line}: ${failure}`;
}

function packetOf(event: PacketEvent): Packet {
  const { protocol } = event;
  if (protocol !== "tcp" && protocol !== "udp" && protocol !== "sctp") {
    throw new TypeError(`a packet of ${protocol} is not replayed`);
  }
  return { ...event, protocol };
}

function judgeFate(fate: Fate, event: PacketEvent, tables: Tables, differences: Set<Difference>): string | undefined {
  const failure = compareFate(fate, event);
  if (failure === undefined) return undefined;
  const difference = explain(event, fate, tables.services, differences);
  if (difference === undefined) return failure;
  differences.add(difference);
  return undefined;
}

function compareFate(fate: Fate, event: PacketEvent): string | undefined {
  switch (fate.verdict) {
    case "forward":
      return differ("out", [fate.out], withoutQuestions(event.out).map(withSortedFlags));
    case "pass":
      return event.out.every((out) => isOfHost(event, out)) ? undefined : differ("out", "left to the host", event.out);
    case "drop":
      return event.out.length === 0 ? undefined : differ("out", `dropped: ${fate.reason ?? "uncounted"}`, event.out);
    default:
      return fate satisfies never;
  }
}

/** Byte for byte, but for what the director makes up: the outer IP header's id. */
function judgeFrame(director: Director, { side, bytes, out }: FrameEvent): string | undefined {
  const fate = director.runFrame(side, Buffer.from(bytes, "hex"));
  const kernels = out.map((frame) => withoutOuterId(parse(Buffer.from(frame.bytes, "hex"))));
  switch (fate.verdict) {
    case "forward":
      return differ("out", [withoutOuterId(fate.frame)], kernels);
    case "pass":
      return differ("out", "left to the host", kernels);
    case "drop":
      return out.length === 0 ? undefined : differ("out", `dropped: ${fate.reason ?? "uncounted"}`, kernels);
    default:
      return fate satisfies never;
  }
}

function withoutOuterId(frame: Frame): Frame {
  return frame.map((layer, index) =>
    layer.kind === "ipv4" && frame[index + 1]?.kind === "ipv4" ? { ...layer, id: 0 } : layer,
  );
}

/** Behind a packet there may be ARP for another one that went before. */
function withoutQuestions(out: readonly Outgoing[]): readonly Outgoing[] {
  return out.length > 1 ? out.filter(({ arp }) => arp === undefined) : out;
}

function withSortedFlags(out: Outgoing): Outgoing {
  return out.flags === undefined ? out : { ...out, flags: sortedFlags(out.flags) };
}

const HOST_TTL = 64;

/** Whether the director's own stack makes this of a packet that is left to it: a reset, an ICMP error, or the packet routed on. */
function isOfHost(packet: PacketEvent, out: Outgoing): boolean {
  const answers = out.source === packet.destination && out.destination === packet.source && out.ttl === HOST_TTL;
  if (out.protocol === PROTOCOL_NUMBERS.icmp) return answers && packet.protocol !== "tcp";
  const reset = out.flags?.includes("R") === true && out.sourcePort === packet.destinationPort;
  const routed = out.source === packet.source && out.destination === packet.destination && out.side !== packet.side;
  return (answers && reset) || routed;
}
