/**
 * What users of the schedulers rely on, over random services, weights and events: production's control plane compiles and publishes,
 * the real program picks.
 */
import "./own-namespace.js";
import fc from "fast-check";
import t from "tap";
import { hsiphash } from "../../src/dataplane/hsiphash.js";
import { ipv4Text } from "./addresses.js";
import { Director, type Member, type Service } from "./director.js";
import { bucket, type Client, LIVE_PICKS } from "./scheduler-models.js";

const director = await Director.open();
t.teardown(() => director.close());

let lastPort = 0;
/** A service that was not there before, so that nothing of another example's is left in it. */
function newPort(): number {
  return ++lastPort;
}

function clientAddress(number: number): string {
  return ipv4Text(Uint8Array.of(20 + (number >>> 24), (number >>> 16) & 255, (number >>> 8) & 255, number & 255));
}

let lastClient = 0;
function newClient(): Client {
  return { address: clientAddress(++lastClient), port: 1024 };
}

function greatestCommonDivisor(a: number, b: number): number {
  return b === 0 ? a : greatestCommonDivisor(b, a % b);
}

function count(picks: Iterable<number | undefined>, number: number): number {
  let found = 0;
  for (const pick of picks) found += pick === number ? 1 : 0;
  return found;
}

function members(weights: readonly number[]): Member[] {
  return weights.map((weight, number) => ({ number, weight }));
}

function weightsBetween(min: number, max: number, maxLength: number): fc.Arbitrary<number[]> {
  return fc.array(fc.integer({ min, max }), { minLength: 1, maxLength });
}

// ------------------------------------------------------------------------------------------------------ rr and wrr

/** The members of a service at successive moments: who comes, goes, and gets another weight. */
const moments = fc.array(
  fc.uniqueArray(fc.record({ number: fc.nat(9), weight: fc.oneof(fc.nat(3), fc.nat(24)) }), {
    selector: ({ number }) => number,
    minLength: 1,
    maxLength: 8,
  }),
  { minLength: 1, maxLength: 4 },
);

for (const scheduler of ["rr", "wrr"] as const) {
  t.test(`${scheduler}: of as many connections in a row as a cycle has, each gets exactly its weight's`, async () => {
    await fc.assert(
      fc.asyncProperty(moments, async (moments) => {
        const port = newPort();
        for (const members of moments) {
          await director.serve({ port, scheduler, members });
          const turns = members.map(({ weight }) => (scheduler === "rr" ? Math.min(1, weight) : weight));
          const divisor = turns.reduce(greatestCommonDivisor, 0);
          const cycle = divisor === 0 ? 1 : turns.reduce((sum, turn) => sum + turn, 0) / divisor;
          const picks = Array.from({ length: 2 * cycle }, () => director.send(port, newClient(), "S"));
          for (let first = 0; first <= cycle; first++) {
            const window = picks.slice(first, first + cycle);
            for (const [place, { number }] of members.entries()) {
              const expected = divisor === 0 ? 0 : turns[place]! / divisor;
              const got = count(window, number);
              if (got !== expected)
                throw new Error(`${number} got ${got} of ${cycle}, not ${expected}: ${window.join()}`);
            }
          }
        }
      }),
      { numRuns: 50 },
    );
  });
}

// -------------------------------------------------------------------------------------------------------- mh and sh

const clientsBySize = new Map<number, readonly string[]>();

/** The addresses of one client for each slot of an mh table: each slot is as likely for any client. */
function clientOfEachSlot(size: number): readonly string[] {
  const known = clientsBySize.get(size);
  if (known !== undefined) return known;
  const clients: string[] = [];
  const addressOfFirst = 20 << 24;
  for (let number = 0, found = 0; found < size; number++) {
    const slot = hsiphash(addressOfFirst + number, 2654435761) % size;
    if (clients[slot] === undefined) {
      clients[slot] = clientAddress(number);
      found++;
    }
  }
  clientsBySize.set(size, clients);
  return clients;
}

/** Whom each slot's client gets, by a connection from the source port. */
function picksOfSlots(port: number, size: number, sourcePort: number): (number | undefined)[] {
  return clientOfEachSlot(size).map((address) => director.send(port, { address, port: sourcePort }, "S"));
}

t.test("mh: each gets a share of the clients within 2 % of its weight's", async () => {
  await fc.assert(
    fc.asyncProperty(weightsBetween(1, 31, 20), async (weights) => {
      const port = newPort();
      await director.serve({ port, scheduler: "mh", members: members(weights) });
      const picks = picksOfSlots(port, director.ringLength(port), 1);
      const total = weights.reduce((sum, weight) => sum + weight, 0);
      for (const [number, weight] of weights.entries()) {
        const share = count(picks, number) / picks.length;
        if (Math.abs(share - weight / total) > 0.02) throw new Error(`${number}: ${share}, not ${weight / total}`);
      }
    }),
    { numRuns: 30 },
  );
});

