import { spawnSync } from "node:child_process";
import { existsSync, mkdtempSync, renameSync, rmSync } from "node:fs";
import path from "node:path";

/** An unpacked Debian kernel. */
export interface DebianKernel {
  readonly release: string; // as `uname -r` prints it
  readonly image: string; // path of the compressed kernel
  readonly modules: readonly string[]; // paths, in the order in which they must be loaded
}

export class KernelPackageError extends Error {
  override readonly name = "KernelPackageError";
  constructor(
    readonly code: "NO_PACKAGE" | "DOWNLOAD_FAILED" | "UNPACK_FAILED",
    message: string,
  ) {
    super(message);
  }
}

/*
 * What Debian's kernel does not have built in: 9p over virtio, through which the guest sees this machine's files; overlayfs,
 * to let it write; veth, to attach programs to; and bridge, which the wire tests join their hosts with. In the order in which they need each other.
 */
const MODULES = [
  "drivers/virtio/virtio_ring.ko",
  "drivers/virtio/virtio.ko",
  "drivers/virtio/virtio_pci_legacy_dev.ko",
  "drivers/virtio/virtio_pci_modern_dev.ko",
  "drivers/virtio/virtio_pci.ko",
  "fs/netfs/netfs.ko",
  "fs/fscache/fscache.ko",
  "net/9p/9pnet.ko",
  "net/9p/9pnet_virtio.ko",
  "fs/9p/9p.ko",
  "fs/overlayfs/overlay.ko",
  "drivers/net/veth.ko",
  "net/llc/llc.ko",
  "net/802/stp.ko",
  "net/bridge/bridge.ko",
] as const;

/**
 * The newest 6.1 kernel that apt knows, unpacked below `folder`, which exists; nothing is installed. Downloads only what is not there yet.
 */
export function unpackDebianKernel(folder: string): DebianKernel {
  const packageName = newestPackage();
  const release = packageName.replace("linux-image-", "");
  const unpacked = path.join(folder, packageName);
  const image = path.join(unpacked, "boot", `vmlinuz-${release}`);
  const modules = MODULES.map((module) => path.join(unpacked, "lib/modules", release, "kernel", module));
  if (![image, ...modules].every((file) => existsSync(file))) {
    downloadAndUnpack(folder, packageName, release, unpacked);
  }
  return { release, image, modules };
}

function newestPackage(): string {
  const { stdout } = spawnSync("apt-cache", ["pkgnames", "linux-image-6.1.0-"], { encoding: "utf8" });
  const newest = stdout
    .split("\n")
    .map((name) => /^linux-image-6\.1\.0-(\d+)-amd64$/.exec(name))
    .filter((match) => match !== null)
    .sort((one, other) => Number(other[1]) - Number(one[1]))
    .at(0);
  if (newest === undefined) {
    throw new KernelPackageError(
      "NO_PACKAGE",
      "apt knows no package linux-image-6.1.0-N-amd64: run `apt-get update`; only Debian 12 (amd64) has it",
    );
  }
  return newest[0];
}

function downloadAndUnpack(folder: string, packageName: string, release: string, unpacked: string): void {
  // Unpacked under another name first: what is there under its own name is whole.
  const partial = mkdtempSync(path.join(folder, "partial-"));
  try {
    const sandboxOff = ["-o", "APT::Sandbox::User="]; // apt's own user may not be able to write here
    const download = spawnSync("apt-get", [...sandboxOff, "download", packageName], { cwd: partial, encoding: "utf8" });
    if (download.status !== 0) {
      throw new KernelPackageError("DOWNLOAD_FAILED", `apt-get download ${packageName}: ${download.stderr.trim()}`);
    }

    const modules = MODULES.map((module) => `./lib/modules/${release}/kernel/${module}`);
    const script = 'set -o pipefail; dpkg-deb --fsys-tarfile "$1"_*.deb | tar -x "${@:2}" && rm "$1"_*.deb';
    const args = ["-c", script, "bash", packageName, `./boot/vmlinuz-${release}`, ...modules];
    const unpack = spawnSync("bash", args, { cwd: partial, encoding: "utf8" });
    if (unpack.status !== 0) {
      throw new KernelPackageError("UNPACK_FAILED", `${packageName} could not be unpacked: ${unpack.stderr.trim()}`);
    }
    rmSync(unpacked, { recursive: true, force: true });
    renameSync(partial, unpacked);
  } finally {
    rmSync(partial, { recursive: true, force: true });
  }
}
