/** What services say, from the desired state through the maps to what packets meet. */
import "./own-namespace.js";
import { execFileSync } from "node:child_process";
import { readFileSync } from "node:fs";
import { setTimeout as sleep } from "node:timers/promises";
import { Program } from "libbpf-ts";
import t from "tap";
import { DataPlane } from "../../src/dataplane/index.js";
import {
  type AddressServiceKey,
  DEFAULT_SETTINGS,
  DEFAULT_TIMEOUTS,
  type DesiredState,
  EMPTY_STATE,
  type RealServer,
  type RealServerCounters,
  type ServiceOptions,
  type VirtualService,
} from "../../src/model/index.js";
import { build, type Layer, parse } from "./frame.js";
import { CLIENT, INTERFACES, network, ROUTER_MAC, realAddress, realMac, VIP } from "./network.js";

const INSTANCE = `dataplane-services-${process.pid}`;
const ROOT = `/sys/fs/bpf/${INSTANCE}`;
const LIMITS = { connections: 1024, services: 16, realServers: 64, ringSlots: 8192 };
const SERVICE = `tcp:${VIP}:80`;

const VERDICTS = ["aborted", "drop", "pass", "transmit", "redirect"] as const;

const warnings: string[] = [];
const log = {
  debug: () => undefined,
  info: () => undefined,
  warn: (_: object, message: string) => {
    warnings.push(message);
  },
  error: (fields: object, message: string) => {
    t.fail(message, fields);
  },
};

network();
for (const n of [1, 2, 3]) {
  knowNeighbour(n, "r0");
}

function knowNeighbour(n: number, device: string): void {
  const neighbour = [realAddress(n), "lladdr", realMac(n), "dev", device, "nud", "permanent"];
  execFileSync("ip", ["neighbour", "replace", ...neighbour]);
}

function server(n: number, more: Partial<RealServer> = {}): RealServer {
  return {
    address: realAddress(n),
    port: 8080,
    method: "nat",
    weight: 1,
    upperThreshold: 0,
    lowerThreshold: 0,
    ...more,
  };
}

function service(
  realServers: readonly RealServer[],
  more: Partial<AddressServiceKey & ServiceOptions> = {},
): AddressServiceKey & ServiceOptions {
  const key = { protocol: "tcp" as const, address: VIP, port: 80 };
  return { ...key, scheduler: "rr", schedulerFlags: [], onePacket: false, realServers, ...more };
}

function state(services: readonly VirtualService[], more: Partial<DesiredState> = {}): DesiredState {
  return { ...EMPTY_STATE, ...more, services };
}

interface Sent {
  readonly protocol?: "tcp" | "udp";
  readonly client?: string;
  readonly clientPort: number;
  readonly destination?: string;
  readonly port?: number;
  readonly flags?: string;
}

interface Fate {
  readonly verdict: string;
  /** The real server whose MAC the packet is for. */
  readonly to: number | undefined;
  readonly out: readonly Layer[];
}

/** Puts a packet in, by the pinned program. */
function send({
  protocol = "tcp",
  client = CLIENT,
  clientPort,
  destination = VIP,
  port = 80,
  flags = "S",
}: Sent): Fate {
  using program = Program.open(`${ROOT}/programs/sluice`);
  const l4: Layer =
    protocol === "tcp"
      ? { kind: "tcp", sourcePort: clientPort, destinationPort: port, sequence: 1000, flags, window: 64240 }
      : { kind: "udp", sourcePort: clientPort, destinationPort: port };
  const { returnValue, data } = program.testRun({
    data: build([
      { kind: "ethernet", destination: INTERFACES.c0.mac, source: ROUTER_MAC },
      { kind: "ipv4", source: client, destination, id: 1 },
      l4,
    ]),
    dataOutSize: 2048,
  });
  const out = parse(data);
  const [ethernet] = out;
  const mac = ethernet?.kind === "ethernet" ? ethernet.destination : "";
  const to = [1, 2, 3].find((n) => realMac(n) === mac);
  return { verdict: VERDICTS[returnValue] ?? String(returnValue), to, out };
}

