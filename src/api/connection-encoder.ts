/**
 * Makes ListConnectionsResponse messages straight from the listing's text. Generated code would make nine values and an object of
 * each connection only to take them apart again: for a million of them, seconds of the daemon.
 */
import { Column, type ConnectionText } from "../dataplane/connection-text.js";
import { CONNECTION_STATES, FORWARDING_METHODS, LISTED_PROTOCOLS } from "../model/index.js";
import { STATE_MESSAGES } from "./connection-messages.js";
import { connectionStateToNumber } from "./gen/sluice/v1/connection_service.js";
import { forwardingMethodToNumber } from "./gen/sluice/v1/real_server.js";
import { protocolToNumber } from "./gen/sluice/v1/virtual_service.js";
import { METHOD_MESSAGES, PROTOCOL_MESSAGES } from "./messages.js";

/** Enough that a message's own cost does not show; far below the 4 MiB that clients take by default. */
const MESSAGE_BYTES = 256 * 1024;
/** More than a connection takes: four addresses with ports at their longest, 47 bytes each for IPv6, and what stands before and between. */
const CONNECTION_BYTES = 256;

// Tags: a field's number and how its value is encoded (protobuf.dev/programming-guides/encoding). Numbers up to 15 take one byte.
const VARINT = 0;
const LENGTH_DELIMITED = 2;
const CONNECTIONS_TAG = (1 << 3) | LENGTH_DELIMITED;
const PROTOCOL_TAG = (1 << 3) | VARINT;
const STATE_TAG = (2 << 3) | VARINT;
const SECONDS_LEFT_TAG = (3 << 3) | VARINT;
const TEXT_TAGS = [
  [Column.client, (4 << 3) | LENGTH_DELIMITED],
  [Column.virtual, (5 << 3) | LENGTH_DELIMITED],
  [Column.local, (6 << 3) | LENGTH_DELIMITED],
  [Column.real, (7 << 3) | LENGTH_DELIMITED],
] as const;
const METHOD_TAG = (8 << 3) | VARINT;
const TEMPLATE_TAG = (9 << 3) | VARINT;

const PROTOCOL_NUMBERS = LISTED_PROTOCOLS.map((protocol) =>
  protocol === "ip" ? 0 : protocolToNumber(PROTOCOL_MESSAGES[protocol]),
);
const STATE_NUMBERS = CONNECTION_STATES.map((state) => connectionStateToNumber(STATE_MESSAGES[state]));
const METHOD_NUMBERS = FORWARDING_METHODS.map((method) => forwardingMethodToNumber(METHOD_MESSAGES[method]));

export class ConnectionEncoder {
  #message = Buffer.allocUnsafe(MESSAGE_BYTES);
  #at = 0;

  /** Whether the message has to be taken before another connection is added. */
  get isFull(): boolean {
    return this.#at > MESSAGE_BYTES - CONNECTION_BYTES;
  }

  get isEmpty(): boolean {
    return this.#at === 0;
  }

  /** The message with what was added; what is added from now on goes into another. */
  take(): Buffer {
    const message = this.#message.subarray(0, this.#at);
    this.#message = Buffer.allocUnsafe(MESSAGE_BYTES);
    this.#at = 0;
    return message;
  }

  /** Adds the connection that the cursor is at. */
  add(line: ConnectionText): void {
    const { text, starts, ends } = line;
    const message = this.#message;
    // The length comes first, and in one byte or two: the connection is written behind two, and moved if it needs but one.
    const start = this.#at + 3;
    let at = start;
    at = this.#field(at, PROTOCOL_TAG, PROTOCOL_NUMBERS[line.protocol]!);
    at = this.#field(at, STATE_TAG, STATE_NUMBERS[line.state] ?? 0);
    at = this.#field(at, SECONDS_LEFT_TAG, line.secondsLeft);
    for (const [column, tag] of TEXT_TAGS) {
      if (column === Column.local && line.isEmpty(column)) {
        continue;
      }
      const from = starts[column]!;
      const to = ends[column]!;
      message[at++] = tag;
      message[at++] = to - from; // less than 128
      for (let i = from; i < to; i++) {
        message[at++] = text[i]!;
      }
    }
    at = this.#field(at, METHOD_TAG, METHOD_NUMBERS[line.method]!);
    at = this.#field(at, TEMPLATE_TAG, line.template ? 1 : 0);

    const length = at - start;
    message[this.#at] = CONNECTIONS_TAG;
    if (length < 0x80) {
      message[this.#at + 1] = length;
      message.copyWithin(start - 1, start, at);
      at--;
    } else {
      message[this.#at + 1] = (length & 0x7f) | 0x80;
      message[this.#at + 2] = length >> 7;
    }
    this.#at = at;
  }

  /** An integer of 0..2^31-1; one of 0 is left out. Returns where to go on. */
  #field(start: number, tag: number, value: number): number {
    let at = start;
    if (value !== 0) {
      this.#message[at++] = tag;
      let rest = value;
      while (rest > 0x7f) {
        this.#message[at++] = (rest & 0x7f) | 0x80;
        rest >>>= 7;
      }
      this.#message[at++] = rest;
    }
    return at;
  }
}
