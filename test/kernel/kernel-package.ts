import { spawnSync } from "node:child_process";
import { existsSync, mkdirSync, mkdtempSync, readdirSync, renameSync, rmSync, writeFileSync } from "node:fs";
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

interface Series {
  readonly version: string;
  /**
   * What Debian does not build in: 9p over virtio, through which the guest sees this machine's files; overlayfs, to let it write;
   * veth, to attach programs to; and bridge, which the wire tests join their hosts with. In the order in which they need
   * each other.
   */
  readonly modules: readonly string[];
  /** apt's options for the release of Debian that has it; none for the one that this machine runs. */
  readonly aptOptions: (folder: string) => readonly string[];
}

const SERIES = {
  /** The oldest that we support: Debian 12's. */
  supported: {
    version: "6.1.0",
    modules: [
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
    ],
    aptOptions: () => [],
  },
  /** One that lacks what we need: Debian 11's. */
  tooOld: {
    version: "5.10.0",
    modules: [
      "drivers/virtio/virtio_ring.ko",
      "drivers/virtio/virtio.ko",
      "drivers/virtio/virtio_pci.ko",
      "fs/fscache/fscache.ko",
      "net/9p/9pnet.ko",
      "net/9p/9pnet_virtio.ko",
      "fs/9p/9p.ko",
      "fs/overlayfs/overlay.ko",
      "drivers/net/veth.ko",
    ],
    aptOptions: optionsForBullseye,
  },
} satisfies Record<string, Series>;

/** The newest kernel of a series that apt knows, unpacked below `folder`, which exists; nothing is installed. Downloads only what is not there yet. */
export function unpackDebianKernel(folder: string, series: keyof typeof SERIES): DebianKernel {
  const { version, modules: wanted, aptOptions } = SERIES[series];
  const options = [...aptOptions(folder), "-o", "APT::Sandbox::User="]; // apt's own user may not be able to write there
  const packageName = newestPackage(version, options);
  const release = packageName.replace("linux-image-", "");
  const unpacked = path.join(folder, packageName);
  const image = path.join(unpacked, "boot", `vmlinuz-${release}`);
  const modules = wanted.map((module) => path.join(unpacked, "lib/modules", release, "kernel", module));
  if (![image, ...modules].every((file) => existsSync(file))) {
    downloadAndUnpack(folder, packageName, [image, ...modules], unpacked, options);
  }
  return { release, image, modules };
}

/** Debian 11's packages, from the mirror that this machine's come from, listed in a folder of their own. */
function optionsForBullseye(folder: string): readonly string[] {
  const state = path.join(folder, "bullseye");
  const settings = {
    "Dir::Etc::sourcelist": path.join(state, "sources.list"),
    "Dir::Etc::sourceparts": "-",
    "Dir::State::lists": path.join(state, "lists"),
    "Dir::Cache": path.join(state, "cache"),
  };
  const options = Object.entries(settings).flatMap(([name, value]) => ["-o", `${name}=${value}`]);
  if (!existsSync(state)) {
    const partial = mkdtempSync(path.join(folder, "partial-"));
    mkdirSync(path.join(partial, "lists/partial"), { recursive: true });
    mkdirSync(path.join(partial, "cache"));
    const key = "/usr/share/keyrings/debian-archive-keyring.gpg";
    writeFileSync(path.join(partial, "sources.list"), `deb [signed-by=${key}] ${debianMirror()} bullseye main\n`);
    renameSync(partial, state);
  }
  if (readdirSync(settings["Dir::State::lists"]).every((name) => !name.endsWith("_Packages"))) {
    const { stderr } = spawnSync("apt-get", [...options, "-o", "APT::Sandbox::User=", "update"], { encoding: "utf8" });
    process.stderr.write(stderr);
  }
  return options;
}

function debianMirror(): string {
  const which = ["Created-By: Packages", "Codename: bookworm", "Component: main"];
  const { stdout } = spawnSync("apt-get", ["indextargets", "--format", "$(REPO_URI)", ...which], { encoding: "utf8" });
  return stdout.split("\n").find((line) => line !== "") ?? "http://deb.debian.org/debian/";
}

function newestPackage(version: string, options: readonly string[]): string {
  const prefix = `linux-image-${version}-`;
  const { stdout } = spawnSync("apt-cache", [...options, "pkgnames", prefix], { encoding: "utf8" });
  const newest = stdout
    .split("\n")
    .map((name) => ({ name, number: Number(/^(\d+)-amd64$/.exec(name.replace(prefix, ""))?.[1]) }))
    .filter(({ number }) => !Number.isNaN(number))
    .sort((one, other) => other.number - one.number)
    .at(0);
  if (newest === undefined) {
    throw new KernelPackageError(
      "NO_PACKAGE",
      `apt knows no package ${prefix}N-amd64: run \`apt-get update\`; only Debian (amd64) has it`,
    );
  }
  return newest.name;
}

function downloadAndUnpack(
  folder: string,
  packageName: string,
  files: readonly string[],
  unpacked: string,
  options: readonly string[],
): void {
  // Unpacked under another name first: what is there under its own name is whole.
  const partial = mkdtempSync(path.join(folder, "partial-"));
  try {
    const download = spawnSync("apt-get", [...options, "download", packageName], { cwd: partial, encoding: "utf8" });
    if (download.status !== 0) {
      throw new KernelPackageError("DOWNLOAD_FAILED", `apt-get download ${packageName}: ${download.stderr.trim()}`);
    }

    const members = files.map((file) => `./${path.relative(unpacked, file)}`);
    const script = 'set -o pipefail; dpkg-deb --fsys-tarfile "$1"_*.deb | tar -x "${@:2}" && rm "$1"_*.deb';
    const unpack = spawnSync("bash", ["-c", script, "bash", packageName, ...members], {
      cwd: partial,
      encoding: "utf8",
    });
    if (unpack.status !== 0) {
      throw new KernelPackageError("UNPACK_FAILED", `${packageName} could not be unpacked: ${unpack.stderr.trim()}`);
    }
    rmSync(unpacked, { recursive: true, force: true });
    renameSync(partial, unpacked);
  } finally {
    rmSync(partial, { recursive: true, force: true });
  }
}
