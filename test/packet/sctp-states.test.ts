/**
 * The life of SCTP associations: each transition of IPVS's that a chunk brings about, as captured packet by packet from
 * Linux 6.1, its timeout, and what a real server's active and inactive counts then are.
 */
import "./own-namespace.js";
import t from "tap";
import { Bed, type Method, type Setup } from "./bed.js";
import { build, type Frame, type Layer } from "./frame.js";
import { CLIENT, INTERFACES, ROUTER_MAC, realAddress, realMac, VIP } from "./network.js";
import { CHUNK } from "./sctp-layers.js";
import { type State, TIMEOUTS, timeoutOf } from "./states.js";

const CHUNKS = [
  "INIT",
  "INIT_ACK",
  "COOKIE_ECHO",
  "COOKIE_ACK",
  "DATA",
  "SHUTDOWN",
  "SHUTDOWN_ACK",
  "SHUTDOWN_COMPLETE",
  "ABORT",
  "ERROR",
] as const;
type ChunkName = keyof typeof CHUNK;
/** Who sends (c: client, r: real server), and the first chunk. */
type SctpEvent = `${"c" | "r"}:${ChunkName}`;

const SHORT = {
  I1: "SCTP_INIT1",
  IN: "SCTP_INIT",
  CS: "SCTP_COOKIE_SENT",
  CR: "SCTP_COOKIE_REPLIED",
  CW: "SCTP_COOKIE_WAIT",
  CO: "SCTP_COOKIE",
  CE: "SCTP_COOKIE_ECHOED",
  ES: "SCTP_ESTABLISHED",
  SS: "SCTP_SHUTDOWN_SENT",
  SR: "SCTP_SHUTDOWN_RECEIVED",
  SA: "SCTP_SHUTDOWN_ACK_SENT",
  RJ: "SCTP_REJECTED",
  CL: "SCTP_CLOSED",
} as const;
type Short = keyof typeof SHORT;

/** The state after each of CHUNKS from the client and each from the real server, by the state before. */
const BOTH_SIDES = `
  I1  IN CW IN I1 I1 I1 IN CL CL I1  CW CS CE ES I1 SS SA I1 RJ CL
  IN  IN CW IN IN IN IN IN CL CL IN  CW CS CE ES IN SS SA IN CL CL
  CS  CS CS CR CS CS CS CS CS CL CS  CW CS CE ES CS SS SA CS CL CL
  CR  CR CR CR CR CR CR CR CR CL CR  CW CR CE ES CR SS SA CR CL CL
  CW  CW CO CW CW CW CW CW CW RJ CW  CW CW CE ES CW SS CW CW CL CW
  CE  CE CE CE ES CE CE CE CE CL CL  CW CE CE ES CE SS CE CE CL CE
  ES  ES ES ES ES ES SR ES ES CL ES  ES ES ES ES ES SS ES ES CL ES
  SS  SS SS SS SS SS SS CL SS CL SS  CW SS SS SS SS SS SA SS CL SS
  SR  SR SR SR SR SR SR SR SR CL SR  CW SR SR SR SR SR SA SR CL SR
  SA  SA SA SA SA SA SA CL CL CL SA  CW SA SA SA SA SA SA SA CL SA
  RJ  IN RJ RJ RJ RJ RJ RJ RJ CL RJ  CW RJ RJ RJ RJ RJ RJ RJ CL RJ
  CL  I1 CL CL CL CL CL CL CL CL CL  CW CL CL CL CL CL CL CL CL CL
`;

/** The same where replies do not pass through the director: dr and tun. */
const CLIENT_ALONE = `
  I1  IN CE ES I1 I1 I1 IN CL CL I1
  IN  IN CE ES IN IN IN IN CL CL IN
  CE  CE CE CE ES CE CE CE CE CL CE
  ES  ES ES ES ES ES SR CL ES CL ES
  CL  I1 CL CL CL CL CL CL CL CL CL
`;

interface Transition {
  readonly before: State;
  readonly event: SctpEvent;
  readonly after: State;
}

function transitions(text: string): Transition[] {
  return text
    .trim()
    .split("\n")
    .flatMap((line) => {
      const [before, ...cells] = line.trim().split(/ +/) as Short[];
      return cells.map((cell, column): Transition => {
        const chunk = CHUNKS[column % CHUNKS.length] ?? "DATA";
        const event: SctpEvent = column < CHUNKS.length ? `c:${chunk}` : `r:${chunk}`;
        return { before: SHORT[before ?? "CL"], event, after: SHORT[cell] };
      });
    });
}

function transitionsOf(method: Method): Transition[] {
  return transitions(method === "nat" || method === "fullnat" ? BOTH_SIDES : CLIENT_ALONE);
}

