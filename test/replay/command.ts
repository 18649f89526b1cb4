/** The command lines of ipvsadm that traces are made of, as data: what ipvsadm makes of a line before it asks the kernel. */
import {
  type ForwardingMethod,
  parseRealServerName,
  type RealServer,
  type RealServerKey,
  type ServiceKey,
} from "../../src/model/index.js";

export interface Service {
  readonly key: ServiceKey;
  readonly scheduler: string;
  readonly flags: readonly string[];
  /** Seconds, and a dotted mask or a prefix length where -M gives one. */
  readonly persistence?: { readonly timeout: number; readonly netmask?: string | number };
  readonly onePacket: boolean;
}

export type Command =
  | { readonly kind: "add service" | "edit service"; readonly service: Service }
  | { readonly kind: "delete service"; readonly service: ServiceKey }
  /** With the port that the kernel knows the real server by. */
  | { readonly kind: "add server" | "edit server"; readonly service: ServiceKey; readonly realServer: RealServer }
  | { readonly kind: "delete server"; readonly service: ServiceKey; readonly realServer: RealServerKey }
  | { readonly kind: "clear" }
  /** Of one service, or of all. */
  | { readonly kind: "zero"; readonly service: ServiceKey | undefined }
  /** Seconds; 0 keeps what is set. */
  | { readonly kind: "timeouts"; readonly tcp: number; readonly tcpFin: number; readonly udp: number };

export class CommandError extends Error {
  readonly code = "COMMAND_MALFORMED";

  constructor(line: string, problem: string) {
    super(`"ipvsadm ${line}" ${problem}`);
    this.name = "CommandError";
  }
}

/** ipvsadm(8): what is used where a line does not say. */
const DEFAULT_SCHEDULER = "wlc";
const DEFAULT_PERSISTENCE = 360;

const ACTIONS = {
  "add-service": "add service",
  "edit-service": "edit service",
  "delete-service": "delete service",
  "add-server": "add server",
  "edit-server": "edit server",
  "delete-server": "delete server",
  clear: "clear",
  zero: "zero",
  set: "timeouts",
} as const;

const METHODS: Readonly<Record<string, ForwardingMethod>> = { masquerading: "nat", gatewaying: "dr", ipip: "tun" };
const PROTOCOLS = { "tcp-service": "tcp", "udp-service": "udp", "sctp-service": "sctp" } as const;

const SHORT: Readonly<Record<string, string>> = {
  A: "add-service",
  E: "edit-service",
  D: "delete-service",
  a: "add-server",
  e: "edit-server",
  d: "delete-server",
  C: "clear",
  Z: "zero",
  t: "tcp-service",
  u: "udp-service",
  f: "fwmark-service",
  6: "ipv6",
  r: "real-server",
  m: "masquerading",
  g: "gatewaying",
  i: "ipip",
  w: "weight",
  x: "u-threshold",
  y: "l-threshold",
  s: "scheduler",
  b: "sched-flags",
  p: "persistent",
  M: "netmask",
  o: "ops",
};

const WITHOUT_VALUE = ["ipv6", "ops", ...Object.keys(METHODS), ...Object.keys(ACTIONS)];
const WITH_VALUE = [
  ...Object.keys(PROTOCOLS),
  "fwmark-service",
  "real-server",
  "weight",
  "u-threshold",
  "l-threshold",
  "scheduler",
  "sched-flags",
  "netmask",
  "tun-type",
];
/** Its value may be missing. */
const PERSISTENT = "persistent";

/** A line taken apart: its action, its options by their long names, and the words that belong to none. */
interface Parts {
  readonly kind: Command["kind"];
  readonly options: ReadonlyMap<string, string>;
  readonly others: readonly string[];
}

