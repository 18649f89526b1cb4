/** The host's addresses and routes, through iproute2. */
import { execFile } from "node:child_process";
import { promisify } from "node:util";
import { RealServerError } from "./error.js";

const execute = promisify(execFile);

export interface InterfaceAddress {
  readonly interface: string;
  readonly address: string;
  readonly prefixLength: number;
}

/** All IPv4 addresses of this network namespace. */
export async function listAddresses(): Promise<InterfaceAddress[]> {
  const interfaces = (await ipJson(["-4", "address", "show"])) as {
    ifname?: string;
    addr_info?: { local: string; prefixlen: number }[];
  }[];
  return interfaces.flatMap(({ ifname, addr_info }) =>
    ifname === undefined
      ? []
      : (addr_info ?? []).map(({ local, prefixlen }) => ({
          interface: ifname,
          address: local,
          prefixLength: prefixlen,
        })),
  );
}

/** Names of all interfaces, whether up or not. */
export async function listInterfaces(): Promise<string[]> {
  const links = (await ipJson(["link", "show"])) as { ifname?: string }[];
  return links.flatMap(({ ifname }) => (ifname === undefined ? [] : [ifname]));
}

/** The interface of the IPv4 default route with the lowest metric. */
export async function defaultRouteInterface(): Promise<string> {
  const routes = (await ipJson(["-4", "route", "show", "default"])) as { dev?: string; metric?: number }[];
  const [best] = routes.sort((a, b) => (a.metric ?? 0) - (b.metric ?? 0));
  if (best?.dev === undefined) {
    throw new RealServerError(
      "NO_DEFAULT_ROUTE",
      "there is no default route to tell the interface that faces the director: name it with --interface",
    );
  }
  return best.dev;
}

/**
 * Scope host, as addresses on lo have: the kernel then never picks the VIP as the source of the host's own traffic, which
 * would not come back here.
 */
export async function addHostAddress(interfaceName: string, address: string): Promise<void> {
  await ip(["address", "add", `${address}/32`, "dev", interfaceName, "scope", "host"]);
}

export async function removeAddress(interfaceName: string, address: string): Promise<void> {
  await ip(["address", "delete", `${address}/32`, "dev", interfaceName]);
}

async function ipJson(args: readonly string[]): Promise<unknown> {
  const text = await ip(["-json", ...args]);
  return text.trim() === "" ? [] : JSON.parse(text);
}

async function ip(args: readonly string[]): Promise<string> {
  try {
    return (await execute("ip", args)).stdout;
  } catch (error) {
    const { stderr, message } = error as { stderr?: string; message: string };
    const reason = stderr === undefined || stderr.trim() === "" ? message : stderr.trim();
    throw new RealServerError("COMMAND_FAILED", `ip ${args.join(" ")}: ${reason}`, { cause: error });
  }
}
