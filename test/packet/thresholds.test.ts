/**
 * Thresholds (ipvsadm's -x and -y): from which number of connections on a real server takes no new ones, and below which
 * it does again (ip_vs_bind_dest(), ip_vs_unbind_dest() in net/netfilter/ipvs/ip_vs_conn.c); and what each scheduler makes of it.
 */
import "./own-namespace.js";
import t from "tap";
import type { RealLoad } from "../../src/dataplane/sluice.bpf.js";
import { changes, counts, goes, passesAndSweeps } from "./actions.js";
import { Bed, type RealServerSetup, type SchedulerName, type ServiceSetup, type Setup } from "./bed.js";
import type { Frame } from "./frame.js";
import { VIP } from "./network.js";
import { datagram, pick, real, segment } from "./packets.js";
import { type Action, type Row, runRow, runRows } from "./row.js";

const bed = await Bed.open({ buckets: 8 });
t.teardown(() => bed.close());

const NONE = "drop no_real_server";

function setup(realServers: readonly RealServerSetup[], more: Partial<ServiceSetup> = {}): Setup {
  return { services: [{ protocol: "tcp", vip: VIP, port: 80, realServers, ...more }] };
}

/** Real server n, that takes so many connections. */
function limited(n: number, upper: number, lower = 0): RealServerSetup {
  return real(n, "dr", { thresholds: [upper, lower] });
}

const opens = (to: number | string, port: number): Action => goes(to, segment("S", { port }));

/** Connections from port 1 on, established, so that none expires for 900 seconds. */
function fills(count: number): Action {
  return (bed, t) => {
    const flags = Array.from({ length: count }, (_, i) => ["S", "A"].map((flags) => segment(flags, { port: i + 1 })));
    t.strictSame([...new Set(flags.flat().map((frame) => pick(bed, frame)))], [1], `${count} connections`);
  };
}

/** The connections from these ports on end, and leave the table. */
function closes(first: number, last: number): Action {
  return (bed) => {
    for (let port = first; port <= last; port++) pick(bed, segment("R", { port }));
    bed.advance(10.1);
    bed.sweep();
  };
}

/** At how many connections, coming from above, the real server takes new ones again. */
const bounds = [
  { upper: 1, lower: 0, free: 0 },
  { upper: 2, lower: 0, free: 1 }, // 1 * 4 < 2 * 3
  { upper: 3, lower: 0, free: 2 },
  { upper: 4, lower: 0, free: 2 },
  { upper: 8, lower: 0, free: 5 },
  { upper: 10, lower: 0, free: 7 },
  { upper: 8, lower: 8, free: 7 },
  { upper: 8, lower: 4, free: 3 },
  { upper: 8, lower: 1, free: 0 },
] as const;

t.test("the bounds", async (t) => {
  for (const { upper, lower, free } of bounds) {
    t.test(`-x ${upper} -y ${lower}: refused from ${upper} on, taken again at ${free}`, async (t) => {
      await runRow(t, bed, {
        name: "",
        setup: setup([limited(1, upper, lower)]),
        steps: [fills(upper), opens(NONE, 1000), opens(NONE, 1001), counts(0, { active: upper })],
      });
      for (let left = upper - 1; left >= 0; left--) {
        const open = left <= free;
        await runRow(t, bed, {
          name: "",
          setup: setup([limited(1, upper, lower)]),
          steps: [
            fills(upper),
            closes(1, upper - left),
            counts(0, { active: left, inactive: 0 }),
            opens(open ? 1 : NONE, 1000),
            // Once it is open, it takes as many as before.
            ...Array.from({ length: open ? upper - left - 1 : 0 }, (_, i) => opens(1, 2000 + i)),
            opens(NONE, 3000),
          ],
        });
      }
    });
  }
});

