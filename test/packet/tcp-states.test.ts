/**
 * The life of connections: each transition of IPVS's, as captured packet by packet from Linux 6.1 with sequences of all
 * packets, its timeout, and what a real server's active and inactive counts then are.
 */
import "./own-namespace.js";
import t from "tap";
import { Bed, type Method, type Setup } from "./bed.js";
import type { Entry } from "./connection-table.js";
import { build, type Frame } from "./frame.js";
import { CLIENT, INTERFACES, ROUTER_MAC, realAddress, realMac, VIP } from "./network.js";
import { isActive, type State, TIMEOUTS, timeoutOf } from "./states.js";

/** Who sends (c: client, r: real server) and the TCP flags. */
const CLIENT_EVENTS = ["c:S", "c:SA", "c:A", "c:FA", "c:R"] as const;
const SERVER_EVENTS = ["r:S", "r:SA", "r:A", "r:FA", "r:R"] as const;
type TcpEvent = (typeof CLIENT_EVENTS)[number] | (typeof SERVER_EVENTS)[number];

const SHORT = {
  ES: "ESTABLISHED",
  SS: "SYN_SENT",
  SR: "SYN_RECV",
  FW: "FIN_WAIT",
  TW: "TIME_WAIT",
  CL: "CLOSE",
  CW: "CLOSE_WAIT",
} as const;

/** The state after, by the state before and the event. */
const BOTH_SIDES = table(`
              c:S c:SA c:A c:FA c:R  r:S r:SA r:A r:FA r:R
  SYN_RECV    SR  SR   ES  TW   SR   SR  SR   ES  TW   CL
  ESTABLISHED ES  ES   ES  CW   CL   ES  ES   ES  FW   CL
  FIN_WAIT    SR  SR   FW  TW   CL   SS  SS   FW  FW   CL
  CLOSE_WAIT  SR  SR   CW  CW   CL   SS  SS   CW  TW   CL
  TIME_WAIT   SR  SR   TW  TW   CL   SS  SS   TW  TW   TW
  CLOSE       SR  SR   CL  CL   CL   SS  SS   CL  CL   CL
  SYN_SENT    ES  ES   SS  SS   CL   SS  SS   SS  SS   SS
`);

/** The same where replies do not pass through the director: dr and tun. */
const CLIENT_ALONE = table(`
              c:S c:SA c:A c:FA c:R
  SYN_RECV    SR  SR   ES  TW   SR
  ESTABLISHED ES  ES   ES  FW   CL
  FIN_WAIT    SR  SR   FW  FW   CL
  TIME_WAIT   SR  SR   TW  TW   CL
  CLOSE       SR  SR   CL  CL   CL
`);

function isShort(text: string): text is keyof typeof SHORT {
  return text in SHORT;
}

function table(text: string): ReadonlyMap<string, State> {
  const [events = [], ...rows] = text
    .trim()
    .split("\n")
    .map((line) => line.trim().split(/ +/));
  const states = new Map<string, State>();
  for (const [before = "", ...cells] of rows) {
    for (const [column, cell] of cells.entries()) {
      if (isShort(cell)) states.set(`${before} + ${events[column] ?? ""}`, SHORT[cell]);
    }
  }
  return states;
}

function eventsOf(method: Method): readonly TcpEvent[] {
  return method === "nat" || method === "fullnat" ? [...CLIENT_EVENTS, ...SERVER_EVENTS] : CLIENT_EVENTS;
}

function after(method: Method, state: State, event: TcpEvent): State {
  const states = method === "nat" || method === "fullnat" ? BOTH_SIDES : CLIENT_ALONE;
  const next = states.get(`${state} + ${event}`);
  if (next === undefined) throw new RangeError(`nothing is known of ${state} + ${event}`);
  return next;
}

const LOCAL = "10.1.0.1";

function setup(method: Method, timeouts: Setup["timeouts"] = {}): Setup {
  return {
    services: (["tcp", "udp"] as const).map((protocol) => ({
      protocol,
      vip: VIP,
      port: 80,
      realServers: [{ address: realAddress(1), method, hop: { mac: realMac(1) } }],
    })),
    localAddresses: [LOCAL],
    localPorts: [20000, 60000],
    timeouts,
  };
}

/** The packet of an event of the connection that a client's port names. */
function packet(method: Method, event: string, clientPort: number, local: number): Frame {
  const flags = event.slice(2);
  if (event.startsWith("c")) {
    return [
      { kind: "ethernet", destination: INTERFACES.c0.mac, source: ROUTER_MAC },
      { kind: "ipv4", source: CLIENT, destination: VIP },
      { kind: "tcp", sourcePort: clientPort, destinationPort: 80, flags },
    ];
  }
  const [destination, destinationPort] = method === "fullnat" ? [LOCAL, local] : [CLIENT, clientPort];
  return [
    { kind: "ethernet", destination: INTERFACES.r0.mac, source: realMac(1) },
    { kind: "ipv4", source: realAddress(1), destination },
    { kind: "tcp", sourcePort: 80, destinationPort, flags },
  ];
}

