/** Counters since the data plane was loaded. Bytes are lengths of IP packets. */
export interface TrafficCounters {
  /** Connections that were scheduled. */
  readonly connections: bigint;
  /** From clients. */
  readonly inPackets: bigint;
  readonly inBytes: bigint;
  /** Replies by nat and fullnat; those by dr and tun do not pass the director. */
  readonly outPackets: bigint;
  readonly outBytes: bigint;
}

export interface RealServerCounters extends TrafficCounters {
  /** Connections in the table now, as IPVS tells active from inactive. */
  readonly active: number;
  readonly inactive: number;
  /** Clients that persistence keeps here, as IPVS counts them: templates in the table. */
  readonly persistentConnections: number;
  /** Whether it takes no new connections, its upper threshold having been reached. */
  readonly overloaded: boolean;
  /** fullnat alone: pairs of local address and port that its connections hold, and how many there are to hold. */
  readonly localPortsInUse?: number;
  readonly localPorts?: number;
}

export interface ServiceCounters extends TrafficCounters {
  /** By realServerName. */
  readonly realServers: ReadonlyMap<string, RealServerCounters>;
}

export interface DropCounter {
  readonly packets: bigint;
  /** Lengths of frames. */
  readonly bytes: bigint;
}

/** By reason: bpf/abi.h's enum drop_reason in lower case without its prefix. */
export type Drops = Readonly<Record<string, DropCounter>>;
