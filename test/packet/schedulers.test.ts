/** What each scheduler picks, by the live counts and the packets that change them, beside models of IPVS's. */
import "./own-namespace.js";
import fc from "fast-check";
import t, { type Test } from "tap";
import { Bed, NO_LOAD, type SchedulerName, type ServiceSetup, type Setup } from "./bed.js";
import { build, parse } from "./frame.js";
import { INTERFACES, ROUTER_MAC } from "./network.js";
import {
  bucket,
  byTable,
  type Client,
  LARGEST_SET,
  LIVE_PICKS,
  lblc,
  lblcr,
  type Pick,
  type Server,
  slot,
} from "./scheduler-models.js";

const VIPS = ["10.0.0.100", "10.0.0.101"] as const;
const RUNS = 40;

const bed = await Bed.open({ buckets: 512 });
t.teardown(() => {
  bed.close();
});

/** Real server n of a service, from 0: its address and MAC say which it is. */
function address(n: number): string {
  return `10.1.${1 + Math.floor(n / 200)}.${1 + (n % 200)}`;
}
function mac(n: number): string {
  return `02:00:00:00:${(n >> 8).toString(16).padStart(2, "0")}:${(n & 255).toString(16).padStart(2, "0")}`;
}

type Options = Partial<Omit<ServiceSetup, "scheduler" | "realServers">>;

function service(scheduler: SchedulerName, weights: readonly number[], options: Options = {}): ServiceSetup {
  return {
    protocol: "tcp",
    vip: VIPS[0],
    port: 80,
    scheduler,
    realServers: weights.map((weight, n) => ({ address: address(n), method: "dr", weight, hop: { mac: mac(n) } })),
    ...options,
  };
}

function setup(...services: ServiceSetup[]): Setup {
  return { services };
}

/** Sends a client's packet; the place of the real server that got it, or why none did. */
function send(
  on: Bed,
  client: Client,
  flags: string,
  vip: string = VIPS[0],
  protocol: "tcp" | "udp" = "tcp",
): number | string {
  const ports = { sourcePort: client.port, destinationPort: 80 };
  const { verdict, frame, counted } = on.run(
    build([
      { kind: "ethernet", destination: INTERFACES.c0.mac, source: ROUTER_MAC },
      { kind: "ipv4", source: client.address, destination: vip, id: 1 },
      protocol === "tcp" ? { kind: "tcp", ...ports, sequence: 1000, flags, window: 64240 } : { kind: "udp", ...ports },
    ]),
  );
  if (verdict === "drop") return Object.keys(counted.drops).join();
  const [ethernet] = parse(frame);
  if (verdict !== "redirect" || ethernet?.kind !== "ethernet") return verdict;
  return Number.parseInt(ethernet.destination.slice(-5).replace(":", ""), 16);
}

let lastClient = 0;
/** A client that was not there before. */
function newClient(): Client {
  lastClient++;
  return { address: `198.18.${(lastClient >> 8) & 255}.${lastClient & 255}`, port: 1024 + (lastClient % 60_000) };
}

function open(on: Bed = bed, vip: string = VIPS[0]): number | string {
  return send(on, newClient(), "S", vip);
}

// ------------------------------------------------------------------------------------------------ live schedulers

interface Examples {
  readonly name: string;
  readonly scheduler: SchedulerName;
  readonly weights: readonly number[];
  readonly protocol?: "udp";
  /** The places of the list that successive connections get. */
  readonly picks: readonly (number | string)[];
}

const NONE = "no_real_server";

