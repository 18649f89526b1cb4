/** Whether the kernel lets this host forward: without it there are no next hops, neither to real servers nor to clients. */
import { existsSync, readFileSync } from "node:fs";
import type { Logger } from "./log.js";

/** Warns of each of these interfaces on which forwarding is off. */
export function warnWithoutForwarding(interfaces: readonly string[], log: Logger): void {
  for (const name of interfaces) {
    if (!forwards(name)) {
      const command = "sysctl -w net.ipv4.ip_forward=1";
      log.warn(
        { interface: name, command },
        `IPv4 forwarding is off on ${name}, so no packet is forwarded; run \`${command}\``,
      );
    }
  }
}

function forwards(interfaceName: string): boolean {
  const setting = `/proc/sys/net/ipv4/conf/${interfaceName}/forwarding`;
  return !existsSync(setting) || readFileSync(setting, "utf8").trim() !== "0";
}
