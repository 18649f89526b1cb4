import { lstatSync, renameSync, symlinkSync, writeFileSync } from "node:fs";
import { createServer } from "node:net";
import { join } from "node:path";
import { Client, credentials, Metadata, status } from "@grpc/grpc-js";
import t from "tap";
import {
  AddressFamily,
  ApiClient,
  ForwardingMethod,
  Protocol,
  RemovedConnections,
  SCHEDULER_MESSAGES,
  Scheduler,
  SchedulerFlag,
  type VirtualService,
} from "../../src/api/client.js";
import { FILE_DESCRIPTORS } from "../../src/api/gen/file-descriptors.js";
import { DirectorServiceClient } from "../../src/api/gen/sluice/v1/director_service.js";
import { ApiServer } from "../../src/api/server.js";
import { SCHEDULERS, validateDesiredState } from "../../src/model/index.js";
import { initial, REAL_SERVER, realServer, refusal, SERVICE, service, start } from "./api-server.js";

t.test("virtual services are created, read, listed, updated and deleted", async (t) => {
  const { client, dataPlane } = await start(t);
  const created = await client.createVirtualService(
    service({
      protocol: Protocol.UDP,
      address: "10.0.0.100",
      port: 53,
      realServers: [realServer({ address: "10.1.0.11", method: ForwardingMethod.TUN })],
    }),
  );
  t.same(created, {
    name: "virtualServices/udp:10.0.0.100:53",
    protocol: Protocol.UDP,
    address: "10.0.0.100",
    port: 53,
    scheduler: Scheduler.MH,
    schedulerFlags: { flags: [SchedulerFlag.MH_FALLBACK] },
    tableSize: undefined,
    fwmark: 0,
    family: AddressFamily.UNSPECIFIED,
    persistence: undefined,
    onePacket: false,
    timeouts: undefined,
    removedConnections: RemovedConnections.UNSPECIFIED,
    fullnatPool: "",
    realServers: [
      {
        name: "virtualServices/udp:10.0.0.100:53/realServers/10.1.0.11:53",
        address: "10.1.0.11",
        port: 53,
        method: ForwardingMethod.TUN,
        weight: 1,
        upperThreshold: 0,
        lowerThreshold: 0,
      },
    ],
  });
  t.equal(dataPlane.published.services.length, 2);
  t.equal(dataPlane.published.services[0], initial.services[0], "what did not change is the same object");
  t.same(await client.getVirtualService(created.name), created);
  t.same(
    (await client.listVirtualServices()).map(({ name }) => name),
    [SERVICE, created.name],
  );

  const before = dataPlane.published.services[1];
  const updated = await client.updateVirtualService(
    service({ name: created.name, scheduler: Scheduler.MH, tableSize: 251 }),
    ["scheduler", "table_size"],
  );
  t.equal(updated.tableSize, 251);
  t.equal(dataPlane.published.services[1]?.realServers, before?.realServers);
  const wrr = await client.updateVirtualService(service({ name: created.name, scheduler: Scheduler.WRR }), [
    "scheduler",
  ]);
  t.match(wrr, { scheduler: Scheduler.WRR, tableSize: undefined }, "the table goes with its scheduler");
  const replaced = await client.updateVirtualService(service({ ...created, realServers: [], tableSize: 509 }), ["*"]);
  t.match(replaced, { scheduler: Scheduler.MH, tableSize: 509 });
  t.same(replaced.realServers, []);
  const populated = await client.updateVirtualService(service({ name: created.name, scheduler: Scheduler.RR }), []);
  t.match(populated, { scheduler: Scheduler.RR }, "no mask: what is set");

  const scheduled = async (message: Partial<VirtualService>, ...mask: string[]): Promise<object> => {
    const { scheduler, schedulerFlags } = await client.updateVirtualService(
      service({ name: created.name, ...message }),
      mask,
    );
    return { scheduler, flags: schedulerFlags?.flags };
  };
  const flagRows: [Partial<VirtualService>, string[], Scheduler, SchedulerFlag[] | undefined, string][] = [
    [{ scheduler: Scheduler.SH }, ["scheduler"], Scheduler.SH, [SchedulerFlag.SH_FALLBACK], "the scheduler's default"],
    [{ schedulerFlags: { flags: [] } }, ["scheduler_flags"], Scheduler.SH, [], "IPVS's own: none"],
    [{ schedulerFlags: { flags: [] } }, [], Scheduler.SH, [], "an empty set is set"],
    [{ scheduler: Scheduler.SH }, ["scheduler"], Scheduler.SH, [], "kept with the scheduler"],
    [{}, ["scheduler_flags"], Scheduler.SH, [SchedulerFlag.SH_FALLBACK], "cleared: the default"],
    [{ scheduler: Scheduler.TWOS }, ["scheduler"], Scheduler.TWOS, undefined, "has none"],
    [{ scheduler: Scheduler.RR }, ["scheduler"], Scheduler.RR, undefined, "has none"],
  ];
  for (const [message, mask, scheduler, flags, why] of flagRows) {
    t.same(await scheduled(message, ...mask), { scheduler, flags }, why);
  }
  t.match(await refusal(scheduled({ schedulerFlags: { flags: [SchedulerFlag.MH_PORT] } })), {
    fields: ["SCHEDULER_FLAG_NOT_APPLICABLE virtual_service.scheduler_flags[0]"],
  });

  const { publications } = dataPlane;
  await client.updateVirtualService(service({ name: created.name, scheduler: Scheduler.RR }), ["scheduler"]);
  t.equal(dataPlane.publications, publications, "what changes nothing is not published");

  for (const scheduler of SCHEDULERS) {
    const message = service({ name: created.name, scheduler: SCHEDULER_MESSAGES[scheduler] });
    await client.updateVirtualService(message, ["scheduler"]);
    t.equal(dataPlane.published.services[1]?.scheduler, scheduler);
  }

  await client.deleteVirtualService(created.name);
  t.same(dataPlane.published.services, initial.services);
  t.match(await refusal(client.getVirtualService(created.name)), { code: "NOT_FOUND", status: "NOT_FOUND" });
});

