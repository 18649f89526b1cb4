/** fullnat's local addresses and ports: where a connection's come from, when there are none left, and when they come back. */
import "./own-namespace.js";
import t from "tap";
import { goes, passesAndSweeps } from "./actions.js";
import { Bed, type RealServerSetup, type ServiceSetup, type Setup } from "./bed.js";
import { build, parse } from "./frame.js";
import { VIP } from "./network.js";
import { answerSegment, datagram, pick, real, segment } from "./packets.js";
import { type Action, drops, type Row, runRows } from "./row.js";

const [LOCAL, SECOND, THIRD] = ["10.1.0.1", "10.1.0.2", "10.1.0.3"] as const;

const bed = await Bed.open({ buckets: 64 });
t.teardown(() => bed.close());

function service(realServers: readonly RealServerSetup[], more: Partial<ServiceSetup> = {}): ServiceSetup {
  return { protocol: "tcp", vip: VIP, port: 80, realServers, ...more };
}

/** All real servers' connections come from these. */
function setup(realServers: readonly RealServerSetup[], localPorts: readonly [number, number]): Setup {
  return { services: [service(realServers)], localAddresses: [LOCAL], localPorts };
}

const fullnat = (...numbers: readonly number[]): RealServerSetup[] => numbers.map((n) => real(n, "fullnat"));
const syn = (port: number): ReturnType<typeof segment> => segment("S", { port });
const opens = (to: number | string, ports: readonly number[]): Action[] => ports.map((port) => goes(to, syn(port)));
const EXHAUSTED = "drop local_ports_exhausted";

/** Opens so many connections; which real server, address and port each came from, in no order. */
function sources(count: number): string[] {
  const seen = Array.from({ length: count }, (_, n) => {
    const { verdict, frame } = bed.run(build(syn(n + 1)));
    const [, ip, tcp] = parse(frame);
    if (verdict !== "redirect" || ip?.kind !== "ipv4" || tcp?.kind !== "tcp") return verdict;
    return `${ip.destination} from ${ip.source}:${tcp.sourcePort}`;
  });
  return seen.sort();
}

t.test("one pool for all", async (t) => {
  t.test("ports lie in the range, and no two connections to a real server have one", async (t) => {
    bed.configure(setup(fullnat(1), [30000, 30255]));
    const seen = sources(100);
    t.equal(new Set(seen).size, 100);
    const ports = seen.map((source) => Number(source.split(":")[1]));
    t.ok(ports.every((port) => port >= 30000 && port <= 30255));
    t.same(bed.violations(), []);
  });

  t.test("all local addresses are used, however many there are", async (t) => {
    for (const count of [3, 20]) {
      const localAddresses = Array.from({ length: count }, (_, n) => `10.1.0.${n + 101}`);
      bed.configure({ ...setup(fullnat(1), [30000, 30127]), localAddresses });
      const seen = sources(240).map((source) => /from (.*):/.exec(source)?.[1] ?? source);
      t.strictSame([...new Set(seen)].sort(), [...localAddresses].sort());
      t.same(bed.violations(), []);
    }
  });

  const rows: Row[] = [
    {
      name: "one port serves several real servers at once",
      setup: setup(fullnat(1, 2, 3), [30000, 30000]),
      steps: [
        ...[1, 2, 3].map((n) => goes(n, syn(n))),
        ...[1, 2, 3].map((n) => goes(n, syn(n))), // again, on the connections that are there
        ...opens(EXHAUSTED, [99]),
        (bed, t) => {
          t.equal(bed.table().entries().length, 6);
        },
      ],
    },
    {
      name: "TCP and UDP have ports of their own",
      setup: {
        ...setup([], [30000, 30000]),
        services: [service(fullnat(1)), service(fullnat(1), { protocol: "udp" })],
      },
      steps: [
        goes(1, syn(1)),
        goes(1, datagram({ port: 1 })),
        goes(EXHAUSTED, syn(2)),
        goes(EXHAUSTED, datagram({ port: 2 })),
      ],
    },
    {
      name: "they run out, and come back when a connection's time is over, without a sweep",
      setup: setup(fullnat(1), [30000, 30000]),
      steps: [
        goes(1, syn(1)),
        goes(EXHAUSTED, syn(2)),
        (bed) => bed.advance(61),
        goes(1, syn(2)),
        (bed, t) => {
          t.strictSame(
            bed.connections().map(({ sourcePort }) => sourcePort),
            [2],
          );
        },
      ],
    },
    {
      name: "a small range is used to the last port",
      setup: setup(fullnat(1), [30000, 30003]),
      steps: [
        ...opens(1, [1, 2, 3, 4]),
        ...opens(EXHAUSTED, [5, 5, 6]),
        (bed, t) => {
          t.equal(bed.connections().length, 4);
        },
        passesAndSweeps(61),
        ...opens(1, [5, 6, 7, 8]),
        ...opens(EXHAUSTED, [9]),
      ],
    },
    {
      name: "a connection that closes gives its port back when it leaves the table",
      setup: setup(fullnat(1), [30000, 30001]),
      steps: [
        ...opens(1, [1, 2]),
        goes(1, segment("A", { port: 1 })),
        goes(1, segment("A", { port: 2 })),
        goes(1, segment("R", { port: 1 })),
        ...opens(EXHAUSTED, [3]),
        passesAndSweeps(11),
        ...opens(1, [3]),
        ...opens(EXHAUSTED, [4]),
        goes(1, segment("A", { port: 2 })),
      ],
    },
    {
      name: "a SYN in place of a closed connection finds a port, though there is but one",
      setup: setup(fullnat(1), [30000, 30000]),
      steps: [goes(1, syn(1)), goes(1, segment("A", { port: 1 })), goes(1, segment("R", { port: 1 })), goes(1, syn(1))],
    },
    {
      name: "there is no local address",
      setup: { ...setup(fullnat(1), [30000, 30003]), localAddresses: [] },
      steps: [drops("no_local_address", syn(1))],
    },
    {
      name: "all ports that there are",
      setup: setup(fullnat(1), [1, 65535]),
      steps: opens(1, [1, 2, 3, 4, 5]),
    },
  ];
  runRows(t, bed, rows);
});