const EXAMPLES: readonly Examples[] = [
  {
    name: "lc: the least connections, whatever the weight",
    scheduler: "lc",
    weights: [1, 9, 1],
    picks: [0, 1, 2, 0, 1, 2],
  },
  { name: "wlc: in proportion to weights", scheduler: "wlc", weights: [1, 2], picks: [0, 1, 1, 0, 1, 1] },
  {
    name: "sed: a faster server before a slow idle one",
    scheduler: "sed",
    weights: [1, 3],
    picks: [1, 1, 0, 1, 1, 1, 0],
  },
  { name: "nq: no idle server waits", scheduler: "nq", weights: [1, 3], picks: [0, 1, 1, 1, 1, 1, 0] },
  { name: "fo: the highest weight, the first of two", scheduler: "fo", weights: [1, 3, 3], picks: [1, 1, 1, 1] },
  {
    name: "ovf: one more than the weight, then the next, then none",
    scheduler: "ovf",
    weights: [1, 2],
    picks: [1, 1, 1, 0, 0, NONE],
  },
  {
    name: "sed sends UDP, never active, to the highest weight",
    scheduler: "sed",
    weights: [1, 2, 2],
    protocol: "udp",
    picks: [1, 1, 1],
  },
  { name: "nq sends UDP to the first", scheduler: "nq", weights: [0, 1, 2], protocol: "udp", picks: [1, 1, 1] },
  {
    name: "lc tells UDP's inactive connections apart",
    scheduler: "lc",
    weights: [1, 1],
    protocol: "udp",
    picks: [0, 1, 0, 1],
  },
];

for (const { name, scheduler, weights, protocol, picks } of EXAMPLES) {
  t.test(name, async (t) => {
    bed.configure(setup(service(scheduler, weights, protocol && { protocol })));
    t.strictSame(
      picks.map(() => send(bed, newClient(), "S", VIPS[0], protocol)),
      picks,
    );
    t.same(bed.violations(), []);
  });
}

const ALL_LIVE = [...(Object.keys(LIVE_PICKS) as (keyof typeof LIVE_PICKS)[]), "lblc", "lblcr", "twos"] as const;

for (const scheduler of ALL_LIVE) {
  t.test(`${scheduler}: weight 0 is never picked, ties go to the first`, async (t) => {
    bed.configure(setup(service(scheduler, [0, 1, 0])));
    t.strictSame(
      Array.from({ length: 2 }, () => open()),
      [1, 1],
    );
    bed.configure(setup(service(scheduler, [0, 0])));
    t.equal(open(), NONE);
    bed.configure(setup(service(scheduler, [])));
    t.equal(open(), NONE);
    if (scheduler === "twos") return;
    bed.configure(setup(service(scheduler, [2, 2, 2])));
    t.equal(open(), 0);
  });
}

// ------------------------------------------------------------------------- random openings, closings and weights

/** A close is of the n-th of those that are open, counted around. */
const steps = fc.array(
  fc.oneof(
    { weight: 6, arbitrary: fc.record({ kind: fc.constant("open" as const), vip: fc.nat(1) }) },
    { weight: 3, arbitrary: fc.record({ kind: fc.constant("close" as const), nth: fc.nat(50) }) },
    {
      weight: 1,
      arbitrary: fc.record({ kind: fc.constant("weight" as const), server: fc.nat(7), weight: fc.nat(5) }),
    },
  ),
  { maxLength: 60 },
);

/** Two services with the same weights: what one remembers of its address is nothing to the other. */
function follows(t: Test, scheduler: SchedulerName, pick: () => Pick): void {
  fc.assert(
    fc.property(fc.array(fc.nat(5), { minLength: 1, maxLength: 8 }), steps, (weights, taken) => {
      bed.configure(setup(...VIPS.map((vip) => ({ ...service(scheduler, weights), vip }))));
      const picks = VIPS.map(() => pick());
      const models = VIPS.map(() => weights.map((weight): Server => ({ weight, active: 0, inactive: 0 })));
      const opened: { client: Client; vip: number; place: number }[] = [];
      for (const step of taken) {
        if (step.kind === "open") {
          const client = newClient();
          const model = models[step.vip]!;
          const expected = picks[step.vip]!(model, VIPS[step.vip]!) ?? NONE;
          const got = send(bed, client, "S", VIPS[step.vip]);
          if (got !== expected) throw new Error(`picked ${got}, not ${expected}, of ${JSON.stringify(model)}`);
          if (typeof expected === "number") {
            model[expected]!.active++;
            opened.push({ client, vip: step.vip, place: expected });
          }
        } else if (step.kind === "close" && opened.length > 0) {
          const [{ client, vip, place }] = opened.splice(step.nth % opened.length, 1) as [(typeof opened)[number]];
          send(bed, client, "FA", VIPS[vip]);
          models[vip]![place]!.active--;
          models[vip]![place]!.inactive++;
        } else if (step.kind === "weight" && step.server < weights.length) {
          for (const [vip, model] of models.entries()) {
            bed.changeRealServer(vip, step.server, { weight: step.weight });
            model[step.server]!.weight = step.weight;
          }
        }
      }
      const counts = models.flat().map(({ active, inactive }) => ({ active, inactive }));
      const ours = counts.map((_, index) => bed.load(index));
      if (JSON.stringify(ours) !== JSON.stringify(counts)) {
        throw new Error(`counted ${JSON.stringify(ours)}, not ${JSON.stringify(counts)}`);
      }
    }),
    { numRuns: RUNS },
  );
  t.same(bed.violations(), []);
}