function layer<K extends Layer["kind"]>({ out }: Fate, kind: K): Extract<Layer, { kind: K }> {
  return out.find((found) => found.kind === kind) as Extract<Layer, { kind: K }>;
}

async function withDataPlane(test: (dataPlane: DataPlane) => Promise<void>): Promise<void> {
  const interfaces = [{ name: "c0", mode: "native" as const }];
  const dataPlane = await DataPlane.open({ instance: INSTANCE, interfaces, limits: LIMITS, log });
  try {
    await test(dataPlane);
  } finally {
    await dataPlane.close();
    await DataPlane.unload({ instance: INSTANCE });
  }
}

async function counters(dataPlane: DataPlane, n: number, name = SERVICE): Promise<RealServerCounters> {
  const { realServers } = (await dataPlane.serviceCounters(name))!;
  return [...realServers].find(([real]) => real.startsWith(`${realAddress(n)}:`))![1];
}

async function until(condition: () => boolean | Promise<boolean>): Promise<boolean> {
  for (let wait = 0; wait < 200; wait++) {
    if (await condition()) {
      return true;
    }
    await sleep(50);
  }
  return false;
}

t.test("persistence keeps a network of clients together while it lasts", async (t) => {
  await withDataPlane(async (dataPlane) => {
    const real = [server(1), server(2)];
    const persistence = { timeout: 60, netmask: "255.255.255.0" };
    await dataPlane.publish(state([service(real, { persistence })]));
    const first = send({ client: "198.18.0.1", clientPort: 40000 });
    const others = [2, 3, 4].map((n) => send({ client: `198.18.0.${n}`, clientPort: 40000 }).to);
    t.strictSame(others, [first.to, first.to, first.to]);
    t.not(send({ client: "198.18.1.1", clientPort: 40000 }).to, first.to, "another network");
    t.match(await counters(dataPlane, first.to!), { persistentConnections: 1, active: 4 });
    await dataPlane.publish(state([service(real)]));
    const without = [1, 2].map((n) => send({ client: "198.18.0.1", clientPort: 41000 + n }).to);
    t.not(without[0], without[1], "it is gone from the service");
  });
});

t.test("one-packet scheduling gives each datagram its turn", async (t) => {
  await withDataPlane(async (dataPlane) => {
    const udp = { protocol: "udp" as const };
    const onePacket = service([server(1), server(2)], { ...udp, onePacket: true });
    await dataPlane.publish(state([onePacket]));
    const turns = [1, 2, 3].map(() => send({ ...udp, clientPort: 40000 }).to);
    t.not(turns[0], turns[1]);
    t.equal(turns[2], turns[0]);
    t.match(await counters(dataPlane, 1, `udp:${VIP}:80`), { active: 0, inactive: 0 });
    await dataPlane.publish(state([{ ...onePacket, onePacket: false }]));
    const kept = [1, 2, 3].map(() => send({ ...udp, clientPort: 40001 }).to);
    t.ok(
      kept.every((to) => to === kept[0]),
      "one connection now",
    );
  });
});

t.test("packets find the service of their mark, then of their port, then of every port", async (t) => {
  await withDataPlane(async (dataPlane) => {
    const { scheduler, schedulerFlags, onePacket } = service([]);
    const marked: VirtualService = {
      fwmark: 7,
      family: "ipv4",
      scheduler,
      schedulerFlags,
      onePacket,
      realServers: [server(3, { port: 0 })],
    };
    const services = [service([server(1)]), service([server(2, { port: 0 })], { port: 0 }), marked];
    const source = { family: "ipv4" as const, address: "198.18.9.0", prefixLength: 24 };
    const marks = [{ mark: 7, family: "ipv4" as const, source, protocol: "tcp" as const }];
    await dataPlane.publish(state(services, { marks }));
    const row = (client: string, port: number): [number | undefined, number] => {
      const fate = send({ client, clientPort: 40000, port });
      return [fate.to, layer(fate, "tcp").destinationPort];
    };
    t.strictSame(row("198.18.0.1", 80), [1, 8080]);
    t.strictSame(row("198.18.0.1", 99), [2, 99], "the port that the client asked for");
    t.strictSame(row("198.18.9.1", 80), [3, 80]);
    await dataPlane.publish(state(services));
    t.strictSame(row("198.18.9.2", 80), [1, 8080], "without the rule");
    const names = ["fwmark:7", `tcp:${VIP}:0`, SERVICE];
    const connections = await Promise.all(names.map((name) => dataPlane.serviceCounters(name)));
    t.strictSame(
      connections.map((found) => found?.connections),
      [1n, 1n, 2n],
    );
  });
});

