/**
 * node http-server.js NAME PORT...: the HTTP server of a real server. Every answer names it in X-Real-Server and its view of
 * the client in X-Client. GET / answers the name, /bytes/N the first N bytes of the known content, /bytes/N?rate=R at R bytes
 * a second. (curl's own --limit-rate lets 10 MB through at once.)
 */
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { Readable } from "node:stream";
import { pipeline } from "node:stream/promises";
import { setTimeout } from "node:timers/promises";
import { content } from "./content.js";

const [name = "", ...ports] = process.argv.slice(2);

async function* paced(blocks: Iterable<Buffer>, bytesPerSecond: number): AsyncGenerator<Buffer> {
  const began = performance.now();
  let sent = 0;
  for (const block of blocks) {
    const due = began + (sent / bytesPerSecond) * 1000;
    await setTimeout(Math.max(0, due - performance.now()));
    yield block;
    sent += block.length;
  }
}

for (const port of ports) {
  const server = createServer((request, response) => {
    const { remoteAddress, remotePort } = request.socket;
    response.setHeader("X-Real-Server", name);
    response.setHeader("X-Client", `${remoteAddress ?? "?"}:${remotePort ?? "?"}`);
    const [, bytes, rate] = /^\/bytes\/(\d+)(?:\?rate=(\d+))?$/.exec(request.url ?? "") ?? [];
    if (bytes === undefined) {
      response.end(`${name}\n`);
      return;
    }
    const length = Number(bytes);
    response.setHeader("Content-Type", "application/octet-stream");
    response.setHeader("Content-Length", length);
    // A client that hangs up in the middle is its own affair.
    const blocks = rate === undefined ? content(length) : paced(content(length), Number(rate));
    pipeline(Readable.from(blocks), response).catch(() => undefined);
  });
  server.listen(Number(port), "0.0.0.0", () => {
    console.log(`listening on ${(server.address() as AddressInfo).port}`);
  });
}
