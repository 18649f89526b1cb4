import { lstat, unlink } from "node:fs/promises";
import { connect } from "node:net";
import { logVerbosity, Server, ServerCredentials, setLogVerbosity } from "@grpc/grpc-js";
import { HealthImplementation } from "grpc-health-check";
import { CONNECTION_SERVICE, ConnectionService } from "./connection-service.js";
import type { Director } from "./director.js";
import { DirectorService } from "./director-service.js";
import { DirectorServiceService } from "./gen/sluice/v1/director_service.js";
import { reflection } from "./reflection.js";

/** A request of more is refused with RESOURCE_EXHAUSTED: 65,536 real servers in one service take about 3 MiB. */
const MAX_REQUEST_BYTES = 4 * 1024 * 1024;
/** A page of a list may hold one service with very many real servers. */
const MAX_RESPONSE_BYTES = 64 * 1024 * 1024;
const MAX_CONCURRENT_STREAMS = 1000;
/** How long calls under way may take to end when the server closes. */
const CLOSE_GRACE_MS = 1000;

// It writes to stderr, not as JSON, what reaches us as errors as well.
setLogVerbosity(logVerbosity.NONE);

/** The server could not listen. */
export class ApiServerError extends Error {
  override readonly name = "ApiServerError";
  readonly code: "SOCKET_IN_USE" | "SOCKET_PATH_TAKEN" | "SOCKET_UNUSABLE";

  constructor(code: ApiServerError["code"], message: string, options?: ErrorOptions) {
    super(message, options);
    this.code = code;
  }
}

/** The gRPC server: sluice.v1.DirectorService and ConnectionService, grpc.health.v1.Health and reflection. Owns its socket until it is closed. */
export class ApiServer {
  readonly socket: string;
  readonly #server: Server;
  readonly #health: HealthImplementation;

  private constructor(socket: string, server: Server, health: HealthImplementation) {
    this.socket = socket;
    this.#server = server;
    this.#health = health;
  }

  /**
   * Listens on a unix socket that only this user may open (mode 0600 from the first moment on). A socket that a killed daemon left
   * is replaced; the caller's instance lock sees to it that no two do so at once. Throws ApiServerError.
   */
  static async listen(director: Director, socket: string): Promise<ApiServer> {
    await removeStale(socket);
    const server = new Server({
      "grpc.max_receive_message_length": MAX_REQUEST_BYTES,
      "grpc.max_send_message_length": MAX_RESPONSE_BYTES,
      "grpc.max_concurrent_streams": MAX_CONCURRENT_STREAMS,
    });
    server.addService(DirectorServiceService, new DirectorService(director).handlers());
    server.addService(CONNECTION_SERVICE, new ConnectionService(director).handlers());
    const health = new HealthImplementation({
      "": "SERVING",
      [DirectorServiceService.getVirtualService.path.split("/")[1] ?? ""]: "SERVING",
      [CONNECTION_SERVICE.listConnections.path.split("/")[1] ?? ""]: "SERVING",
    });
    health.addToServer(server);
    reflection().addToServer(server);
    // bind(2) makes the file by the umask; chmod after it would leave a moment in which others could connect.
    const umask = process.umask(0o177);
    try {
      await new Promise<void>((resolve, reject) => {
        server.bindAsync(`unix:${socket}`, ServerCredentials.createInsecure(), (error) => {
          if (error === null) {
            resolve();
          } else {
            reject(error);
          }
        });
      });
    } catch (error) {
      throw new ApiServerError("SOCKET_UNUSABLE", `cannot listen on ${socket}: ${String(error)}`, { cause: error });
    } finally {
      process.umask(umask);
    }
    return new ApiServer(socket, server, health);
  }

  /** Lets calls under way end, for a second at most, and removes the socket. */
  async close(): Promise<void> {
    this.#health.setStatus("", "NOT_SERVING");
    const timer = setTimeout(() => {
      this.#server.forceShutdown();
    }, CLOSE_GRACE_MS);
    await new Promise<void>((resolve) => {
      this.#server.tryShutdown(() => {
        resolve();
      });
    });
    clearTimeout(timer);
  }
}

async function removeStale(socket: string): Promise<void> {
  const found = await lstat(socket).catch((error: unknown) => {
    if (isErrno(error, "ENOENT")) {
      return undefined;
    }
    throw new ApiServerError("SOCKET_UNUSABLE", `cannot look at ${socket}: ${String(error)}`, { cause: error });
  });
  if (found === undefined) {
    return;
  }
  if (!found.isSocket()) {
    throw new ApiServerError(
      "SOCKET_PATH_TAKEN",
      `${socket} exists and is no socket; remove it or choose another api.socket`,
    );
  }
  if (await answers(socket)) {
    throw new ApiServerError("SOCKET_IN_USE", `another process listens on ${socket}; choose another api.socket`);
  }
  await unlink(socket);
}

/** Whether a process listens on the socket: connecting to one that a killed process left is refused. */
function answers(path: string): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect(path);
    socket.once("connect", () => {
      socket.destroy();
      resolve(true);
    });
    socket.once("error", (error) => {
      resolve(!isErrno(error, "ECONNREFUSED"));
    });
  });
}

function isErrno(error: unknown, code: string): boolean {
  return error instanceof Error && "code" in error && error.code === code;
}
