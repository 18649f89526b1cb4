/** A filter of connections made ready for text: what it compares with lies as bytes, as the listing has them. */
import {
  type ClientFilter,
  CONNECTION_STATES,
  type ConnectionFilter,
  type EndpointFilter,
  FORWARDING_METHODS,
  LISTED_PROTOCOLS,
} from "../model/index.js";
import { Column, type ConnectionText } from "./connection-text.js";

type Test = (line: ConnectionText) => boolean;

const ZERO = 0x30;
const DOT = 0x2e;
const COLON = 0x3a;

/** Tells which lines a filter selects. */
export function selection(filter: ConnectionFilter): Test {
  const { protocol, state, client, virtual, real, local, method, templates } = filter;
  const tests: Test[] = [];
  if (protocol !== undefined) {
    const wanted = LISTED_PROTOCOLS.indexOf(protocol);
    tests.push((line) => line.protocol === wanted);
  }
  if (state !== undefined) {
    const wanted = CONNECTION_STATES.indexOf(state);
    tests.push((line) => line.state === wanted);
  }
  if (method !== undefined) {
    const wanted = FORWARDING_METHODS.indexOf(method);
    tests.push((line) => line.method === wanted);
  }
  if (templates !== "include") {
    const wanted = templates === "only";
    tests.push((line) => line.template === wanted);
  }
  for (const [endpoint, column] of [
    [virtual, Column.virtual],
    [real, Column.real],
    [local, Column.local],
  ] as const) {
    if (endpoint !== undefined) {
      tests.push(endpointTest(endpoint, column));
    }
  }
  if (client !== undefined) {
    tests.push(clientTest(client));
  }
  return (line) => {
    for (const test of tests) {
      if (!test(line)) {
        return false;
      }
    }
    return true;
  };
}

/** The kernel prints addresses in their canonical spelling, so equal addresses are equal texts. */
function endpointTest({ address, port }: EndpointFilter, column: number): Test {
  const wanted = Buffer.from(`${address}:${port === undefined ? "" : String(port)}`);
  return ({ text, starts, ends }) => {
    const from = starts[column]!;
    const length = ends[column]! - from;
    if (port === undefined ? length < wanted.length : length !== wanted.length) {
      return false;
    }
    for (let i = 0; i < wanted.length; i++) {
      if (text[from + i] !== wanted[i]) {
        return false;
      }
    }
    return true;
  };
}

function clientTest({ network, port }: ClientFilter): Test {
  const mask = network.prefixLength === 0 ? 0 : -1 << (32 - network.prefixLength);
  const bytes = Buffer.from(`${network.address}:`);
  const wanted = addressUpToColon(bytes, 0);
  const portText = port === undefined ? undefined : Buffer.from(`:${String(port)}`);
  return ({ text, starts, ends }) => {
    if (((addressUpToColon(text, starts[Column.client]!) ^ wanted) & mask) !== 0) {
      return false;
    }
    return portText === undefined || endsWith(text, ends[Column.client]!, portText);
  };
}

/** The 32 bits of a dotted quad. */
function addressUpToColon(text: Uint8Array, from: number): number {
  let address = 0;
  let part = 0;
  for (let at = from; text[at] !== COLON; at++) {
    if (text[at] === DOT) {
      address = (address << 8) | part;
      part = 0;
    } else {
      part = part * 10 + text[at]! - ZERO;
    }
  }
  return (address << 8) | part;
}

function endsWith(text: Uint8Array, end: number, wanted: Uint8Array): boolean {
  for (let i = 1; i <= wanted.length; i++) {
    if (text[end - i] !== wanted[wanted.length - i]) {
      return false;
    }
  }
  return true;
}
