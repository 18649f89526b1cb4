// Network interfaces of the current network namespace.
import { addon } from "./addon.js";
import { BpfError, errno, kernelError, requireInteger, requireName } from "./error.js";

/** IFNAMSIZ less the zero byte. */
const MAX_NAME = 15;

export function interfaceIndex(name: string): number {
  requireName("the interface's name", name);
  if (Buffer.byteLength(name) > MAX_NAME)
    throw new BpfError("NO_SUCH_INTERFACE", `there is no interface ${name}: names have at most ${MAX_NAME} bytes`);
  const index = addon.interfaceIndex(name);
  if (index < 0)
    throw kernelError(`there is no interface ${name}`, "if_nametoindex", index, {
      [errno.ENODEV]: { code: "NO_SUCH_INTERFACE" },
    });
  return index;
}

export function interfaceName(index: number): string {
  requireInteger("the interface's index", index, 1, 0x7fffffff);
  const name = addon.interfaceName(index);
  if (typeof name === "number")
    throw kernelError(`there is no interface ${index}`, "if_indextoname", name, {
      [errno.ENXIO]: { code: "NO_SUCH_INTERFACE" },
    });
  return name;
}