const rules: Row[] = [
  {
    name: "none: any number",
    setup: setup([limited(1, 0)]),
    steps: [fills(40), counts(0, { active: 40 })],
  },
  {
    name: "inactive connections count as active ones do",
    setup: setup([limited(1, 3)]),
    steps: [
      fills(2),
      goes(1, segment("R", { port: 1 })),
      counts(0, { active: 1, inactive: 1 }),
      opens(1, 1000),
      opens(NONE, 1001),
      goes(1, segment("R", { port: 2 })),
      opens(NONE, 1001),
      passesAndSweeps(10.1),
      counts(0, { active: 1, inactive: 0 }),
      opens(1, 1001),
    ],
  },
  {
    name: "UDP's too",
    setup: setup([limited(1, 2)], { protocol: "udp" }),
    steps: [
      goes(1, datagram({ port: 1 })),
      goes(1, datagram({ port: 2 })),
      goes(NONE, datagram({ port: 3 })),
      goes(1, datagram({ port: 2 })),
      passesAndSweeps(301),
      goes(1, datagram({ port: 3 })),
    ],
  },
  {
    name: "its connections go on",
    setup: setup([limited(1, 1)]),
    steps: [
      fills(1),
      opens(NONE, 1000),
      goes(1, segment("PA", { port: 1 })),
      goes(1, segment("S", { port: 1 })),
      goes(1, segment("FA", { port: 1 })),
    ],
  },
  {
    name: "a SYN in place of a closed connection is scheduled as any other: its own makes room",
    setup: setup([limited(1, 1)]),
    steps: [fills(1), goes(1, segment("R", { port: 1 })), opens(NONE, 2), opens(1, 1), counts(0, { active: 1 })],
  },
  {
    // The flag is set as a connection is bound, not as the threshold is.
    name: "a threshold below what is there is noticed with the next connection",
    setup: setup([limited(1, 0)]),
    steps: [fills(5), changes(0, { thresholds: [3, 0] }), opens(1, 1000), opens(NONE, 1001)],
  },
  {
    name: "templates of persistence do not count",
    setup: setup([limited(1, 3), real(2, "dr", { weight: 0 })], { persistence: { seconds: 300 } }),
    steps: [
      goes(1, segment("S", { client: "198.18.0.1" })),
      goes(1, segment("S", { client: "198.18.0.2" })),
      counts(0, { active: 2, templates: 2 }),
      goes(1, segment("S", { client: "198.18.0.3" })),
      goes(NONE, segment("S", { client: "198.18.0.4" })),
    ],
  },
  {
    name: "nor do packets of one-packet scheduling",
    setup: {
      ...setup([real(1, "nat", { thresholds: [1, 0] })], { protocol: "udp", onePacket: true }),
    },
    steps: [1, 2, 3].map((port) => goes(1, datagram({ port }))),
  },
];
t.test("what counts", async (t) => runRows(t, bed, rules));

// ------------------------------------------------------------------------------------------------------- schedulers

/** The first of three real servers is made overloaded by one connection, then so many connections come. */
interface Picks {
  readonly scheduler: SchedulerName;
  readonly more?: Partial<ServiceSetup>;
  /** Of the three. */
  readonly weights?: readonly [number, number, number];
  readonly picks: readonly (number | string)[];
  readonly note?: string;
}

/** Of the tables that a hash indexes; here every slot is the first real server's. */
const SLOTS = { sh: 256, dh: 256, mh: 251 } as const;
const firstsTable = (length: number): number[] => new Array<number>(length).fill(0);

const byScheduler: readonly Picks[] = [
  { scheduler: "rr", picks: [2, 3, 2, 3], note: "passes it over" },
  {
    scheduler: "wrr",
    more: { ring: [0, 0, 1, 0, 2, 1] },
    picks: [2, 3, 2, 2],
    note: "passes it over, and takes no other turn",
  },
  { scheduler: "lc", picks: [2, 3, 2, 3], note: "does not compare it" },
  { scheduler: "wlc", weights: [9, 1, 2], picks: [2, 3, 3, 2], note: "does not compare it" },
  { scheduler: "sed", weights: [9, 1, 2], picks: [3, 2, 3, 3], note: "does not compare it" },
  { scheduler: "nq", weights: [9, 1, 2], picks: [2, 3, 3, 3, 2], note: "does not compare it" },
  { scheduler: "fo", weights: [9, 1, 2], picks: [3, 3, 3], note: "takes the next highest weight" },
  { scheduler: "ovf", weights: [9, 1, 2], picks: [3, 3, 3, 2, 2, NONE], note: "takes the next highest weight" },
  { scheduler: "sh", more: { ring: firstsTable(SLOTS.sh) }, picks: [NONE, NONE], note: "refuses its clients" },
  { scheduler: "mh", more: { ring: firstsTable(SLOTS.mh) }, picks: [NONE, NONE], note: "refuses its clients" },
  { scheduler: "dh", more: { ring: firstsTable(SLOTS.dh) }, picks: [NONE, NONE], note: "refuses its destinations" },
];

