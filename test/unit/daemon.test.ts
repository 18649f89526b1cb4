import { type ChildProcess, spawn } from "node:child_process";
import { existsSync, lstatSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import t from "tap";
import { ApiClient } from "../../src/api/client.js";

const program = join(import.meta.dirname, "daemon-process.js");

function configuration(weight: number, more = ""): string {
  return `interfaces: [c0]
services:
  - protocol: tcp
    address: 10.0.0.100
    port: 80
    real_servers: [{address: 10.1.0.11, method: nat, weight: ${weight}}]
${more}`;
}
const REAL_SERVER = "virtualServices/tcp:10.0.0.100:80/realServers/10.1.0.11:80";

interface LogLine {
  readonly level: number;
  readonly msg: string;
  readonly instance: string;
  readonly code?: string;
  readonly error?: string;
}

/** A daemon's process and what it has said. */
class DaemonProcess {
  readonly #child: ChildProcess;
  readonly #exit: Promise<number | string>;
  log: LogLine[] = [];
  stderr = "";
  #stdout = "";

  constructor(folder: string, instance = "sluice", environment: NodeJS.ProcessEnv = {}) {
    const args = [program, join(folder, "sluice.yaml"), instance, folder];
    this.#child = spawn(process.execPath, args, {
      env: { ...process.env, ...environment },
      stdio: ["ignore", "pipe", "pipe"],
    });
    this.#child.stderr?.on("data", (chunk: Buffer) => {
      this.stderr += chunk.toString();
    });
    this.#child.stdout?.on("data", (chunk: Buffer) => {
      this.#stdout += chunk.toString();
      const lines = this.#stdout.split("\n");
      this.#stdout = lines.pop() ?? "";
      this.log.push(...lines.map((line) => JSON.parse(line) as LogLine));
    });
    this.#exit = new Promise((resolve) => {
      this.#child.on("close", (code, signal) => {
        resolve(code ?? signal ?? "unknown");
      });
    });
  }

  get pid(): number {
    return this.#child.pid ?? 0;
  }

  /** The line of the log that says `message`, the nth of its kind. */
  async says(message: string, nth = 1): Promise<LogLine> {
    for (;;) {
      const line = this.log.filter(({ msg }) => msg === message)[nth - 1];
      if (line !== undefined) return line;
      const ended = await Promise.race([
        this.#exit,
        new Promise<undefined>((resolve) => setTimeout(resolve, 10, undefined)),
      ]);
      if (ended !== undefined) throw new Error(`the daemon ended with ${String(ended)}: ${this.stderr}`);
    }
  }

  signal(signal: NodeJS.Signals): void {
    this.#child.kill(signal);
  }

  async ends(signal?: NodeJS.Signals): Promise<number | string> {
    if (signal !== undefined) this.signal(signal);
    return this.#exit;
  }
}

function setUp(t: { teardown: (undo: () => Promise<void>) => void }): {
  folder: string;
  start: (instance?: string, environment?: NodeJS.ProcessEnv) => DaemonProcess;
  weight: (instance?: string) => Promise<number | undefined>;
} {
  const folder = mkdtempSync(join(tmpdir(), "sluice-daemon-"));
  const started: DaemonProcess[] = [];
  writeFileSync(join(folder, "sluice.yaml"), configuration(3));
  t.teardown(async () => {
    for (const daemon of started) await daemon.ends("SIGKILL");
    rmSync(folder, { recursive: true });
  });
  return {
    folder,
    start: (instance, environment) => {
      const daemon = new DaemonProcess(folder, instance, environment);
      started.push(daemon);
      return daemon;
    },
    weight: async (instance = "sluice") => {
      const client = new ApiClient(join(folder, `${instance}.sock`));
      const { weight } = await client.getRealServer(REAL_SERVER);
      client.close();
      return weight;
    },
  };
}

t.test("a second daemon of an instance is told whose it is, and the first is undisturbed", async (t) => {
  const { folder, start, weight } = setUp(t);
  const first = start();
  t.match(await first.says("ready"), { instance: "sluice", socket: join(folder, "sluice.sock"), services: 1 });
  t.equal(lstatSync(join(folder, "sluice.sock")).mode & 0o777, 0o600);

  const second = start();
  t.equal(await second.ends(), 1);
  t.equal(
    second.stderr,
    `sluice: INSTANCE_IN_USE: process ${first.pid} runs the instance sluice; stop it first, or choose another name with --instance\n`,
  );
  t.same(second.log, []);
  t.equal(await weight(), 3);

  const other = start("other");
  await other.says("ready");
  t.equal(await weight("other"), 3, "another instance runs beside it");

  t.equal(await first.ends("SIGTERM"), 0);
  t.notOk(existsSync(join(folder, "sluice.sock")));
  t.equal(await weight("other"), 3);
});