t.test("real servers are created, read, listed, updated and deleted", async (t) => {
  const { client, dataPlane } = await start(t);
  const created = await client.createRealServer(
    SERVICE,
    realServer({ address: "10.1.0.13", method: ForwardingMethod.NAT, weight: 0 }),
  );
  t.same(created, {
    name: `${SERVICE}/realServers/10.1.0.13:80`,
    address: "10.1.0.13",
    port: 80,
    method: ForwardingMethod.NAT,
    weight: 0,
    upperThreshold: 0,
    lowerThreshold: 0,
  });
  t.same(await client.getRealServer(created.name), created);
  t.equal((await client.listRealServers(SERVICE)).length, 3);
  const updated = await client.updateRealServer(realServer({ name: REAL_SERVER, weight: 0 }), ["weight"]);
  t.match(updated, { weight: 0, method: ForwardingMethod.NAT });
  t.equal(dataPlane.published.services[0]?.realServers[1]?.weight, 0, "after the one that was added last");
  t.equal(
    dataPlane.published.services[0]?.realServers[2],
    initial.services[0]?.realServers[1],
    "the others are the same objects",
  );
  t.match(
    await client.updateRealServer(realServer({ name: REAL_SERVER, weight: 7 }), []),
    { weight: 7 },
    "no mask: what is set",
  );
  t.match(await client.updateRealServer(realServer({ name: REAL_SERVER, method: ForwardingMethod.NAT }), ["*"]), {
    weight: 1,
  });
  await client.deleteRealServer(created.name);
  t.equal((await client.listRealServers(SERVICE)).length, 2);
});

