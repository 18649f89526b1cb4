/**
 * The text that the pinned iterator of the connection table makes (bpf/list_connections.h): a line a connection. Nothing is made of a
 * line but positions in the text, so that a million of them go through in a fraction of a second.
 */
import { CONNECTION_STATES, type ConnectionState, FORWARDING_METHODS, LISTED_PROTOCOLS } from "../model/index.js";

/** The columns of a line. */
export const Column = {
  protocol: 0,
  state: 1,
  seconds: 2,
  client: 3,
  virtual: 4,
  local: 5,
  real: 6,
  method: 7,
} as const;
const COLUMNS = 8;

const NEWLINE = 0x0a;
const SPACE = 0x20;
const DASH = 0x2d;
const ZERO = 0x30;
const COLON = 0x3a;

/**
 * Some lines of the listing: a cursor over those that are selected. After each next() that returns true its fields tell of one
 * connection, until the next call.
 */
export class ConnectionText {
  /** The text that columns are positions in. It is overwritten by what is read next. */
  text: Uint8Array = new Uint8Array(0);
  /** Where each column begins and ends in the text. */
  readonly starts = new Uint32Array(COLUMNS);
  readonly ends = new Uint32Array(COLUMNS);
  /** Place in LISTED_PROTOCOLS, in CONNECTION_STATES (-1: none of them), in FORWARDING_METHODS. */
  protocol = 0;
  state = 0;
  method = 0;
  secondsLeft = 0;
  /** A persistence template: it has no client's port and no state of a protocol. */
  template = false;
  readonly #selects: (line: ConnectionText) => boolean;
  #at = 0;
  #end = 0;

  constructor(selects: (line: ConnectionText) => boolean) {
    this.#selects = selects;
  }

  /** Whole lines: what the cursor goes over from now on. */
  load(text: Uint8Array, end: number): void {
    this.text = text;
    this.#at = 0;
    this.#end = end;
  }

  next(): boolean {
    while (this.#at < this.#end) {
      if (this.#readLine() && this.#selects(this)) {
        return true;
      }
    }
    return false;
  }

  /** A column as text; of `local` where there is none, the empty one. */
  column(column: number): string {
    const from = this.starts[column]!;
    return this.isEmpty(column) ? "" : Buffer.from(this.text.subarray(from, this.ends[column])).toString("latin1");
  }

  isEmpty(column: number): boolean {
    const from = this.starts[column]!;
    return this.ends[column] === from + 1 && this.text[from] === DASH;
  }

  /** Takes a line in; returns whether it tells of a connection. The first line of the listing has titles. */
  #readLine(): boolean {
    const { text, starts, ends } = this;
    let at = this.#at;
    let column = 0;
    for (;;) {
      while (text[at] === SPACE) {
        at++;
      }
      starts[column] = at; // a ninth column is written nowhere
      while (text[at]! > SPACE) {
        at++;
      }
      ends[column] = at;
      column++;
      if (text[at] === NEWLINE) {
        break;
      }
    }
    this.#at = at + 1;
    if (column !== COLUMNS) {
      return false;
    }
    this.protocol = PROTOCOL_OF_INITIAL[text[starts[Column.protocol]!]!]!;
    this.method = METHOD_OF_INITIAL[text[starts[Column.method]!]!]!;
    if (this.protocol < 0 || this.method < 0) {
      return false;
    }
    this.state = STATES.get(hash(text, starts[Column.state]!, ends[Column.state]!)) ?? -1;
    this.secondsLeft = number(text, starts[Column.seconds]!, ends[Column.seconds]!);
    const port = ends[Column.client]! - 1;
    this.template = TEMPLATE_STATES.includes(this.state) && text[port] === ZERO && text[port - 1] === COLON;
    return true;
  }
}

/** For each byte, the place of the word that begins with it, or -1. No two of these words begin alike. */
function byInitial(words: readonly string[]): Int8Array {
  const places = new Int8Array(256).fill(-1);
  for (const [place, word] of words.entries()) {
    places[word.charCodeAt(0)] = place;
  }
  return places;
}

const PROTOCOL_OF_INITIAL = byInitial(LISTED_PROTOCOLS);
const METHOD_OF_INITIAL = byInitial(FORWARDING_METHODS);

/** FNV-1a: tells the names of the states apart. */
function hash(text: Uint8Array, from: number, to: number): number {
  let hashed = 0x811c9dc5;
  for (let at = from; at < to; at++) {
    hashed = Math.imul(hashed ^ text[at]!, 0x01000193);
  }
  return hashed;
}

const STATES = new Map(CONNECTION_STATES.map((name, place) => [hash(Buffer.from(name), 0, name.length), place]));
const TEMPLATE_STATES = (["NONE", "ASSURED"] satisfies ConnectionState[]).map((name) =>
  CONNECTION_STATES.indexOf(name),
);

function number(text: Uint8Array, from: number, to: number): number {
  let value = 0;
  for (let at = from; at < to; at++) {
    value = value * 10 + text[at]! - ZERO;
  }
  return value;
}
