/**
 * node echo-client.js ADDRESS:PORT COUNT [BYTES]: sends COUNT datagrams, each from a socket and port of its own, one after the
 * other, and prints for each answer a line "NAME CLIENT" if it brought back what was sent, else a line "lost" or "damaged".
 */
import { randomBytes } from "node:crypto";
import { createSocket } from "node:dgram";

const [endpoint = "", count = "1", bytes = "32"] = process.argv.slice(2);
const [address, port] = endpoint.split(":");
const TIMEOUT = 1_000;

for (let i = 0; i < Number(count); i++) console.log(await exchange(randomBytes(Number(bytes))));

async function exchange(message: Buffer): Promise<string> {
  const socket = createSocket("udp4");
  try {
    return await new Promise((resolve, reject) => {
      const timer = setTimeout(() => resolve("lost"), TIMEOUT);
      socket.on("error", reject);
      socket.on("message", (answer) => {
        clearTimeout(timer);
        const [name, client, payload] = answer.toString().split(" ");
        resolve(payload === message.toString("base64") ? `${name} ${client}` : "damaged");
      });
      socket.send(message, Number(port), address);
    });
  } finally {
    socket.close();
  }
}
