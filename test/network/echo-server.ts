/**
 * node echo-server.js NAME ADDRESS:PORT...: the UDP server of a real server. Answers every datagram by its name, the
 * client's address as seen from here, and the datagram itself in base64, separated by spaces.
 *
 * It binds each address on its own: a socket of 0.0.0.0 would answer from the interface's address instead of the VIP.
 */
import { createSocket } from "node:dgram";

const [name = "", ...endpoints] = process.argv.slice(2);

for (const endpoint of endpoints) {
  const [address, port] = endpoint.split(":");
  const socket = createSocket("udp4");
  socket.on("message", (message, client) => {
    socket.send(`${name} ${client.address}:${client.port} ${message.toString("base64")}`, client.port, client.address);
  });
  socket.bind(Number(port), address, () => {
    console.log(`listening on ${endpoint}`);
  });
}
