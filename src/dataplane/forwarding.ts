/** Whether the kernel lets this host forward: without it there are no next hops, neither to real servers nor to clients. */
import { existsSync, readFileSync } from "node:fs";
import type { Logger } from "./log.js";

/**
 * Warns of each of these interfaces on which forwarding is off. Where it is on for `lo` alone, that was a choice: dr and tun need
 * no more, as their replies do not come back through this host.
 */
export function warnWithoutForwarding(interfaces: readonly string[], log: Logger): void {
  if (forwards("lo") && !forwards("all")) {
    return;
  }
  for (const name of interfaces) {
    if (!forwards(name)) {
      const command = "sysctl -w net.ipv4.ip_forward=1";
      const commandForDirect = "sysctl -w net.ipv4.conf.lo.forwarding=1";
      log.warn(
        { interface: name, command },
        `IPv4 forwarding is off on ${name}, so the kernel finds no way for what comes in by it; run \`${command}\`, or \`${commandForDirect}\` where every method is dr or tun`,
      );
    }
  }
}

function forwards(interfaceName: string): boolean {
  const setting = `/proc/sys/net/ipv4/conf/${interfaceName}/forwarding`;
  return !existsSync(setting) || readFileSync(setting, "utf8").trim() !== "0";
}
