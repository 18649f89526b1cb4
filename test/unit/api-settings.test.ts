import t from "tap";
import {
  AddressFamily,
  ForwardingMethod,
  Protocol,
  RemovedConnections,
  type Settings,
  type VirtualService,
} from "../../src/api/client.js";
import {
  DEFAULT_SETTINGS,
  DEFAULT_TIMEOUTS,
  SETTING_NAMES,
  TIMEOUT_NAMES,
  validateDesiredState,
} from "../../src/model/index.js";
import { REAL_SERVER, realServer, refusal, SERVICE, service, start } from "./api-server.js";

function settings(message: Partial<Settings>): Settings {
  return { name: "", marks: [], fullnatPools: [], ...message };
}

function seconds(count: number): { seconds: bigint; nanos: number } {
  return { seconds: BigInt(count), nanos: 0 };
}

/** Settings as a client sees them that knows none of their names. */
function byName(message: object): Record<string, unknown> {
  const snake = (name: string): string => name.replaceAll(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`);
  return Object.fromEntries(Object.entries(message).map(([name, value]) => [snake(name), value as unknown]));
}

t.test("settings are told whole, with every default", async (t) => {
  const { client } = await start(t);
  const message = await client.getSettings();
  t.equal(message.name, "settings");
  const told = byName(message);
  t.same(
    SETTING_NAMES.map((name) => told[name]),
    Object.values(DEFAULT_SETTINGS),
  );
  const timeouts = byName(message.timeouts ?? {});
  t.same(
    TIMEOUT_NAMES.map((name) => timeouts[name]),
    Object.values(DEFAULT_TIMEOUTS).map(seconds),
  );
  t.same(message.marks, []);
  t.equal(message.fullnat, undefined);
  t.same(message.fullnatPools, []);
});

t.test("settings are changed by the fields that a mask names", async (t) => {
  const { client, dataPlane, store } = await start(t);
  const update = async (message: Partial<Settings>, ...mask: string[]): Promise<void> => {
    await client.updateSettings(settings(message), mask);
  };
  await update({ connReuseMode: 3, sloppyTcp: 1 }, "conn_reuse_mode");
  t.same(dataPlane.published.settings, { ...DEFAULT_SETTINGS, conn_reuse_mode: 3 }, "the other one is not named");
  await update({ sloppyTcp: 1, icmpRate: 0 });
  const three = { ...DEFAULT_SETTINGS, conn_reuse_mode: 3, sloppy_tcp: 1, icmp_rate: 0 };
  t.same(dataPlane.published.settings, three, "no mask: what is set");
  await update({}, "conn_reuse_mode", "icmp_rate");
  t.same(dataPlane.published.settings, { ...DEFAULT_SETTINGS, sloppy_tcp: 1 }, "named and not set: the default");

  await update({ timeouts: { tcpClose: seconds(7), udp: seconds(8) } }, "timeouts.udp");
  t.same(dataPlane.published.timeouts, { ...DEFAULT_TIMEOUTS, udp: 8 });
  await update({ timeouts: { tcpClose: seconds(7) } });
  t.same(dataPlane.published.timeouts, { ...DEFAULT_TIMEOUTS, udp: 8, tcp_close: 7 }, "no mask: one by one");
  await update({ timeouts: { sctpInit1: seconds(9) } }, "timeouts");
  t.same(dataPlane.published.timeouts, { ...DEFAULT_TIMEOUTS, sctp_init1: 9 }, "all of them: the others have defaults");

  const { publications } = dataPlane;
  const { revision } = store;
  await update({ sloppyTcp: 1, timeouts: { sctpInit1: seconds(9) } });
  t.equal(dataPlane.publications, publications, "what changes nothing is not published");
  t.equal(store.revision, revision);
  await update({}, "*");
  t.same(dataPlane.published.settings, DEFAULT_SETTINGS);
  t.same(dataPlane.published.timeouts, DEFAULT_TIMEOUTS);
});

t.test("mark rules and pools are settings, too, and what does not change keeps its identity", async (t) => {
  const { client, dataPlane } = await start(t);
  const rule = {
    mark: 4294967295,
    family: AddressFamily.UNSPECIFIED,
    protocol: Protocol.SCTP,
    source: "198.18.0.0/15",
    destination: "10.0.0.100",
    sourcePorts: { first: 1024, last: 65535 },
    destinationPorts: { first: 80, last: 80 },
  };
  const pool = { localAddresses: ["10.1.0.1"], localPorts: undefined };
  const wanted = settings({
    marks: [rule],
    fullnat: { name: "", ...pool },
    fullnatPools: [{ name: "blue", localAddresses: ["10.1.0.2"], localPorts: { first: 5000, last: 6000 } }],
  });
  const told = await client.updateSettings(wanted, ["marks", "fullnat", "fullnat_pools"]);
  t.same(told.marks, [{ ...rule, family: AddressFamily.IPV4 }]);
  t.same(told.fullnat, { name: "", ...pool, localPorts: { first: 1024, last: 32767 } });
  t.same(told.fullnatPools, wanted.fullnatPools);
  t.same(await client.getSettings(), told);
  const { marks, pools, services, fullnat } = dataPlane.published;
  t.match(marks, [{ mark: 4294967295, protocol: "sctp", source: { prefixLength: 15 }, destinationPorts: [80, 80] }]);
  t.same(pools, [{ name: "blue", localAddresses: ["10.1.0.2"], localPorts: [5000, 6000] }]);
  t.same(fullnat, { localAddresses: ["10.1.0.1"], localPorts: [1024, 32767] });

  await client.updateSettings(told, ["*"]);
  await client.updateSettings(settings({ sloppySctp: 1 }), []);
  t.equal(dataPlane.published.marks, marks);
  t.equal(dataPlane.published.pools, pools);
  t.equal(dataPlane.published.services, services);
  await client.updateSettings(settings({}), ["marks", "fullnat", "fullnat_pools"]);
  t.same(dataPlane.published.marks, []);
  t.equal(dataPlane.published.fullnat, undefined);
  t.same(dataPlane.published.pools, []);
});

t.test("settings that are not valid, or lack what a service needs, are refused and change nothing", async (t) => {
  const desired = validateDesiredState({
    services: [
      {
        protocol: "tcp",
        address: "10.0.0.100",
        port: 80,
        fullnat_pool: "blue",
        real_servers: [{ address: "10.1.0.11", method: "fullnat" }],
      },
    ],
    fullnat_pools: [{ name: "blue", local_addresses: ["10.1.0.1"] }],
  });
  const { client, dataPlane } = await start(t, desired);
  const rule = {
    mark: 1,
    family: AddressFamily.UNSPECIFIED,
    protocol: Protocol.UNSPECIFIED,
    source: "",
    destination: "",
  };
  const pool = { name: "", localAddresses: ["10.1.0.1"] };
  const rows: [Partial<Settings>, string[], string[]][] = [
    [{ connReuseMode: 4, sloppyTcp: 2 }, [], ["conn_reuse_mode", "sloppy_tcp"].map((f) => `SETTING_OUT_OF_RANGE ${f}`)],
    [{ timeouts: { udp: seconds(0) } }, [], ["DURATION_OUT_OF_RANGE timeouts.udp"]],
    [{ timeouts: { udp: { seconds: 1n, nanos: 5e8 } } }, [], ["DURATION_MALFORMED timeouts.udp"]],
    [{ timeouts: { udp: { seconds: -1n, nanos: 0 } } }, [], ["DURATION_MALFORMED timeouts.udp"]],
    [{ timeouts: { udp: { seconds: 10n ** 11n, nanos: 0 } } }, [], ["DURATION_OUT_OF_RANGE timeouts.udp"]],
    [{ marks: [rule] }, [], ["MISSING_FIELD marks[0].family"]],
    [{ marks: [{ ...rule, mark: 0, source: "10.0.0.0/8" }] }, [], ["MISSING_FIELD marks[0].mark"]],
    [
      { marks: [{ ...rule, source: "10.0.0.0/8", protocol: Protocol.TCP, sourcePorts: { first: 2, last: 1 } }] },
      [],
      ["PORT_RANGE_MALFORMED marks[0].source_ports"],
    ],
    [{ fullnat: { ...pool, name: "red" } }, [], ["UNKNOWN_FIELD fullnat.name"]],
    [{ fullnatPools: [pool] }, [], ["MISSING_FIELD fullnat_pools[0].name"]],
    [{}, ["fullnat_pools"], ["POOL_IN_USE fullnat_pools"]],
    [{ fullnatPools: [{ ...pool, name: "red" }] }, [], ["POOL_IN_USE fullnat_pools"]],
    [{}, ["*"], ["POOL_IN_USE fullnat_pools"]],
    [{ name: "setting" }, [], ["NAME_MALFORMED name"]],
  ];
  for (const [message, mask, fields] of rows) {
    const refused = await refusal(client.updateSettings(settings(message), mask));
    const expected = fields.map((text) => text.replace(" ", " settings."));
    t.same([refused.status, refused.fields], ["INVALID_ARGUMENT", expected], fields.join());
  }
  t.match(await refusal(client.updateSettings(settings({}), ["timeouts.tcp", "drop_entry"])), {
    fields: ["UNKNOWN_FIELD update_mask", "UNKNOWN_FIELD update_mask"],
  });
  t.equal(dataPlane.published, desired);
  dataPlane.failure = Object.assign(new Error("no room"), { code: "CAPACITY_EXCEEDED" });
  t.match(await refusal(client.updateSettings(settings({ sloppyTcp: 1 }), [])), { code: "CAPACITY_EXCEEDED" });
  t.equal((await client.getSettings()).sloppyTcp, 0);
});

t.test("a service says what IPVS's can, and each of it is changed by itself", async (t) => {
  const { client, dataPlane } = await start(
    t,
    validateDesiredState({ fullnat_pools: [{ name: "blue", local_addresses: ["10.1.0.1"] }] }),
  );
  const wanted = service({
    fwmark: 7,
    persistence: { timeout: seconds(60), netmask: "255.255.255.0" },
    onePacket: true,
    timeouts: { udp: seconds(5), sctpClosed: seconds(6) },
    removedConnections: RemovedConnections.KEEP,
    fullnatPool: "blue",
    realServers: [
      realServer({ address: "10.1.0.11", method: ForwardingMethod.NAT, upperThreshold: 8, lowerThreshold: 5 }),
      realServer({ address: "10.1.0.12", port: 8080, method: ForwardingMethod.FULLNAT }),
    ],
  });
  const created = await client.createVirtualService(wanted);
  const { name } = created;
  t.equal(name, "virtualServices/fwmark:7");
  t.match(created, {
    family: AddressFamily.IPV4,
    protocol: Protocol.UNSPECIFIED,
    address: "",
    port: undefined,
    persistence: wanted.persistence,
    onePacket: true,
    timeouts: wanted.timeouts,
    removedConnections: RemovedConnections.KEEP,
    fullnatPool: "blue",
    realServers: [
      { port: 0, upperThreshold: 8, lowerThreshold: 5 },
      { port: 8080, upperThreshold: 0 },
    ],
  });
  t.same(await client.getVirtualService(name), created);
  t.match(dataPlane.published.services, [{ fwmark: 7, timeouts: { udp: 5, sctp_closed: 6 }, fullnatPool: "blue" }]);

  const update = (message: Partial<VirtualService>, ...mask: string[]): Promise<VirtualService> =>
    client.updateVirtualService(service({ name, ...message }), mask);
  const persistence = async (message: Partial<VirtualService>, ...mask: string[]): Promise<unknown> =>
    (await update(message, ...mask)).persistence;
  const minute = { timeout: seconds(60), netmask: "255.255.255.0" };
  t.same(await persistence({ persistence: { timeout: seconds(9), netmask: "" } }, "persistence.timeout"), {
    ...minute,
    timeout: seconds(9),
  });
  t.same(await persistence({ persistence: { netmask: "255.0.0.0" } }), {
    timeout: seconds(9),
    netmask: "255.0.0.0",
  });
  t.same(await persistence({}, "persistence.netmask"), { timeout: seconds(9), netmask: "255.255.255.255" });
  t.same(await persistence({}, "persistence"), undefined);
  t.same(await persistence({}, "persistence.timeout"), undefined, "what is not there has no timeout to reset");
  t.same(await persistence({ persistence: { netmask: "" } }), { timeout: seconds(360), netmask: "255.255.255.255" });

  const timeouts = async (message: Partial<VirtualService>, ...mask: string[]): Promise<unknown> =>
    (await update(message, ...mask)).timeouts;
  t.match(await timeouts({ timeouts: { tcpClose: seconds(1) } }), { udp: seconds(5), tcpClose: seconds(1) });
  t.match(await timeouts({}, "timeouts.udp"), { udp: undefined, tcpClose: seconds(1) });
  t.equal(await timeouts({}, "timeouts"), undefined);

  t.match(await update({ onePacket: false }), { onePacket: false }, "false is set");
  t.match(await update({ onePacket: true }, "one_packet"), { onePacket: true });
  t.match(await update({}, "one_packet", "removed_connections"), {
    onePacket: false,
    removedConnections: RemovedConnections.UNSPECIFIED,
  });
  t.match(await refusal(update({ fullnatPool: "red" })), { fields: ["UNKNOWN_POOL virtual_service.fullnat_pool"] });
  t.match(await refusal(update({}, "fullnat_pool")), {
    fields: ["FULLNAT_WITHOUT_LOCAL_ADDRESSES virtual_service.real_servers[1].method"],
  });
  t.match(await refusal(update({ fwmark: 8 })), { fields: ["IMMUTABLE_FIELD virtual_service.fwmark"] });
  t.match(await update({ fwmark: 7, family: AddressFamily.IPV4 }), { name }, "what it is already");
  const refused = await refusal(client.createVirtualService(service({ fwmark: 9, protocol: Protocol.TCP, port: 0 })));
  t.same(
    refused.fields,
    ["protocol", "port"].map((field) => `FWMARK_NOT_ALONE virtual_service.${field}`),
  );
});

t.test("a service of every port is one whose port is 0, not one whose port is left out", async (t) => {
  const { client } = await start(t);
  const every = service({ protocol: Protocol.SCTP, address: "10.0.0.100" });
  t.match(await refusal(client.createVirtualService(every)), { fields: ["MISSING_FIELD virtual_service.port"] });
  const created = await client.createVirtualService({ ...every, port: 0 });
  t.match(created, { name: "virtualServices/sctp:10.0.0.100:0", port: 0, protocol: Protocol.SCTP });
  const real = realServer({ address: "10.1.0.11", method: ForwardingMethod.NAT });
  t.match(await client.createRealServer(created.name, real), {
    name: `${created.name}/realServers/10.1.0.11:0`,
    port: 0,
  });
  t.match(await refusal(client.createRealServer(created.name, { ...real, port: 80 })), {
    fields: ["PORT_MAPPING_IMPOSSIBLE real_server.port"],
  });
});

t.test("thresholds are changed by themselves", async (t) => {
  const { client, dataPlane } = await start(t);
  const update = (message: Parameters<typeof realServer>[0], ...mask: string[]) =>
    client.updateRealServer(realServer({ name: REAL_SERVER, ...message }), mask);
  t.match(await update({ upperThreshold: 8, lowerThreshold: 4 }), { upperThreshold: 8, lowerThreshold: 4, weight: 3 });
  t.match(dataPlane.published.services[0]?.realServers[0], { upperThreshold: 8, lowerThreshold: 4 });
  t.match(await refusal(update({ upperThreshold: 3 }, "upper_threshold")), {
    fields: ["LOWER_THRESHOLD_TOO_HIGH real_server.lower_threshold"],
  });
  t.match(await update({}, "upper_threshold", "lower_threshold"), { upperThreshold: 0, lowerThreshold: 0 });
  t.match(await client.getVirtualService(SERVICE), { realServers: [{ upperThreshold: 0 }, { upperThreshold: 0 }] });
});