t.test("a daemon that is told to stop while it starts gives up and leaves nothing behind", async (t) => {
  const { folder, start, weight } = setUp(t);
  const starting = start("sluice", { OPEN_FOREVER: "1" });
  await starting.says("opening");
  t.equal(await starting.ends("SIGTERM"), 0);
  t.equal(starting.log.at(-1)?.msg, "stopped before it was ready; what was in place stays");
  t.equal(starting.stderr, "");
  t.notOk(existsSync(join(folder, "sluice.sock")));
  const next = start();
  await next.says("ready");
  t.equal(await weight(), 3, "the lock was let go of");
});

t.test("a killed daemon's lock and socket go to the next one, and to one only", async (t) => {
  const { folder, start, weight } = setUp(t);
  const killed = start();
  await killed.says("ready");
  await killed.ends("SIGKILL");
  t.ok(existsSync(join(folder, "sluice.sock")), "it leaves its socket");

  const contenders = Array.from({ length: 5 }, () => start());
  const outcomes = await Promise.all(
    contenders.map(async (daemon) =>
      Promise.race([
        daemon.says("ready").then(
          () => "ready",
          () => "refused",
        ),
        daemon.ends(),
      ]),
    ),
  );
  const winner = contenders[outcomes.indexOf("ready")];
  t.equal(outcomes.filter((outcome) => outcome === "ready").length, 1);
  for (const loser of contenders.filter((daemon) => daemon !== winner)) {
    t.equal(await loser.ends(), 1);
    t.match(loser.stderr, `sluice: INSTANCE_IN_USE: process ${winner?.pid} runs`);
  }
  t.equal(await weight(), 3);
  t.equal(readFileSync(join(folder, "sluice.lock"), "utf8"), `${winner?.pid}\n`);
});

t.test("SIGHUP reads the file again; one that is not valid changes nothing", async (t) => {
  const { folder, start, weight } = setUp(t);
  const daemon = start();
  await daemon.says("ready");
  const reload = (text: string): void => {
    writeFileSync(join(folder, "sluice.yaml"), text);
    daemon.signal("SIGHUP");
  };
  reload(configuration(5));
  await daemon.says("configuration reloaded");
  t.equal(await weight(), 5);

  const refused = "configuration not reloaded; nothing was changed";
  reload(configuration(70000));
  t.match(await daemon.says(refused), {
    level: 50,
    code: "WEIGHT_OUT_OF_RANGE",
    error: /sluice.yaml:6:62: services\[0\].real_servers\[0\].weight is 70000/,
  });
  t.equal(await weight(), 5);
  reload(configuration(6, "limits: {connections: 2048}\n"));
  t.match(await daemon.says(refused, 2), {
    code: "RESTART_REQUIRED",
    error: /limits is not what the daemon was started with/,
  });
  t.equal(await weight(), 5);
  reload(configuration(7));
  await daemon.says("configuration reloaded", 2);
  t.equal(await weight(), 7, "and the next valid one counts");

  const client = new ApiClient(join(folder, "sluice.sock"));
  t.teardown(() => client.close());
  reload(configuration(7, "settings: {sloppy_tcp: 1}\ntimeouts: {udp: 30s}\nmarks: [{mark: 1, family: ipv4}]\n"));
  await daemon.says("configuration reloaded", 3);
  t.match(
    await client.getSettings(),
    { sloppyTcp: 1, timeouts: { udp: { seconds: 30n }, tcpClose: { seconds: 10n } }, marks: [{ mark: 1 }] },
    "settings, timeouts and marks change while it runs",
  );
  await client.updateSettings({ name: "", marks: [], fullnatPools: [], sloppyTcp: 0 }, ["sloppy_tcp", "marks"]);
  t.match(await daemon.says("changed", 4), { change: "configure", changed: ["settings", "marks"] });
  reload(configuration(7, "settings: {sloppy_tcp: 1}\n"));
  await daemon.says("configuration reloaded", 4);
  t.match(await client.getSettings(), { sloppyTcp: 1, marks: [] }, "the file wins");
  t.equal(await daemon.ends("SIGINT"), 0);
});

t.test("a daemon that cannot start says why in one line and leaves nothing behind", async (t) => {
  const { folder, start } = setUp(t);
  const broken = start("sluice", { REFUSE_TO_OPEN: "WRONG_INTERFACE" });
  t.equal(await broken.ends(), 1);
  t.equal(broken.stderr, "sluice: WRONG_INTERFACE: there is no interface c9\n");
  t.notOk(existsSync(join(folder, "sluice.sock")));

  writeFileSync(join(folder, "sluice.yaml"), configuration(-1));
  const invalid = start();
  t.equal(await invalid.ends(), 2);
  t.match(invalid.stderr, /^sluice: WEIGHT_OUT_OF_RANGE: .*sluice.yaml:6:62: .*\n$/);

  writeFileSync(join(folder, "sluice.yaml"), configuration(3, `api: {socket: ${join(folder, "none", "api.sock")}}\n`));
  const unusable = start();
  t.equal(await unusable.ends(), 1);
  t.match(unusable.stderr, /^sluice: SOCKET_UNUSABLE: .*\n$/);

  writeFileSync(join(folder, "sluice.yaml"), configuration(3));
  const daemon = start();
  await daemon.says("ready");
  t.equal(await daemon.ends("SIGTERM"), 0, "the lock was let go of each time");
});
