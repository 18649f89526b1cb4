/** Elements of the mark_rules map, of which one half holds while the other half may be written. */
import type { MarkRule, Network, PortRange } from "../model/index.js";
import { parseAddress, prefixMask } from "./address.js";
import { FAMILIES, PROTOCOLS } from "./service-key.js";
import type { MarkRuleRange } from "./settings.js";
import { layout, Protocol } from "./sluice.bpf.js";
import type { ArrayMemory } from "./tables.js";

const { size, offsets } = layout.MarkRule;

const ALL_PORTS: PortRange = [0, 65535];

/** The rules as they lie in the map. */
export function compileMarkRules(rules: readonly MarkRule[]): Uint8Array {
  const bytes = new Uint8Array(rules.length * size);
  for (const [index, rule] of rules.entries()) {
    writeRule(bytes.subarray(index * size, (index + 1) * size), rule);
  }
  return bytes;
}

function writeRule(bytes: Uint8Array, rule: MarkRule): void {
  const u16 = new Uint16Array(bytes.buffer, bytes.byteOffset, size / 2);
  const u32 = new Uint32Array(bytes.buffer, bytes.byteOffset, size / 4);
  writeNetwork(bytes, offsets.source, offsets.source_mask, rule.source);
  writeNetwork(bytes, offsets.destination, offsets.destination_mask, rule.destination);
  u16.set(rule.sourcePorts ?? ALL_PORTS, offsets.source_ports / 2);
  u16.set(rule.destinationPorts ?? ALL_PORTS, offsets.destination_ports / 2);
  u32[offsets.mark / 4] = rule.mark;
  bytes[offsets.protocol] = rule.protocol === undefined ? Protocol.PROTOCOL_IP : PROTOCOLS[rule.protocol];
  bytes[offsets.family] = FAMILIES[rule.family];
}

/** Without a network the mask is zero, which any address is within. */
function writeNetwork(bytes: Uint8Array, at: number, maskAt: number, network: Network | undefined): void {
  if (network !== undefined) {
    bytes.set(parseAddress(network.address).bytes, at);
    bytes.set(prefixMask(network.prefixLength), maskAt);
  }
}

export function markRuleBytes(markRules: ArrayMemory, first: number, count: number): Uint8Array {
  return markRules.bytes.subarray(first * markRules.stride, (first + count) * markRules.stride);
}

/** Where the half begins that does not hold. */
export function otherHalf({ length }: ArrayMemory, holding: MarkRuleRange): number {
  return holding.first < length / 2 ? length / 2 : 0;
}

/** Whether rules were ever written to the half that begins there. */
export function hasRules(markRules: ArrayMemory, first: number): boolean {
  return markRules.u32[(first * markRules.stride + offsets.mark) / 4] !== 0;
}