t.test("an upper threshold sends connections elsewhere, until it is raised", async (t) => {
  await withDataPlane(async (dataPlane) => {
    const limited = (upperThreshold: number): DesiredState =>
      state([service([server(1, { weight: 100, upperThreshold }), server(2)], { scheduler: "wlc" })]);
    await dataPlane.publish(limited(2));
    t.strictSame(
      [1, 2, 3, 4].map((n) => send({ clientPort: 40000 + n }).to),
      [1, 2, 1, 2],
    );
    t.match(await counters(dataPlane, 1), { overloaded: true, active: 2 });
    t.match(await counters(dataPlane, 2), { overloaded: false });
    await dataPlane.publish(limited(3));
    t.match(await counters(dataPlane, 1), { overloaded: false });
    t.strictSame(
      [5, 6].map((n) => send({ clientPort: 40000 + n }).to),
      [1, 2],
    );
  });
});

t.test("connections of a removed real server are dropped, go on, or end", async (t) => {
  await withDataPlane(async (dataPlane) => {
    const with1 = (removedConnections: "drop" | "keep" | "reset"): DesiredState =>
      state([service([server(1), server(2)], { removedConnections })]);
    const without = (removedConnections: "drop" | "keep" | "reset"): DesiredState =>
      state([service([server(2)], { removedConnections })]);
    await dataPlane.publish(with1("drop"));
    const ports = [40000, 40001, 40002, 40003];
    const [port] = ports.filter((clientPort) => send({ clientPort }).to === 1);
    const data = (): Fate => send({ clientPort: port!, flags: "A" });
    t.equal(data().to, 1);
    await dataPlane.publish(without("drop"));
    t.equal(data().verdict, "drop");
    await dataPlane.publish(without("keep"));
    t.strictSame([data().verdict, data().to], ["redirect", 1], "those that were removed before, too");
    execFileSync("ip", ["neighbour", "replace", realAddress(1), "lladdr", realMac(3), "dev", "r0", "nud", "permanent"]);
    t.ok(await until(() => data().to === 3), "its next hop is watched as before");
    knowNeighbour(1, "r0");
    await dataPlane.publish(state([]));
    t.equal(data().verdict, "redirect", "also when the service itself goes");
    await dataPlane.publish(without("reset"));
    const reset = data();
    t.equal(reset.verdict, "transmit");
    t.match(layer(reset, "tcp").flags, /R/);
    await dataPlane.publish(with1("reset"));
    await dataPlane.publish(
      state([service([server(2)])], { settings: { ...DEFAULT_SETTINGS, expire_nodest_conn: 1 } }),
    );
    const listed = (): string => readFileSync(`${ROOT}/connections`, "utf8");
    t.ok(await until(() => !listed().includes(realAddress(1))), "the sweeper takes the others");
  });
});

t.test("a service keeps counting when its real servers go", async (t) => {
  await withDataPlane(async (dataPlane) => {
    await dataPlane.publish(state([service([server(1), server(2)], { removedConnections: "reset" })]));
    for (const clientPort of [40000, 40001, 40002, 40003]) {
      send({ clientPort });
    }
    const sum = { connections: 4n, inPackets: 4n, inBytes: 160n };
    t.match(await dataPlane.serviceCounters(SERVICE), sum);
    const left = state([service([server(2)], { removedConnections: "reset" })]);
    await dataPlane.publish(left);
    t.match(await dataPlane.serviceCounters(SERVICE), sum, "while it drains");
    const used = (): number => readFileSync(`${ROOT}/connections`, "utf8").split(realAddress(1)).length - 1;
    t.ok(await until(() => used() === 0));
    // What is free is given to another, which begins with nothing.
    t.ok(
      await until(async () => {
        const report = await dataPlane.publish(
          state([service([server(2), server(3)], { removedConnections: "reset" })]),
        );
        const { connections } = await counters(dataPlane, 3);
        await dataPlane.publish(left);
        return report.writes > 0 && connections === 0n;
      }),
    );
    await sleep(2500);
    t.match(await dataPlane.serviceCounters(SERVICE), sum, "and when it is gone");
  });
});

