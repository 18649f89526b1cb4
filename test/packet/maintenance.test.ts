/** The programs beside the packet's way: what the control plane asks of the kernel's routes, and the list of connections. */
import "./own-namespace.js";
import { writeFileSync } from "node:fs";
import { Link } from "libbpf-ts";
import t from "tap";
import { AddressFamily, type RouteRequest, RouteVerdict } from "../../src/dataplane/sluice.bpf.js";
import { ipv4Bytes, ipv4Text, macText } from "./addresses.js";
import { Bed, type Method, type Setup } from "./bed.js";
import { build, type Layer } from "./frame.js";
import {
  CLIENT,
  CLIENT_BEHIND_NARROW_LINK,
  CLIENT_BEHIND_UNKNOWN_NEIGHBOUR,
  CLIENT_ON_REAL_SIDE,
  CLIENT_WITHOUT_ROUTE,
  INTERFACES,
  type InterfaceName,
  ROUTER_MAC,
  realAddress,
  realMac,
  VIP,
} from "./network.js";
import { datagram, real, segment } from "./packets.js";
import { TIMEOUTS } from "./states.js";

function resolve(bed: Bed, destination: string, from: InterfaceName): RouteRequest {
  const codec = bed.object.btf.codec<RouteRequest>("route_request");
  const none = { bytes: new Uint8Array(16) };
  const bytes = Uint8Array.from([...ipv4Bytes(destination), ...new Uint8Array(12)]);
  const request: RouteRequest = {
    destination: { bytes },
    family: AddressFamily.FAMILY_IPV4,
    from_ifindex: bed.interfaces[from],
    verdict: RouteVerdict.ROUTE_NONE,
    ifindex: 0,
    gateway: none,
    source: none,
    destination_mac: new Uint8Array(6),
    source_mac: new Uint8Array(6),
    mtu: 0,
    kernel_verdict: 0,
  };
  const { data } = bed.object
    .program("resolve_route")
    .testRun({ data: codec.encode(request), dataOutSize: codec.size });
  return codec.decode(data);
}

t.test("resolve_route says how the kernel would forward", async (t) => {
  const bed = await Bed.open();
  t.teardown(() => bed.close());
  const says = (destination: string, from: InterfaceName): unknown => {
    const { verdict, ifindex, gateway, destination_mac, source_mac, mtu } = resolve(bed, destination, from);
    if (verdict === RouteVerdict.ROUTE_NO_NEIGHBOUR) {
      return { verdict, ifindex, gateway: ipv4Text(gateway.bytes.subarray(0, 4)) };
    }
    if (verdict !== RouteVerdict.ROUTE_RESOLVED) return { verdict };
    return {
      ifindex,
      gateway: ipv4Text(gateway.bytes.subarray(0, 4)),
      macs: [macText(destination_mac), macText(source_mac)],
      mtu,
    };
  };
  const { c0, r0 } = bed.interfaces;
  const byRouter = { ifindex: c0, gateway: "10.0.0.2", macs: [ROUTER_MAC, INTERFACES.c0.mac] };

  t.strictSame(says(CLIENT, "r0"), { ...byRouter, mtu: 1500 }, "through a router");
  t.strictSame(says(CLIENT_BEHIND_NARROW_LINK, "r0"), { ...byRouter, mtu: 1400 }, "a narrow way");
  t.strictSame(
    says(CLIENT_ON_REAL_SIDE.address, "c0"),
    {
      ifindex: r0,
      gateway: CLIENT_ON_REAL_SIDE.address,
      macs: [CLIENT_ON_REAL_SIDE.mac, INTERFACES.r0.mac],
      mtu: 1500,
    },
    "on link",
  );
  t.strictSame(
    says(CLIENT_BEHIND_UNKNOWN_NEIGHBOUR.address, "r0"),
    { verdict: RouteVerdict.ROUTE_NO_NEIGHBOUR, ifindex: c0, gateway: CLIENT_BEHIND_UNKNOWN_NEIGHBOUR.router },
    "a neighbour that nobody has asked for",
  );
  t.strictSame(says(CLIENT_WITHOUT_ROUTE, "r0"), { verdict: RouteVerdict.ROUTE_NONE }, "unreachable");
  t.strictSame(says("8.8.8.8", "r0"), { verdict: RouteVerdict.ROUTE_NONE }, "no route");
  t.strictSame(says(INTERFACES.c0.address, "r0"), { verdict: RouteVerdict.ROUTE_NONE }, "this host itself");
  writeFileSync("/proc/sys/net/ipv4/conf/r0/forwarding", "0\n");
  t.teardown(() => writeFileSync("/proc/sys/net/ipv4/conf/r0/forwarding", "1\n"));
  t.strictSame(says(CLIENT, "r0"), { verdict: RouteVerdict.ROUTE_NOT_FORWARDING }, "forwarding is off");
});