t.test(
  "mh: when one of N equals goes, at most 2/N of the others' clients move, and all are back when it comes back",
  async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.integer({ min: 2, max: 20 }),
        fc.integer({ min: 1, max: 9 }),
        fc.nat(),
        async (n, weight, pick) => {
          const port = newPort();
          const all = members(new Array<number>(n).fill(weight));
          const gone = pick % n;
          const service: Service = { port, scheduler: "mh", members: all };
          await director.serve(service);
          const size = director.ringLength(port);
          const before = picksOfSlots(port, size, 1);
          await director.serve({ ...service, members: all.filter(({ number }) => number !== gone) });
          const without = picksOfSlots(port, size, 2);
          await director.serve(service);
          const again = picksOfSlots(port, size, 3);

          const others = [...before.keys()].filter((slot) => before[slot] !== gone);
          const moved = others.filter((slot) => before[slot] !== without[slot]).length;
          if (moved > (2 / n) * others.length) throw new Error(`${moved} of ${others.length} clients moved`);
          if (without.includes(gone) || without.includes(undefined))
            throw new Error("a client was sent to the one that is gone");
          if (again.some((server, slot) => server !== before[slot])) throw new Error("not all came back");
        },
      ),
      { numRuns: 20 },
    );
  },
);

t.test("mh: when one is quiesced its clients alone move, and all are back when it has a weight again", async () => {
  await fc.assert(
    fc.asyncProperty(weightsBetween(1, 9, 12), fc.nat(), async (weights, pick) => {
      const port = newPort();
      const quiesced = pick % weights.length;
      const service: Service = { port, scheduler: "mh", flags: ["mh-fallback"], members: members(weights) };
      await director.serve(service);
      const size = director.ringLength(port);
      const before = picksOfSlots(port, size, 1);
      await director.serve({ ...service, members: members(weights.map((weight, n) => (n === quiesced ? 0 : weight))) });
      const meanwhile = picksOfSlots(port, size, 2);
      await director.serve(service);
      const again = picksOfSlots(port, size, 3);
      for (const [slot, server] of before.entries()) {
        const [now, later] = [meanwhile[slot], again[slot]];
        const stays =
          server === quiesced ? now !== quiesced && (now === undefined) === (weights.length === 1) : now === server;
        if (!stays || later !== server) throw new Error(`slot ${slot}: ${server}, then ${now}, then ${later}`);
      }
    }),
    { numRuns: 30 },
  );
});

t.test("sh: each gets its weight's buckets of 256, but for the last round, which may end before it", async () => {
  const clients = new Map<number, string>();
  for (let number = 0; clients.size < 256; number++) {
    const address = clientAddress(number);
    clients.set(bucket({ address, port: 0 }, false), address);
  }
  await fc.assert(
    fc.asyncProperty(weightsBetween(1, 40, 16), async (weights) => {
      const port = newPort();
      await director.serve({ port, scheduler: "sh", members: members(weights) });
      const picks = Array.from(clients.values(), (address) => director.send(port, { address, port: 1 }, "S"));
      const rounds = Math.floor(256 / weights.reduce((sum, weight) => sum + weight, 0));
      for (const [number, weight] of weights.entries()) {
        const buckets = count(picks, number);
        if (buckets < rounds * weight || buckets > (rounds + 1) * weight) throw new Error(`${number} has ${buckets}`);
      }
    }),
    { numRuns: 30 },
  );
});

// --------------------------------------------------------------------------------------------------- live schedulers

/** Of those that are open the n-th, counted around. */
const segment = fc.record({
  kind: fc.constant("segment" as const),
  nth: fc.nat(100),
  flags: fc.constantFrom("A", "FA", "R"),
});
const steps = fc.array(
  fc.oneof(
    { weight: 8, arbitrary: fc.record({ kind: fc.constant("open" as const) }) },
    { weight: 5, arbitrary: segment },
    { weight: 1, arbitrary: fc.record({ kind: fc.constant("weight" as const), number: fc.nat(7), weight: fc.nat(6) }) },
    { weight: 1, arbitrary: fc.record({ kind: fc.constantFrom("join", "leave"), number: fc.nat(7) }) },
  ),
  { minLength: 10, maxLength: 60 },
);

for (const [scheduler, model] of Object.entries(LIVE_PICKS)) {
  t.test(`${scheduler}: of the servers as they are when a connection opens, the one that its rule names`, async () => {
    await fc.assert(
      fc.asyncProperty(weightsBetween(0, 6, 8), steps, async (weights, taken) => {
        const port = newPort();
        const open: Client[] = [];
        let service: Service = { port, scheduler: scheduler as keyof typeof LIVE_PICKS, members: members(weights) };
        const change = async (next: readonly Member[]): Promise<void> => {
          service = { ...service, members: next };
          await director.serve(service);
        };
        await director.serve(service);
        for (const step of taken) {
          const { members } = service;
          switch (step.kind) {
            case "open": {
              const servers = await director.servers(service);
              const place = model(servers, "");
              const expected = place === undefined ? undefined : members[place]?.number;
              const client = newClient();
              const got = director.send(port, client, "S");
              if (got !== expected) throw new Error(`picked ${got}, not ${expected}, of ${JSON.stringify(servers)}`);
              if (got !== undefined) open.push(client);
              break;
            }
            case "segment": {
              const client = open[step.nth % open.length];
              if (client !== undefined) director.send(port, client, step.flags);
              break;
            }
            case "weight":
              await change(
                members.map((member) => (member.number === step.number ? { ...member, weight: step.weight } : member)),
              );
              break;
            case "leave":
              await change(members.filter(({ number }) => number !== step.number));
              break;
            case "join":
              if (!members.some(({ number }) => number === step.number))
                await change([...members, { number: step.number, weight: 2 }]);
              break;
          }
        }
      }),
      { numRuns: 100 },
    );
  });
}
