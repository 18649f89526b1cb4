/** Real clients and servers through each forwarding method: HTTP, UDP, iperf3, DNS. */
import { test } from "tap";
import { contentSha256 } from "../network/content.js";
import type { Namespace } from "../network/namespace.js";
import { CLIENT, DIRECTOR_BACK } from "../network/topology.js";
import {
  Download,
  echoClientAddress,
  echoSpread,
  httpGet,
  httpSpread,
  inProportion,
  lines,
  show,
  tally,
} from "../network/traffic.js";
import {
  configuration,
  DNS_PORT,
  ECHO_PORT,
  HTTP_PORT,
  IPERF_PORT,
  MAPPED_HTTP_PORT,
  METHODS,
  type Method,
  MIXED_VIP,
  SECOND_MAPPED_HTTP_PORT,
  type ServiceYaml,
  setUp,
  standardServices,
  VIP,
  WEIGHTS,
  weighted,
} from "./setup.js";

const DOWNLOAD_BYTES = 20_000_000;

test("each method", async (t) => {
  const { topology, director } = await setUp(t);
  const { client, reals } = topology;
  const [real1] = reals;
  if (real1 === undefined) throw new Error("no real server");

  const iperf = (method: Method, protocol: "tcp" | "udp"): ServiceYaml => ({
    protocol,
    address: VIP[method],
    port: IPERF_PORT,
    scheduler: "rr",
    real_servers: [{ address: real1.address, port: IPERF_PORT, method }],
  });
  await director.startWith(
    configuration([
      ...standardServices(topology),
      ...METHODS.flatMap((method) => [
        weighted(topology, method, "udp", DNS_PORT, DNS_PORT),
        weighted(topology, method, "tcp", DNS_PORT, DNS_PORT),
        iperf(method, "tcp"),
        iperf(method, "udp"),
      ]),
      {
        protocol: "tcp",
        address: MIXED_VIP,
        port: HTTP_PORT,
        scheduler: "wrr",
        real_servers: [
          { address: "10.1.0.11", port: MAPPED_HTTP_PORT, method: "nat", weight: 1 },
          { address: "10.1.0.12", method: "dr", weight: 2 },
          { address: "10.1.0.13", method: "tun", weight: 2 },
          { address: "10.1.0.11", port: SECOND_MAPPED_HTTP_PORT, method: "fullnat", weight: 1 },
        ],
      },
    ]),
  );
  // One for each address that a test calls: a UDP server that listens on all would answer from the wrong one.
  for (const address of [real1.address, VIP.dr, VIP.tun]) {
    await real1.host.start(["iperf3", "--server", "--forceflush", "--bind", address]).waitForOutput(/Server listening/);
  }

  for (const method of METHODS) {
    const url = `http://${VIP[method]}`;
    await t.test(method, async (t) => {
      await t.test("HTTP connections follow the weights", async (t) => {
        const spread = await httpSpread(client, url, 60);
        t.ok(inProportion(spread, WEIGHTS), `60 connections at weights ${WEIGHTS.join(":")}: ${show(spread)}`);
      });

      await t.test("the real server sees who the method says", async (t) => {
        const { headers } = await httpGet(client, `${url}/`);
        const seen = headers.get("x-client") ?? "";
        t.match(seen, method === "fullnat" ? `${DIRECTOR_BACK}:` : `${CLIENT}:`);
        const udp = await echoClientAddress(client, `${VIP[method]}:${ECHO_PORT}`);
        t.match(udp, method === "fullnat" ? `${DIRECTOR_BACK}:` : `${CLIENT}:`);
        if (method === "fullnat") {
          const port = Number(seen.split(":")[1]);
          t.ok(port >= 1024 && port <= 32767, `LPORT ${port} is of the configured range`);
        }
      });

      await t.test("a download arrives intact", async (t) => {
        const { bytes, sha256 } = await new Download(client, url, DOWNLOAD_BYTES).ended;
        t.equal(bytes, DOWNLOAD_BYTES);
        t.equal(sha256, contentSha256(DOWNLOAD_BYTES));
      });

      await t.test("UDP datagrams follow the weights and come back as they went", async (t) => {
        const spread = await echoSpread(client, `${VIP[method]}:${ECHO_PORT}`, 60);
        t.ok(inProportion(spread, WEIGHTS), show(spread));
        // The answer's name and base64 take it close to the MTU.
        const large = await echoSpread(client, `${VIP[method]}:${ECHO_PORT}`, 6, 1000);
        t.ok(inProportion(large, WEIGHTS), `1000 bytes: ${show(large)}`);
      });

      await t.test("iperf3, TCP and UDP, both directions", async (t) => {
        for (const direction of [[], ["--reverse"]]) {
          const way = direction.length === 0 ? "client to real server" : "real server to client";
          const tcp = await iperf3(client, VIP[method], ["--time", "1", ...direction]);
          const megabits = Math.round(tcp.end.sum_received.bits_per_second / 1e6);
          t.ok(megabits >= 10, `${way}: ${megabits} Mbit/s by TCP`);
          const udp = await iperf3(client, VIP[method], [
            ...["--udp", "--bitrate", "10M", "--length", "1200", "--time", "1"],
            ...direction,
          ]);
          const { packets, lost_packets: lost } = udp.end.sum;
          // On a busy machine a receiver that waits for its turn loses some; what the director drops is looked at below.
          t.ok(packets >= 800 && lost <= packets / 10, `${way}: ${packets} datagrams, ${lost} of them lost`);
        }
      });

      await t.test("a DNS server, by UDP and TCP", async (t) => {
        for (const transport of ["+notcp", "+tcp"]) {
          const queries = Array.from(
            { length: 18 },
            async () => await dig(client, VIP[method], "who.test", "TXT", transport),
          );
          const spread = tally((await Promise.all(queries)).map((answer) => answer.trim().replaceAll('"', "")));
          t.ok(inProportion(spread, WEIGHTS), `${transport}: ${show(spread)}`);
        }
        // 200 addresses do not fit a datagram: the client is told so and comes again by TCP.
        const addresses = lines(await dig(client, VIP[method], "many.test", "A"));
        t.equal(addresses.filter((line) => line.startsWith("192.0.2.")).length, 200, "a long answer, by TCP after UDP");
      });
    });
  }

  await t.test("one service by all four methods at once", async (t) => {
    const spread = await httpSpread(client, `http://${MIXED_VIP}`, 60);
    t.ok(inProportion(spread, [2, 2, 2]), show(spread));
    const downloads = await Promise.all(
      Array.from({ length: 6 }, async () => await new Download(client, `http://${MIXED_VIP}`, 2_000_000).ended),
    );
    for (const { sha256 } of downloads) t.equal(sha256, contentSha256(2_000_000));
  });

  await t.test("after all this no packet of a service was dropped", async (t) => {
    const drops = JSON.parse(
      await director.host.run(["bpftool", "-j", "map", "dump", "pinned", `${director.pins}/maps/drops`]),
    ) as {
      formatted: { key: number; values: { value: { reason: string; packets: number } }[] };
    }[];
    for (const { formatted } of drops) {
      const packets = formatted.values.reduce((sum, { value }) => sum + value.packets, 0);
      t.equal(packets, 0, formatted.values[0]?.value.reason ?? `reason ${formatted.key}`);
    }
  });
});

interface IperfReport {
  readonly end: {
    readonly sum_received: { readonly bits_per_second: number };
    readonly sum: { readonly packets: number; readonly lost_packets: number };
  };
}

async function iperf3(client: Namespace, address: string, options: readonly string[]): Promise<IperfReport> {
  return JSON.parse(await client.run(["iperf3", "--json", "--client", address, ...options])) as IperfReport;
}

async function dig(
  client: Namespace,
  server: string,
  name: string,
  type: string,
  ...options: string[]
): Promise<string> {
  return await client.run(["dig", `@${server}`, name, type, "+short", "+tries=1", "+time=2", ...options]);
}