/** What is in the table for the only connection there, as far as a path decides it. */
interface Seen {
  readonly state: State | undefined;
  readonly timeout: number | undefined;
  readonly active: number;
  readonly inactive: number;
  readonly connections: number;
}

function seen(bed: Bed, connections: readonly Entry[]): Seen {
  const [connection] = connections;
  return {
    state: connection?.state,
    timeout: timeoutOf(connection?.expires ?? 0),
    ...bed.load(0),
    connections: connections.length,
  };
}

function wanted(state: State): Seen {
  const active = isActive(state) ? 1 : 0;
  return { state, timeout: TIMEOUTS[state], active, inactive: 1 - active, connections: 1 };
}

/** Walks a path from the first SYN on in an empty table; gives the first difference, if there is one. */
function walk(
  bed: Bed,
  method: Method,
  path: readonly TcpEvent[],
): { path: string; got: Seen; wanted: Seen } | undefined {
  let state: State = "SYN_RECV";
  let local = 0;
  for (const [step, event] of path.entries()) {
    const { verdict } = bed.run(build(packet(method, event, 40000, local)), event.startsWith("c") ? "c0" : "r0");
    if (step > 0) state = after(method, state, event);
    const connections = bed.connections();
    local = connections[0]?.local.port ?? 0;
    const got = seen(bed, connections);
    const want = wanted(state);
    if (JSON.stringify(got) !== JSON.stringify(want) || verdict !== "redirect") {
      return { path: `${path.slice(0, step + 1).join(" ")}: ${verdict}`, got, wanted: want };
    }
  }
  return undefined;
}

t.test("states", async (t) => {
  const bed = await Bed.open({ buckets: 2 });
  t.teardown(() => bed.close());

  for (const [method, length] of [
    ["nat", 3],
    ["fullnat", 2],
    ["dr", 4],
    ["tun", 2],
  ] as const) {
    t.test(`${method}: every sequence of ${length} packets after the first SYN`, async (t) => {
      const events = eventsOf(method);
      const paths: TcpEvent[][] = [["c:S"]];
      for (const path of paths) if (path.length <= length) for (const event of events) paths.push([...path, event]);
      const wrong = [];
      for (const path of paths.filter(({ length: steps }) => steps === length + 1)) {
        bed.configure(setup(method));
        const difference = walk(bed, method, path);
        if (difference) wrong.push(difference);
        wrong.push(...bed.violations());
      }
      t.strictSame(wrong.slice(0, 10), [], `${events.length ** length} sequences`);
    });

    t.test(`${method}: what opens a connection`, async (t) => {
      for (const flags of ["S", "SA", "SF", "SFA", "SPU"]) {
        bed.configure(setup(method));
        bed.run(build(packet(method, `c:${flags}`, 40000, 0)));
        t.strictSame(seen(bed, bed.connections()), wanted("SYN_RECV"), flags);
      }
    });

    t.test(`${method}: RST goes before SYN, SYN before FIN, FIN before ACK, and none of them closes`, async (t) => {
      for (const [flags, state] of [
        ["SR", "CLOSE"],
        ["FSRA", "CLOSE"],
        ["SF", "ESTABLISHED"],
        ["FPA", method === "nat" || method === "fullnat" ? "CLOSE_WAIT" : "FIN_WAIT"],
        ["PA", "ESTABLISHED"],
        ["", "CLOSE"],
        ["P", "CLOSE"],
      ] as const) {
        bed.configure(setup(method));
        for (const event of ["c:S", "c:A", `c:${flags}`]) bed.run(build(packet(method, event, 40000, 0)));
        t.strictSame(seen(bed, bed.connections()), wanted(state), flags);
      }
      t.same(bed.violations(), []);
    });
  }

  t.test("UDP is inactive, and lives on from each packet", async (t) => {
    const frame = (back: boolean, method: Method, local: number): Uint8Array =>
      build([
        ...packet(method, back ? "r:A" : "c:A", 40000, local).slice(0, 2),
        back
          ? { kind: "udp", sourcePort: 80, destinationPort: method === "fullnat" ? local : 40000 }
          : { kind: "udp", sourcePort: 40000, destinationPort: 80 },
      ]);
    for (const method of ["nat", "fullnat", "dr", "tun"] as const) {
      bed.configure(setup(method));
      for (const back of method === "nat" || method === "fullnat" ? [false, true, false, true] : [false, false]) {
        bed.run(frame(back, method, bed.connections()[0]?.local.port ?? 0), back ? "r0" : "c0");
        const [connection] = bed.connections();
        t.equal(connection?.state, "UDP");
        t.equal(timeoutOf(connection?.expires ?? 0), TIMEOUTS.UDP);
        t.strictSame(bed.load(1), { active: 0, inactive: 1 }, "of the second service, which is UDP's");
      }
      t.same(bed.violations(), []);
    }
  });

  t.test("each packet moves the end of its connection's life ahead", async (t) => {
    for (const method of ["nat", "fullnat", "dr", "tun"] as const) {
      bed.configure(setup(method));
      for (const event of ["c:S", "c:A"]) bed.run(build(packet(method, event, 40000, 0)));
      const [before] = bed.connections();
      await new Promise((resolve) => setTimeout(resolve, 150));
      const local = before?.local.port ?? 0;
      const back = method === "nat" || method === "fullnat";
      bed.run(build(packet(method, back ? "r:A" : "c:A", 40000, local)), back ? "r0" : "c0");
      const [now] = bed.connections();
      const moved = (now?.expires ?? 0) - (before?.expires ?? 0);
      t.ok(moved >= 30 && moved < 1000, `${method}: by ${moved} ticks after 150 ms`);
    }
  });
});