t.test("pools by real server", async (t) => {
  const localAddresses = [LOCAL, SECOND, THIRD];
  const pooled = (n: number, addresses: readonly string[], ports: readonly [number, number]): RealServerSetup =>
    real(n, "fullnat", { localPool: { addresses, ports } });

  t.test("each real server's connections come from its own", async (t) => {
    bed.configure({
      services: [service([pooled(1, [LOCAL], [30000, 30002]), pooled(2, [SECOND, THIRD], [40000, 40001])])],
      localAddresses,
    });
    t.strictSame(sources(6).slice(0, 3), [
      `10.1.0.11 from ${LOCAL}:30000`,
      `10.1.0.11 from ${LOCAL}:30001`,
      `10.1.0.11 from ${LOCAL}:30002`,
    ]);
    bed.changeRealServer(0, 0, { weight: 0 });
    sources(7); // six are there already
    t.strictSame(
      sources(7).filter((source) => source.startsWith("10.1.0.12")),
      [40000, 40001].flatMap((port) => [SECOND, THIRD].map((local) => `10.1.0.12 from ${local}:${port}`)).sort(),
    );
    t.same(bed.violations(), []);
  });

  const rows: Row[] = [
    {
      name: "one runs out, the other does not",
      setup: {
        services: [service([pooled(1, [LOCAL], [30000, 30000]), pooled(2, [SECOND], [30000, 30009])])],
        localAddresses,
      },
      steps: [
        goes(1, syn(1)),
        goes(2, syn(2)),
        goes(EXHAUSTED, syn(3)),
        goes(2, syn(4)),
        goes(EXHAUSTED, syn(5)),
        goes(2, syn(5)),
        passesAndSweeps(61),
        goes(1, syn(6)),
      ],
    },
    {
      name: "one that has no address refuses, the other does not",
      setup: {
        services: [service([pooled(1, [], [30000, 30000]), pooled(2, [SECOND], [1024, 2000])])],
        localAddresses,
      },
      steps: [drops("no_local_address", syn(1)), goes(2, syn(1)), drops("no_local_address", syn(2))],
    },
    {
      name: "services may share an address and its ports, as long as their real servers differ",
      setup: {
        services: [
          service([pooled(1, [LOCAL], [30000, 30000])]),
          service([pooled(2, [LOCAL], [30000, 30000])], { port: 81 }),
          service([pooled(1, [LOCAL], [30000, 30000])], { port: 82 }), // RIP:82
        ],
        localAddresses,
      },
      steps: [80, 81, 82].map((vport) => goes(vport === 81 ? 2 : 1, segment("S", { vport }))),
    },
    {
      name: "two services with one real server share its ports",
      setup: {
        services: [80, 81].map((port) =>
          service([real(1, "fullnat", { port: 8080, localPool: { addresses: [LOCAL], ports: [30000, 30001] } })], {
            port,
          }),
        ),
        localAddresses,
      },
      steps: [
        goes(1, segment("S", { vport: 80, port: 1 })),
        goes(1, segment("S", { vport: 81, port: 1 })),
        goes(EXHAUSTED, segment("S", { vport: 80, port: 2 })),
        goes(EXHAUSTED, segment("S", { vport: 81, port: 2 })),
      ],
    },
    {
      name: "a connection keeps what it has when the pool is another",
      setup: { services: [service([pooled(1, [LOCAL], [30000, 30000])])], localAddresses },
      steps: [
        goes(1, syn(1)),
        (bed) => {
          const pool = bed.map("local_pools").get(0);
          if (pool !== undefined) bed.map("local_pools").set(0, { ...pool, first_port: 50000, last_port: 50000 });
        },
        (bed, t) => {
          const [, ip, tcp] = parse(bed.run(build(segment("A", { port: 1 }))).frame);
          t.match(ip, { source: LOCAL, destination: "10.1.0.11" });
          t.match(tcp, { sourcePort: 30000 });
        },
        goes(2, answerSegment(1, "A", { to: LOCAL, port: 30000 }), "r0"), // to the router
        (bed, t) => {
          const [, , tcp] = parse(bed.run(build(syn(2))).frame);
          t.match(tcp, { sourcePort: 50000 });
        },
      ],
    },
  ];
  runRows(t, bed, rows);

  t.test("exhausted or not, the counts are those of the table", async (t) => {
    bed.configure({
      services: [service([pooled(1, [LOCAL, SECOND], [30000, 30009]), pooled(2, [SECOND, THIRD], [30000, 30004])])],
      localAddresses,
    });
    const picks = Array.from({ length: 200 }, (_, n) => pick(bed, syn(n + 1)));
    t.equal(picks.filter((picked) => picked === 1).length, 20, "two addresses of ten ports");
    t.equal(picks.filter((picked) => picked === 2).length, 10, "two of five");
    t.equal(picks.filter((picked) => picked === EXHAUSTED).length, 170);
    t.strictSame(
      [bed.load(0), bed.load(1)],
      [20, 10].map((active) => ({ active, inactive: 0 })),
    );
    t.same(bed.violations(), []);
  });
});
