/** The daemon's life: changes over gRPC, kill -9, restart, refusals, unload, and a second instance beside it. */
import { existsSync, readdirSync } from "node:fs";
import { setTimeout } from "node:timers/promises";
import { type Test, test } from "tap";
import { contentSha256 } from "../network/content.js";
import { Director, sluice } from "../network/director.js";
import { cable } from "../network/namespace.js";
import { run } from "../network/program.js";
import { addDirector } from "../network/topology.js";
import { Download, echoSpread, httpSpread, inProportion, show } from "../network/traffic.js";
import {
  configuration,
  ECHO_PORT,
  HTTP_PORT,
  MAPPED_ECHO_PORT,
  MAPPED_HTTP_PORT,
  METHODS,
  type Method,
  mapsPorts,
  setUp,
  standardServices,
  VIP,
  WEIGHTS,
} from "./setup.js";

const MEGABYTE = 1_000_000;

test("the daemon", async (t) => {
  const { laboratory, topology, director } = await setUp(t);
  const { client } = topology;
  const yaml = configuration(standardServices(topology));
  await director.startWith(yaml);

  const balances = async (t: Test, message: string): Promise<void> => {
    for (const method of METHODS) {
      const spread = await httpSpread(client, `http://${VIP[method]}`, 12);
      t.ok(inProportion(spread, WEIGHTS), `${message}: ${method}: ${show(spread)}`);
    }
  };
  const slowDownloads = async (bytes: number, rate: number, perMethod = 1): Promise<Download[]> => {
    const downloads = METHODS.flatMap((method) =>
      Array.from({ length: perMethod }, () => new Download(client, `http://${VIP[method]}`, bytes, { rate })),
    );
    while (downloads.some(({ received }) => received < MEGABYTE)) {
      await Promise.race([setTimeout(10), ...downloads.map(async ({ ended }) => await ended)]);
    }
    return downloads;
  };
  const endIntact = async (t: Test, downloads: readonly Download[], bytes: number): Promise<string[]> => {
    const expected = contentSha256(bytes);
    const ended = await Promise.all(downloads.map(async (download) => await download.ended));
    for (const { realServer, sha256 } of ended) t.equal(sha256, expected, `intact from ${realServer}`);
    return ended.map(({ realServer }) => realServer);
  };

  await t.test("a weight changed over gRPC moves traffic", async (t) => {
    for (const method of METHODS) {
      const [http, echo] = names(method);
      await director.setWeight(`tcp:${VIP[method]}:${HTTP_PORT}`, `10.1.0.13:${http}`, 5);
      await director.setWeight(`udp:${VIP[method]}:${ECHO_PORT}`, `10.1.0.13:${echo}`, 5);
      const byHttp = await httpSpread(client, `http://${VIP[method]}`, 40);
      t.ok(inProportion(byHttp, [3, 2, 5]), `${method}, HTTP: ${show(byHttp)}`);
      const byUdp = await echoSpread(client, `${VIP[method]}:${ECHO_PORT}`, 40);
      t.ok(inProportion(byUdp, [3, 2, 5]), `${method}, UDP: ${show(byUdp)}`);
      await director.setWeight(`tcp:${VIP[method]}:${HTTP_PORT}`, `10.1.0.13:${http}`, 1);
      await director.setWeight(`udp:${VIP[method]}:${ECHO_PORT}`, `10.1.0.13:${echo}`, 1);
    }
  });

  await t.test("SIGHUP brings a changed configuration into force, and a bad one not", async (t) => {
    await director.configuration(yaml.replaceAll('"weight":3', '"weight":1'), `${director.instance}.yaml`);
    await director.reload(/configuration reloaded/);
    const spread = await httpSpread(client, `http://${VIP.nat}`, 12);
    t.ok(inProportion(spread, [1, 2, 1]), show(spread));
    await director.configuration(yaml.replaceAll('"weight":3', '"weight":-3'), `${director.instance}.yaml`);
    await director.reload(/configuration not reloaded/);
    const same = await httpSpread(client, `http://${VIP.nat}`, 12);
    t.ok(inProportion(same, [1, 2, 1]), show(same));
    await director.configuration(yaml, `${director.instance}.yaml`);
    await director.reload(/configuration reloaded.*configuration reloaded/s);
    await balances(t, "with the configuration of before");
  });

  await t.test("a drained real server finishes what it has and gets nothing new", async (t) => {
    const bytes = 8 * MEGABYTE;
    const setWeightOfReal1 = async (weight: number): Promise<void> => {
      await Promise.all(
        METHODS.map(async (method) => {
          await director.setWeight(`tcp:${VIP[method]}:${HTTP_PORT}`, `10.1.0.11:${names(method)[0]}`, weight);
        }),
      );
    };
    // Of any three connections in a row, the weights give one to real1.
    const downloads = await slowDownloads(bytes, MEGABYTE, 3);
    await setWeightOfReal1(0);
    for (const method of METHODS) {
      const spread = await httpSpread(client, `http://${VIP[method]}`, 12);
      t.ok(inProportion(spread, [0, 2, 1]), `${method}: ${show(spread)}`);
    }
    t.ok(
      downloads.some((download) => download.received < bytes),
      "downloads were still running",
    );
    const servers = await endIntact(t, downloads, bytes);
    t.ok(servers.includes("real1"), `served by ${servers.join(", ")}`);
    await setWeightOfReal1(WEIGHTS[0]);
    await balances(t, "with its weight back");
  });

  await t.test(
    "kill -9 in the middle of downloads: they finish, new connections are balanced, a restart adopts",
    async (t) => {
      const bytes = 24 * MEGABYTE;
      const downloads = await slowDownloads(bytes, 3 * MEGABYTE);
      await director.kill();
      t.ok(
        downloads.every((download) => download.received < bytes),
        "in the middle",
      );
      await balances(t, "without a daemon");
      await director.startWith(yaml);
      t.ok(
        downloads.some((download) => download.received < bytes),
        "restarted before the downloads ended",
      );
      await balances(t, "after the restart");
      await endIntact(t, downloads, bytes);
    },
  );

  await t.test("SIGTERM ends the daemon in order and leaves the data plane forwarding", async (t) => {
    const outcome = await director.stop();
    t.equal(outcome?.status, 0, outcome?.stderr ?? "was not running");
    t.notOk(existsSync(`/run/sluice/${director.instance}.sock`), "the socket is gone");
    await balances(t, "after SIGTERM");
    const { status, stderr } = await director.attempt("service", "list");
    t.not(status, 0);
    t.match(stderr, director.instance, "the client says which daemon it did not reach");
    await director.startWith(yaml);
    await balances(t, "started again");
  });

  await t.test("a bad start is refused with one clear error and changes nothing", async (t) => {
    // An interface whose driver does not take XDP in native mode.
    await director.host.ip("link add bridge0 type bridge");
    // A veth whose peer's frames do not fit a page: native mode is refused, too.
    await cable({ host: director.host, interface: "jumbo0" }, { host: topology.router, interface: "jumbo" }, 9000);
    const program = await programId(director);
    const nat = standardServices(topology).slice(0, 1);
    const refusals: {
      name: string;
      yaml: string;
      instance?: string;
      options?: string[];
      under?: string[];
      culprit: RegExp;
    }[] = [
      { name: "bad YAML", yaml: "interfaces: [c0\nservices: ]", culprit: /bad-start-0\.yaml:\d+/ },
      { name: "a port of 70000", yaml: configuration(nat.map((s) => ({ ...s, port: 70_000 }))), culprit: /70000/ },
      { name: "two equal services", yaml: configuration([...nat, ...nat]), culprit: /tcp:10\.0\.0\.100:80/ },
      { name: "an unknown field", yaml: `colour: blue\n${configuration(nat)}`, culprit: /colour/ },
      { name: "a file that is not there", yaml: "", culprit: /bad-start-4\.yaml/ },
      {
        name: "an interface that is not there",
        yaml: configuration(nat, { interfaces: ["c9"] }),
        instance: "other",
        culprit: /c9/,
      },
      {
        name: "a driver without native XDP",
        yaml: configuration(nat, { interfaces: ["bridge0"] }),
        instance: "other",
        culprit: /bridge0/,
      },
      {
        name: "an MTU too large for native XDP",
        yaml: configuration(nat, { interfaces: ["jumbo0"] }),
        instance: "other",
        culprit: /jumbo0/,
      },
      { name: "an interface that another instance has", yaml: configuration(nat), instance: "other", culprit: /c0/ },
      {
        name: "no BPF file system",
        yaml: configuration(nat),
        instance: "other",
        options: ["--bpffs", laboratory.folder],
        culprit: new RegExp(laboratory.folder),
      },
      {
        name: "a process without the capabilities",
        yaml: configuration(nat),
        instance: "other",
        under: ["setpriv", "--bounding-set", "-bpf,-sys_admin"],
        culprit: /PERMISSION_DENIED.*CAP_BPF/,
      },
      { name: "a second daemon on the same pins", yaml, culprit: new RegExp(director.instance) },
    ];
    for (const [i, { name, yaml: text, instance, options = [], under = [], culprit }] of refusals.entries()) {
      await t.test(name, async (t) => {
        const file =
          name === "a file that is not there"
            ? `${laboratory.folder}/bad-start-${i}.yaml`
            : await director.configuration(text, `bad-start-${i}.yaml`);
        const chosen = instance === undefined ? director.instance : laboratory.instance(instance);
        const outcome = await director.host.attempt(
          [...under, ...sluice("run", "--config", file, "--instance", chosen, ...options)],
          { timeout: 30_000 },
        );
        t.ok(outcome.status !== undefined && outcome.status !== 0, `status ${outcome.status ?? outcome.signal ?? ""}`);
        t.match(outcome.stderr, culprit, outcome.stderr.trim());
        t.notMatch(outcome.stderr, /^\s+at /m, "no stack trace");
        if (instance !== undefined) t.notOk(existsSync(`/sys/fs/bpf/${chosen}`), "no pins are left");
      });
    }
    t.equal(await programId(director), program, "the program is the same");
    t.notMatch(await director.host.run(["ip", "link", "show", "bridge0"]), /xdp/);
    await balances(t, "the running data plane is as it was");
    t.match(await director.sluice("service", "list"), VIP.nat, "and so is the daemon");
  });

  await t.test("a kernel without BTF is refused by name, and what runs is left as it was", async (t) => {
    await director.stop();
    const file = `${laboratory.folder}/${director.instance}.yaml`;
    const bytes = 8 * MEGABYTE;
    const downloads = await slowDownloads(bytes, 2 * MEGABYTE);
    const before = await inPlace(director);
    for (const instance of [director.instance, laboratory.instance("other")]) {
      const command = withoutBtf(sluice("run", "--config", file, "--instance", instance));
      const { status, stdout, stderr } = await director.host.attempt(command, { timeout: 30_000 });
      t.equal(status, 1);
      t.match(stderr, /^sluice: KERNEL_FEATURE_MISSING: this kernel lacks its own BTF, .*CONFIG_DEBUG_INFO_BTF.*\n$/);
      t.equal(stderr.split("\n").length, 2, `one line: ${stderr.trim()}`);
      t.equal(stdout, "");
    }
    t.same(await inPlace(director), before, "the same programs, maps and links");
    t.notOk(existsSync(`/sys/fs/bpf/${laboratory.instance("other")}`), "no pins are left");
    t.ok(
      downloads.every((download) => download.received < bytes),
      "downloads were running all the while",
    );
    await balances(t, "without a daemon");
    await endIntact(t, downloads, bytes);
    await director.startWith(yaml);
    await balances(t, "started where the kernel has it");
  });

  await t.test("bad requests are refused by the API and change nothing", async (t) => {
    const service = `tcp:${VIP.nat}:${HTTP_PORT}`;
    const refusals = [
      { args: ["real", "update", service, "10.1.0.13:8080", "--weight", "70000"], culprit: /70000/ },
      { args: ["real", "update", service, "10.1.0.99:8080", "--weight", "1"], culprit: /10\.1\.0\.99/ },
      { args: ["service", "create", `tcp:${VIP.nat}:70000`], culprit: /70000/ },
      { args: ["service", "create", service], culprit: /10\.0\.0\.100:80/ },
    ];
    for (const { args, culprit } of refusals) {
      const outcome = await director.attempt(...args);
      t.not(outcome.status, 0, args.join(" "));
      t.match(outcome.stderr, culprit, outcome.stderr.trim());
    }
    await balances(t, "as before");
  });

  await t.test("bpftool shows services, real servers and counters with their field names", async (t) => {
    const dump = async (map: string): Promise<string> =>
      await run(["bpftool", "map", "dump", "pinned", `${director.pins}/maps/${map}`]);
    const services = await dump("services");
    for (const field of ["vip", "port", "protocol", "PROTOCOL_TCP", "SCHEDULER_WRR"]) t.match(services, field);
    const reals = await dump("real_servers");
    for (const field of ["address", "destination_mac", "METHOD_FULLNAT", "REAL_ACTIVE", "weight"])
      t.match(reals, field);
    t.match(await dump("real_counters"), /"connections": [1-9]/);
    t.match(await dump("real_counters"), /"in_packets": [1-9]/);
    t.match(await dump("drops"), "DROP_NO_REAL_SERVER");
  });

  await t.test("two instances, two directors: each its own", async (t) => {
    const vip = "10.0.0.110";
    const host = await addDirector(laboratory, topology, { front: "10.0.0.3", back: "10.1.0.3" }, [vip]);
    const second = new Director(laboratory, host, "second");
    await second.startWith(
      configuration(
        [
          {
            protocol: "tcp",
            address: vip,
            port: HTTP_PORT,
            scheduler: "rr",
            real_servers: topology.reals.map(({ address }) => ({ address, port: MAPPED_HTTP_PORT, method: "fullnat" })),
          },
        ],
        { localAddress: "10.1.0.3" },
      ),
    );
    const spread = await httpSpread(client, `http://${vip}`, 12);
    t.ok(inProportion(spread, [1, 1, 1]), show(spread));
    await balances(t, "the first beside it");
    t.notMatch(await second.sluice("service", "list"), VIP.nat);
    t.notMatch(await director.sluice("service", "list"), vip);
    await second.stop();
    await second.sluice("unload");
    t.notOk(existsSync(second.pins), "the second's pins are gone");
    t.ok(existsSync(director.pins), "the first's are not");
    await balances(t, "the first after the second's unload");
  });

  await t.test("unload takes the data plane down, and leaves nothing", async (t) => {
    await director.stop();
    const outcome = await director.attempt("unload");
    t.equal(outcome.status, 0, outcome.stderr);
    t.notOk(existsSync(director.pins));
    t.notMatch(await director.host.run(["ip", "link", "show"]), /xdp/, "no program is attached");
    const spread = await httpSpread(client, `http://${VIP.nat}`, 1);
    t.equal(spread.get("failed"), 1);
  });
});