/** The shortest paths from the first INIT on, to each state that there is a way to. */
function paths(known: readonly Transition[]): ReadonlyMap<State, readonly SctpEvent[]> {
  const found = new Map<State, readonly SctpEvent[]>([["SCTP_INIT1", ["c:INIT"]]]);
  for (const [state, path] of found) {
    for (const { before, event, after } of known) {
      if (before === state && !found.has(after)) found.set(after, [...path, event]);
    }
  }
  return found;
}

const LOCAL = "10.1.0.1";
const PORT = 9999;
const CLIENT_PORT = 40000;

function setup(method: Method, more: Partial<Setup> = {}): Setup {
  const realServers = [1, 2].map((n) => ({ address: realAddress(n), method, hop: { mac: realMac(n) } }));
  return {
    services: [{ protocol: "sctp", vip: VIP, port: PORT, realServers }],
    localAddresses: [LOCAL],
    localPorts: [20000, 20000],
    ...more,
  };
}

function chunk(name: ChunkName, value = ""): Layer {
  return { kind: "chunk", type: CHUNK[name], value };
}

function packet(method: Method, event: SctpEvent, ...rest: readonly Layer[]): Frame {
  const [side, name] = event.split(":") as ["c" | "r", ChunkName];
  if (side === "c") {
    return [
      { kind: "ethernet", destination: INTERFACES.c0.mac, source: ROUTER_MAC },
      { kind: "ipv4", source: CLIENT, destination: VIP },
      { kind: "sctp", sourcePort: CLIENT_PORT, destinationPort: PORT, verificationTag: 0x01020304 },
      chunk(name),
      ...rest,
    ];
  }
  const [destination, destinationPort] = method === "fullnat" ? [LOCAL, 20000] : [CLIENT, CLIENT_PORT];
  return [
    { kind: "ethernet", destination: INTERFACES.r0.mac, source: realMac(1) },
    { kind: "ipv4", source: realAddress(1), destination },
    { kind: "sctp", sourcePort: PORT, destinationPort, verificationTag: 0x05060708 },
    chunk(name),
    ...rest,
  ];
}

function send(bed: Bed, method: Method, event: SctpEvent, ...rest: readonly Layer[]): string {
  return bed.run(build(packet(method, event, ...rest)), event.startsWith("c") ? "c0" : "r0").verdict;
}

interface Seen {
  readonly state: State | undefined;
  readonly timeout: number | undefined;
  readonly active: number;
  readonly inactive: number;
}

/** What is in the table for the only connection there. */
function seen(bed: Bed, real = 0): Seen {
  const [connection] = bed.connections();
  return { state: connection?.state, timeout: timeoutOf(connection?.expires ?? 0), ...bed.load(real) };
}

function wanted(state: State): Seen {
  const active = state === "SCTP_ESTABLISHED" ? 1 : 0;
  return { state, timeout: TIMEOUTS[state], active, inactive: 1 - active };
}