t.test("list_connections prints a line a connection", async (t) => {
  const bed = await Bed.open();
  t.teardown(() => bed.close());
  const methods: readonly Method[] = ["nat", "dr", "tun", "fullnat"];
  const setup: Setup = {
    services: methods.map((method, index) => ({
      protocol: index % 2 === 0 ? "tcp" : "udp",
      vip: VIP,
      port: 80 + index,
      realServers: [{ address: realAddress(1), port: 80 + index, method, hop: { mac: realMac(1) } }],
    })),
    localAddresses: ["10.1.0.1"],
    localPorts: [20000, 20000],
    timeouts: { FIN_WAIT: 0.05 },
  };
  bed.configure(setup);
  const send = (transport: Layer): void => {
    bed.run(
      build([
        { kind: "ethernet", destination: INTERFACES.c0.mac, source: ROUTER_MAC },
        { kind: "ipv4", source: CLIENT, destination: VIP },
        transport,
      ]),
    );
  };
  send({ kind: "tcp", sourcePort: 1000, destinationPort: 80, flags: "S" });
  send({ kind: "udp", sourcePort: 1001, destinationPort: 81 });
  for (const flags of ["S", "A"]) send({ kind: "tcp", sourcePort: 1002, destinationPort: 82, flags });
  send({ kind: "udp", sourcePort: 1003, destinationPort: 83 });
  // One that is over is not listed, though it is in the table until the sweeper comes.
  for (const flags of ["S", "A", "FA"]) send({ kind: "tcp", sourcePort: 1004, destinationPort: 82, flags });
  await new Promise((done) => setTimeout(done, 100));
  t.equal(bed.connections().length, 5);

  const link = await Link.attachIterator(bed.object.program("list_connections"), {
    map: bed.object.map("connection_table"),
  });
  t.teardown(() => link.close());
  const [header, ...lines] = (await link.readIterator()).trimEnd().split("\n");
  t.equal(header, "proto state seconds client virtual local real method");
  const listed = lines.map((line) => line.split(/ +/)).sort((a, b) => ((a[3] ?? "") < (b[3] ?? "") ? -1 : 1));
  t.strictSame(
    listed.map(([protocol, state, , ...rest]) => [protocol, state, ...rest].join(" ")),
    [
      `tcp SYN_RECV ${CLIENT}:1000 ${VIP}:80 - ${realAddress(1)}:80 nat`,
      `udp UDP ${CLIENT}:1001 ${VIP}:81 - ${realAddress(1)}:81 dr`,
      `tcp ESTABLISHED ${CLIENT}:1002 ${VIP}:82 - ${realAddress(1)}:82 tun`,
      `udp UDP ${CLIENT}:1003 ${VIP}:83 10.1.0.1:20000 ${realAddress(1)}:83 fullnat`,
    ],
  );
  for (const [index, timeout] of [TIMEOUTS.SYN_RECV, TIMEOUTS.UDP, TIMEOUTS.ESTABLISHED, TIMEOUTS.UDP].entries()) {
    const seconds = Number(listed[index]?.[2]);
    t.ok(seconds <= timeout && seconds > timeout - 5, `${seconds} of ${timeout} seconds are left`);
  }
});

