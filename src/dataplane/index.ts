/** The data plane: the only place of the control plane that touches BPF. */
export { DataPlane, type DataPlaneOptions } from "./data-plane.js";
export { DATA_PLANE_ERROR_CODES, DataPlaneError, type DataPlaneErrorCode } from "./error.js";
export type { Logger } from "./log.js";
export type { PublishReport } from "./publisher.js";
export type { UnloadOptions, UnloadReport } from "./unload.js";
