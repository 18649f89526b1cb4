export type RealServerErrorCode =
  | "BAD_OPTION"
  | "NO_DEFAULT_ROUTE"
  | "NO_SUCH_INTERFACE"
  | "NO_TUNNEL_ADDRESS"
  | "VIP_ON_OTHER_INTERFACE"
  | "INTERFACE_BUSY"
  | "ATTACH_REFUSED"
  | "MODE_DIFFERS"
  | "BPFFS_MISSING"
  | "OTHER_NETWORK_NAMESPACE"
  | "LOCKED"
  | "BAD_STATE_FILE"
  | "COMMAND_FAILED"
  | "UNDO_INCOMPLETE";

/** What went wrong while a host was made a real server, or stopped being one. Match on `code`. */
export class RealServerError extends Error {
  override readonly name = "RealServerError";
  readonly code: RealServerErrorCode;

  constructor(code: RealServerErrorCode, message: string, options?: ErrorOptions) {
    super(message, options);
    this.code = code;
  }
}
