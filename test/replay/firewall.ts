/**
 * iptables' commands in traces that mark packets, as mark rules. Those of iptables all apply, so that of several that match the last one
 * counts; of ours the first one. Rules are kept here in iptables' order.
 */
import type { PlainMarkRule } from "../../src/model/index.js";

/** What one rule of iptables is in ours: several where it names several ports. */
export type MarkRules = readonly PlainMarkRule[];

export type FirewallChange =
  | { readonly kind: "append" | "insert" | "delete"; readonly rules: MarkRules }
  | { readonly kind: "delete at"; readonly position: number }
  | { readonly kind: "flush" };

/** The interface that clients' packets come in by. Rules of ours name none: what comes from real servers has no need of marks. */
const CLIENT_SIDE = "c0";
const PROTOCOLS: Readonly<Record<string, PlainMarkRule["protocol"]>> = {
  tcp: "tcp",
  6: "tcp",
  udp: "udp",
  17: "udp",
  sctp: "sctp",
  132: "sctp",
};
/** Modules whose matches are read below. */
const MODULES = ["tcp", "udp", "sctp", "multiport"];

export class FirewallError extends Error {
  readonly code = "FIREWALL_COMMAND_UNKNOWN";

  constructor(command: string, problem: string) {
    super(`"${command}" ${problem}`);
    this.name = "FirewallError";
  }
}

const SAME: Readonly<Record<string, string>> = {
  "--append": "-A",
  "--insert": "-I",
  "--delete": "-D",
  "--flush": "-F",
  "--table": "-t",
  "--in-interface": "-i",
  "--source": "-s",
  "--src": "-s",
  "--destination": "-d",
  "--dst": "-d",
  "--protocol": "-p",
  "--match": "-m",
  "--jump": "-j",
  "--source-port": "--sport",
  "--source-ports": "--sports",
  "--destination-port": "--dport",
  "--destination-ports": "--dports",
  "--set-xmark": "--set-mark",
};

/** Reads a shell command. @throws FirewallError where it is none that marks packets, or by what mark rules cannot say */
export function parseFirewallCommand(command: string): FirewallChange {
  const [program, ...words] = command.split(/\s+/).filter((word) => word !== "");
  if (program !== "iptables" && program !== "iptables-legacy") {
    throw new FirewallError(command, "is none of iptables, which alone is understood");
  }
  const options = readOptions(command, words);
  if (options.get("-t") !== "mangle") throw new FirewallError(command, "is not about the table mangle");
  const actions = ["-A", "-I", "-D", "-F"].filter((name) => options.has(name));
  const [action, ...more] = actions;
  if (action === undefined || more.length > 0)
    throw new FirewallError(command, "has not exactly one of -A, -I, -D, -F");
  const [chain, position] = (options.get(action) ?? "").split(" ");
  if (chain !== "PREROUTING" && !(action === "-F" && chain === "")) {
    throw new FirewallError(command, "is not about the chain PREROUTING");
  }
  if (action === "-F") return { kind: "flush" };
  if (position !== undefined) {
    if (action === "-D") return { kind: "delete at", position: Number(position) };
    if (position !== "1") throw new FirewallError(command, `inserts at ${position}, not at the head`);
  }
  const kind = action === "-A" ? "append" : action === "-I" ? "insert" : "delete";
  return { kind, rules: rulesOf(command, options) };
}

/** Options by their short names. A chain and a number behind it are one value. */
function readOptions(command: string, words: readonly string[]): ReadonlyMap<string, string> {
  const options = new Map<string, string>();
  for (let at = 0; at < words.length; at++) {
    const word = words[at] ?? "";
    const name = SAME[word] ?? word;
    if (!name.startsWith("-")) throw new FirewallError(command, `has ${word}, which no mark rule can say`);
    let value = "";
    while (at + 1 < words.length && !words[at + 1]?.startsWith("-")) value += `${value && " "}${words[++at]}`;
    if (name === "-w" || name === "-n") continue; // waits for other iptables; prints no names
    if (name === "-m") {
      if (!MODULES.includes(value)) throw new FirewallError(command, `has -m ${value}, which no mark rule can say`);
      continue;
    }
    if (options.has(name)) throw new FirewallError(command, `has ${word} twice`);
    options.set(name, value);
  }
  return options;
}

