import { once } from "node:events";
import type { handleServerStreamingCall, handleUnaryCall, ServerWritableStream } from "@grpc/grpc-js";
import { ConnectionEncoder } from "./connection-encoder.js";
import { readListing } from "./connection-messages.js";
import type { Director } from "./director.js";
import {
  ConnectionServiceService,
  type CountConnectionsRequest,
  type CountConnectionsResponse,
  type ListConnectionsRequest,
} from "./gen/sluice/v1/connection_service.js";
import { statusOf } from "./status.js";

/** sluice.v1.ConnectionService, whose ListConnections takes its responses encoded. */
export const CONNECTION_SERVICE = {
  ...ConnectionServiceService,
  listConnections: {
    ...ConnectionServiceService.listConnections,
    responseSerialize: (message: Buffer) => message,
  },
} as const;

type ListCall = ServerWritableStream<ListConnectionsRequest, Buffer>;

/** sluice.v1.ConnectionService over a Director. */
export class ConnectionService {
  readonly #director: Director;

  constructor(director: Director) {
    this.#director = director;
  }

  /** To be added to a gRPC server with CONNECTION_SERVICE. */
  handlers(): {
    listConnections: handleServerStreamingCall<ListConnectionsRequest, Buffer>;
    countConnections: handleUnaryCall<CountConnectionsRequest, CountConnectionsResponse>;
  } {
    return {
      listConnections: (call) => {
        const cancelled = new AbortController();
        call.on("cancelled", () => cancelled.abort());
        this.#list(call, cancelled.signal).then(
          () => call.end(),
          // Who has cancelled hears nothing more.
          (error: unknown) => cancelled.signal.aborted || call.emit("error", statusOf(error)),
        );
      },
      countConnections: (call, callback) => {
        this.#count(call.request, () => call.cancelled).then(
          (connections) => callback(null, { connections }),
          (error: unknown) => callback(statusOf(error)),
        );
      },
    };
  }

  async #list(call: ListCall, cancelled: AbortSignal): Promise<void> {
    const { filter, limit } = readListing(call.request.filter, call.request.limit);
    const encoder = new ConnectionEncoder();
    let left = limit;
    for await (const lines of this.#director.connections(filter)) {
      cancelled.throwIfAborted();
      while (left > 0 && lines.next()) {
        encoder.add(lines);
        left--;
        if (encoder.isFull) {
          await send(call, encoder, cancelled);
        }
      }
      if (left === 0) {
        break;
      }
    }
    if (!encoder.isEmpty) {
      await send(call, encoder, cancelled);
    }
  }

  async #count(request: CountConnectionsRequest, isCancelled: () => boolean): Promise<bigint> {
    const { filter } = readListing(request.filter, 0);
    let count = 0;
    for await (const lines of this.#director.connections(filter)) {
      while (lines.next()) {
        count++;
      }
      if (isCancelled()) {
        break;
      }
    }
    return BigInt(count);
  }
}

/** Waits while the client has more before it than it takes. */
async function send(call: ListCall, encoder: ConnectionEncoder, cancelled: AbortSignal): Promise<void> {
  if (!call.write(encoder.take())) {
    await once(call, "drain", { signal: cancelled });
  }
}
