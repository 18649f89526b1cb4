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