t.test("what is refused has a status, a code and fields, and changes nothing", async (t) => {
  const { client, dataPlane } = await start(t);
  const { publications } = dataPlane;
  const valid = service({ protocol: Protocol.TCP, address: "10.0.0.101", port: 80 });
  const rows: [string, Promise<unknown>, string, string, string[]][] = [
    [
      "an empty service",
      client.createVirtualService(service({})),
      "INVALID_ARGUMENT",
      "MISSING_FIELD",
      [
        "MISSING_FIELD virtual_service.protocol",
        "MISSING_FIELD virtual_service.address",
        "MISSING_FIELD virtual_service.port",
      ],
    ],
    [
      "a port of 70000",
      client.createVirtualService({ ...valid, port: 70000 }),
      "INVALID_ARGUMENT",
      "PORT_OUT_OF_RANGE",
      ["PORT_OUT_OF_RANGE virtual_service.port"],
    ],
    [
      "an IPv6 VIP",
      client.createVirtualService({ ...valid, address: "2001:db8::1" }),
      "INVALID_ARGUMENT",
      "UNSUPPORTED_ADDRESS_FAMILY",
      ["UNSUPPORTED_ADDRESS_FAMILY virtual_service.address"],
    ],
    [
      "a real server within",
      client.createVirtualService({
        ...valid,
        realServers: [realServer({ address: "10.1.0.11", port: 0, method: ForwardingMethod.NAT })],
      }),
      "INVALID_ARGUMENT",
      "PORT_OUT_OF_RANGE",
      ["PORT_OUT_OF_RANGE virtual_service.real_servers[0].port"],
    ],
    [
      "fullnat without a pool",
      client.createVirtualService({
        ...valid,
        realServers: [realServer({ address: "10.1.0.11", method: ForwardingMethod.FULLNAT })],
      }),
      "INVALID_ARGUMENT",
      "FULLNAT_WITHOUT_LOCAL_ADDRESSES",
      ["FULLNAT_WITHOUT_LOCAL_ADDRESSES virtual_service.real_servers[0].method"],
    ],
    [
      "a second of a name",
      client.createVirtualService({ ...valid, address: "10.0.0.100" }),
      "ALREADY_EXISTS",
      "ALREADY_EXISTS",
      [],
    ],
    ["a name of nothing", client.getVirtualService("virtualServices/tcp:10.0.0.9:80"), "NOT_FOUND", "NOT_FOUND", []],
    ["no name", client.getVirtualService(""), "INVALID_ARGUMENT", "MISSING_FIELD", ["MISSING_FIELD name"]],
    [
      "a malformed name",
      client.getVirtualService("virtualServices/web"),
      "INVALID_ARGUMENT",
      "NAME_MALFORMED",
      ["NAME_MALFORMED name"],
    ],
    [
      "another resource's name",
      client.deleteVirtualService(REAL_SERVER),
      "INVALID_ARGUMENT",
      "NAME_MALFORMED",
      ["NAME_MALFORMED name"],
    ],
    [
      "a field that is part of the name",
      client.updateVirtualService(service({ name: SERVICE, port: 81 }), ["port"]),
      "INVALID_ARGUMENT",
      "IMMUTABLE_FIELD",
      ["IMMUTABLE_FIELD virtual_service.port"],
    ],
    [
      "an unknown field in the mask",
      client.updateVirtualService(service({ name: SERVICE }), ["schedulr"]),
      "INVALID_ARGUMENT",
      "UNKNOWN_FIELD",
      ["UNKNOWN_FIELD update_mask"],
    ],
    [
      "a table for wrr",
      client.updateVirtualService(service({ name: SERVICE, tableSize: 251 }), ["table_size"]),
      "INVALID_ARGUMENT",
      "TABLE_SIZE_NOT_APPLICABLE",
      ["TABLE_SIZE_NOT_APPLICABLE virtual_service.table_size"],
    ],
    [
      "an update of nothing",
      client.updateVirtualService(service({ name: "virtualServices/tcp:10.0.0.9:80" }), []),
      "NOT_FOUND",
      "NOT_FOUND",
      [],
    ],
    [
      "a weight of 65536",
      client.updateRealServer(realServer({ name: REAL_SERVER, weight: 65536 }), ["weight"]),
      "INVALID_ARGUMENT",
      "WEIGHT_OUT_OF_RANGE",
      ["WEIGHT_OUT_OF_RANGE real_server.weight"],
    ],
    [
      "port mapping by dr",
      client.updateRealServer(realServer({ name: REAL_SERVER, method: ForwardingMethod.DR }), ["method"]),
      "INVALID_ARGUMENT",
      "PORT_MAPPING_IMPOSSIBLE",
      ["PORT_MAPPING_IMPOSSIBLE real_server.port"],
    ],
    [
      "a method of none",
      client.updateRealServer(realServer({ name: REAL_SERVER }), ["method"]),
      "INVALID_ARGUMENT",
      "MISSING_FIELD",
      ["MISSING_FIELD real_server.method"],
    ],
    [
      "fullnat by update",
      client.updateRealServer(realServer({ name: REAL_SERVER, method: ForwardingMethod.FULLNAT }), ["method"]),
      "INVALID_ARGUMENT",
      "FULLNAT_WITHOUT_LOCAL_ADDRESSES",
      ["FULLNAT_WITHOUT_LOCAL_ADDRESSES real_server.method"],
    ],
    [
      "a second real server",
      client.createRealServer(SERVICE, realServer({ address: "10.1.0.12", method: ForwardingMethod.NAT })),
      "ALREADY_EXISTS",
      "ALREADY_EXISTS",
      [],
    ],
    [
      "a real server of nothing",
      client.createRealServer(
        "virtualServices/tcp:10.0.0.9:80",
        realServer({ address: "10.1.0.12", method: ForwardingMethod.NAT }),
      ),
      "NOT_FOUND",
      "NOT_FOUND",
      [],
    ],
    [
      "a deletion of nothing",
      client.deleteRealServer(`${SERVICE}/realServers/10.1.0.99:80`),
      "NOT_FOUND",
      "NOT_FOUND",
      [],
    ],
    [
      "statistics of a service's name",
      client.getVirtualServiceStatistics(SERVICE),
      "INVALID_ARGUMENT",
      "NAME_MALFORMED",
      ["NAME_MALFORMED name"],
    ],
  ];
  for (const [what, call, grpcStatus, code, fields] of rows) {
    t.same(await refusal(call), { status: grpcStatus, code, fields }, what);
  }
  t.equal(dataPlane.publications, publications);
  t.equal(dataPlane.published, initial);

  const many = Array.from({ length: 5000 }, (_, i) =>
    realServer({ address: `10.9.${i >> 8}.${i & 255}`, port: 70000 }),
  );
  const refused = await refusal(client.createVirtualService({ ...valid, realServers: many }));
  t.match(refused, { status: "INVALID_ARGUMENT" }, "10,000 violations are still an answer");
  t.ok(refused.fields.length > 10 && refused.fields.length < 100, "told in part");

  const huge = Array.from({ length: 100_000 }, () => realServer({ address: "10.9.0.1", name: "x".repeat(60) }));
  t.match(await refusal(client.createVirtualService({ ...valid, realServers: huge })), {
    status: "RESOURCE_EXHAUSTED",
  });
});

