/**
 * A data plane as the daemon has it, with production's control plane on top, and clients that send it packets: for what only both
 * together can show. All real servers are behind r0, by dr, so that the MAC on a frame says who was picked.
 */
import { execFileSync } from "node:child_process";
import { BpfMap, Program } from "libbpf-ts";
import { DataPlane } from "../../src/dataplane/index.js";
import type { Maps } from "../../src/dataplane/sluice.bpf.js";
import { DEFAULT_TIMEOUTS, type SchedulerName, validateDesiredState } from "../../src/model/index.js";
import { build } from "./frame.js";
import { INTERFACES, network, ROUTER_MAC, VIP } from "./network.js";
import type { Client, Server } from "./scheduler-models.js";

const INSTANCE = `schedulers-test-${process.pid}`;
const PINS = `/sys/fs/bpf/${INSTANCE}`;
/** What is retired in one example has not ended when the next begins. */
const LIMITS = { connections: 524_288, services: 1024, realServers: 32_768, ringSlots: 4_194_304 };
const MOST_REAL_SERVERS = 64;
const XDP_DROP = 1;

/** A real server of a service under test: its number, from 0, says its address and MAC. */
export interface Member {
  readonly number: number;
  readonly weight: number;
}

export interface Service {
  readonly port: number;
  readonly scheduler: SchedulerName;
  readonly flags?: readonly string[];
  readonly members: readonly Member[];
}

function address(number: number): string {
  return `10.1.1.${number + 1}`;
}
function mac(number: number): string {
  return `02:00:00:00:02:${number.toString(16).padStart(2, "0")}`;
}

export class Director {
  readonly #dataPlane: DataPlane;
  readonly #program: Program;
  readonly #context: Uint8Array;

  private constructor(dataPlane: DataPlane, ifindex: number) {
    this.#dataPlane = dataPlane;
    this.#program = Program.open(`${PINS}/programs/sluice`);
    this.#context = new Uint8Array(24); // struct xdp_md: data, data_end, data_meta, ingress_ifindex, ...
    new DataView(this.#context.buffer).setUint32(12, ifindex, true);
  }

  static async open(): Promise<Director> {
    const { c0 } = network();
    for (let number = 0; number < MOST_REAL_SERVERS; number++) {
      execFileSync("ip", `neighbour replace ${address(number)} lladdr ${mac(number)} dev r0 nud permanent`.split(" "));
    }
    const quiet = (): void => undefined;
    const fail = (fields: object, message: string): void => {
      throw new Error(`${message}: ${JSON.stringify(fields)}`);
    };
    const log = { debug: quiet, info: quiet, warn: quiet, error: fail };
    const interfaces = [{ name: "c0", mode: "native" as const }];
    const options = { instance: INSTANCE, interfaces, limits: LIMITS, timeouts: DEFAULT_TIMEOUTS, log };
    return new Director(await DataPlane.open(options), c0);
  }

  async close(): Promise<void> {
    this.#program.close();
    await this.#dataPlane.close();
    await DataPlane.unload({ instance: INSTANCE });
  }

  /** Serves this service, and no other. */
  async serve({ port, scheduler, flags = [], members }: Service): Promise<void> {
    const realServers = members.map(({ number, weight }) => ({ address: address(number), method: "dr", weight }));
    const service = {
      protocol: "tcp",
      address: VIP,
      port,
      scheduler,
      scheduler_flags: flags,
      real_servers: realServers,
    };
    await this.#dataPlane.publish(validateDesiredState({ settings: { icmp_rate: 0 }, services: [service] }));
  }

  /** Sends a segment; the number of the real server that gets it, or undefined if it is dropped. */
  send(port: number, client: Client, flags: string): number | undefined {
    const frame = build([
      { kind: "ethernet", destination: INTERFACES.c0.mac, source: ROUTER_MAC },
      { kind: "ipv4", source: client.address, destination: VIP },
      { kind: "tcp", sourcePort: client.port, destinationPort: port, flags },
    ]);
    new DataView(this.#context.buffer).setUint32(4, frame.length, true);
    const { returnValue, data } = this.#program.testRun({ data: frame, context: this.#context });
    if (returnValue === XDP_DROP) return undefined;
    if (data[4] !== 2)
      throw new Error(`verdict ${returnValue}, to ${Buffer.from(data.subarray(0, 6)).toString("hex")}`);
    return data[5];
  }

  /** The members as a scheduler sees them at this moment: their weights, and how many connections the data plane counts. */
  async servers({ port, members }: Service): Promise<Server[]> {
    const counters = await this.#dataPlane.serviceCounters(`tcp:${VIP}:${port}`);
    return members.map(({ number, weight }) => {
      const { active, inactive } = counters?.realServers.get(`${address(number)}:${port}`) ?? {
        active: -1,
        inactive: -1,
      };
      return { weight, active, inactive };
    });
  }

  /** How many slots the service's ring has. */
  ringLength(port: number): number {
    using index = BpfMap.open<Maps["service_index"]["key"], number>(`${PINS}/maps/service_index`);
    using services = BpfMap.open<number, Maps["services"]["value"]>(`${PINS}/maps/services`);
    for (const key of index.keys()) {
      if (key.port === port) return services.get(index.get(key) ?? -1)?.ring.length ?? 0;
    }
    throw new RangeError(`no service has port ${port}`);
  }
}
