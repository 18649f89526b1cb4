/** What the client does. */
import { spawn } from "node:child_process";
import { createHash } from "node:crypto";
import { fileURLToPath } from "node:url";
import type { Namespace } from "./namespace.js";
import { ProgramError } from "./program.js";

const ECHO_CLIENT = fileURLToPath(new URL("echo-client.js", import.meta.url));

/** How many answers came from whom. */
export type Spread = ReadonlyMap<string, number>;

/** `count` HTTP requests, one after the other, each on a connection of its own. A failed one counts as "failed". */
export async function httpSpread(client: Namespace, url: string, count: number): Promise<Spread> {
  const { stdout } = await client.attempt([
    ..."curl --silent --max-time 3 --header Connection:close --output /dev/null".split(" "),
    ...["--write-out", "%header{x-real-server}\\n"],
    `${url}/?request=[1-${count}]`,
  ]);
  return tally(
    stdout
      .split("\n")
      .slice(0, -1)
      .map((name) => (name === "" ? "failed" : name)),
  );
}

/** One HTTP request that must succeed; headers in lower case. */
export async function httpGet(client: Namespace, url: string): Promise<{ body: string; headers: Map<string, string> }> {
  const text = await client.run([..."curl --silent --show-error --fail --include --max-time 5".split(" "), url]);
  const [head = "", body = ""] = text.split("\r\n\r\n");
  const headers = new Map(
    head
      .split("\r\n")
      .slice(1)
      .map((line) => [line.slice(0, line.indexOf(":")).toLowerCase(), line.slice(line.indexOf(":") + 1).trim()]),
  );
  return { body, headers };
}

/** `count` UDP datagrams, each from a port of its own. Also counts what was "lost" or "damaged". */
export async function echoSpread(client: Namespace, endpoint: string, count: number, bytes = 32): Promise<Spread> {
  const output = await client.run([process.execPath, ECHO_CLIENT, endpoint, String(count), String(bytes)]);
  return tally(lines(output).map((line) => line.split(" ")[0] ?? ""));
}

/** The client's address as the UDP server sees it. */
export async function echoClientAddress(client: Namespace, endpoint: string): Promise<string> {
  const output = await client.run([process.execPath, ECHO_CLIENT, endpoint, "1"]);
  return output.trim().split(" ")[1] ?? output.trim();
}

/** A download that can be watched while it runs. */
export class Download {
  /** Bytes so far. */
  received = 0;
  readonly ended: Promise<{ bytes: number; sha256: string; realServer: string; seconds: number }>;

  /** Of an HTTP server of ours. `rate`: bytes a second, for a download that must last. */
  constructor(client: Namespace, server: string, bytes: number, { rate }: { rate?: number } = {}) {
    const command = client.inside([
      ..."curl --silent --show-error --fail --max-time 60".split(" "),
      ...["--write-out", "%{stderr}%header{x-real-server}"],
      `${server}/bytes/${bytes}${rate === undefined ? "" : `?rate=${rate}`}`,
    ]);
    const [file = "", ...args] = command;
    const began = performance.now();
    const curl = spawn(file, args, { stdio: ["ignore", "pipe", "pipe"] });
    const hash = createHash("sha256");
    let stderr = "";
    curl.stdout.on("data", (chunk: Buffer) => {
      this.received += chunk.length;
      hash.update(chunk);
    });
    curl.stderr.setEncoding("utf8").on("data", (text: string) => {
      stderr += text;
    });
    this.ended = new Promise((resolve, reject) => {
      curl.on("error", reject);
      curl.on("close", (status, signal) => {
        if (status === 0) {
          const seconds = (performance.now() - began) / 1000;
          resolve({ bytes: this.received, sha256: hash.digest("hex"), realServer: stderr.trim(), seconds });
        } else {
          const outcome = { status: status ?? undefined, signal: signal ?? undefined, stdout: "", stderr };
          reject(new ProgramError(command, outcome));
        }
      });
    });
    // Whoever awaits it hears of the failure; until then it is no unhandled one.
    this.ended.catch(() => undefined);
  }
}

export function tally(names: Iterable<string>): Spread {
  const counts = new Map<string, number>();
  for (const name of names) counts.set(name, (counts.get(name) ?? 0) + 1);
  return counts;
}

export function lines(text: string): string[] {
  return text.split("\n").filter((line) => line !== "");
}

/** Whether the answers came from real1, real2 and real3 in the proportion of these weights, to within one round of them. */
export function inProportion(spread: Spread, weights: readonly number[]): boolean {
  const answers = [...spread.values()].reduce((sum, count) => sum + count, 0);
  const total = weights.reduce((sum, weight) => sum + weight, 0);
  const names = weights.map((_, i) => `real${i + 1}`);
  return (
    [...spread.keys()].every((name) => names.includes(name)) &&
    weights.every((weight, i) => Math.abs((spread.get(`real${i + 1}`) ?? 0) - (answers * weight) / total) <= weight)
  );
}

/** For a test's message: "real1 30, real2 20, real3 10". */
export function show(spread: Spread): string {
  return [...spread]
    .sort(([a], [b]) => a.localeCompare(b))
    .map(([name, count]) => `${name} ${count}`)
    .join(", ");
}
