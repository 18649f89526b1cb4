/**
 * node http-server.js NAME PORT...: the HTTP server of a real server. Every answer names it in X-Real-Server and its view of
 * the client in X-Client. GET / answers the name, /bytes/N the first N bytes of the known content.
 */
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { Readable } from "node:stream";
import { pipeline } from "node:stream/promises";
import { content } from "./content.js";

const [name = "", ...ports] = process.argv.slice(2);

for (const port of ports) {
  const server = createServer((request, response) => {
    const { remoteAddress, remotePort } = request.socket;
    response.setHeader("X-Real-Server", name);
    response.setHeader("X-Client", `${remoteAddress ?? "?"}:${remotePort ?? "?"}`);
    const bytes = /^\/bytes\/(\d+)$/.exec(request.url ?? "")?.[1];
    if (bytes === undefined) {
      response.end(`${name}\n`);
      return;
    }
    const length = Number(bytes);
    response.setHeader("Content-Type", "application/octet-stream");
    response.setHeader("Content-Length", length);
    // A client that hangs up in the middle is its own affair.
    pipeline(Readable.from(content(length)), response).catch(() => undefined);
  });
  server.listen(Number(port), "0.0.0.0", () => {
    console.log(`listening on ${(server.address() as AddressInfo).port}`);
  });
}
