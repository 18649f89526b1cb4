/** What identifies services, as the maps have it and as the model has it. */
import { type ServiceKey as ModelServiceKey, type Protocol as ProtocolName, serviceName } from "../model/index.js";
import { ADDRESS_BYTES, formatAddress, parseAddress } from "./address.js";
import { AddressFamily, Protocol, type ServiceKey } from "./sluice.bpf.js";

export const PROTOCOLS: Readonly<Record<ProtocolName, Protocol>> = {
  tcp: Protocol.PROTOCOL_TCP,
  udp: Protocol.PROTOCOL_UDP,
  sctp: Protocol.PROTOCOL_SCTP,
};
const PROTOCOL_NAMES = Object.keys(PROTOCOLS) as ProtocolName[];

export const FAMILIES = { ipv4: AddressFamily.FAMILY_IPV4, ipv6: AddressFamily.FAMILY_IPV6 } as const;

/** A firewall mark stands in the place of the address, in network order. */
export function keyOf(service: ModelServiceKey): ServiceKey {
  if (service.fwmark !== undefined) {
    const bytes = new Uint8Array(ADDRESS_BYTES);
    new DataView(bytes.buffer).setUint32(0, service.fwmark);
    return { vip: { bytes }, port: 0, protocol: Protocol.PROTOCOL_IP, family: FAMILIES[service.family] };
  }
  const { family, bytes } = parseAddress(service.address);
  return { vip: { bytes }, port: service.port, protocol: PROTOCOLS[service.protocol], family };
}

/** Whether a service is found by a firewall mark, and has no address. */
export function isMark(key: ServiceKey): boolean {
  return key.protocol === Protocol.PROTOCOL_IP;
}

/** serviceName() of the service with this key. */
export function nameOf(key: ServiceKey): string {
  const { bytes } = key.vip;
  if (isMark(key)) {
    const fwmark = new DataView(bytes.buffer, bytes.byteOffset).getUint32(0);
    return serviceName({ fwmark, family: key.family === AddressFamily.FAMILY_IPV6 ? "ipv6" : "ipv4" });
  }
  const protocol = PROTOCOL_NAMES.find((name) => PROTOCOLS[name] === key.protocol) ?? "tcp";
  return serviceName({ protocol, address: formatAddress({ family: key.family, bytes }), port: key.port });
}
