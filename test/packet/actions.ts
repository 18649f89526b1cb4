/** Steps of a row (row.ts) that look at one thing alone: where a packet goes, what is counted, what time does. */
import { ipv4Text } from "./addresses.js";
import type { Bed, RealServerSetup, SettingsSetup } from "./bed.js";
import type { Entry, Load } from "./connection-table.js";
import type { Frame } from "./frame.js";
import type { InterfaceName } from "./network.js";
import { pick } from "./packets.js";
import type { Action } from "./row.js";
import { TICK_SECONDS, tickNow } from "./states.js";

const PROTOCOL_NAMES = new Map([
  [0, "ip"],
  [6, "tcp"],
  [17, "udp"],
  [132, "sctp"],
]);

function summary(frame: Frame): string {
  const ip = frame.find((layer) => layer.kind === "ipv4");
  const transport = frame.find((layer) => layer.kind === "tcp" || layer.kind === "udp");
  const flags = transport?.kind === "tcp" ? ` ${transport.flags ?? ""}` : "";
  return `${transport?.kind ?? ""} ${ip?.source}:${transport?.sourcePort} to ${ip?.destination}:${transport?.destinationPort}${flags}`;
}

/** A packet goes to real server n; or it does not, and becomes what pick() says. */
export function goes(to: number | string, frame: Frame, on?: InterfaceName): Action {
  return (bed, t) => {
    t.equal(pick(bed, frame, on), to, summary(frame));
  };
}

/** What the n-th real server of all, from 0, is counted by; what is not named is not looked at. */
export function counts(real: number, expected: Partial<Load>): Action {
  return (bed, t) => {
    t.match(bed.loads()[real], expected, `counts of real server ${real}`);
  };
}

/** The persistence templates, as sorted lines: "tcp 198.18.0.1:0 10.0.0.100:80 10.1.0.11 NONE leads 2". */
export function templates(...expected: readonly string[]): Action {
  return (bed, t) => {
    const lines = bed.templates().map((template) => templateLine(bed, template));
    t.strictSame(lines.sort(), [...expected].sort(), "templates");
  };
}

function templateLine(bed: Bed, template: Entry): string {
  const protocol = PROTOCOL_NAMES.get(template.protocol) ?? template.protocol;
  const address = bed.map("real_servers").get(template.real)?.address.bytes.subarray(0, 4) ?? new Uint8Array();
  const { source, sourcePort, destination, destinationPort } = template;
  const state = template.state === "TEMPLATE" ? "NONE" : "ASSURED";
  return `${protocol} ${source}:${sourcePort} ${destination}:${destinationPort} ${ipv4Text(address)} ${state} leads ${template.template ?? 0}`;
}

/** How long the entry still lives. */
export function secondsLeft(entry: Entry | undefined): number {
  return entry === undefined ? Number.NaN : ((entry.expires - tickNow()) | 0) * TICK_SECONDS;
}

/** The only template has so many seconds left, give or take what the test itself takes. */
export function templateHas(seconds: number): Action {
  return (bed, t) => {
    const [template, ...others] = bed.templates();
    const left = secondsLeft(template);
    t.ok(left > seconds - 5 && left <= seconds + 0.1, `${left.toFixed(2)} seconds left, of ${seconds}`);
    t.equal(others.length, 0, "there is one template");
  };
}

/** Time goes by for the table, and the sweeper does not come. */
export function passes(seconds: number): Action {
  return (bed) => bed.advance(seconds);
}

/** The sweeper comes twice: a template is free to go only once the connections that it led are gone. */
export function sweeps(): Action {
  return (bed) => {
    bed.sweep();
    bed.sweep();
  };
}

/** Time goes by, and the sweeper comes. */
export function passesAndSweeps(seconds: number): Action {
  return (bed) => {
    bed.advance(seconds);
    bed.sweep();
    bed.sweep();
  };
}

/** Changes a real server of the first service: the n-th, from 0. */
export function changes(place: number, change: Partial<RealServerSetup>): Action {
  return (bed) => bed.changeRealServer(0, place, change);
}

export function sets(settings: SettingsSetup): Action {
  return (bed) => bed.setSettings(settings);
}