const MATCHES = ["-t", "-A", "-I", "-D", "-i", "-s", "-d", "-p", "--sport", "--sports", "--dport", "--dports"];

function rulesOf(command: string, options: ReadonlyMap<string, string>): MarkRules {
  for (const [name, value] of options) {
    if (![...MATCHES, "-j", "--set-mark"].includes(name) || value.includes("!")) {
      throw new FirewallError(command, `has ${name} ${value}, which no mark rule can say`);
    }
  }
  if (options.get("-j") !== "MARK") throw new FirewallError(command, "does not jump to MARK");
  const from = options.get("-i");
  if (from !== undefined && from !== CLIENT_SIDE) throw new FirewallError(command, `is about packets from ${from}`);
  const protocol = options.get("-p");
  const source = networkOf(options.get("-s"));
  const destination = networkOf(options.get("-d"));
  const rule = {
    mark: markOf(command, options.get("--set-mark")),
    ...(source === undefined && destination === undefined && { family: "ipv4" as const }),
    ...(protocol !== undefined && protocol !== "all" && { protocol: protocolOf(command, protocol) }),
    ...(source !== undefined && { source }),
    ...(destination !== undefined && { destination }),
  };
  const sourcePorts = portsOf(options.get("--sport") ?? options.get("--sports"));
  const destinationPorts = portsOf(options.get("--dport") ?? options.get("--dports"));
  return sourcePorts.flatMap((from) =>
    destinationPorts.map((to) => ({
      ...rule,
      ...(from !== undefined && { source_ports: from }),
      ...(to !== undefined && { destination_ports: to }),
    })),
  );
}

function protocolOf(command: string, text: string): NonNullable<PlainMarkRule["protocol"]> {
  const protocol = PROTOCOLS[text.toLowerCase()];
  if (protocol === undefined) throw new FirewallError(command, `has -p ${text}, which no mark rule can say`);
  return protocol;
}

function markOf(command: string, text: string | undefined): number {
  const match = /^(0x[0-9a-f]+|\d+)(?:\/0xffffffff)?$/i.exec(text ?? "");
  const mark = Number(match?.[1]);
  if (!(mark > 0)) throw new FirewallError(command, `sets the mark ${text ?? "of nothing"}, which no mark rule can`);
  return mark;
}

/** Without the bits behind the prefix, as iptables reads it; undefined: any. */
function networkOf(text: string | undefined): string | undefined {
  if (text === undefined) return undefined;
  const [address = "", length = "32"] = text.split("/");
  const prefix = length.includes(".") ? Math.clz32(~number(length)) : Number(length);
  if (prefix === 0) return undefined;
  const bits = number(address) & (-1 << (32 - prefix));
  const masked = [24, 16, 8, 0].map((shift) => (bits >>> shift) & 255).join(".");
  return prefix === 32 ? masked : `${masked}/${prefix}`;
}

function number(address: string): number {
  return address.split(".").reduce((bits, byte) => (bits << 8) | Number(byte), 0);
}

/** `80`, `80:90`, `80,443`: as ranges of mark rules; one undefined: any. */
function portsOf(text: string | undefined): readonly (string | undefined)[] {
  return text?.split(",").map(rangeOf) ?? [undefined];
}

/** Without a first or last port it goes from the first or to the last there is. */
function rangeOf(text: string): string {
  const [first = "", last] = text.split(":");
  return last === undefined ? first : `${Math.max(Number(first), 1)}-${last === "" ? 65535 : last}`;
}

/** The rules after a change, in iptables' order. */
export function changeRules(rules: readonly MarkRules[], change: FirewallChange): readonly MarkRules[] {
  switch (change.kind) {
    case "append":
      return [...rules, change.rules];
    case "insert":
      return [change.rules, ...rules];
    case "delete": {
      const index = rules.findIndex((rule) => JSON.stringify(rule) === JSON.stringify(change.rules));
      return index === -1 ? rules : rules.toSpliced(index, 1);
    }
    case "delete at":
      return rules.toSpliced(change.position - 1, 1);
    case "flush":
      return [];
    default:
      return change satisfies never;
  }
}

/** The same as the first rule that matches has it. */
export function markRules(rules: readonly MarkRules[]): readonly PlainMarkRule[] {
  return rules.toReversed().flat();
}
