/**
 * The network that all packet tests pretend to be in, the one that the reference captures of the kernel's IPVS were
 * made in: a director with one interface to the clients and one to the real servers.
 *
 *     clients 198.18.0.0/15 -- router 10.0.0.2 -- c0 [director] r0 -- real servers 10.1.0.11, 10.1.0.12, ...
 *
 * The kernel's tables know the routes and neighbours (bpf_fib_lookup reads them); nothing answers on the far ends.
 */
import { execFileSync } from "node:child_process";
import { writeFileSync } from "node:fs";
import { interfaceIndex } from "libbpf-ts";

export const VIP = "10.0.0.100";
export const CLIENT = "198.18.0.1";
export const ROUTER_MAC = "02:00:00:00:0c:02";

/** The director's interfaces. */
export const INTERFACES = {
  c0: { mac: "02:00:00:00:0c:01", address: "10.0.0.1" },
  r0: { mac: "02:00:00:00:0a:01", address: "10.1.0.1" },
} as const;
export type InterfaceName = keyof typeof INTERFACES;

/** Real server n. */
export function realAddress(n: number): string {
  return `10.1.0.${10 + n}`;
}
export function realMac(n: number): string {
  return `02:00:00:00:01:${n.toString(16).padStart(2, "0")}`;
}

/** Clients that the routing table treats otherwise than 198.18.0.0/15. */
export const CLIENT_ON_REAL_SIDE = { address: "10.1.0.200", mac: "02:00:00:00:01:c8" } as const;
export const CLIENT_WITHOUT_ROUTE = "203.0.113.1";
export const CLIENT_BEHIND_UNKNOWN_NEIGHBOUR = { address: "198.51.100.1", router: "10.0.0.77" } as const;
/** The way back to it takes packets of at most 1400 bytes ("lock", as otherwise the kernel forwards by the link's MTU alone). */
export const CLIENT_BEHIND_NARROW_LINK = "192.0.2.1";
/** Reached over an interface that is never in egress. */
export const CLIENT_BEHIND_OTHER_INTERFACE = "100.64.0.1";

let made: Readonly<Record<InterfaceName, number>> | undefined;

/** The interfaces by index. Makes the network in the current namespace when it is first called; it goes with the namespace. */
export function network(): Readonly<Record<InterfaceName, number>> {
  made ??= make();
  return made;
}

function make(): Readonly<Record<InterfaceName, number>> {
  const setting = (name: string, value: number): void => writeFileSync(`/proc/sys/net/${name}`, `${value}\n`);
  setting("ipv6/conf/default/disable_ipv6", 1); // no router solicitations through the programs under test
  setting("ipv4/ip_forward", 1);
  const commands = [
    `link add c0 address ${INTERFACES.c0.mac} type veth peer name c0-peer address ${ROUTER_MAC}`,
    `link add r0 address ${INTERFACES.r0.mac} type veth peer name r0-peer`,
    "link add x0 address 02:00:00:00:0e:01 type veth peer name x0-peer",
    ...["lo", "c0", "c0-peer", "r0", "r0-peer", "x0", "x0-peer"].map((name) => `link set ${name} up`),
    `address add ${INTERFACES.c0.address}/24 dev c0`,
    `address add ${INTERFACES.r0.address}/16 dev r0`,
    "address add 100.64.0.254/24 dev x0",
    `address add ${VIP}/32 dev lo`,
    "route add 198.18.0.0/15 via 10.0.0.2",
    `route add ${CLIENT_BEHIND_UNKNOWN_NEIGHBOUR.address}/32 via ${CLIENT_BEHIND_UNKNOWN_NEIGHBOUR.router}`,
    `route add ${CLIENT_BEHIND_NARROW_LINK}/32 via 10.0.0.2 mtu lock 1400`,
    `route add unreachable ${CLIENT_WITHOUT_ROUTE}/32`,
    `neighbour add 10.0.0.2 lladdr ${ROUTER_MAC} dev c0 nud permanent`,
    `neighbour add ${CLIENT_ON_REAL_SIDE.address} lladdr ${CLIENT_ON_REAL_SIDE.mac} dev r0 nud permanent`,
    `neighbour add ${CLIENT_BEHIND_OTHER_INTERFACE} lladdr 02:00:00:00:0e:02 dev x0 nud permanent`,
  ];
  execFileSync("ip", ["-batch", "-"], { input: commands.map((command) => `${command}\n`).join("") });
  return { c0: interfaceIndex("c0"), r0: interfaceIndex("r0") };
}