/** Reads the arguments of one call. @throws CommandError */
export function parseCommand(line: string): Command {
  const { kind, options, others } = takeApart(line);
  if (kind === "timeouts") return timeouts(line, others);
  const [unexpected] = others;
  if (unexpected !== undefined) throw new CommandError(line, `has ${unexpected}, which belongs to no option`);
  if (kind === "clear") return { kind };
  const key = serviceKey(line, options);
  if (kind === "zero") return { kind, service: key };
  if (key === undefined) throw new CommandError(line, "names no service: -t, -u, --sctp-service or -f");
  switch (kind) {
    case "add service":
    case "edit service":
      return { kind, service: service(line, key, options) };
    case "delete service":
      return { kind, service: key };
    case "add server":
    case "edit server":
      return { kind, service: key, realServer: realServer(line, key, options) };
    case "delete server":
      return { kind, service: key, realServer: endpoint(line, key, options) };
    default:
      return kind satisfies never;
  }
}

function takeApart(line: string): Parts {
  const words = line.split(/\s+/).filter((word) => word !== "");
  const options = new Map<string, string>();
  const others: string[] = [];
  const kinds: Command["kind"][] = [];
  while (words.length > 0) {
    const word = words.shift() ?? "";
    if (!/^-[^\d]|^-6/.test(word)) {
      others.push(word);
      continue;
    }
    const { name, attached } = optionName(line, word);
    if (options.has(name)) throw new CommandError(line, `has ${word} after another one that says the same`);
    if (Object.hasOwn(ACTIONS, name)) kinds.push(ACTIONS[name as keyof typeof ACTIONS]);
    else if (WITHOUT_VALUE.includes(name)) options.set(name, "");
    else options.set(name, attached ?? value(line, word, name, words));
  }
  const [kind, ...more] = kinds;
  if (kind === undefined || more.length > 0) throw new CommandError(line, "has not exactly one action: -A, -E, -D, …");
  return { kind, options, others };
}

/** `-p`, `-p600`, `--persistent` or `--persistent=600`. */
function optionName(line: string, word: string): { name: string; attached: string | undefined } {
  const match = /^--([^=]+)(?:=(.*))?$/.exec(word) ?? /^-(.)(.+)?$/.exec(word);
  const name = word.startsWith("--") ? match?.[1] : SHORT[match?.[1] ?? ""];
  if (name === undefined || !(WITHOUT_VALUE.includes(name) || WITH_VALUE.includes(name) || name === PERSISTENT)) {
    throw new CommandError(line, `has ${word}, which is no option that a trace of connections needs`);
  }
  if (match?.[2] !== undefined && WITHOUT_VALUE.includes(name))
    throw new CommandError(line, `has ${word} with a value`);
  return { name, attached: match?.[2] };
}

function value(line: string, word: string, name: string, words: string[]): string {
  const next = words[0];
  if (name === PERSISTENT && (next === undefined || next.startsWith("-"))) return String(DEFAULT_PERSISTENCE);
  if (next === undefined) throw new CommandError(line, `ends with ${word}, which takes a value`);
  words.shift();
  return next;
}

function timeouts(line: string, words: readonly string[]): Command {
  const [tcp, tcpFin, udp, ...more] = words.map((word) => integer(line, word));
  if (tcp === undefined || tcpFin === undefined || udp === undefined || more.length > 0) {
    throw new CommandError(line, "does not give three timeouts");
  }
  return { kind: "timeouts", tcp, tcpFin, udp };
}

function serviceKey(line: string, options: ReadonlyMap<string, string>): ServiceKey | undefined {
  const mark = options.get("fwmark-service");
  if (mark !== undefined) {
    const fwmark = integer(line, mark);
    if (fwmark === 0 || fwmark >= 2 ** 32) throw new CommandError(line, `has ${mark} for a firewall mark`);
    return { fwmark, family: options.has("ipv6") ? "ipv6" : "ipv4" };
  }
  for (const [option, protocol] of Object.entries(PROTOCOLS)) {
    const text = options.get(option);
    if (text === undefined) continue;
    const found = parseRealServerName(text.includes(":") ? text : `${text}:0`);
    if (found === undefined) throw new CommandError(line, `has ${text} for ADDRESS:PORT`);
    return { protocol, ...found };
  }
  return undefined;
}