t.test("a change that the data plane or the store refuses leaves everything as it was", async (t) => {
  const { client, dataPlane, store } = await start(t);
  const update = () => client.updateRealServer(realServer({ name: REAL_SERVER, weight: 9 }), ["weight"]);
  dataPlane.failure = Object.assign(new Error("limits.services: no room"), { code: "CAPACITY_EXCEEDED" });
  t.match(await refusal(update()), { status: "RESOURCE_EXHAUSTED", code: "CAPACITY_EXCEEDED" });
  dataPlane.failure = new Error("never seen before");
  t.match(await refusal(update()), { status: "INTERNAL", code: "INTERNAL" });
  t.equal(dataPlane.published, initial);
  t.equal(store.desired, initial);
  t.equal(store.revision, 1);
  t.equal((await client.getRealServer(REAL_SERVER)).weight, 3);
  t.equal((await update()).weight, 9, "and the next one takes effect");
  t.equal(store.revision, 2);

  const failing = await start(t, initial, true);
  const lost = failing.client.updateRealServer(realServer({ name: REAL_SERVER, weight: 9 }), ["weight"]);
  t.match(await refusal(lost), { status: "INTERNAL", code: "STORE_FAILED" });
  t.equal(failing.dataPlane.published, initial, "what could not be stored is not in force");
});

t.test("changes that come at once take effect one after another, and none is lost", async (t) => {
  const { client, dataPlane } = await start(t);
  const calls = Array.from({ length: 100 }, (_, i) =>
    client.createRealServer(SERVICE, realServer({ address: `10.2.0.${i + 1}`, method: ForwardingMethod.NAT })),
  );
  await Promise.all(calls);
  t.equal(dataPlane.published.services[0]?.realServers.length, 102);
  t.equal(dataPlane.mostUnderWay, 1);
});

