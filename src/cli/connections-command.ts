import { once } from "node:events";
import { type Command, InvalidArgumentError, Option } from "commander";
import {
  type ApiClient,
  type Connection,
  type ConnectionFilter,
  METHOD_MESSAGES,
  ForwardingMethod as MethodMessage,
  PROTOCOL_MESSAGES,
  Protocol as ProtocolMessage,
  STATE_MESSAGES,
  ConnectionState as StateMessage,
  TEMPLATES_MESSAGES,
  TemplateSelection,
} from "../api/client.js";
import {
  CONNECTION_STATES,
  type ConnectionState,
  FORWARDING_METHODS,
  type ForwardingMethod,
  PROTOCOLS,
  type Protocol,
} from "../model/index.js";
import { integerArgument } from "./arguments.js";
import { addClientOptions, type ClientFlags, withClient } from "./instance.js";
import { json, type OutputFormat, print } from "./output.js";

interface ConnectionFlags extends ClientFlags {
  readonly protocol?: Protocol;
  readonly state?: ConnectionState;
  readonly client?: string;
  readonly service?: string;
  readonly real?: string;
  readonly local?: string;
  readonly method?: ForwardingMethod;
  /** Undefined: among the connections. */
  readonly templates?: boolean;
  readonly count?: boolean;
  readonly limit?: number;
}

/** Adds `sluice connections`. */
export function registerConnectionsCommand(program: Command): void {
  addClientOptions(program.command("connections").description("the connections there are at the moment, in no order"))
    .addOption(new Option("--protocol <protocol>", "only of this one").choices(PROTOCOLS))
    .option("--state <state>", "only in this one, as ESTABLISHED or SYN_RECV", stateArgument)
    .option("--client <address>", "only from ADDRESS[/LENGTH][:PORT], as 10.0.0.0/24 or 10.0.0.2:37028")
    .option("--service <service>", "only to a service, as tcp:10.0.0.100:80, or to ADDRESS[:PORT]")
    .option("--real <address>", "only to a real server: ADDRESS[:PORT]")
    .option("--local <address>", "only by fullnat from ADDRESS[:PORT]")
    .addOption(new Option("--method <method>", "only by this one").choices(FORWARDING_METHODS))
    .option("--templates", "only persistence templates")
    .option("--no-templates", "no persistence templates")
    .option("--count", "their number alone")
    .addOption(new Option("--limit <number>", "no more than so many").argParser(integerArgument).conflicts("count"))
    .addHelpText(
      "after",
      `
Columns: protocol, state, seconds left, client, virtual service, local address (fullnat), real server, method.

Examples:
  sluice connections --client 10.0.0.0/24 --state SYN_RECV
  sluice connections --service tcp:10.0.0.100:80 --real 10.1.0.11:8080 --count`,
    )
    .action(async (flags: ConnectionFlags) => {
      await withClient(flags, async (client) => {
        if (flags.count === true) {
          const count = await client.countConnections(filterOf(flags));
          print(flags.output === "json" ? json({ connections: count }) : `${String(count)}\n`);
        } else {
          await list(client, flags);
        }
      });
    });
}

function stateArgument(text: string): ConnectionState {
  const state = CONNECTION_STATES.find((name) => name === text.toUpperCase());
  if (state === undefined) {
    throw new InvalidArgumentError(`It takes one of ${CONNECTION_STATES.join(", ")}.`);
  }
  return state;
}

function filterOf(flags: ConnectionFlags): ConnectionFilter {
  const { protocol, state, client = "", service = "", real = "", local = "", method, templates } = flags;
  return {
    protocol: protocol === undefined ? ProtocolMessage.UNSPECIFIED : PROTOCOL_MESSAGES[protocol],
    state: state === undefined ? StateMessage.UNSPECIFIED : STATE_MESSAGES[state],
    client,
    virtual: service,
    real,
    local,
    method: method === undefined ? MethodMessage.UNSPECIFIED : METHOD_MESSAGES[method],
    templates:
      templates === undefined ? TemplateSelection.UNSPECIFIED : TEMPLATES_MESSAGES[templates ? "only" : "exclude"],
  };
}

/** Prints batch by batch, and waits where stdout takes no more: a million connections are never all in memory. */
async function list(client: ApiClient, flags: ConnectionFlags): Promise<void> {
  const { start, batch, end } = LISTINGS[flags.output];
  let before = start; // not printed where the call fails
  for await (const connections of client.listConnections(filterOf(flags), flags.limit)) {
    if (!process.stdout.write(before + batch(connections, before !== ""))) {
      await once(process.stdout, "drain");
    }
    before = "";
  }
  print(before + end);
}

interface Listing {
  readonly start: string;
  readonly batch: (connections: readonly Connection[], first: boolean) => string;
  readonly end: string;
}

const LISTINGS: Readonly<Record<OutputFormat, Listing>> = {
  table: {
    // As in the file `connections` of the BPF file system.
    start: "proto state seconds client virtual local real method\n",
    batch: (connections) => connections.map(line).join(""),
    end: "",
  },
  json: {
    start: "[",
    batch: (connections, first) =>
      connections.map((one, i) => `${first && i === 0 ? "" : ","}\n  ${JSON.stringify(plainConnection(one))}`).join(""),
    end: "\n]\n",
  },
};

/** Messages by what they are called; asked for with every connection. */
const PROTOCOL_WORDS = wordsOf(PROTOCOL_MESSAGES);
const STATE_WORDS = wordsOf(STATE_MESSAGES);
const METHOD_WORDS = wordsOf(METHOD_MESSAGES);

function wordsOf<Message extends string>(messages: Readonly<Record<string, Message>>): ReadonlyMap<Message, string> {
  return new Map(Object.entries(messages).map(([word, message]) => [message, word]));
}

/** A firewall mark's template is of no one protocol. */
function protocolOf({ protocol }: Connection): string {
  return PROTOCOL_WORDS.get(protocol) ?? "ip";
}

const STATE_CELLS = new Map([...STATE_WORDS].map(([message, word]) => [message, word.padEnd(11)]));

function line(connection: Connection): string {
  const { state, secondsLeft, client, virtual, local, real, method } = connection;
  const cells = `${protocolOf(connection)} ${STATE_CELLS.get(state) ?? "?"} ${String(secondsLeft).padStart(6)}`;
  return `${cells} ${client} ${virtual} ${local || "-"} ${real} ${METHOD_WORDS.get(method) ?? "?"}\n`;
}

function plainConnection(connection: Connection): object {
  const { state, secondsLeft, client, virtual, local, real, method, template } = connection;
  return {
    protocol: protocolOf(connection),
    state: STATE_WORDS.get(state),
    seconds_left: secondsLeft,
    client,
    virtual,
    ...(local === "" ? {} : { local }),
    real,
    method: METHOD_WORDS.get(method),
    template,
  };
}
