/** The keys of nat_endpoints: which addresses and ports are nat real servers in service. */
import { formatAddress } from "./address.js";
import type { InstalledRealServer } from "./inventory.js";
import { isMark, PROTOCOLS } from "./service-key.js";
import { ForwardingMethod, type ServiceKey } from "./sluice.bpf.js";

type Candidate = Pick<InstalledRealServer, "address" | "port" | "method" | "standing">;

/** One whose port is the client's own choice has none to be known by. */
export function isEndpoint({ port, method, standing }: Candidate): boolean {
  return standing === "active" && method === ForwardingMethod.METHOD_NAT && port !== 0;
}

/** A real server of a mark serves every protocol (ip_vs_has_real_service() in net/netfilter/ipvs/ip_vs_ctl.c). */
export function endpointKeys(
  service: ServiceKey,
  { address, port }: Pick<Candidate, "address" | "port">,
): ServiceKey[] {
  const protocols = isMark(service) ? Object.values(PROTOCOLS) : [service.protocol];
  return protocols.map((protocol) => {
    return { vip: { bytes: address.bytes }, port, protocol, family: address.family };
  });
}

export function endpointText({ vip, port, protocol, family }: ServiceKey): string {
  return `${formatAddress({ family, bytes: vip.bytes })} ${String(port)} ${String(protocol)}`;
}
