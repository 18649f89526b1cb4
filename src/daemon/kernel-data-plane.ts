import { DataPlane } from "../dataplane/index.js";
import type { OpenDataPlane } from "./data-plane.js";
import type { UnloadDataPlane } from "./unload.js";

/** The data plane in the kernel: the one that `sluice run` and `sluice unload` are about. */
export const openKernelDataPlane: OpenDataPlane = (options) => DataPlane.open(options);

export const unloadKernelDataPlane: UnloadDataPlane = (options) => DataPlane.unload(options);
