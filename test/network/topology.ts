/**
 * The network that tests and the demo run in. As in a real one, the replies of dr and tun take another way than the requests:
 *
 *                   front, MTU 1500                       back, MTU 1600
 *    client ─────────┬───────┬─── c0 director r0 ──┬──────┬───────┬─── real1 10.1.0.11
 *    10.0.0.2        │       │ 10.0.0.1   10.1.0.1 │      │       ├─── real2 10.1.0.12
 *                 (switch)   │                  (switch)  │       └─── real3 10.1.0.13
 *                            └────────── router ──────────┘
 *                           10.0.0.254     10.1.0.254
 *
 * The real servers' default gateway is the director, as nat asks for. What they send from a VIP goes by a routing rule to the
 * router and so to the client past the director. rp_filter is strict on them, to show that nothing asks for its relaxation.
 * The MTU of the back leaves room for the outer header of tun.
 */
import { type CableEnd, cable, type Laboratory, type Namespace, takeTransmitted } from "./namespace.js";

export const CLIENT = "10.0.0.2";
export const DIRECTOR_FRONT = "10.0.0.1";
export const DIRECTOR_BACK = "10.1.0.1";
const ROUTER_FRONT = "10.0.0.254";
const ROUTER_BACK = "10.1.0.254";
const FRONT_MTU = 1500;
const BACK_MTU = 1600;
const TABLE_OF_VIPS = 100;

export interface RealHost {
  readonly host: Namespace;
  readonly address: string;
}

export interface Topology {
  readonly switches: Namespace;
  readonly client: Namespace;
  readonly director: Namespace;
  readonly router: Namespace;
  readonly reals: readonly RealHost[];
}

/** Builds it; `virtualAddresses` are the director's on c0, as keepalived would have put them there. */
export async function buildTopology(laboratory: Laboratory, virtualAddresses: readonly string[]): Promise<Topology> {
  const client = await laboratory.namespace("client");
  const director = await laboratory.namespace("director");
  const router = await laboratory.namespace("router");
  const switches = await laboratory.namespace("switches");
  await addBridge(switches, "front", FRONT_MTU);
  await addBridge(switches, "back", BACK_MTU);

  await plug(client, "eth0", switches, "front", FRONT_MTU);
  await client.ip(`address add ${CLIENT}/24 dev eth0`, `route add default via ${DIRECTOR_FRONT}`);

  await plugDirector(director, switches, DIRECTOR_FRONT, DIRECTOR_BACK, virtualAddresses);

  await plug(router, "front", switches, "front", FRONT_MTU);
  await plug(router, "back", switches, "back", BACK_MTU);
  await router.sysctl({ "net.ipv4.ip_forward": 1 });
  await router.ip(`address add ${ROUTER_FRONT}/24 dev front`, `address add ${ROUTER_BACK}/24 dev back`);

  const reals: RealHost[] = [];
  for (const number of [1, 2, 3]) {
    const host = await laboratory.namespace(`real${number}`);
    const address = `10.1.0.1${number}`;
    await plug(host, "eth0", switches, "back", BACK_MTU);
    await host.sysctl({ "net.ipv4.conf.all.rp_filter": 1, "net.ipv4.conf.eth0.rp_filter": 1 });
    await host.ip(
      `address add ${address}/24 dev eth0`,
      `route add default via ${DIRECTOR_BACK}`,
      `route add default via ${ROUTER_BACK} table ${TABLE_OF_VIPS}`,
      ...virtualAddresses.map((vip) => `rule add from ${vip} lookup ${TABLE_OF_VIPS}`),
    );
    reals.push({ host, address });
  }
  return { switches, client, director, router, reals };
}

/** One more director beside the first, for another Sluice instance. */
export async function addDirector(
  laboratory: Laboratory,
  { switches }: Topology,
  { front, back }: { front: string; back: string },
  virtualAddresses: readonly string[],
): Promise<Namespace> {
  const director = await laboratory.namespace("director2");
  await plugDirector(director, switches, front, back, virtualAddresses);
  return director;
}

async function plugDirector(
  director: Namespace,
  switches: Namespace,
  front: string,
  back: string,
  virtualAddresses: readonly string[],
): Promise<void> {
  await takeTransmitted(await plug(director, "c0", switches, "front", FRONT_MTU));
  await takeTransmitted(await plug(director, "r0", switches, "back", BACK_MTU));
  await director.sysctl({ "net.ipv4.ip_forward": 1 });
  await director.ip(
    `address add ${front}/24 dev c0`,
    `address add ${back}/24 dev r0`,
    ...virtualAddresses.map((address) => `address add ${address}/32 dev c0`),
  );
}

async function addBridge(switches: Namespace, name: string, mtu: number): Promise<void> {
  await switches.ip(`link add ${name} mtu ${mtu} type bridge stp_state 0 forward_delay 0`, `link set ${name} up`);
}

/** Returns the switch's port, which is named after what is plugged into it. */
async function plug(
  host: Namespace,
  interfaceName: string,
  switches: Namespace,
  bridge: string,
  mtu: number,
): Promise<CableEnd> {
  const port = `${host.role}-${bridge}`;
  const end = { host: switches, interface: port };
  await cable({ host, interface: interfaceName }, end, mtu);
  await switches.ip(`link set ${port} master ${bridge}`);
  return end;
}