/** The ports of a method's real servers for HTTP and UDP echo. */
function names(method: Method): [http: number, echo: number] {
  return mapsPorts(method) ? [MAPPED_HTTP_PORT, MAPPED_ECHO_PORT] : [HTTP_PORT, ECHO_PORT];
}

/** The id of the program that the director's interfaces run. */
async function programId(director: Director): Promise<number> {
  const { id } = JSON.parse(
    await run(["bpftool", "-j", "prog", "show", "pinned", `${director.pins}/programs/sluice`]),
  ) as {
    id: number;
  };
  return id;
}

/** What is pinned of the director, with the kernel's ids, and the programs that its interfaces run. */
async function inPlace({ pins, host }: Director): Promise<Map<string, unknown>> {
  const found = new Map<string, unknown>();
  const folders = { programs: "prog", maps: "map", links: "link" } as const;
  for (const [folder, kind] of Object.entries(folders)) {
    for (const name of readdirSync(`${pins}/${folder}`)) {
      const shown = await run(["bpftool", "-j", kind, "show", "pinned", `${pins}/${folder}/${name}`]);
      found.set(`${folder}/${name}`, (JSON.parse(shown) as { id: number }).id);
    }
  }
  for (const { ifname, xdp } of (await host.ipJson("link show")) as { ifname: string; xdp?: unknown }[]) {
    found.set(ifname, xdp);
  }
  return found;
}

/**
 * The command where a kernel built without CONFIG_DEBUG_INFO_BTF shows what it shows: no BTF, neither in sysfs nor in the files
 * that libbpf looks into besides (libbpf_find_kernel_btf of its btf.c). In a mount namespace of its own.
 */
function withoutBtf(command: readonly string[]): string[] {
  const hide =
    "for folder in /sys/kernel/btf /boot /lib/modules /usr/lib/debug; do [ ! -d $folder ] || mount -t tmpfs none $folder; done";
  return ["unshare", "--mount", "sh", "-c", `set -e; ${hide}; exec "$@"`, "sh", ...command];
}