t.test("an overloaded real server", async (t) => {
  for (const { scheduler, more, weights = [1, 1, 1], picks, note } of byScheduler) {
    t.test(`${scheduler} ${note}`, async (t) => {
      const servers = weights.map((weight, i) =>
        real(i + 1, "dr", { weight, ...(i === 0 && { thresholds: [1, 0] as const }) }),
      );
      const others = picks.filter((picked) => typeof picked === "number").length;
      await runRow(t, bed, {
        name: "",
        setup: setup(servers, { scheduler, ...more }),
        steps: [
          // The others are quiesced until the first is full.
          ...[1, 2].map((place) => changes(place, { weight: 0 })),
          opens(1, 1),
          ...[1, 2].map((place) => changes(place, { weight: weights[place] ?? 0 })),
          ...picks.map((picked, i) => opens(picked, 1000 + i)),
          counts(0, { active: 1 }),
          (bed, t) => {
            t.equal(bed.connections().length, 1 + others);
          },
        ],
      });
    });

    t.test(`${scheduler}: all are overloaded`, async (t) => {
      const servers = [1, 2, 3].map((n) => limited(n, 1));
      bed.configure(
        setup(servers, { scheduler, ...more, ...(more?.ring && { ring: more.ring.map((_, i) => i % 3) }) }),
      );
      const client = (n: number): Frame =>
        segment("S", { client: `198.18.${n}.1`, port: n + 1, ...(scheduler === "dh" && { vip: VIP }) });
      const got = Array.from({ length: 64 }, (_, n) => pick(bed, client(n)));
      const taken = scheduler === "dh" ? 1 : 3; // dh: one destination, one server
      t.equal(got.filter((picked) => typeof picked === "number").length, taken);
      t.equal(got.at(-1), NONE);
      t.same(bed.violations(), []);
    });
  }

  for (const scheduler of ["sh", "mh"] as const) {
    t.test(`${scheduler} with a fallback gives its clients to another`, async (t) => {
      const length = SLOTS[scheduler];
      const ring = Array.from({ length }, (_, slot) => slot % 3);
      const servers = [limited(1, 1), real(2, "dr"), real(3, "dr")];
      bed.configure(setup(servers, { scheduler, ring, schedulerFlags: ["fallback"] }));
      const got = Array.from({ length: 60 }, (_, n) => pick(bed, segment("S", { client: `198.18.${n}.7` })));
      t.equal(got.filter((picked) => picked === 1).length, 1, "one connection is all that it takes");
      t.ok(got.filter((picked) => picked === 2).length > 10 && got.filter((picked) => picked === 3).length > 10);
      t.same(bed.violations(), []);
    });
  }

  t.test("twos draws among the others", async (t) => {
    bed.configure(setup([limited(1, 1), real(2, "dr"), real(3, "dr")], { scheduler: "twos" }));
    const got = Array.from({ length: 40 }, (_, n) => pick(bed, segment("S", { port: n + 1 })));
    t.equal(got.filter((picked) => picked === 1).length <= 1, true);
    t.equal(got.filter((picked) => picked === 2 || picked === 3).length >= 39, true);
    t.same(bed.violations(), []);
  });

  t.test("lblc keeps it for the destination that it is cached for", async (t) => {
    // ip_vs_lblc_schedule() looks at weight and crowding of the cached server alone; IP_VS_DEST_F_OVERLOAD counts where it picks another.
    bed.configure(setup([limited(1, 1), real(2, "dr")], { scheduler: "lblc", port: 0 }));
    t.strictSame(
      [1, 2].map((port) => pick(bed, segment("S", { port }))),
      [1, 1],
    );
    t.equal(pick(bed, segment("S", { port: 3 })), 2, "crowded, and by wlc not a candidate");
    t.same(bed.violations(), []);
  });

  t.test("lblc: an overloaded one that is half idle makes others crowded all the same", async (t) => {
    // is_overloaded() in ip_vs_lblc.c compares active connections and weights, and nothing else.
    bed.configure(
      setup([real(1, "dr"), real(2, "dr", { weight: 0, thresholds: [1, 0] }), real(3, "dr", { weight: 0 })], {
        scheduler: "lblc",
      }),
    );
    const next = (port: number): number | string => pick(bed, segment("S", { port }));
    t.strictSame([next(1), next(2)], [1, 1], "more than its weight");
    bed.map("real_load").set(1, { ...loadOf(1), active: 1, overloaded: 1 });
    bed.changeRealServer(0, 1, { weight: 10 });
    bed.changeRealServer(0, 2, { weight: 1 });
    bed.map("real_load").set(2, { ...loadOf(2), active: 1 });
    t.equal(next(3), 3, "wlc takes the third: the second is overloaded, the first has two");
  });

  t.test("lblcr passes it over in the set, and picks another", async (t) => {
    bed.configure(setup([limited(1, 1), real(2, "dr", { weight: 5 })], { scheduler: "lblcr" }));
    bed.changeRealServer(0, 1, { weight: 0 });
    t.equal(pick(bed, segment("S", { port: 1 })), 1);
    t.equal(pick(bed, segment("S", { port: 2 })), NONE);
    bed.changeRealServer(0, 1, { weight: 5 });
    t.equal(pick(bed, segment("S", { port: 2 })), 2);
    t.same(bed.violations(), []);
  });
});

function loadOf(index: number): RealLoad {
  const load = bed.map("real_load").get(index);
  if (load === undefined) throw new RangeError(`there is no real server ${index}`);
  return load;
}
