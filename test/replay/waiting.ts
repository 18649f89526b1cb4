/**
 * What traces need that Sluice does not have yet. A trace that needs any of it is skipped and says so; whoever builds one of these
 * takes its line away here.
 */
import type { Trace, TraceEvent } from "./trace.js";

/** The longest that a trace may sleep, in seconds, as the replayer really waits. */
const LONGEST_SLEEP = 15;

/** IPVS's defaults, which are Sluice's behaviour; another value waits for the setting. */
const FIXED_SETTINGS: Readonly<Record<string, number>> = {
  conn_reuse_mode: 1,
  expire_nodest_conn: 0,
  expire_quiescent_template: 0,
  nat_icmp_send: 0,
  sloppy_tcp: 0,
};
const SETTING_PREFIX = "net.ipv4.vs.";

interface Need {
  readonly what: string;
  readonly by: (event: TraceEvent) => boolean;
}

function option(pattern: RegExp): (event: TraceEvent) => boolean {
  return (event) => event.kind === "ipvsadm" && pattern.test(event.line);
}

const NEEDS: readonly Need[] = [
  {
    what: "IPv6",
    by: (event) =>
      (event.kind === "packet" && event.source.includes(":")) || (event.kind === "ipvsadm" && event.line.includes("[")),
  },
  {
    what: "firewall marks",
    by: (event) => (event.kind === "ipvsadm" && /(^| )-f /.test(event.line)) || event.kind === "shell",
  },
  { what: "persistence", by: option(/ -p( |$)/) },
  { what: "one-packet scheduling", by: option(/ -o( |$)/) },
  { what: "thresholds", by: option(/ -[xy] /) },
  { what: "any-port services", by: option(/ -[tu] \S+:0( |$)/) },
  {
    what: "SCTP",
    by: (event) =>
      (event.kind === "packet" && event.protocol === "sctp") ||
      (event.kind === "ipvsadm" && event.line.includes("--sctp-service")),
  },
  { what: "ICMP", by: (event) => event.kind === "packet" && event.protocol.startsWith("icmp") },
  { what: "tunnels beyond IPIP", by: option(/ --tun-/) },
];

/** What the trace waits for, in words; nothing where it can be replayed. */
export function waitsFor(trace: Trace): readonly string[] {
  const waits = NEEDS.filter(({ by }) => trace.events.some(by)).map(({ what }) => what);
  const settings = new Set<string>();
  let slept = 0;
  for (const event of trace.events) {
    if (event.kind === "sleep") slept += event.seconds;
    if (event.kind !== "sysctl") continue;
    const name = event.name.replace(SETTING_PREFIX, "");
    if (FIXED_SETTINGS[name] !== event.value) settings.add(`${name} = ${event.value}`);
  }
  if (slept > LONGEST_SLEEP) waits.push(`${slept} s of sleep`);
  return [...waits, ...settings];
}

/** The same for a file of states, by its name. */
export function stateWaitsFor(name: string): readonly string[] {
  return name.startsWith("sctp") ? ["SCTP"] : [];
}
