import { setTimeout as sleep } from "node:timers/promises";
import t from "tap";
import { type Address, formatAddress, parseAddress } from "../../src/dataplane/address.js";
import { NextHops } from "../../src/dataplane/next-hops.js";
import { Route } from "../../src/dataplane/route.js";
import { layout, RouteVerdict } from "../../src/dataplane/sluice.bpf.js";
import { plainTables } from "./plain-tables.js";

interface Answer {
  readonly verdict?: RouteVerdict;
  readonly ifindex?: number;
  /** Last byte of the MAC. */
  readonly mac?: number;
  readonly source?: string;
}

/** The kernel's tables, and what is done about their answers. */
class Bench {
  readonly routes = new Map<string, Answer>();
  readonly looked: string[] = [];
  readonly asked: string[] = [];
  readonly egress: number[] = [];
  interfaceChanges = 0;
  readonly logged: string[] = [];
  readonly realServers = plainTables({ services: 1, realServers: 4, chunks: 1 }).realServers;
  readonly nextHops = new NextHops({
    lookup: (destination, from) => this.lookUp(destination, from),
    realServers: this.realServers,
    interfaces: [11, 12],
    neighbours: {
      resolve: (address) => this.asked.push(formatAddress(address)),
      confirm: () => undefined,
      close: () => undefined,
    },
    sourceAddress: () => parseAddress("10.1.0.1").bytes,
    addEgress: (ifindex) => this.egress.push(ifindex),
    onInterfaceChange: () => {
      this.interfaceChanges++;
    },
    log: {
      debug: () => undefined,
      info: (_, message) => this.logged.push(message),
      warn: (_, message) => this.logged.push(message),
      error: (_, message) => this.logged.push(message),
    },
  });

  lookUp(destination: Address, from: number): Route {
    const text = formatAddress(destination);
    this.looked.push(text);
    const answer = this.routes.get(`${text} from ${from}`) ??
      this.routes.get(text) ?? { verdict: RouteVerdict.ROUTE_NONE };
    const { size, offsets } = layout.RouteRequest;
    const words = new Uint32Array(size / 4);
    const bytes = new Uint8Array(words.buffer);
    words[offsets.verdict / 4] = answer.verdict ?? RouteVerdict.ROUTE_RESOLVED;
    words[offsets.ifindex / 4] = answer.ifindex ?? 12;
    bytes[offsets.destination_mac + 5] = answer.mac ?? 1;
    new Uint16Array(words.buffer)[offsets.mtu / 2] = 1500;
    bytes.set(destination.bytes, offsets.gateway);
    if (answer.source !== undefined) {
      bytes.set(parseAddress(answer.source).bytes, offsets.source);
    }
    return new Route(bytes);
  }

  watch(index: number, address: string): void {
    this.nextHops.watch({ index, address: parseAddress(address) });
  }

  hop(index: number): { ifindex: number; mac: number; source: string } {
    const { stride, bytes, u32 } = this.realServers;
    const { offsets } = layout.RealServer;
    const source = bytes.subarray(index * stride + offsets.director, index * stride + offsets.director + 4);
    return {
      ifindex: u32[(index * stride + offsets.ifindex) / 4]!,
      mac: bytes[index * stride + offsets.destination_mac + 5]!,
      source: source.join("."),
    };
  }
}

t.test("each address is looked up once, for all real servers that have it", async (t) => {
  const bench = new Bench();
  bench.routes.set("10.1.0.11", { mac: 7, source: "10.1.0.254" });
  bench.watch(0, "10.1.0.11");
  bench.watch(1, "10.1.0.11");
  await bench.nextHops.resolveNew();
  bench.watch(2, "10.1.0.11");
  t.strictSame(bench.looked, ["10.1.0.11"]);
  for (const index of [0, 1, 2]) {
    t.strictSame(bench.hop(index), { ifindex: 12, mac: 7, source: "10.1.0.254" });
    t.ok(bench.nextHops.isResolved(index));
  }
  t.strictSame(bench.egress, [12]);
});

t.test("where the kernel does not tell the source address, the interface's is taken", async (t) => {
  const bench = new Bench();
  bench.routes.set("10.1.0.11", {});
  bench.watch(0, "10.1.0.11");
  await bench.nextHops.resolveNew();
  t.equal(bench.hop(0).source, "10.1.0.1");
});

t.test("one interface that knows the way is enough", async (t) => {
  const bench = new Bench();
  bench.routes.set("10.1.0.11 from 11", { verdict: RouteVerdict.ROUTE_NOT_FORWARDING });
  bench.routes.set("10.1.0.11 from 12", { ifindex: 5 });
  bench.watch(0, "10.1.0.11");
  await bench.nextHops.resolveNew();
  t.equal(bench.hop(0).ifindex, 5);
});

