/**
 * What traces need that Sluice does not have yet. A trace that needs any of it is skipped and says so; whoever builds one of these
 * takes its line away here.
 */
import { SETTING_NAMES, type SettingName } from "../../src/model/index.js";
import { type Layer, parse } from "../packet/frame.js";
import { parseFirewallCommand } from "./firewall.js";
import type { Trace, TraceEvent } from "./trace.js";

const SETTING_PREFIX = "net.ipv4.vs.";

/** IPVS's settings that there is none for, by their defaults, which are Sluice's behaviour. */
const FIXED_SETTINGS: Readonly<Record<string, number>> = {
  backup_only: 0,
  cache_bypass: 0,
  conntrack: 0,
  drop_entry: 0,
  drop_packet: 0,
  ignore_tunneled: 0,
  lblc_expiration: 86_400,
  lblcr_expiration: 86_400,
  pmtu_disc: 1,
  schedule_icmp: 0,
  secure_tcp: 0,
  snat_reroute: 1,
};

/** Ours, of the same name; undefined where there is none. */
export function settingName(name: string): SettingName | undefined {
  return SETTING_NAMES.find((own) => name === SETTING_PREFIX + own);
}

interface Need {
  readonly what: string;
  readonly by: (event: TraceEvent) => boolean;
}

const NEEDS: readonly Need[] = [
  {
    what: "IPv6",
    by: (event) =>
      (event.kind === "packet" && event.source.includes(":")) ||
      (event.kind === "ipvsadm" && /\[|(^| )(-6|--ipv6)( |$)/.test(event.line)) ||
      (event.kind === "shell" && event.command.startsWith("ip6tables")) ||
      layersOf(event).some(({ kind }) => kind === "ipv6"),
  },
  {
    what: "ICMP",
    by: (event) =>
      (event.kind === "packet" && event.protocol.startsWith("icmp")) ||
      layersOf(event).some(({ kind }) => kind === "icmp"),
  },
  {
    what: "fragments",
    by: (event) =>
      layersOf(event).some((layer) => layer.kind === "ipv4" && (layer.moreFragments || layer.fragmentOffset)),
  },
  {
    what: "tunnels beyond IPIP",
    by: (event) => event.kind === "ipvsadm" && / --tun-(?!type[ =]ipip)/.test(event.line),
  },
  { what: "persistence engines", by: (event) => event.kind === "ipvsadm" && / --pe[ =]/.test(event.line) },
];

/** Of the frames that an event has byte for byte. */
function layersOf(event: TraceEvent): Layer[] {
  if (event.kind !== "frame") return [];
  return [event.bytes, ...event.out.map(({ bytes }) => bytes)].flatMap((bytes) => parse(Buffer.from(bytes, "hex")));
}

/** What the trace waits for, in words; nothing where it can be replayed. */
export function waitsFor(trace: Trace): readonly string[] {
  const waits = NEEDS.filter(({ by }) => trace.events.some(by)).map(({ what }) => what);
  return [...new Set([...waits, ...trace.events.flatMap(settingWaits), ...trace.events.flatMap(shellWaits)])];
}

function settingWaits(event: TraceEvent): string[] {
  if (event.kind !== "sysctl" || settingName(event.name) !== undefined) return [];
  const name = event.name.replace(SETTING_PREFIX, "");
  return FIXED_SETTINGS[name] === event.value ? [] : [`${name} = ${event.value}`];
}

/** Commands other than those that mark packets. */
function shellWaits(event: TraceEvent): string[] {
  if (event.kind !== "shell" || event.command.startsWith("ip6tables")) return [];
  try {
    parseFirewallCommand(event.command);
    return [];
  } catch (error) {
    return [error instanceof Error ? error.message : String(error)];
  }
}
