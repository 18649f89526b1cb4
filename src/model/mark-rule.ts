import type { AddressFamily } from "./address.js";
import { formatNetwork, type Network, readNetwork } from "./network.js";
import { formatPortRange, type PortRange, readPortRange } from "./port-range.js";
import { FAMILIES, field, readChoice, readFamily, readFields, readInteger, readList } from "./read.js";
import { FWMARK, PROTOCOLS, type Protocol } from "./service-key.js";
import { at, type Path, type Violations } from "./violation.js";

/**
 * Gives packets that begin a connection a firewall mark, which services of that mark are found by. A packet matches when all that the rule
 * names holds for it. Of several rules that it matches the first counts.
 */
export interface MarkRule {
  /** 1..4294967295. */
  readonly mark: number;
  readonly family: AddressFamily;
  /** Undefined: any. */
  readonly protocol?: Protocol;
  /** Undefined: any. */
  readonly source?: Network;
  readonly destination?: Network;
  /** Undefined: any. Only with a protocol. */
  readonly sourcePorts?: PortRange;
  readonly destinationPorts?: PortRange;
}

/** MARK_RULES in bpf/abi.h. */
const MAX_MARK_RULES = 1024;

const RULE_FIELDS = ["mark", "family", "protocol", "source", "destination", "source_ports", "destination_ports"];

export function readMarkRules(input: unknown, path: Path, violations: Violations): readonly MarkRule[] {
  if (input === undefined) {
    return [];
  }
  const list = readList(input, path, "mark rules", violations) ?? [];
  if (list.length > MAX_MARK_RULES) {
    const allowed = `at most ${String(MAX_MARK_RULES)} rules`;
    const problem = `has ${String(list.length)} rules; it takes ${allowed}`;
    violations.add("CAPACITY_EXCEEDED", path, list, allowed, problem);
    return [];
  }
  return list.flatMap((item, index) => readMarkRule(item, at(path, index), violations) ?? []);
}

function readMarkRule(input: unknown, path: Path, violations: Violations): MarkRule | undefined {
  const fields = readFields(input, path, RULE_FIELDS, violations);
  if (fields === undefined) {
    return undefined;
  }
  const before = violations.list.length;
  const optional = <T>(name: string, read: (given: unknown, place: Path) => T | undefined): T | undefined => {
    const given = field(fields, name);
    return given === undefined ? undefined : read(given, at(path, name));
  };
  const network = (given: unknown, place: Path): Network | undefined => readNetwork(given, place, violations);
  const ports = (given: unknown, place: Path): PortRange | undefined => readPortRange(given, place, violations);

  const mark = readInteger(field(fields, "mark"), at(path, "mark"), FWMARK, violations);
  const protocol = optional("protocol", (given, place) =>
    readChoice(given, place, PROTOCOLS, "UNKNOWN_PROTOCOL", violations),
  );
  const source = optional("source", network);
  const destination = optional("destination", network);
  const sourcePorts = optional("source_ports", ports);
  const destinationPorts = optional("destination_ports", ports);
  const hasAddress = field(fields, "source") !== undefined || field(fields, "destination") !== undefined;
  const family = readRuleFamily(field(fields, "family"), source, destination, hasAddress, path, violations);
  if (field(fields, "protocol") === undefined) {
    for (const name of ["source_ports", "destination_ports"]) {
      if (field(fields, name) !== undefined) {
        const allowed = "no ports unless there is a protocol";
        const problem = "is about ports, which not every protocol has; it takes a protocol beside it";
        violations.add("PORTS_WITHOUT_PROTOCOL", at(path, name), field(fields, name), allowed, problem);
      }
    }
  }
  if (violations.list.length > before || mark === undefined || family === undefined) {
    return undefined;
  }
  return {
    mark,
    family,
    ...(protocol === undefined ? {} : { protocol }),
    ...(source === undefined ? {} : { source }),
    ...(destination === undefined ? {} : { destination }),
    ...(sourcePorts === undefined ? {} : { sourcePorts }),
    ...(destinationPorts === undefined ? {} : { destinationPorts }),
  };
}

/** That of the addresses. A rule without any must say it, and one with some may. */
function readRuleFamily(
  input: unknown,
  source: Network | undefined,
  destination: Network | undefined,
  hasAddress: boolean,
  path: Path,
  violations: Violations,
): AddressFamily | undefined {
  if (input === undefined && !hasAddress) {
    const allowed = `${FAMILIES}, where there is neither source nor destination`;
    violations.add("MISSING_FIELD", at(path, "family"), undefined, allowed);
    return undefined;
  }
  const said = input === undefined ? undefined : readFamily(input, at(path, "family"), violations);
  const rule = said ?? source?.family ?? destination?.family;
  for (const [name, network] of [
    ["source", source],
    ["destination", destination],
  ] as const) {
    if (network !== undefined && network.family !== rule) {
      const problem = `is of ${network.family}, but the rule of ${String(rule)}; it takes one family`;
      violations.add(
        "FAMILY_MISMATCH",
        at(path, name),
        formatNetwork(network),
        `a network of ${String(rule)}`,
        problem,
      );
    }
  }
  return rule;
}

export interface PlainMarkRule {
  readonly mark: number;
  /** Where neither source nor destination says it. */
  readonly family?: AddressFamily;
  readonly protocol?: Protocol;
  readonly source?: string;
  readonly destination?: string;
  readonly source_ports?: string;
  readonly destination_ports?: string;
}

export function plainMarkRule(rule: MarkRule): PlainMarkRule {
  const { mark, family, protocol, source, destination, sourcePorts, destinationPorts } = rule;
  return {
    mark,
    ...(source === undefined && destination === undefined ? { family } : {}),
    ...(protocol === undefined ? {} : { protocol }),
    ...(source === undefined ? {} : { source: formatNetwork(source) }),
    ...(destination === undefined ? {} : { destination: formatNetwork(destination) }),
    ...(sourcePorts === undefined ? {} : { source_ports: formatPortRange(sourcePorts) }),
    ...(destinationPorts === undefined ? {} : { destination_ports: formatPortRange(destinationPorts) }),
  };
}
