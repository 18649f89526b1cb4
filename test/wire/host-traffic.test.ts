/** The director's own traffic, and what else passes an attached interface, is as it would be without Sluice. */
import { setTimeout } from "node:timers/promises";
import { type Test, test } from "tap";
import type { Namespace } from "../network/namespace.js";
import { startEchoServer, startHttpServer } from "../network/servers.js";
import { CLIENT, DIRECTOR_BACK, DIRECTOR_FRONT } from "../network/topology.js";
import { echoSpread, httpGet, httpSpread, show } from "../network/traffic.js";
import { Capture } from "./capture.js";
import { configuration, HTTP_PORT, setUp, standardServices, VIP } from "./setup.js";

/** As ssh's would be: any listener of the director's own. */
const OWN_TCP_PORT = 2222;
const OWN_UDP_PORT = 5000;
const UNSERVED_PORT = 9999;
/** Served, but not an address of the director: only the XDP program can answer its pings. */
const FOREIGN_VIP = "10.0.7.7";

test("host traffic", async (t) => {
  const { topology, director } = await setUp(t);
  const { client, router, reals } = topology;
  const [real1] = reals;
  if (real1 === undefined) throw new Error("no real server");
  await director.startWith(
    configuration([
      ...standardServices(topology),
      {
        protocol: "tcp",
        address: FOREIGN_VIP,
        port: HTTP_PORT,
        scheduler: "rr",
        real_servers: [{ address: real1.address, port: 8080, method: "nat" }],
      },
    ]),
  );
  await startHttpServer(director.host, [OWN_TCP_PORT]);
  await startEchoServer(director.host, [`${DIRECTOR_FRONT}:${OWN_UDP_PORT}`, `${VIP.nat}:${OWN_UDP_PORT}`]);

  const before = await drops(director.host, director.pins);

  /** Runs `work` and compares what left one end of the client's wire with what came out at the other, both ways. */
  async function comparesEqual(t: Test, filter: string, work: () => Promise<void>): Promise<void> {
    const clientEnd = { host: client, interface: "eth0" };
    const directorEnd = { host: director.host, interface: "c0" };
    const ends = [
      { name: "request", from: clientEnd, to: directorEnd },
      { name: "reply", from: directorEnd, to: clientEnd },
    ];
    const captures = await Promise.all(
      ends.map(async ({ from, to }) => ({
        sent: await Capture.start(from, "out", filter),
        received: await Capture.start(to, "in", filter),
      })),
    );
    await work();
    // The last frame may still be on its way into a capture.
    await setTimeout(200);
    for (const [i, { sent, received }] of captures.entries()) {
      const [left, arrived] = [await sent.stop(), await received.stop()];
      t.ok(left.length > 0, `${ends[i]?.name ?? ""}: ${left.length} frames`);
      t.same(arrived, left, `${ends[i]?.name ?? ""}: the same on both sides, byte for byte`);
    }
  }

  await t.test("ping to the director's own addresses, fragments as well", async (t) => {
    await comparesEqual(t, `icmp and net 10.0.0.0/8`, async () => {
      for (const address of [DIRECTOR_FRONT, DIRECTOR_BACK]) {
        t.match(await ping(client, address), / 0% packet loss/);
        t.match(await ping(client, address, "-s", "4000"), / 0% packet loss/, "4000 bytes, in fragments");
      }
    });
  });

  await t.test("ARP", async (t) => {
    await client.ip("neighbour flush dev eth0");
    await comparesEqual(t, "arp", async () => {
      t.match(await ping(client, DIRECTOR_FRONT), / 0% packet loss/);
      t.match(await ping(client, VIP.nat), / 0% packet loss/);
    });
    const neighbours = (await client.ipJson("neighbour show dev eth0")) as { dst: string; lladdr?: string }[];
    const mac = await director.host.macOf("c0");
    for (const address of [DIRECTOR_FRONT, VIP.nat]) {
      t.equal(neighbours.find(({ dst }) => dst === address)?.lladdr, mac, `${address} is the director's`);
    }
  });

  await t.test("a TCP listener of the director's own, also on the VIP", async (t) => {
    await comparesEqual(t, `tcp port ${OWN_TCP_PORT}`, async () => {
      for (const address of [DIRECTOR_FRONT, VIP.nat]) {
        const { body } = await httpGet(client, `http://${address}:${OWN_TCP_PORT}/`);
        t.equal(body, "director\n");
      }
    });
  });

  await t.test("a UDP server of the director's own, also on the VIP", async (t) => {
    await comparesEqual(t, `udp port ${OWN_UDP_PORT}`, async () => {
      for (const address of [DIRECTOR_FRONT, VIP.nat]) {
        const spread = await echoSpread(client, `${address}:${OWN_UDP_PORT}`, 5, 900);
        t.equal(spread.get("director"), 5, show(spread));
      }
    });
    await comparesEqual(t, `udp and host ${DIRECTOR_FRONT}`, async () => {
      const spread = await echoSpread(client, `${DIRECTOR_FRONT}:${OWN_UDP_PORT}`, 2, 2500);
      t.equal(spread.get("director"), 2, `in fragments: ${show(spread)}`);
    });
  });

  await t.test("an unserved port of a VIP is the host's: it refuses", async (t) => {
    await comparesEqual(
      t,
      `tcp port ${UNSERVED_PORT} or icmp[icmptype] == icmp-unreach or udp port ${UNSERVED_PORT}`,
      async () => {
        const { status, stderr } = await client.attempt([
          "curl",
          "-sS",
          "--max-time",
          "3",
          `http://${VIP.nat}:${UNSERVED_PORT}/`,
        ]);
        t.equal(status, 7, `connection refused: ${stderr.trim()}`);
        const spread = await echoSpread(client, `${VIP.nat}:${UNSERVED_PORT}`, 1);
        t.equal(spread.get("lost"), 1, "by UDP nothing answers (but ICMP, which is among the frames)");
      },
    );
  });

  await t.test("traffic that the director routes", async (t) => {
    t.match(await ping(client, real1.address), / 0% packet loss/);
    t.match(await ping(real1.host, CLIENT, "-s", "4000"), / 0% packet loss/);
    const spread = await httpSpread(client, `http://${real1.address}:8080`, 3);
    t.equal(spread.get("real1"), 3, show(spread));
    t.match(await ping(director.host, real1.address), / 0% packet loss/, "and its own");
    t.match(await ping(router, DIRECTOR_BACK), / 0% packet loss/);
  });

  await t.test("ping to a VIP is answered, whether or not the director has the address", async (t) => {
    t.match(await ping(client, VIP.dr), / 0% packet loss/);
    await client.ip(`route add ${FOREIGN_VIP} via ${DIRECTOR_FRONT}`);
    t.match(await ping(client, FOREIGN_VIP, "-s", "1400"), / 0% packet loss/);
  });

  await t.test("none of it was dropped or counted", async (t) => {
    t.same(await drops(director.host, director.pins), before);
  });
});

async function ping(from: Namespace, address: string, ...options: string[]): Promise<string> {
  const { stdout } = await from.attempt(["ping", "-c", "3", "-i", "0.05", "-W", "2", ...options, address]);
  return stdout;
}

async function drops(host: Namespace, pins: string): Promise<unknown> {
  return JSON.parse(await host.run(["bpftool", "-j", "map", "dump", "pinned", `${pins}/maps/drops`]));
}