t.test("states", async (t) => {
  const bed = await Bed.open({ buckets: 2 });
  t.teardown(() => bed.close());

  for (const method of ["nat", "fullnat", "dr", "tun"] as const) {
    const known = transitionsOf(method);
    const to = paths(known);

    t.test(`${method}: every chunk in every state`, async (t) => {
      const wrong = [];
      for (const { before, event, after } of known) {
        // Where an INIT opens the association afresh, it would go to the other real server.
        bed.configure(setup(method, { services: [{ ...setup(method).services[0]!, ring: [0] }] }));
        const verdicts = [...(to.get(before) ?? []), event].map((step) => send(bed, method, step));
        const got = seen(bed);
        if (JSON.stringify(got) !== JSON.stringify(wanted(after)) || verdicts.some((v) => v !== "redirect")) {
          wrong.push({ before, event, got, wanted: wanted(after), verdicts });
        }
        wrong.push(...bed.violations());
      }
      t.strictSame(wrong, [], `${known.length} transitions`);
      t.strictSame(
        known.filter(({ before }) => !to.has(before)),
        [],
        "there is a way to each state",
      );
    });

    t.test(`${method}: other chunks count as data`, async (t) => {
      for (const type of [3, 4, 5, 12, 13, 15, 64, 128, 130, 192, 193, 255]) {
        bed.configure(setup(method));
        for (const event of ["c:INIT", "c:INIT_ACK", "c:COOKIE_ACK"] as const) send(bed, method, event);
        if (method === "nat" || method === "fullnat") send(bed, method, "r:COOKIE_ACK");
        const [ethernet, ip, sctp] = packet(method, "c:DATA");
        bed.run(build([ethernet!, ip!, sctp!, { kind: "chunk", type }]));
        t.strictSame(seen(bed), wanted("SCTP_ESTABLISHED"), `chunk type ${type}`);
      }
    });
  }

  t.test("the first chunk counts, but an ABORT behind a COOKIE chunk", async (t) => {
    const cookie = (length: number): Layer => chunk("COOKIE_ECHO", "aa".repeat(length));
    const abort = chunk("ABORT");
    const [ethernet, ip, sctp] = packet("dr", "c:DATA") as [Layer, Layer, Layer];
    const after = (...chunks: Layer[]): State | undefined => {
      bed.configure(setup("dr"));
      send(bed, "dr", "c:INIT");
      bed.run(build([ethernet, ip, sctp, ...chunks]));
      return seen(bed).state;
    };
    for (const length of [0, 1, 2, 3, 4, 100, 1001]) {
      t.equal(after(cookie(length), chunk("DATA", "bb")), "SCTP_ESTABLISHED", `a cookie of ${length}, and data`);
      t.equal(after(cookie(length), abort), "SCTP_CLOSED", `a cookie of ${length}, and ABORT`);
    }
    t.equal(after(chunk("COOKIE_ACK"), abort), "SCTP_CLOSED", "COOKIE ACK and ABORT");
    t.equal(after(chunk("DATA"), abort), "SCTP_INIT1", "behind others it does not count");
    t.equal(after(cookie(4), chunk("DATA"), abort), "SCTP_ESTABLISHED", "nor as the third");
    t.equal(after(cookie(8), { kind: "payload", bytes: "0600" }), "SCTP_ESTABLISHED", "nor if it is cut short");
    t.equal(
      after({ kind: "chunk", type: CHUNK.COOKIE_ECHO, length: 65535 }, abort),
      "SCTP_ESTABLISHED",
      "a length beyond the packet",
    );
  });

  t.test("what opens an association: INIT; with sloppy_sctp any chunk but ABORT", async (t) => {
    for (const [method, states] of [
      ["nat", ["I1", "CW", "CR", "ES", "ES", "SR", "CL", "CL", undefined, "CL"]],
      ["dr", ["I1", "CE", "ES", "ES", "ES", "SR", "CL", "CL", undefined, "CL"]],
    ] as const) {
      for (const [index, name] of CHUNKS.entries()) {
        bed.configure(setup(method));
        t.equal(send(bed, method, `c:${name}`), name === "INIT" ? "redirect" : "pass", `${method} ${name}`);
        t.equal(bed.connections().length, name === "INIT" ? 1 : 0);

        bed.configure(setup(method, { settings: { sloppySctp: true } }));
        const short = states[index];
        t.equal(send(bed, method, `c:${name}`), short ? "redirect" : "pass", `${method} ${name}, sloppily`);
        if (short) t.strictSame(seen(bed), wanted(SHORT[short]), `${method} ${name}, sloppily`);
        else t.equal(bed.connections().length, 0);
      }
    }
    bed.configure(setup("dr", { settings: { sloppyTcp: true } }));
    t.equal(send(bed, "dr", "c:DATA"), "pass", "sloppy_tcp is TCP's");
  });

  t.test("an INIT on a CLOSED association is scheduled afresh, unless conn_reuse_mode is 0", async (t) => {
    for (const method of ["nat", "fullnat", "dr", "tun"] as const) {
      for (const connReuseMode of [0, 1, 2, 3]) {
        bed.configure(setup(method, { settings: { connReuseMode } }));
        send(bed, method, "c:INIT");
        send(bed, method, "c:ABORT");
        const [closed] = bed.connections();
        t.equal(closed?.state, "SCTP_CLOSED");
        send(bed, method, "c:INIT");
        const [now] = bed.connections();
        t.equal(now?.real, connReuseMode === 0 ? closed?.real : 1 - (closed?.real ?? 0), `${method} ${connReuseMode}`);
        t.equal(now?.state, connReuseMode === 0 ? "SCTP_INIT" : "SCTP_INIT1");
        t.same(bed.violations(), []);
      }
    }
  });

  t.test("an established association takes a template to be assured", async (t) => {
    for (const method of ["nat", "dr"] as const) {
      const [service] = setup(method).services;
      bed.configure({ services: [{ ...service!, ring: [0], persistence: { seconds: 100 } }] });
      const template = (): State | undefined =>
        bed
          .table()
          .entries()
          .find(({ direction }) => direction === "none")?.state;
      send(bed, method, "c:INIT");
      t.equal(template(), "TEMPLATE");
      for (const event of method === "nat" ? (["r:COOKIE_ACK"] as const) : (["c:COOKIE_ECHO"] as const)) {
        send(bed, method, event);
      }
      t.equal(template(), "TEMPLATE_ASSURED", method);
      t.same(bed.violations(), []);
    }
  });
});
