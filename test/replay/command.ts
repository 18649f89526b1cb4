/** The command lines of ipvsadm that traces are made of, as data. What of ipvsadm Sluice has no counterpart for is in waiting.ts. */
import {
  type AddressServiceKey,
  type ForwardingMethod,
  type Protocol,
  parseRealServerName,
  type RealServer,
  type RealServerKey,
} from "../../src/model/index.js";

export type Command =
  | {
      readonly kind: "add service" | "edit service";
      readonly service: AddressServiceKey;
      readonly scheduler: string;
      readonly flags: readonly string[];
    }
  | { readonly kind: "delete service"; readonly service: AddressServiceKey }
  | {
      readonly kind: "add server" | "edit server";
      readonly service: AddressServiceKey;
      readonly realServer: RealServer;
    }
  | { readonly kind: "delete server"; readonly service: AddressServiceKey; readonly realServer: RealServerKey }
  | { readonly kind: "clear" }
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

const ACTIONS = {
  "-A": "add service",
  "-E": "edit service",
  "-D": "delete service",
  "-a": "add server",
  "-e": "edit server",
  "-d": "delete server",
  "-C": "clear",
  "--set": "timeouts",
} as const;

const METHODS: Readonly<Record<string, ForwardingMethod>> = { "-m": "nat", "-g": "dr", "-i": "tun" };

interface Options {
  service?: AddressServiceKey;
  real?: string;
  method?: ForwardingMethod;
  weight?: number;
  scheduler?: string;
  flags?: readonly string[];
}

/** Reads the arguments of one call. @throws CommandError */
export function parseCommand(line: string): Command {
  const [first, ...words] = line.split(/\s+/).filter((word) => word !== "");
  if (first === undefined || !(first in ACTIONS)) {
    throw new CommandError(line, `begins with none of ${Object.keys(ACTIONS).join(", ")}`);
  }
  const kind = ACTIONS[first as keyof typeof ACTIONS];
  if (kind === "timeouts") {
    const [tcp, tcpFin, udp] = words.map((word) => integer(line, word));
    if (tcp === undefined || tcpFin === undefined || udp === undefined) {
      throw new CommandError(line, "does not give three timeouts");
    }
    return { kind, tcp, tcpFin, udp };
  }
  const options = readOptions(line, words);
  if (kind === "clear") return { kind };
  const { service } = options;
  if (service === undefined) throw new CommandError(line, "names no service: -t or -u");
  switch (kind) {
    case "add service":
    case "edit service":
      return { kind, service, scheduler: options.scheduler ?? DEFAULT_SCHEDULER, flags: options.flags ?? [] };
    case "delete service":
      return { kind, service };
    case "add server":
    case "edit server": {
      const method = options.method ?? "dr";
      const { address, port } = realServer(line, options.real, service);
      // ipvsadm(8): a gatewayed or tunneled server has the service's port.
      const ownPort = method === "nat" ? port : service.port;
      return {
        kind,
        service,
        realServer: {
          address,
          port: ownPort,
          method,
          weight: options.weight ?? 1,
          upperThreshold: 0,
          lowerThreshold: 0,
        },
      };
    }
    case "delete server":
      return { kind, service, realServer: realServer(line, options.real, service) };
    default:
      return kind satisfies never;
  }
}

function readOptions(line: string, words: readonly string[]): Options {
  const options: Options = {};
  for (let at = 0; at < words.length; at++) {
    const word = words[at] ?? "";
    const method = METHODS[word];
    if (method !== undefined) {
      options.method = method;
      continue;
    }
    const value = words[++at];
    if (value === undefined)
      throw new CommandError(line, `ends with ${word}, which takes a value or is none of its options`);
    switch (word) {
      case "-t":
        options.service = service(line, "tcp", value);
        break;
      case "-u":
        options.service = service(line, "udp", value);
        break;
      case "-r":
        options.real = value;
        break;
      case "-w":
        options.weight = integer(line, value);
        break;
      case "-s":
        options.scheduler = value;
        break;
      case "-b":
      case "--sched-flags":
        options.flags = value.split(",");
        break;
      default:
        throw new CommandError(line, `has ${word}, which is none of -t -u -r -w -s -b --sched-flags -m -g -i`);
    }
  }
  return options;
}

function service(line: string, protocol: Protocol, text: string): AddressServiceKey {
  const endpoint = parseRealServerName(text);
  if (endpoint === undefined) throw new CommandError(line, `has ${text} for ADDRESS:PORT`);
  return { protocol, ...endpoint };
}

function realServer(line: string, text: string | undefined, { port }: AddressServiceKey): RealServerKey {
  const endpoint = text === undefined ? undefined : parseRealServerName(text.includes(":") ? text : `${text}:${port}`);
  if (endpoint === undefined) throw new CommandError(line, `has ${text ?? "nothing"} for -r ADDRESS:PORT`);
  return endpoint;
}

function integer(line: string, text: string): number {
  if (!/^\d+$/.test(text)) throw new CommandError(line, `has ${text} for a whole number`);
  return Number(text);
}