t.test("a nat real server's packet of no connection is answered when the setting says so", async (t) => {
  await withDataPlane(async (dataPlane) => {
    const desired = state([service([server(1), server(2, { method: "dr", port: 80 })])]);
    await dataPlane.publish(desired);
    const stray = (n: number, clientPort = 8080): string =>
      send({ client: realAddress(n), clientPort, destination: CLIENT, port: 40000, flags: "A" }).verdict;
    t.equal(stray(1), "pass");
    await dataPlane.publish({ ...desired, settings: { ...DEFAULT_SETTINGS, nat_icmp_send: 1 } });
    t.equal(stray(1), "transmit");
    t.equal(stray(1, 8081), "pass", "another port");
    t.equal(stray(2, 80), "pass", "a real server that answers clients itself");
    t.equal(dataPlane.drops()["reply_without_connection"]?.packets, 1n);
  });
});

t.test("timeouts are each service's own, and change for connections that are open", async (t) => {
  await withDataPlane(async (dataPlane) => {
    const other = { port: 81, timeouts: { tcp_syn_recv: 7 } };
    const services = [service([server(1)]), service([server(1)], other)];
    await dataPlane.publish(state(services));
    const left = (port: number): number => {
      send({ clientPort: 40000 + port, port });
      const line = readFileSync(`${ROOT}/connections`, "utf8")
        .split("\n")
        .find((found) => found.includes(`${VIP}:${port}`));
      return Math.round(Number(line?.trim().split(/\s+/)[2]) + 0.5);
    };
    const near = (seconds: number, port: number): boolean => Math.abs(left(port) - seconds) <= 1;
    t.ok(near(60, 80), "tcp_syn_recv");
    t.ok(near(7, 81));
    await dataPlane.publish(state(services, { timeouts: { ...DEFAULT_TIMEOUTS, tcp_syn_recv: 30 } }));
    t.ok(near(30, 80));
    t.ok(near(7, 81), "its own stays");
  });
});

t.test("fullnat takes the local addresses of the network that leads to the real server", async (t) => {
  await withDataPlane(async (dataPlane) => {
    const fullnat = { localAddresses: ["10.1.0.201", "10.77.0.1"], localPorts: [1024, 1033] as const };
    const real = server(3, { method: "fullnat" });
    const desired = state([service([real])], { fullnat });
    await dataPlane.publish(desired);
    let clientPort = 40000;
    const source = (): string => layer(send({ clientPort: clientPort++ }), "ipv4").source;
    t.strictSame(
      [source(), source(), source()],
      Array.from({ length: 3 }, () => "10.1.0.201"),
    );
    t.match(await counters(dataPlane, 3), { localPortsInUse: 3, localPorts: 10 });
    warnings.length = 0;
    for (let n = 0; n < 5; n++) {
      source();
    }
    t.ok(await until(() => warnings.some((text) => text.startsWith("8 of 10 local ports towards"))), "said in time");

    execFileSync("ip", ["address", "add", "10.77.0.254/24", "dev", "x0"]);
    execFileSync("ip", ["route", "replace", `${realAddress(3)}/32`, "dev", "x0"]);
    knowNeighbour(3, "x0");
    t.ok(await until(() => source() === "10.77.0.1"), "and those of another network when the route changes");
    t.match(await counters(dataPlane, 3), { localPorts: 10 });
    t.match(await dataPlane.publish(desired), { writes: 0 });
  });
});