t.test("the end of their lives", async (t) => {
  const bed = await Bed.open({ buckets: 2 });
  t.teardown(() => bed.close());
  const brief = { SYN_RECV: 0.5, ESTABLISHED: 0.5 };

  for (const method of ["nat", "fullnat", "dr", "tun"] as const) {
    t.test(`${method}: an expired connection is as good as absent, and sweep takes it away`, async (t) => {
      bed.configure(setup(method, brief));
      for (const event of ["c:S", "c:A"]) bed.run(build(packet(method, event, 40000, 0)));
      const [connection] = bed.connections();
      t.strictSame(bed.sweep(), {
        ...{ first: 0, count: 2, removed: 0, orphans: 0, resets: 1, longest: 0xffff_ffff },
        entries: method === "nat" || method === "fullnat" ? 2 : 1,
      });
      await new Promise((resolve) => setTimeout(resolve, 600));

      const passed = bed.run(build(packet(method, "c:A", 40000, 0)));
      t.equal(passed.verdict, "pass", "TCP without a connection is the host's");
      if (method === "nat" || method === "fullnat") {
        const back = bed.run(build(packet(method, "r:A", 40000, connection?.local.port ?? 0)), "r0");
        t.equal(back.verdict, "pass", "and so is a reply without one");
      }
      t.ok(bed.sweep().removed <= 1);
      t.equal(bed.sweep().entries, 0);
      t.strictSame(bed.load(0), { active: 0, inactive: 0 });
      t.strictSame(bed.table().entries(), []);
      t.same(bed.violations(), []);
    });

    t.test(`${method}: a SYN on an expired connection opens another`, async (t) => {
      bed.configure(setup(method, brief));
      for (const event of ["c:S", "c:A"]) bed.run(build(packet(method, event, 40000, 0)));
      await new Promise((resolve) => setTimeout(resolve, 600));
      const { counted } = bed.run(build(packet(method, "c:S", 40000, 0)));
      t.equal(counted.services[`tcp:${VIP}:80`]?.connections, 1);
      t.equal(bed.connections().length, 1);
      t.equal(bed.connections()[0]?.state, "SYN_RECV");
      t.strictSame(bed.load(0), { active: 1, inactive: 0 });
      t.same(bed.violations(), []);
    });
  }

  t.test("sweep does what it has time for, one bucket at least", async (t) => {
    bed.configure(setup("nat"));
    t.equal(bed.sweep(0, 2, 0).count, 1);
    t.equal(bed.sweep(1, 1, 0).count, 1);
    t.equal(bed.sweep(0, 2, 1_000_000_000).count, 2);
  });

  t.test("sweep leaves what lives, and may go slice by slice", async (t) => {
    bed.configure(setup("nat", { SYN_RECV: 0.5 }));
    for (let port = 1; port <= 5; port++) bed.run(build(packet("nat", "c:S", port, 0)));
    for (let port = 1; port <= 2; port++) bed.run(build(packet("nat", "c:A", port, 0)));
    await new Promise((resolve) => setTimeout(resolve, 600));
    const first = bed.sweep(0, 1);
    const second = bed.sweep(1, 1);
    t.equal(first.removed + second.removed, 3);
    t.strictSame(
      bed.connections().map(({ state }) => state),
      ["ESTABLISHED", "ESTABLISHED"],
    );
    t.strictSame(bed.load(0), { active: 2, inactive: 0 });
    t.same(bed.violations(), []);
    t.strictSame(bed.sweep(0, 100).entries, 4, "a slice that ends beyond the table");
    t.strictSame(
      bed.sweep(2, 1),
      { first: 2, count: 0, removed: 0, orphans: 0, entries: 0, resets: 1, longest: 0xffff_ffff },
      "and one beyond it",
    );
  });

  t.test("a timeout of 0: the connection is over as soon as it is there", async (t) => {
    bed.configure(setup("dr", { UDP: 0 }));
    const frame = build([
      ...packet("dr", "c:A", 40000, 0).slice(0, 2),
      { kind: "udp", sourcePort: 40000, destinationPort: 80 },
    ]);
    for (let n = 0; n < 3; n++) {
      const { verdict, counted } = bed.run(frame);
      t.equal(verdict, "redirect");
      t.equal(counted.services[`udp:${VIP}:80`]?.connections, 1);
      t.same(bed.violations(), []);
    }
    t.equal(bed.connections().length, 1);
  });
});
