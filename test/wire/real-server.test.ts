/** `sluice real-server`: it makes a host a real server, and leaves no trace when it stops being one. */
import { existsSync } from "node:fs";
import { setTimeout } from "node:timers/promises";
import { type Test, test } from "tap";
import { sluice } from "../network/director.js";
import { Laboratory, type Namespace } from "../network/namespace.js";
import type { Outcome } from "../network/program.js";
import { buildTopology } from "../network/topology.js";

const VIP = "10.0.0.100";
const OTHER_VIP = "10.0.0.101";

/** Everything that the command may touch. */
async function stateOf(host: Namespace): Promise<unknown> {
  const scopes = ["all", "default", "eth0", "lo"];
  const sysctls = scopes.flatMap((scope) =>
    ["arp_ignore", "arp_announce", "rp_filter"].map((name) => `net.ipv4.conf.${scope}.${name}`),
  );
  const [address, link, values] = await Promise.all([
    host.ipJson("-4 address show"),
    host.run(["ip", "-details", "link", "show"]),
    host.run(["sysctl", ...sysctls]),
  ]);
  return { address, link, values };
}

interface Host {
  readonly host: Namespace;
  readonly up: (instance: string, ...options: string[]) => Promise<string>;
  readonly down: (instance: string) => Promise<string>;
  readonly attempt: (...options: string[]) => Promise<Outcome>;
}

