import {
  type DirectorSettings,
  formatNetwork,
  type MarkRule,
  type NamedFullnatPool,
  type PortRange,
  plainFullnatPool,
  plainMarkRule,
  plainNamedPool,
  plainTimeouts,
  SETTING_NAMES,
} from "../model/index.js";
import { camel, plainTimeoutsOf, timeoutsMessage } from "./duration-messages.js";
import type {
  FullnatPool as FullnatPoolMessage,
  MarkRule as MarkRuleMessage,
  PortRange as PortRangeMessage,
  Settings as SettingsMessage,
} from "./gen/sluice/v1/settings.js";
import { Protocol as ProtocolMessage } from "./gen/sluice/v1/virtual_service.js";
import { FAMILY_MESSAGES, familyWord, PROTOCOL_MESSAGES, protocolWord } from "./messages.js";
import { SETTINGS_RESOURCE } from "./names.js";

/** Everything, also what has its default. */
export function settingsMessage({ settings, timeouts, marks, fullnat, pools }: DirectorSettings): SettingsMessage {
  const message: SettingsMessage = {
    name: SETTINGS_RESOURCE,
    timeouts: timeoutsMessage(timeouts),
    marks: marks.map(markRuleMessage),
    fullnat: fullnat === undefined ? undefined : poolMessage({ name: "", ...fullnat }),
    fullnatPools: pools.map(poolMessage),
  };
  for (const name of SETTING_NAMES) {
    message[camel(name)] = settings[name];
  }
  return message;
}

function markRuleMessage(rule: MarkRule): MarkRuleMessage {
  const { mark, family, protocol, source, destination, sourcePorts, destinationPorts } = rule;
  return {
    mark,
    family: FAMILY_MESSAGES[family],
    protocol: protocol === undefined ? ProtocolMessage.UNSPECIFIED : PROTOCOL_MESSAGES[protocol],
    source: source === undefined ? "" : formatNetwork(source),
    destination: destination === undefined ? "" : formatNetwork(destination),
    sourcePorts: sourcePorts === undefined ? undefined : portRangeMessage(sourcePorts),
    destinationPorts: destinationPorts === undefined ? undefined : portRangeMessage(destinationPorts),
  };
}

function portRangeMessage([first, last]: PortRange): PortRangeMessage {
  return { first, last };
}

function poolMessage({ name, localAddresses, localPorts }: NamedFullnatPool): FullnatPoolMessage {
  return { name, localAddresses: [...localAddresses], localPorts: portRangeMessage(localPorts) };
}

/** The fields of a Settings message in plain form, under the names that field masks use. */
export type PlainSettings = Readonly<Record<string, unknown>>;

/** The plain form of a message, unvalidated. A field at proto3's default value counts as absent where it has no presence. */
export function plainSettingsOf(message: SettingsMessage): PlainSettings {
  return {
    ...Object.fromEntries(SETTING_NAMES.map((name) => [name, message[camel(name)]])),
    timeouts: plainTimeoutsOf(message.timeouts),
    marks: message.marks.map(plainMarkRuleOf),
    fullnat: message.fullnat === undefined ? undefined : plainPoolOf(message.fullnat),
    fullnat_pools: message.fullnatPools.map(plainPoolOf),
  };
}

/** The same of what is in force, so that an update can be laid over it. */
export function plainSettings({ settings, timeouts, marks, fullnat, pools }: DirectorSettings): PlainSettings {
  return {
    ...settings,
    timeouts: plainTimeouts(timeouts),
    marks: marks.map(plainMarkRule),
    fullnat: fullnat === undefined ? undefined : plainFullnatPool(fullnat),
    fullnat_pools: pools.map(plainNamedPool),
  };
}

export function plainMarkRuleOf(message: MarkRuleMessage): Readonly<Record<string, unknown>> {
  const { mark, family, protocol, source, destination, sourcePorts, destinationPorts } = message;
  return {
    mark: mark === 0 ? undefined : mark,
    family: familyWord(family),
    protocol: protocolWord(protocol),
    source: source === "" ? undefined : source,
    destination: destination === "" ? undefined : destination,
    source_ports: plainPortRangeOf(sourcePorts),
    destination_ports: plainPortRangeOf(destinationPorts),
  };
}

function plainPortRangeOf(message: PortRangeMessage | undefined): string | undefined {
  return message === undefined ? undefined : `${String(message.first)}-${String(message.last)}`;
}

/** The default pool has no name, and one that has none is refused where it needs one. */
export function plainPoolOf({
  name,
  localAddresses,
  localPorts,
}: FullnatPoolMessage): Readonly<Record<string, unknown>> {
  return {
    ...(name === "" ? {} : { name }),
    local_addresses: localAddresses,
    local_ports: plainPortRangeOf(localPorts),
  };
}