t.test("list_connections prints templates and one-packet translations among the connections", async (t) => {
  const bed = await Bed.open();
  t.teardown(() => bed.close());
  const persistence = { seconds: 300, mask: "255.255.255.0" };
  bed.configure({
    services: [
      { protocol: "tcp", vip: VIP, port: 80, persistence, realServers: [real(1, "nat", { port: 8080 })] },
      { protocol: "tcp", vip: VIP, port: 0, persistence, realServers: [real(2, "dr")] },
      { protocol: "mark", vip: "0.0.1.2", port: 0, persistence, realServers: [real(3, "fullnat")] },
      { protocol: "udp", vip: VIP, port: 53, onePacket: true, realServers: [real(4, "nat", { port: 5353 })] },
      { protocol: "udp", vip: VIP, port: 54, onePacket: true, realServers: [real(5, "fullnat")] },
      { protocol: "udp", vip: VIP, port: 55, onePacket: true, realServers: [real(6, "dr")] },
    ],
    markRules: [{ mark: 0x102, destination: { address: "203.0.113.0", mask: "255.255.255.0" } }],
    localAddresses: ["10.1.0.1"],
    localPorts: [20000, 20000],
  });
  for (const frame of [
    ...["S", "A"].map((flags) => segment(flags, { vport: 80 })),
    segment("S", { vport: 443 }),
    datagram({ vip: "203.0.113.9", vport: 123 }),
    ...[53, 54, 55].map((vport) => datagram({ vport })),
  ]) {
    bed.run(build(frame));
  }
  const link = await Link.attachIterator(bed.object.program("list_connections"), {
    map: bed.object.map("connection_table"),
  });
  t.teardown(() => link.close());
  const lines = async (): Promise<string[][]> =>
    (await link.readIterator())
      .trimEnd()
      .split("\n")
      .slice(1)
      .map((line) => line.split(/ +/));
  const without = (column: number, rows: string[][]): string[] =>
    rows.map((row) => row.filter((_, i) => i !== column).join(" ")).sort();

  const templates = [
    `ip NONE 198.18.0.0:0 0.0.1.2:0 - ${realAddress(3)}:0 fullnat`,
    `tcp ASSURED 198.18.0.0:0 ${VIP}:80 - ${realAddress(1)}:8080 nat`,
    `tcp NONE 198.18.0.0:0 ${VIP}:0 - ${realAddress(2)}:0 dr`,
  ];
  t.strictSame(
    without(2, await lines()),
    [
      ...templates,
      `tcp ESTABLISHED ${CLIENT}:1000 ${VIP}:80 - ${realAddress(1)}:8080 nat`,
      `tcp SYN_RECV ${CLIENT}:1000 ${VIP}:443 - ${realAddress(2)}:443 dr`,
      `udp ONE_PACKET ${CLIENT}:1000 ${VIP}:53 - ${realAddress(4)}:5353 nat`,
      `udp ONE_PACKET ${CLIENT}:1000 ${VIP}:54 10.1.0.1:20000 ${realAddress(5)}:54 fullnat`,
      `udp UDP ${CLIENT}:1000 203.0.113.9:123 10.1.0.1:20000 ${realAddress(3)}:123 fullnat`,
    ].sort(),
  );
  const left = (await lines())
    .filter(([protocol]) => protocol === "ip" || protocol === "tcp")
    .map((row) => Number(row[2]));
  t.ok(Math.max(...left) > 890, "ESTABLISHED");
  t.equal(left.filter((seconds) => seconds > 295 && seconds <= 300).length, 3, "the templates");

  // The sweeper has taken the one in SYN_RECV, and with its time goes its template's line; another outlives its time.
  bed.advance(100);
  bed.sweep();
  bed.advance(201);
  const tcp = async (): Promise<string[]> =>
    (await lines())
      .filter(([protocol]) => protocol === "tcp")
      .map(([, state, seconds]) => `${state} ${Number(seconds) > 60 ? "more" : seconds}`)
      .sort();
  t.strictSame(await tcp(), ["ASSURED 0", "ESTABLISHED more"], "at nought until the sweeper comes");
  bed.sweep();
  t.match(await tcp(), [/^ASSURED 5[0-9]$|^ASSURED 60$/, "ESTABLISHED more"]);
  bed.changeRealServer(0, 0, { removed: "reset" });
  t.strictSame(await tcp(), [], "what was ended by its real server's removal is none");
});