t.test("lists come in pages that hold when something changes between them", async (t) => {
  const services = Array.from({ length: 25 }, (_, i) => ({ protocol: "tcp", address: `10.0.1.${i + 10}`, port: 80 }));
  const { client, socket } = await start(t, validateDesiredState({ services }));
  const stub = new DirectorServiceClient(`unix:${socket}`, credentials.createInsecure());
  t.teardown(() => stub.close());
  const list = (pageSize: number, pageToken: string): Promise<{ names: string[]; nextPageToken: string }> =>
    new Promise((resolve, reject) => {
      stub.listVirtualServices({ pageSize, pageToken }, (error, response) => {
        if (error !== null) reject(error);
        else
          resolve({
            names: response.virtualServices.map(({ address }) => address),
            nextPageToken: response.nextPageToken,
          });
      });
    });
  const first = await list(10, "");
  t.same(
    first.names,
    services.slice(0, 10).map(({ address }) => address),
  );
  await client.deleteVirtualService("virtualServices/tcp:10.0.1.19:80");
  await client.deleteVirtualService("virtualServices/tcp:10.0.1.20:80");
  const second = await list(10, first.nextPageToken);
  t.same(
    second.names,
    services.slice(11, 21).map(({ address }) => address),
    "also when the last one of a page is gone",
  );
  const third = await list(10, second.nextPageToken);
  t.same(third, { names: services.slice(21).map(({ address }) => address), nextPageToken: "" });
  t.equal((await list(0, "")).names.length, 23, "a page of the default size");
  await t.rejects(list(-1, ""), { code: status.INVALID_ARGUMENT, details: /page_size/ });
  await t.rejects(list(1, "%"), { code: status.INVALID_ARGUMENT, details: /page_token/ });

  const big = Array.from({ length: 3 }, (_, i) => ({
    protocol: "tcp",
    address: `10.0.2.${i + 1}`,
    port: 80,
    real_servers: Array.from({ length: 9000 }, (_, j) => ({
      address: `10.${i + 3}.${j >> 8}.${j & 255}`,
      method: "nat",
    })),
  }));
  const bulky = await start(t, validateDesiredState({ services: big }));
  const all = await bulky.client.listVirtualServices();
  t.same(
    all.map(({ realServers }) => realServers.length),
    [9000, 9000, 9000],
    "a page ends early where services are big",
  );
  t.equal((await bulky.client.listRealServers("virtualServices/tcp:10.0.2.1:80")).length, 9000);
});

t.test("statistics are told by service and by reason", async (t) => {
  const { client, dataPlane } = await start(t);
  const statistics = await client.getVirtualServiceStatistics(`${SERVICE}/statistics`);
  t.equal(dataPlane.readings.length, 1, "one service's counters are read, not all");
  t.match(statistics, {
    name: `${SERVICE}/statistics`,
    traffic: { connections: 1n, inPackets: 1n, inBytes: 1n, outPackets: 1n, outBytes: 1n },
    realServers: [
      {
        realServer: REAL_SERVER,
        activeConnections: 2n,
        inactiveConnections: 3n,
        persistentConnections: 4n,
        overloaded: true,
        localPortsInUse: undefined,
      },
      { localPortsInUse: 5n, localPorts: 10n },
    ],
  });
  t.same(await client.listVirtualServiceStatistics(), [statistics]);
  const many = Array.from({ length: 2500 }, (_, i) => ({
    protocol: "udp",
    address: `10.4.${i >> 8}.${i & 255}`,
    port: 53,
  }));
  const big = await start(t, validateDesiredState({ services: many }));
  t.equal((await big.client.listVirtualServiceStatistics()).length, 2500);
  t.equal(new Set(big.dataPlane.readings).size, 2500);
  t.equal(big.dataPlane.readings.length, 2500, "a page reads the counters of its own services");
  t.same(await client.getDropStatistics(), {
    drops: [
      { reason: "no_real_server", packets: 7n, bytes: 420n },
      { reason: "table_full", packets: 0n, bytes: 0n },
    ],
  });
});

t.test("health is served", async (t) => {
  const { socket } = await start(t);
  const health = new Client(`unix:${socket}`, credentials.createInsecure());
  t.teardown(() => health.close());
  const check = (name: string): Promise<number | undefined> =>
    new Promise((resolve, reject) => {
      // HealthCheckRequest.service is field 1, HealthCheckResponse.status too; SERVING is 1.
      const request = Buffer.concat([Buffer.from([0x0a, name.length]), Buffer.from(name)]);
      const same = (bytes: Buffer): Buffer => bytes;
      health.makeUnaryRequest(
        "/grpc.health.v1.Health/Check",
        same,
        same,
        request,
        new Metadata(),
        {},
        (error, answer) => {
          if (error !== null) reject(error);
          else resolve(answer?.[1]);
        },
      );
    });
  t.equal(await check(""), 1);
  t.equal(await check("sluice.v1.DirectorService"), 1);
  await t.rejects(check("sluice.v2"), { code: status.NOT_FOUND });
});

