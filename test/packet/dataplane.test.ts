/** The control plane's half of the data plane against the kernel: loading, adopting, publishing, refusing, unloading. */
import "./own-namespace.js";
import { execFileSync, spawnSync } from "node:child_process";
import { existsSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { setTimeout as sleep } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { BpfMap, interfaceIndex, Link, Program } from "libbpf-ts";
import t from "tap";
import { DataPlane, type DataPlaneOptions } from "../../src/dataplane/index.js";
import { type Identity, type Maps, RealServerState } from "../../src/dataplane/sluice.bpf.js";
import {
  type DesiredState,
  EMPTY_STATE,
  type RealServer,
  type RealServerCounters,
  type VirtualService,
} from "../../src/model/index.js";
import { build } from "./frame.js";
import { CLIENT, INTERFACES, network, ROUTER_MAC, realAddress, realMac, VIP } from "./network.js";

const INSTANCE = `dataplane-test-${process.pid}`;
const ROOT = `/sys/fs/bpf/${INSTANCE}`;
const SERVICE = `tcp:${VIP}:80`;
const LIMITS = { connections: 1024, services: 16, realServers: 64, ringSlots: 8192 };

const logged: string[] = [];
const log = {
  debug: () => undefined,
  info: () => undefined,
  warn: (_: object, message: string) => {
    logged.push(message);
  },
  error: (fields: object, message: string) => {
    logged.push(message);
    t.fail(message, fields);
  },
};

function options(more: Partial<DataPlaneOptions> = {}): DataPlaneOptions {
  const interfaces = [{ name: "c0", mode: "native" as const }];
  return { instance: INSTANCE, interfaces, limits: LIMITS, log, ...more };
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

function state(...realServers: RealServer[]): DesiredState {
  return { ...EMPTY_STATE, services: [service(80, realServers)] };
}

function service(port: number, realServers: readonly RealServer[]): VirtualService {
  return { protocol: "tcp", address: VIP, port, scheduler: "rr", schedulerFlags: [], onePacket: false, realServers };
}

/** Whether a client's SYN is forwarded, by the pinned program. */
function forwards(port: number): boolean {
  using program = Program.open(`${ROOT}/programs/sluice`);
  const { returnValue } = program.testRun({
    data: build([
      { kind: "ethernet", destination: INTERFACES.c0.mac, source: ROUTER_MAC },
      { kind: "ipv4", source: CLIENT, destination: VIP, id: 1 },
      { kind: "tcp", sourcePort: port, destinationPort: 80, sequence: 1000, flags: "S", window: 64240 },
    ]),
  });
  return returnValue === XDP_REDIRECT;
}
const XDP_REDIRECT = 4;

function programOn(name: string): number {
  using link = Link.open(`${ROOT}/links/${name}`);
  return link.info().programId;
}

function pinnedProgram(): number {
  using program = Program.open(`${ROOT}/programs/sluice`);
  return program.id;
}

function attached(name: string): boolean {
  return execFileSync("ip", ["link", "show", "dev", name], { encoding: "utf8" }).includes("prog/xdp");
}

async function realServers(dataPlane: DataPlane): Promise<[name: string, counters: RealServerCounters][]> {
  return [...(await dataPlane.serviceCounters(SERVICE))!.realServers];
}

function knowNeighbour(n: number): void {
  const neighbour = [realAddress(n), "lladdr", realMac(n), "dev", "r0", "nud", "permanent"];
  execFileSync("ip", ["neighbour", "replace", ...neighbour]);
}

network();
for (const n of [1, 2, 3, 4]) {
  knowNeighbour(n);
}

t.teardown(() => DataPlane.unload({ instance: INSTANCE }));

t.test("a first start pins everything, attaches and publishes", async (t) => {
  const dataPlane = await DataPlane.open(options());
  try {
    t.strictSame(readdirSync(ROOT).sort(), ["connections", "links", "maps", "programs"]);
    t.strictSame(readdirSync(`${ROOT}/programs`).sort(), ["open_connection", "resolve_route", "sluice", "sweep"]);
    t.strictSame(readdirSync(`${ROOT}/links`), ["c0"]);
    t.ok(existsSync(`${ROOT}/maps/connection_table`));
    t.notOk(existsSync(`${ROOT}~starting`));
    t.ok(attached("c0"));
    t.equal(programOn("c0"), pinnedProgram());

    const report = await dataPlane.publish(state(server(1), server(2)));
    t.match(report, {
      services: { added: [SERVICE], changed: [], removed: [] },
      realServers: { added: [`${SERVICE} 10.1.0.11:8080`, `${SERVICE} 10.1.0.12:8080`] },
      unresolved: [],
    });
    t.ok(forwards(40000));
    t.ok(forwards(40001));
    t.match(await dataPlane.serviceCounters(SERVICE), { connections: 2n, inPackets: 2n, inBytes: 80n });
    for (const [name, counters] of await realServers(dataPlane)) {
      t.match(counters, { connections: 1n, active: 1, inactive: 0 }, name);
    }
    t.equal(await dataPlane.serviceCounters("tcp:10.0.0.100:81"), undefined);
    t.strictSame(dataPlane.drops()["next_hop_unresolved"], { packets: 0n, bytes: 0n });
    t.match(readFileSync(`${ROOT}/connections`, "utf8"), /198\.18\.0\.1/);
  } finally {
    await dataPlane.close();
  }
  t.ok(forwards(40000), "closing leaves it forwarding");
});

t.test("next hops are what the kernel's tables say", async (t) => {
  using map = BpfMap.open<Maps["real_servers"]["key"], Maps["real_servers"]["value"]>(`${ROOT}/maps/real_servers`);
  const hop = map.get(0)!;
  t.equal(hop.ifindex, interfaceIndex("r0"));
  t.equal(Buffer.from(hop.destination_mac).toString("hex"), realMac(1).replaceAll(":", ""));
  t.equal(Buffer.from(hop.source_mac).toString("hex"), INTERFACES.r0.mac.replaceAll(":", ""));
  t.equal(hop.mtu, 1500);
  t.strictSame([...hop.director.bytes.subarray(0, 4)], [10, 1, 0, 1]);
});

t.test("a restart adopts what is pinned and replaces the program in place", async (t) => {
  const before = pinnedProgram();
  const dataPlane = await DataPlane.open(options());
  try {
    t.not(pinnedProgram(), before);
    t.equal(programOn("c0"), pinnedProgram());
    t.match(
      (await realServers(dataPlane)).map(([, { active }]) => active),
      [1, 1],
      "connections stay",
    );
    const report = await dataPlane.publish(state(server(1), server(2)));
    t.equal(report.writes, 0);
    t.strictSame(report.services, { added: [], changed: [], removed: [] });
  } finally {
    await dataPlane.close();
  }
});

t.test(
  "an upgrade that dies before its last step leaves packets opening connections, and the next one clears up",
  async (t) => {
    const both = options({ interfaces: ["c0", "r0"].map((name) => ({ name, mode: "native" as const })) });
    await (await DataPlane.open(both)).close();
    const before = pinnedProgram();
    const programTables = (): string[] => readdirSync(`${ROOT}/maps`).filter((name) => name.startsWith("ways"));
    const dying = fileURLToPath(new URL("dying-start.js", import.meta.url));
    const { signal } = spawnSync(process.execPath, [dying, JSON.stringify({ instance: INSTANCE, limits: LIMITS })]);
    t.equal(signal, "SIGKILL");
    t.not(programOn("c0"), before, "the interface runs the new program");
    t.equal(programOn("c0"), pinnedProgram());
    t.ok(forwards(40010), "which finds its way");
    t.equal(programTables().length, 2);
    await (await DataPlane.open(options())).close();
    t.strictSame(programTables(), ["ways"]);
    t.ok(forwards(40011));
  },
);

t.test("interfaces come and go with the configuration", async (t) => {
  const both = options({ interfaces: ["c0", "r0"].map((name) => ({ name, mode: "native" as const })) });
  await (await DataPlane.open(both)).close();
  t.ok(attached("c0") && attached("r0"));
  await (await DataPlane.open(options())).close();
  t.ok(attached("c0"));
  t.notOk(attached("r0"));
  t.strictSame(readdirSync(`${ROOT}/links`), ["c0"]);
});

/** Takes the service out of its array, but not out of the index that leads to it. */
function removeService(): () => void {
  using services = BpfMap.open(`${ROOT}/maps/services`);
  const key = new Uint8Array(4);
  const before = services.getRaw(key)!;
  services.setRaw(key, new Uint8Array(before.length));
  return () => {
    using again = BpfMap.open(`${ROOT}/maps/services`);
    again.setRaw(key, before);
  };
}

/** An interface of which the peer's packets are too long for XDP in native mode. */
function wide(): () => void {
  execFileSync("ip", ["link", "add", "wide0", "type", "veth", "peer", "name", "wide1", "mtu", "9000"]);
  return () => {
    execFileSync("ip", ["link", "delete", "wide0"]);
  };
}

t.test("a start that fails leaves what runs as it was", async (t) => {
  using other = Program.open(`${ROOT}/programs/resolve_route`);
  using busy = await Link.attachXdp(other, interfaceIndex("x0"), { mode: "generic" });
  t.ok(busy.info().ifindex);
  const before = pinnedProgram();
  const native = (name: string): { name: string; mode: "native" } => ({ name, mode: "native" });
  using identities = BpfMap.open<number, Identity>(`${ROOT}/maps/identity`);
  const identity = identities.get(0)!;
  const withIdentity = (changed: Identity) => () => {
    identities.set(0, changed);
    return () => {
      identities.set(0, identity);
    };
  };
  const rows: {
    readonly why: string;
    /** Done before; returns what takes it back. */
    readonly prepare?: () => () => void;
    readonly more: Partial<DataPlaneOptions>;
    readonly expected: { readonly code: string; readonly [field: string]: string | number | RegExp };
  }[] = [
    {
      why: "another number of connections",
      more: { limits: { ...LIMITS, connections: 2048 } },
      expected: {
        code: "LIMITS_DIFFER",
        field: "limits.connections",
        wanted: 2048,
        available: 1032,
        message: /is 2048, .* loaded with a value from 1021 to 1032,/,
      },
    },
    {
      why: "pins of another build",
      prepare: withIdentity({ ...identity, abi_version: 999 as Identity["abi_version"] }),
      more: {},
      expected: { code: "ABI_DIFFERS", wanted: identity.abi_version, available: 999 },
    },
    {
      why: "maps that contradict themselves",
      prepare: removeService,
      more: {},
      expected: { code: "PINS_DAMAGED", message: /service_index has tcp:10\.0\.0\.100:80/ },
    },
    {
      why: "an interface whose driver cannot",
      prepare: wide,
      more: { interfaces: [native("c0"), native("r0"), native("wide0")] },
      expected: { code: "XDP_NOT_SUPPORTED", wanted: "wide0" },
    },
    {
      why: "a stop meanwhile",
      more: { signal: AbortSignal.abort(Object.assign(new Error("stopping"), { code: "STOPPING" })) },
      expected: { code: "STOPPING" },
    },
    {
      why: "another number of real servers",
      more: { limits: { ...LIMITS, realServers: 65 } },
      expected: { code: "LIMITS_DIFFER", field: "limits.real_servers", wanted: 65, available: 64 },
    },
    {
      why: "another number of slots",
      more: { limits: { ...LIMITS, ringSlots: 100_000 } },
      expected: { code: "LIMITS_DIFFER", field: "limits.ring_slots", wanted: 100_000, available: 8192 },
    },
    {
      why: "no such interface",
      more: { interfaces: [native("c0"), native("nosuch")] },
      expected: { code: "WRONG_INTERFACE", wanted: "nosuch" },
    },
    {
      why: "an interface with another program",
      more: { interfaces: [native("c0"), native("r0"), native("x0")] },
      expected: { code: "INTERFACE_BUSY", wanted: "x0" },
    },
    {
      why: "another mode",
      more: { interfaces: [{ name: "c0", mode: "generic" as const }] },
      expected: { code: "MODE_DIFFERS", wanted: "generic", available: "native" },
    },
    {
      why: "no object",
      more: { objectPath: "/nonexistent.o" },
      expected: { code: "LOAD_FAILED" },
    },
    {
      why: "an object that is none",
      more: { objectPath: "/etc/passwd" },
      expected: { code: "LOAD_FAILED" },
    },
    {
      why: "no BPF file system",
      more: { bpffs: "/tmp" },
      expected: { code: "BPFFS_NOT_MOUNTED", remedy: "run `mount -t bpf bpf /tmp`" },
    },
  ];
  let port = 41000;
  for (const { why, prepare, more, expected } of rows) {
    const takeBack = prepare?.();
    await t.rejects(DataPlane.open(options(more)), expected, why);
    takeBack?.();
    t.equal(pinnedProgram(), before, "the same program");
    t.equal(programOn("c0"), before, "on its interface");
    t.notOk(attached("r0"), "and nowhere else");
    t.ok(forwards(port++), "forwarding");
  }
});

t.test("a first start that fails leaves nothing", async (t) => {
  const instance = `${INSTANCE}-failing`;
  using other = Program.open(`${ROOT}/programs/resolve_route`);
  using busy = await Link.attachXdp(other, interfaceIndex("x0"), { mode: "generic" });
  t.ok(busy.info().ifindex);
  const interfaces = ["r0", "x0"].map((name) => ({ name, mode: "native" as const }));
  await t.rejects(DataPlane.open(options({ instance, interfaces })), { code: "INTERFACE_BUSY" });
  t.notOk(attached("r0"));
  t.strictSame(
    readdirSync("/sys/fs/bpf").filter((name) => name.startsWith(instance)),
    [],
  );
});

t.test("a publish that does not fit changes nothing", async (t) => {
  const dataPlane = await DataPlane.open(options());
  try {
    await dataPlane.publish(state(server(1), server(2)));
    const services = Array.from({ length: 17 }, (_, index) => service(80 + index, [server(1)]));
    await t.rejects(dataPlane.publish({ ...EMPTY_STATE, services }), {
      code: "CAPACITY_EXCEEDED",
      field: "limits.services",
      wanted: 17,
      available: 16,
    });
    t.ok(forwards(42000));
    const report = await dataPlane.publish(state(server(1), server(2)));
    t.strictSame(report.services, { added: [], changed: [], removed: [] });
  } finally {
    await dataPlane.close();
  }
});

t.test("publishes take their turns", async (t) => {
  const dataPlane = await DataPlane.open(options());
  try {
    const states = [state(server(1), server(2)), state(server(1), server(2), server(3)), state(server(1), server(2))];
    const reports = await Promise.all(states.map((desired) => dataPlane.publish(desired)));
    t.strictSame(
      reports.map(({ realServers: { added, removed } }) => [added.length, removed.length]),
      [
        [0, 0],
        [1, 0],
        [0, 1],
      ],
    );
  } finally {
    await dataPlane.close();
  }
  await t.rejects(dataPlane.publish(state(server(1))), { code: "CLOSED" });
  await t.rejects(dataPlane.serviceCounters(SERVICE), { code: "CLOSED" });
  t.throws(() => dataPlane.drops(), { code: "CLOSED" });
});

t.test("a real server that returns has its connections back", async (t) => {
  const dataPlane = await DataPlane.open(options());
  try {
    // A connection of its own: where the machine is slow, what earlier tests opened is over by now.
    await dataPlane.publish(state(server(1)));
    t.ok(forwards(40100));
    await dataPlane.publish(state(server(1), server(2)));
    const before = new Map(await realServers(dataPlane));
    await dataPlane.publish(state(server(2)));
    using map = BpfMap.open<Maps["real_servers"]["key"], Maps["real_servers"]["value"]>(`${ROOT}/maps/real_servers`);
    t.equal(map.get(0)?.state, RealServerState.REAL_REMOVED);
    t.notOk(forwards(40100), "its connections are dropped");
    t.equal(dataPlane.drops()["real_server_removed"]?.packets, 1n);
    t.strictSame(
      (await realServers(dataPlane)).map(([name]) => name),
      ["10.1.0.12:8080"],
    );
    await dataPlane.publish(state(server(2), server(1)));
    t.equal(map.get(0)?.state, RealServerState.REAL_ACTIVE);
    t.ok(forwards(40100));
    const after = new Map(await realServers(dataPlane)).get("10.1.0.11:8080");
    t.equal(after?.connections, before.get("10.1.0.11:8080")?.connections, "it was not opened anew");
  } finally {
    await dataPlane.close();
  }
});

t.test("a neighbour that is not known is asked for, and used once it answers", async (t) => {
  const dataPlane = await DataPlane.open(options());
  try {
    const report = await dataPlane.publish(state(server(1), server(2), server(5)));
    t.strictSame(report.unresolved, [`${SERVICE} 10.1.0.15:8080`]);
    const neighbours = execFileSync("ip", ["neighbour", "show", "dev", "r0", "nud", "all"], { encoding: "utf8" });
    t.match(neighbours, /10\.1\.0\.15 /, "the kernel was made to ask");
    knowNeighbour(5);
    using map = BpfMap.open<Maps["real_servers"]["key"], Maps["real_servers"]["value"]>(`${ROOT}/maps/real_servers`);
    const find = (): number | undefined =>
      [...map.entries()].find(
        ([, { address }]) => Buffer.from(address.bytes.subarray(0, 4)).join(".") === realAddress(5),
      )?.[1].ifindex;
    for (let wait = 0; wait < 60 && find() === 0; wait++) {
      await sleep(50);
    }
    t.equal(find(), interfaceIndex("r0"));
  } finally {
    await dataPlane.close();
  }
});

t.test("a director that is no router finds the next hops of its real servers by the loopback interface", async (t) => {
  const setting = (name: string, value: number): void => {
    writeFileSync(`/proc/sys/net/ipv4/${name}`, `${String(value)}\n`);
  };
  setting("ip_forward", 0);
  logged.length = 0;
  try {
    const off = await DataPlane.open(options());
    const report = await off.publish(state(server(1, { method: "dr", port: 80 })));
    t.strictSame(report.unresolved, [`${SERVICE} 10.1.0.11:80`]);
    await off.close();
    t.match(logged[0], /forwarding is off/);
    logged.length = 0;
    setting("conf/lo/forwarding", 1);
    const on = await DataPlane.open(options());
    t.strictSame(
      (await on.publish(state(server(1, { method: "dr", port: 80 }), server(2, { method: "tun", port: 80 }))))
        .unresolved,
      [],
    );
    await on.close();
    t.strictSame(logged, []);
  } finally {
    setting("ip_forward", 1);
  }
});

t.test("unloading leaves nothing", async (t) => {
  t.strictSame(await DataPlane.unload({ instance: INSTANCE }), { loaded: true, interfaces: ["c0"] });
  t.notOk(existsSync(ROOT));
  t.notOk(attached("c0"));
  t.strictSame(await DataPlane.unload({ instance: INSTANCE }), { loaded: false, interfaces: [] });
});