for (const [name, pick] of Object.entries(LIVE_PICKS)) {
  t.test(`${name} picks as its model, whatever opens and closes`, async (t) => {
    follows(t, name as keyof typeof LIVE_PICKS, () => pick);
  });
}
t.test("lblc picks as its model, whatever opens and closes", async (t) => {
  follows(t, "lblc", lblc);
});
t.test("lblcr picks as its model, whatever opens and closes", async (t) => {
  follows(t, "lblcr", lblcr);
});

// ----------------------------------------------------------------------------------------- the memory of lblc, lblcr

t.test("lblc: a destination keeps its server until that is crowded, quiesced or removed", async (t) => {
  bed.configure(setup(service("lblc", [1, 3])));
  t.strictSame([open(), open()], [0, 0], "as far as one more than the weight");
  t.equal(open(), 1, "crowded: wlc picks one");
  t.equal(open(), 1, "which is now the destination's");
  bed.changeRealServer(0, 1, { weight: 0 });
  t.equal(open(), 0, "a quiesced one leaves");
  bed.changeRealServer(0, 1, { weight: 3 });
  bed.changeRealServer(0, 0, { removed: "drop" });
  t.equal(open(), 1, "as does a removed one");
});

t.test("lblcr: a crowded destination gets more servers, and keeps them", async (t) => {
  bed.configure(setup(service("lblcr", [1, 1, 3])));
  t.strictSame([open(), open()], [0, 0]);
  t.equal(open(), 1, "crowded: wlc's pick joins the set");
  t.equal(open(), 1, "the least loaded of the set");
  bed.changeRealServer(0, 0, { weight: 0 });
  bed.changeRealServer(0, 1, { removed: "drop" });
  t.equal(open(), 2, "those that are quiesced or removed are not picked");
  bed.changeRealServer(0, 0, { weight: 9 });
  t.equal(open(), 0, "one that comes back is in the set still");
});

t.test(`lblcr: a set has at most ${LARGEST_SET} servers`, async (t) => {
  const weights = Array.from({ length: 24 }, () => 1);
  bed.configure(setup(service("lblcr", weights)));
  const model = weights.map((weight): Server => ({ weight, active: 0, inactive: 0 }));
  const pick = lblcr();
  for (let i = 0; i < 60; i++) {
    const expected = pick(model, VIPS[0]);
    model[expected!]!.active++;
    t.equal(open(), expected);
  }
  const sets = [...bed.map("destinations").keys()].map((key) => bed.map("destinations").get(key)?.count);
  t.strictSame(sets, [LARGEST_SET]);
});

// ------------------------------------------------------------------------------------------------------------ twos

t.test("twos: on idle servers in proportion to their weights", async (t) => {
  const weights = [1, 2, 5];
  const total = 8;
  bed.configure(setup(service("twos", weights)));
  const idle = [0, 0, 0];
  const times = 3000;
  for (let i = 0; i < times; i++) {
    const client = newClient();
    idle[Number(send(bed, client, "S", VIPS[0]))]!++;
    for (const index of weights.keys()) bed.map("real_load").set(index, { ...NO_LOAD, last_weight: 1 });
  }
  // On equal loads the first that was drawn wins.
  for (const [index, weight] of weights.entries()) {
    const share = weight / total;
    const deviation = 5 * Math.sqrt((share * (1 - share)) / times);
    t.ok(Math.abs(idle[index]! / times - share) < deviation, `weight ${weight}: ${idle[index]! / times} of ${share}`);
  }
});