function service(line: string, key: ServiceKey, options: ReadonlyMap<string, string>): Service {
  const persistent = options.get(PERSISTENT);
  const mask = options.get("netmask");
  const netmask = mask === undefined ? undefined : netmaskOf(line, key, mask);
  const onePacket = options.has("ops");
  const scheduler = options.get("scheduler") ?? DEFAULT_SCHEDULER;
  if (persistent === undefined && key.port === 0) {
    throw new CommandError(line, "has port 0, which needs -p");
  }
  if (onePacket && key.protocol !== "udp" && key.protocol !== undefined) {
    throw new CommandError(line, "has -o, which is for UDP and firewall marks");
  }
  return {
    key,
    scheduler,
    flags: schedulerFlags(scheduler, options.get("sched-flags")),
    ...(persistent !== undefined && {
      persistence: { timeout: integer(line, persistent), ...(netmask !== undefined && { netmask }) },
    }),
    onePacket,
  };
}

/** ip_vs.h: what the flags that have only numbers mean to mh and sh; other schedulers have no use for any. */
const NUMBERED_FLAGS: Readonly<Record<string, string>> = { "flag-1": "fallback", "flag-2": "port" };

function schedulerFlags(scheduler: string, text: string | undefined): readonly string[] {
  const flags = text?.split(",") ?? [];
  return flags.flatMap((flag) => {
    if (!flag.startsWith("flag-")) return [flag];
    const meaning = NUMBERED_FLAGS[flag];
    return meaning !== undefined && ["mh", "sh"].includes(scheduler) ? [`${scheduler}-${meaning}`] : [];
  });
}

/** IPv4: as inet_aton(3) reads it, so `24` is 0.0.0.24. */
function netmaskOf(line: string, key: ServiceKey, text: string): string | number {
  const isIpv6 = key.family === "ipv6" || key.address?.includes(":") === true;
  if (isIpv6) return integer(line, text);
  if (/^\d+\.\d+\.\d+\.\d+$/.test(text)) return text;
  const bits = integer(line, text);
  return [24, 16, 8, 0].map((shift) => (bits >>> shift) & 255).join(".");
}

function realServer(line: string, key: ServiceKey, options: ReadonlyMap<string, string>): RealServer {
  const methods = Object.keys(METHODS).filter((name) => options.has(name));
  if (methods.length > 1) throw new CommandError(line, "has several forwarding methods");
  const method = METHODS[methods[0] ?? ""] ?? "dr";
  const { address, port } = endpoint(line, key, options);
  const count = (option: string, otherwise: number): number => {
    const text = options.get(option);
    return text === undefined ? otherwise : integer(line, text);
  };
  return {
    address,
    // ipvsadm(8): a gatewayed or tunneled server has the service's port; where that is a mark, it keeps what it is given.
    port: method === "nat" ? port : (key.port ?? port),
    method,
    weight: count("weight", 1),
    upperThreshold: count("u-threshold", 0),
    lowerThreshold: count("l-threshold", 0),
  };
}

function endpoint(line: string, key: ServiceKey, options: ReadonlyMap<string, string>): RealServerKey {
  const text = options.get("real-server");
  const named = text === undefined || /[^[]:\d+$/.test(text) ? text : `${text}:${key.port ?? 0}`;
  const found = named === undefined ? undefined : parseRealServerName(named);
  if (found === undefined) throw new CommandError(line, `has ${text ?? "nothing"} for -r ADDRESS:PORT`);
  return found;
}

function integer(line: string, text: string): number {
  if (!/^\d+$/.test(text)) throw new CommandError(line, `has ${text} for a whole number`);
  return Number(text);
}