test("sluice real-server", async (t) => {
  const laboratory = new Laboratory("test");
  t.teardown(() => {
    laboratory.remove();
  });
  const { router, reals } = await buildTopology(laboratory, []);
  const hosts = reals.map(({ host }): Host => {
    const named = (instance: string): string[] => ["--instance", laboratory.instance(`${host.role}-${instance}`)];
    return {
      host,
      up: async (instance, ...options) => await host.run(sluice("real-server", "up", ...named(instance), ...options)),
      down: async (instance) => await host.run(sluice("real-server", "down", ...named(instance))),
      attempt: async (...options) => await host.attempt(sluice("real-server", ...options)),
    };
  });
  const [first, second, third] = hosts;
  if (first === undefined || second === undefined || third === undefined) throw new Error("too few real servers");
  const pins = (host: Namespace, instance: string): string =>
    `/sys/fs/bpf/${laboratory.instance(`${host.role}-${instance}`)}-real-server`;

  await t.test("keeps the VIP out of ARP", async (t) => {
    const { host, up, down } = first;
    // The check itself is checked first: a VIP on lo without more does draw ARP.
    await host.ip(`address add ${VIP}/32 dev lo`);
    t.ok(await answersArp(router, VIP), "a VIP on lo alone answers ARP");
    await host.ip(`address delete ${VIP}/32 dev lo`);

    await up("dr", "--vip", VIP, "--method", "dr");
    t.notOk(await answersArp(router, VIP), "after real-server up it does not");
    t.match(await host.run(["ping", "-c", "1", "-W", "1", VIP]), / 0% packet loss/, "the VIP is the host's own");
    await down("dr");
  });

  await t.test("up, up again, down: as before", async (t) => {
    const { host, up, down, attempt } = first;
    const before = await stateOf(host);
    const instance = laboratory.instance(`${host.role}-tun`);
    t.match(await up("tun", "--vip", `${VIP},${OTHER_VIP}`, "--method", "tun"), /done/);
    const during = await stateOf(host);
    t.match((await attempt("status", "--instance", instance)).stdout, /holds +IPIP to 10\.1\.0\.11/);

    const again = await up("tun", "--vip", `${VIP},${OTHER_VIP}`, "--method", "tun");
    t.notMatch(again, /^done +(?!IPIP)[^ ]/m, "nothing but the program was renewed");
    t.equal(withoutProgramIds(await stateOf(host)), withoutProgramIds(during));

    await up("tun", "--vip", OTHER_VIP, "--method", "tun");
    const addresses = JSON.stringify(await host.ipJson("-4 address show dev lo"));
    t.notMatch(addresses, VIP, "a VIP that is no longer named goes");
    t.match(addresses, OTHER_VIP);

    await down("tun");
    t.same(await stateOf(host), before);
    t.notOk(existsSync(pins(host, "tun")), "no pins are left");
    t.match(await down("tun"), /not up/, "down again is no error");
    t.equal((await attempt("status", "--instance", instance)).status, 1);
  });

  await t.test("what was there before stays", async (t) => {
    const { host, up, down } = second;
    await host.ip(`address add ${VIP}/32 dev lo`);
    await host.sysctl({ "net.ipv4.conf.all.arp_ignore": 1, "net.ipv4.conf.eth0.arp_announce": 1 });
    const before = await stateOf(host);
    t.match(await up("dr", "--vip", VIP, "--method", "dr"), /already so +10\.0\.0\.100/);
    await down("dr");
    t.same(await stateOf(host), before);
  });

  await t.test("a change that someone made since stays as they made it", async (t) => {
    const { host, up, down } = second;
    await up("dr", "--vip", OTHER_VIP, "--method", "dr");
    await host.sysctl({ "net.ipv4.conf.eth0.arp_announce": 0 });
    await host.ip(`address delete ${OTHER_VIP}/32 dev lo`);
    await down("dr");
    t.match(await host.run(["sysctl", "net.ipv4.conf.eth0.arp_announce"]), /= 0$/m);
  });

  await t.test("of two instances on a host, the first to go leaves the other what it needs", async (t) => {
    const { host, up, down } = third;
    const before = await stateOf(host);
    await up("a", "--vip", VIP, "--method", "dr");
    await up("b", "--vip", `${VIP},${OTHER_VIP}`, "--method", "tun");
    t.match(await down("a"), /left to another instance/);
    const shared = JSON.stringify(await stateOf(host));
    t.match(shared, VIP);
    t.match(shared, /arp_ignore = 1/);
    await down("b");
    t.same(await stateOf(host), before);
  });

  await t.test("a failure in the middle undoes what came before it", async (t) => {
    const { host, up, down, attempt } = third;
    await up("a", "--vip", VIP, "--method", "tun");
    const before = await stateOf(host);
    const instance = laboratory.instance("b");
    // The last step fails: the interface has a program already.
    await fails(
      t,
      await attempt("up", "--vip", OTHER_VIP, "--method", "tun", "--instance", instance),
      "INTERFACE_BUSY",
      "eth0",
    );
    t.same(await stateOf(host), before);
    t.notOk(existsSync(`/sys/fs/bpf/${instance}-real-server`));
    t.match(await down("a"), /undone/);
  });

  await t.test("refuses, and names the culprit", async (t) => {
    const { host, attempt } = third;
    const before = await stateOf(host);
    const instance = laboratory.instance("refused");
    const up = async (...options: string[]): Promise<Outcome> =>
      await attempt("up", "--instance", instance, ...options);
    await fails(t, await up("--vip", "10.0.0.300", "--method", "dr"), "BAD_OPTION", "10.0.0.300");
    await fails(t, await up("--vip", `${VIP},${VIP}`, "--method", "dr"), "BAD_OPTION", VIP);
    await fails(t, await up("--vip", VIP, "--method", "dr", "--interface", "eth7"), "NO_SUCH_INTERFACE", "eth7");
    await fails(t, await up("--vip", "10.1.0.13", "--method", "dr"), "VIP_ON_OTHER_INTERFACE", "eth0");
    await fails(
      t,
      await up("--vip", VIP, "--method", "dr", "--tunnel-address", "10.1.0.13"),
      "BAD_OPTION",
      "--tunnel-address",
    );
    await fails(t, await up("--vip", VIP, "--method", "nat"), "", "nat");
    await fails(t, await attempt("up", "--vip", VIP, "--method", "dr", "--instance", "../x"), "BAD_OPTION", "../x");
    t.same(await stateOf(host), before);
  });

  await t.test("an instance of another network namespace is not touched", async (t) => {
    const instance = laboratory.instance(`${first.host.role}-dr`);
    await first.up("dr", "--vip", VIP, "--method", "dr");
    await fails(t, await second.attempt("down", "--instance", instance), "OTHER_NETWORK_NAMESPACE", instance);
    await first.down("dr");
  });
});

function withoutProgramIds(state: unknown): string {
  return JSON.stringify(state).replaceAll(/"id":\d+|\b(?:id|load_time|btf_id) \d+/g, "");
}

/** Whether any host on the back network answers when it is asked who has the address. */
async function answersArp(router: Namespace, address: string): Promise<boolean> {
  await router.ip(`route replace ${address}/32 dev back`, `neighbour flush dev back`);
  await router.attempt(["ping", "-c", "1", "-W", "1", address]);
  await setTimeout(50);
  const neighbours = (await router.ipJson(`neighbour show ${address} dev back`)) as { lladdr?: string }[];
  await router.ip(`route delete ${address}/32 dev back`);
  return neighbours.some(({ lladdr }) => lladdr !== undefined);
}

async function fails(t: Test, outcome: Outcome, code: string, culprit: string): Promise<void> {
  t.not(outcome.status, 0, `status ${outcome.status ?? outcome.signal ?? ""}`);
  t.ok(outcome.stderr.includes(culprit), `names ${culprit}: ${outcome.stderr.trim()}`);
  t.ok(outcome.stderr.includes(code), `has the code ${code}`);
  t.notMatch(outcome.stderr, /^\s+at /m, "no stack trace");
}