t.test("twos: of two the less loaded, so that a crowded server gets what it is drawn twice for", async (t) => {
  bed.configure(setup(service("twos", [1, 1])));
  bed.map("real_load").set(0, { ...NO_LOAD, active: 10_000, last_weight: 1 });
  const times = 600;
  const picks = Array.from({ length: times }, () => open());
  const crowded = picks.filter((pick) => pick === 0).length / times;
  t.ok(Math.abs(crowded - 0.25) < 5 * Math.sqrt((0.25 * 0.75) / times), `${crowded} of 0.25`);
});

// ---------------------------------------------------------------------------------------------------- sh, dh and mh

const FLAGS = [[], ["fallback"], ["port"], ["fallback", "port"]] as const;
const MH_SIZE = 251;

function runs(weights: readonly number[], size: number): number[] {
  return Array.from({ length: size }, (_, index) => index % weights.length);
}

for (const scheduler of ["sh", "mh"] as const) {
  for (const schedulerFlags of FLAGS) {
    t.test(`${scheduler} with ${schedulerFlags.join(" and ") || "no flags"} picks as its model`, async () => {
      const size = scheduler === "sh" ? 256 : MH_SIZE;
      const withPort = schedulerFlags.some((flag) => flag === "port");
      const fallback = schedulerFlags.some((flag) => flag === "fallback");
      fc.assert(
        fc.property(
          fc.array(fc.nat(2), { minLength: 1, maxLength: 6 }),
          fc.array(fc.tuple(fc.nat(0x1ffff), fc.integer({ min: 1, max: 65_535 })), { maxLength: 20 }),
          (weights, clients) => {
            const ring = runs(weights, size);
            bed.configure(setup(service(scheduler, weights, { ring, schedulerFlags })));
            const servers = weights.map((weight): Server => ({ weight, active: 0, inactive: 0 }));
            for (const [n, port] of clients) {
              const client = { address: `198.${18 + (n >> 16)}.${(n >> 8) & 255}.${n & 255}`, port };
              const hash = (offset: number): number =>
                scheduler === "sh" ? bucket(client, withPort, offset) : slot(client, withPort, size, offset);
              const expected = byTable(servers, ring, hash, fallback) ?? NONE;
              const got = send(bed, client, "S");
              if (got !== expected) throw new Error(`${client.address}:${port} got ${got}, not ${expected}`);
            }
          },
        ),
        { numRuns: RUNS },
      );
    });
  }
}

t.test("dh: by the destination alone, whatever the weights", async (t) => {
  const weights = [1, 5, 2];
  const ring = runs(weights, 256);
  bed.configure(setup(...VIPS.map((vip) => ({ ...service("dh", weights, { ring }), vip }))));
  for (const [index, vip] of VIPS.entries()) {
    const expected = ring[bucket({ address: vip, port: 80 }, false)]!;
    t.strictSame([open(bed, vip), open(bed, vip)], [expected, expected]);
    bed.changeRealServer(index, expected, { weight: 0 });
    t.equal(open(bed, vip), NONE, "a quiesced one is refused");
  }
});

// ------------------------------------------------------------------------------------------------------ many servers

t.test("a service of 4096 real servers", async (t) => {
  const many = await Bed.open({ buckets: 16, realServers: 4096 });
  try {
    const weights = Array.from({ length: 4096 }, (_, n) => (n === 4000 ? 2 : 1));
    for (const [scheduler, expected] of [
      ["fo", 4000],
      ["ovf", 4000],
      ["sed", 4000],
      ["wlc", 0],
      ["lc", 0],
      ["nq", 0],
      ["lblc", 0],
      ["lblcr", 0],
    ] as const) {
      many.configure(setup(service(scheduler, weights)));
      t.equal(open(many), expected, scheduler);
    }
    many.configure(setup(service("wlc", weights)));
    t.strictSame(
      Array.from({ length: 5 }, () => open(many)),
      [0, 1, 2, 3, 4],
    );
    many.configure(setup(service("twos", weights)));
    t.type(open(many), "number", "twos");
  } finally {
    many.close();
  }
});
