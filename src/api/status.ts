import { Metadata, type StatusObject, status } from "@grpc/grpc-js";
import { ModelError, type Violation } from "../model/index.js";
import type { Any } from "./gen/google/protobuf/any.js";
import { BadRequest, ErrorInfo, ResourceInfo } from "./gen/google/rpc/error_details.js";
import { Status } from "./gen/google/rpc/status.js";

/** ErrorInfo.domain of every error. */
export const ERROR_DOMAIN = "sluice";
/** Trailer that carries a google.rpc.Status with details, by gRPC's convention. */
export const DETAILS_TRAILER = "grpc-status-details-bin";

/** About a resource that is not there, or is there already. */
export class ResourceError extends Error {
  override readonly name = "ResourceError";
  readonly code: "NOT_FOUND" | "ALREADY_EXISTS";
  /** `sluice/VirtualService` or `sluice/RealServer`. */
  readonly type: string;
  readonly resource: string;

  constructor(code: ResourceError["code"], type: ResourceError["type"], resource: string) {
    super(`${resource} ${code === "NOT_FOUND" ? "does not exist" : "exists already"}`);
    this.code = code;
    this.type = type;
    this.resource = resource;
  }
}

/** A change that came while the daemon stops. */
export class StoppingError extends Error {
  override readonly name = "StoppingError";
  readonly code = "STOPPING";

  constructor() {
    super("the daemon is stopping; the data plane stays as it is");
  }
}

/** The gRPC status that tells a client of `error`, with standard details; see proto/sluice/v1/director_service.proto. */
export function statusOf(error: unknown): Partial<StatusObject> {
  if (error instanceof ModelError) {
    const request = packed("google.rpc.BadRequest", encodeViolations(error.violations));
    return withDetails(status.INVALID_ARGUMENT, error.message, error.code, [request]);
  }
  if (error instanceof ResourceError) {
    const { type, resource, message } = error;
    const info = { resourceType: type, resourceName: resource, owner: "", description: message };
    return withDetails(status[error.code], message, error.code, [
      packed("google.rpc.ResourceInfo", ResourceInfo.encode(info).finish()),
    ]);
  }
  const message = error instanceof Error ? error.message : String(error);
  const code = error instanceof Error && "code" in error && typeof error.code === "string" ? error.code : "INTERNAL";
  return withDetails(GRPC_CODES.get(code) ?? status.INTERNAL, message, code, []);
}

/** For errors of the data plane and the daemon, which are known by their code alone. */
const GRPC_CODES: ReadonlyMap<string, status> = new Map([
  ["CAPACITY_EXCEEDED", status.RESOURCE_EXHAUSTED],
  ["TABLE_TOO_SMALL", status.FAILED_PRECONDITION],
  ["STOPPING", status.UNAVAILABLE],
]);

/**
 * Trailers are HTTP/2 headers, and gRPC's C core refuses more than 8 KiB of them by default: a long list of violations must not turn
 * into a broken stream. The details grow by a third in base64. What is left out shows once the rest is mended.
 */
const MAX_MESSAGE = 1024;
const MAX_VIOLATIONS = 4096;

function encodeViolations(violations: readonly Violation[]): Uint8Array {
  const fieldViolations = [];
  let size = 0;
  for (const { code, field, message } of violations) {
    size += code.length + field.length + message.length;
    if (size > MAX_VIOLATIONS) {
      break;
    }
    fieldViolations.push({ field, description: message, reason: code, localizedMessage: undefined });
  }
  return BadRequest.encode({ fieldViolations }).finish();
}

function withDetails(
  code: status,
  fullMessage: string,
  reason: string,
  details: readonly Any[],
): Partial<StatusObject> {
  const message = fullMessage.length > MAX_MESSAGE ? `${fullMessage.slice(0, MAX_MESSAGE)}…` : fullMessage;
  const info = packed(
    "google.rpc.ErrorInfo",
    ErrorInfo.encode({ reason, domain: ERROR_DOMAIN, metadata: {} }).finish(),
  );
  const trailer = Status.encode({ code, message, details: [info, ...details] }).finish();
  const metadata = new Metadata();
  metadata.set(DETAILS_TRAILER, Buffer.from(trailer));
  return { code, details: message, metadata };
}

function packed(type: string, value: Uint8Array): Any {
  return { typeUrl: `type.googleapis.com/${type}`, value: Buffer.from(value) };
}