t.test("a neighbour that does not answer yet is asked for and waited for", async (t) => {
  const bench = new Bench();
  bench.routes.set("10.1.0.11", { verdict: RouteVerdict.ROUTE_NO_NEIGHBOUR });
  bench.watch(0, "10.1.0.11");
  await bench.nextHops.resolveNew();
  t.notOk(bench.nextHops.isResolved(0));
  t.equal(bench.asked[0], "10.1.0.11");
  const settled = bench.nextHops.settle(2000);
  await sleep(50);
  bench.routes.set("10.1.0.11", { mac: 3 });
  const start = performance.now();
  await settled;
  t.ok(performance.now() - start < 1000, "no longer than needed");
  t.equal(bench.hop(0).mac, 3);
});

t.test("what the data plane asks for is looked up at once, but not over and over", async (t) => {
  const bench = new Bench();
  bench.watch(0, "10.1.0.11");
  bench.nextHops.missing(0);
  bench.nextHops.missing(0);
  bench.nextHops.missing(3);
  t.strictSame(bench.looked, ["10.1.0.11", "10.1.0.11"], "once from each interface; not what nobody watches");
});

t.test("a MAC that is forgotten stays in use for a while; a route that is gone does not", async (t) => {
  const bench = new Bench();
  bench.routes.set("10.1.0.11", { mac: 3 });
  bench.watch(0, "10.1.0.11");
  await bench.nextHops.resolveNew();
  const look = async (answer: Answer): Promise<number> => {
    bench.routes.set("10.1.0.11", answer);
    await sleep(101);
    bench.nextHops.missing(0);
    return bench.hop(0).ifindex;
  };
  t.equal(await look({ verdict: RouteVerdict.ROUTE_NO_NEIGHBOUR }), 12);
  t.equal(await look({ verdict: RouteVerdict.ROUTE_NO_NEIGHBOUR, ifindex: 5 }), 0, "another way is another MAC");
  t.equal(await look({ mac: 3 }), 12);
  t.equal(await look({ verdict: RouteVerdict.ROUTE_NONE }), 0);
  t.equal(await look({ mac: 3 }), 12);
});

t.test("changes are found by looking again and again, and said once", async (t) => {
  const bench = new Bench();
  bench.watch(0, "10.1.0.11");
  bench.watch(1, "10.1.0.12");
  bench.routes.set("10.1.0.12", {});
  bench.nextHops.start();
  await sleep(50);
  bench.nextHops.unwatch(1);
  bench.routes.set("10.1.0.11", { mac: 9 });
  await sleep(1500);
  await bench.nextHops.close();
  t.equal(bench.hop(0).mac, 9);
  t.strictSame(bench.logged, [
    "real servers without a next hop: 1 (10.1.0.11): no route",
    "every real server has a next hop",
  ]);
  t.equal(bench.looked.filter((address) => address === "10.1.0.12").length, 1, "no longer watched");
});

t.test("who was told an interface hears when it is another one, but not of a route that is gone", async (t) => {
  const bench = new Bench();
  const [known, unknown] = [parseAddress("10.1.0.11"), parseAddress("10.1.0.12")];
  bench.routes.set("10.1.0.11", { verdict: RouteVerdict.ROUTE_NO_NEIGHBOUR, ifindex: 21 });
  t.equal(bench.nextHops.interfaceTo(known), 21, "also before the MAC is known");
  t.equal(bench.nextHops.interfaceTo(unknown), 0);
  bench.watch(0, "10.1.0.11");
  bench.watch(1, "10.1.0.12");
  bench.watch(2, "10.1.0.13");
  bench.routes.set("10.1.0.13", { ifindex: 23 });
  await bench.nextHops.resolveNew();
  t.equal(bench.interfaceChanges, 0);
  const changes = async (index: number, address: string, answer: Answer): Promise<number> => {
    bench.routes.set(address, answer);
    await sleep(110);
    bench.nextHops.missing(index);
    return bench.interfaceChanges;
  };
  t.equal(await changes(0, "10.1.0.11", { verdict: RouteVerdict.ROUTE_NONE }), 0);
  t.equal(await changes(0, "10.1.0.11", { ifindex: 21 }), 0);
  t.equal(await changes(0, "10.1.0.11", { ifindex: 22 }), 1);
  t.equal(bench.nextHops.interfaceTo(known), 22);
  t.equal(await changes(1, "10.1.0.12", { ifindex: 22 }), 2, "one that had no route has one");
  t.equal(await changes(2, "10.1.0.13", { ifindex: 22 }), 2, "nobody asked about this one");
});