t.test("reflection hands out our own files, in v1 and v1alpha", async (t) => {
  const { socket } = await start(t);
  const client = new Client(`unix:${socket}`, credentials.createInsecure());
  t.teardown(() => client.close());
  const same = (bytes: Buffer): Buffer => bytes;
  const ask = (version: string, request: Buffer): Promise<string> =>
    new Promise((resolve, reject) => {
      const call = client.makeBidiStreamRequest(
        `/grpc.reflection.${version}.ServerReflection/ServerReflectionInfo`,
        same,
        same,
        new Metadata(),
        {},
      );
      call.on("data", (answer: Buffer) => {
        resolve(answer.toString("latin1"));
        call.end();
      });
      call.on("error", reject);
      call.write(request);
    });
  const text = (field: number, value: string): Buffer =>
    Buffer.concat([Buffer.from([(field << 3) | 2, value.length]), Buffer.from(value)]);
  for (const version of ["v1", "v1alpha"]) {
    // ServerReflectionRequest: list_services is field 7, file_containing_symbol field 4.
    const services = await ask(version, text(7, "*"));
    t.match(services, "sluice.v1.DirectorService");
    t.match(services, "grpc.health.v1.Health");
    const files = await ask(version, text(4, "sluice.v1.DirectorService"));
    t.match(files, "UpdateRealServer");
    t.notMatch(files, "google/api/", "no import of a file that is not among them");
  }
  t.ok(FILE_DESCRIPTORS.length > 4);
});

t.test("the socket is the user's alone, replaces a dead one, and nothing else", async (t) => {
  const { socket, folder, director, server, client } = await start(t);
  t.equal(lstatSync(socket).mode & 0o777, 0o600);
  await t.rejects(ApiServer.listen(director, socket), { code: "SOCKET_IN_USE" });
  t.equal((await client.listVirtualServices()).length, 1, "the one that listens is undisturbed");

  const file = join(folder, "file");
  writeFileSync(file, "precious");
  await t.rejects(ApiServer.listen(director, file), { code: "SOCKET_PATH_TAKEN" });
  const link = join(folder, "link");
  symlinkSync(file, link);
  await t.rejects(ApiServer.listen(director, link), { code: "SOCKET_PATH_TAKEN" });
  await t.rejects(ApiServer.listen(director, join(folder, "none", "api.sock")), { code: "SOCKET_UNUSABLE" });

  await server.close();
  t.throws(() => lstatSync(socket), { code: "ENOENT" }, "closing removes it");
  // What a killed process leaves: a socket on which no one listens. (Node removes the path that it made.)
  const path = join(folder, "killed.sock");
  const killed = createServer();
  await new Promise<void>((resolve) => killed.listen(`${path}.made`, resolve));
  renameSync(`${path}.made`, path);
  await new Promise((resolve) => killed.close(resolve));
  t.ok(lstatSync(path).isSocket());
  const successor = await ApiServer.listen(director, path);
  const successorClient = new ApiClient(path);
  t.equal((await successorClient.listVirtualServices()).length, 1);
  successorClient.close();
  await successor.close();
});

t.test("after stopping, changes are refused and the data plane is left alone", async (t) => {
  const { client, director, dataPlane } = await start(t);
  await director.stop();
  t.match(await refusal(client.deleteVirtualService(SERVICE)), { status: "UNAVAILABLE", code: "STOPPING" });
  t.equal(dataPlane.published, initial);
  const nobody = new ApiClient("/nonexistent/api.sock");
  t.match(await refusal(nobody.listVirtualServices()), { code: "DAEMON_UNREACHABLE" });
  nobody.close();
});

t.test("one weight changes in time among 10,000 services with 10 real servers", async (t) => {
  const services = Array.from({ length: 10_000 }, (_, i) => ({
    protocol: "tcp",
    address: `10.${i >> 8}.${i & 255}.1`,
    port: 80,
    scheduler: "wrr",
    real_servers: Array.from({ length: 10 }, (_, j) => ({
      address: `10.200.${i % 250}.${j + 1}`,
      port: 8080,
      method: "nat",
    })),
  }));
  const { client, dataPlane } = await start(t, validateDesiredState({ services }));
  const name = "virtualServices/tcp:10.20.0.1:80/realServers/10.200.120.1:8080";
  const times: number[] = [];
  for (let weight = 2; weight < 52; weight++) {
    const start = performance.now();
    await client.updateRealServer(realServer({ name, weight }), ["weight"]);
    times.push(performance.now() - start);
  }
  times.sort((a, b) => a - b);
  const median = times[25] ?? Number.NaN;
  t.ok(median < 20, `median ${median.toFixed(2)} ms`);
  t.equal(dataPlane.published.services.length, 10_000);
});
