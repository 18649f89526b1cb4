import {
  at,
  type ConnectionFilter,
  type ConnectionState,
  ModelError,
  readConnectionFilter,
  readListingLimit,
  type TemplateSelection,
  Violations,
} from "../model/index.js";
import {
  type ConnectionFilter as FilterMessage,
  ConnectionState as StateMessage,
  TemplateSelection as TemplatesMessage,
} from "./gen/sluice/v1/connection_service.js";
import { methodWord, protocolWord, word } from "./messages.js";

export const STATE_MESSAGES: Readonly<Record<ConnectionState, StateMessage>> = {
  NONE: StateMessage.NONE,
  ESTABLISHED: StateMessage.ESTABLISHED,
  SYN_SENT: StateMessage.SYN_SENT,
  SYN_RECV: StateMessage.SYN_RECV,
  FIN_WAIT: StateMessage.FIN_WAIT,
  TIME_WAIT: StateMessage.TIME_WAIT,
  CLOSE: StateMessage.CLOSE,
  CLOSE_WAIT: StateMessage.CLOSE_WAIT,
  LAST_ACK: StateMessage.LAST_ACK,
  LISTEN: StateMessage.LISTEN,
  SYNACK: StateMessage.SYNACK,
  UDP: StateMessage.UDP,
  INIT1: StateMessage.INIT1,
  INIT: StateMessage.INIT,
  "C-SENT": StateMessage.COOKIE_SENT,
  "C-REPLIED": StateMessage.COOKIE_REPLIED,
  "C-WAIT": StateMessage.COOKIE_WAIT,
  COOKIE: StateMessage.COOKIE,
  "C-ECHOED": StateMessage.COOKIE_ECHOED,
  "S-SENT": StateMessage.SHUTDOWN_SENT,
  "S-RECEIVED": StateMessage.SHUTDOWN_RECEIVED,
  "S-ACK-SENT": StateMessage.SHUTDOWN_ACK_SENT,
  REJECTED: StateMessage.REJECTED,
  CLOSED: StateMessage.CLOSED,
  ONE_PACKET: StateMessage.ONE_PACKET,
  ASSURED: StateMessage.ASSURED,
};

/** `include` is what a message says that says nothing. */
export const TEMPLATES_MESSAGES: Readonly<Record<Exclude<TemplateSelection, "include">, TemplatesMessage>> = {
  exclude: TemplatesMessage.EXCLUDE,
  only: TemplatesMessage.ONLY,
};

/** Reads the field `filter` of a request, and `limit`; throws a ModelError. An absent filter selects everything. */
export function readListing(
  message: FilterMessage | undefined,
  limit: number,
): { readonly filter: ConnectionFilter; readonly limit: number } {
  const violations = new Violations();
  const plain = message === undefined ? {} : plainFilterOf(message);
  const filter = readConnectionFilter(plain, at(undefined, "filter"), violations);
  const most = readListingLimit(limit, at(undefined, "limit"), violations);
  if (filter === undefined || violations.list.length > 0) {
    throw new ModelError(violations.list);
  }
  return { filter, limit: most };
}

function plainFilterOf(message: FilterMessage): Readonly<Record<string, unknown>> {
  const text = (value: string): string | undefined => (value === "" ? undefined : value);
  return {
    protocol: protocolWord(message.protocol),
    state: word(STATE_MESSAGES, message.state),
    client: text(message.client),
    virtual: text(message.virtual),
    real: text(message.real),
    local: text(message.local),
    method: methodWord(message.method),
    templates: word(TEMPLATES_MESSAGES, message.templates),
  };
}
