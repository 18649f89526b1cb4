/** The replayer's reading: traces and the ipvsadm lines in them. */
import t from "tap";
import { CommandError, parseCommand } from "../replay/command.js";
import { DIFFERENCES, explain, LAST_SERVICE, NO_ICMP, STALE_ROUTE } from "../replay/differences.js";
import { type Outgoing, type PacketEvent, readTrace, type Trace, TraceError } from "../replay/trace.js";
import { stateWaitsFor, waitsFor } from "../replay/waiting.js";

const PACKET = {
  op: "pkt",
  side: "c",
  proto: "tcp",
  flags: "S",
  src: "192.0.2.1",
  sport: 1000,
  dst: "10.0.0.100",
  dport: 80,
  datalen: 0,
  out: [
    {
      side: "r",
      to_real: 1,
      src: "192.0.2.1",
      sport: 1000,
      dst: "10.1.0.11",
      dport: 8080,
      proto: 6,
      flags: "S",
      ttl: 63,
    },
  ],
  picked: 1,
  ai: [[1, 0]],
};
const CONNECTION = { proto: "TCP", c: "192.0.2.1 1000", v: "10.0.0.100 80", d: "10.1.0.11 8080", state: "SYN_RECV" };
const READ_CONNECTION = {
  protocol: "tcp",
  client: "192.0.2.1 1000",
  virtual: "10.0.0.100 80",
  real: "10.1.0.11 8080",
  state: "SYN_RECV",
};

function read(...events: unknown[]): Trace {
  const trace = readTrace(JSON.stringify({ name: "small", events }));
  if ("paths" in trace) throw new TypeError("this is a trace of states");
  return trace;
}

function packet(changes: Partial<PacketEvent>): PacketEvent {
  const [event] = read(PACKET).events;
  if (event?.kind !== "packet") throw new TypeError("this is no packet");
  return { ...event, ...changes };
}

t.test("a trace's events are read", async (t) => {
  const trace = readTrace(
    JSON.stringify({
      name: "small",
      events: [
        { op: "ipvsadm", args: "-C", rc: 0 },
        { op: "sysctl", key: "net.ipv4.vs.sloppy_tcp", value: 1 },
        { op: "sleep", s: 0.5 },
        { op: "sh", cmd: "true", rc: 0 },
        PACKET,
        { op: "snapshot", services: [["TCP 10.0.0.100:80 rr", [["10.1.0.11:8080", "Masq", 1, 1, 0]]]] },
        { op: "conns", conns: [CONNECTION] },
      ],
      final: { conns: [] },
    }),
  );
  t.strictSame(trace, {
    name: "small",
    events: [
      { kind: "ipvsadm", line: "-C", status: 0 },
      { kind: "sysctl", name: "net.ipv4.vs.sloppy_tcp", value: 1 },
      { kind: "sleep", seconds: 0.5 },
      { kind: "shell", command: "true" },
      {
        kind: "packet",
        side: "c",
        protocol: "tcp",
        flags: "S",
        source: "192.0.2.1",
        sourcePort: 1000,
        destination: "10.0.0.100",
        destinationPort: 80,
        length: 0,
        out: [
          {
            side: "r",
            real: 1,
            source: "192.0.2.1",
            sourcePort: 1000,
            destination: "10.1.0.11",
            destinationPort: 8080,
            protocol: 6,
            flags: "S",
            ttl: 63,
          },
        ],
        picked: 1,
        counts: [[1, 0]],
      },
      {
        kind: "snapshot",
        services: [{ title: "TCP 10.0.0.100:80 rr", realServers: [["10.1.0.11:8080", "Masq", 1, 1, 0]] }],
      },
      { kind: "connections", connections: [READ_CONNECTION] },
      { kind: "connections", connections: [] },
    ],
  });
});

t.test("paths through states are read", async (t) => {
  const text = JSON.stringify({
    name: "tcp-nat",
    transitions: {},
    events: [{ path: "c:S r:SA", r: ["r:SA", "SYN_RECV", 60, 1, 0, 1] }],
  });
  t.strictSame(readTrace(text), {
    name: "tcp-nat",
    paths: [
      { steps: ["c:S", "r:SA"], state: "SYN_RECV", timeout: 60, activeChange: 1, inactiveChange: 0, packetsOut: 1 },
    ],
  });
  t.strictSame(stateWaitsFor("sctp-dr"), ["SCTP"]);
  t.strictSame(stateWaitsFor("tcp-dr"), []);
});

t.test("what is no trace is refused by the name of what is wrong", async (t) => {
  for (const [event, problem] of [
    [{ op: "reboot" }, /events\[0\]\.op is "reboot"/],
    [{ op: "sleep", s: "1" }, /events\[0\]\.s is "1"; it takes a number/],
    [{ ...PACKET, side: "x" }, /events\[0\]\.side is "x"; it takes c or r/],
    [{ ...PACKET, ai: [[1, 2, 3]] }, /events\[0\]\.ai\[0\] .* it takes two numbers/],
    [{ op: "conns" }, /events\[0\]\.conns is missing; it takes a list/],
    [7, /events\[0\] is 7; it takes an object/],
  ] as const) {
    t.throws(() => read(event), { name: "TraceError", code: "TRACE_MALFORMED", message: problem });
  }
  t.throws(() => readTrace("{"), TraceError);
});

t.test("ipvsadm lines are read", async (t) => {
  const service = { protocol: "tcp", address: "10.0.0.100", port: 80 };
  for (const [line, command] of [
    ["-A -t 10.0.0.100:80", { kind: "add service", service, scheduler: "wlc", flags: [] }],
    [
      "-E -t 10.0.0.100:80 -s sh -b sh-port,sh-fallback",
      { kind: "edit service", service, scheduler: "sh", flags: ["sh-port", "sh-fallback"] },
    ],
    ["-D -u 10.0.0.100:80", { kind: "delete service", service: { ...service, protocol: "udp" } }],
    [
      "-a -t 10.0.0.100:80 -r 10.1.0.11:8080 -m -w 3",
      {
        kind: "add server",
        service,
        realServer: {
          address: "10.1.0.11",
          port: 8080,
          method: "nat",
          weight: 3,
          upperThreshold: 0,
          lowerThreshold: 0,
        },
      },
    ],
    [
      "-e -t 10.0.0.100:80 -r 10.1.0.11:8080",
      {
        kind: "edit server",
        service,
        realServer: { address: "10.1.0.11", port: 80, method: "dr", weight: 1, upperThreshold: 0, lowerThreshold: 0 },
      },
    ],
    [
      "-a -t 10.0.0.100:80 -r 10.1.0.11 -i",
      {
        kind: "add server",
        service,
        realServer: { address: "10.1.0.11", port: 80, method: "tun", weight: 1, upperThreshold: 0, lowerThreshold: 0 },
      },
    ],
    [
      "-d -t 10.0.0.100:80 -r 10.1.0.11:8080",
      { kind: "delete server", service, realServer: { address: "10.1.0.11", port: 8080 } },
    ],
    ["-C", { kind: "clear" }],
    ["--set 2 0 3", { kind: "timeouts", tcp: 2, tcpFin: 0, udp: 3 }],
  ] as const) {
    t.strictSame(parseCommand(line), command, line);
  }
});

t.test("lines that the replayer cannot follow are refused", async (t) => {
  for (const line of [
    "",
    "-L -n",
    "-A",
    "-A -t nowhere",
    "-A -t 10.0.0.100:80 -p 600",
    "-a -t 10.0.0.100:80 -m",
    "-a -t 10.0.0.100:80 -r 10.1.0.11:80 -w many",
    "-a -t 10.0.0.100:80 -r",
    "--set 1 2",
  ]) {
    t.throws(() => parseCommand(line), CommandError, line);
  }
});

t.test("a trace waits for what Sluice does not have", async (t) => {
  const command = (args: string) => read({ op: "ipvsadm", args, rc: 0 });
  t.strictSame(waitsFor(command("-A -t 10.0.0.100:80 -p 600 -o")), ["persistence", "one-packet scheduling"]);
  t.strictSame(waitsFor(command("-A -f 1 -s rr")), ["firewall marks"]);
  t.strictSame(waitsFor(command("-A -t 10.0.0.100:0 -s rr")), ["any-port services"]);
  t.strictSame(waitsFor(command("-a -t 10.0.0.100:80 -r 10.1.0.11:80 -x 5 -y 2")), ["thresholds"]);
  t.strictSame(waitsFor(command("-A -t [2001:db8::1]:80")), ["IPv6"]);
  t.strictSame(waitsFor(read({ ...PACKET, proto: "sctp" })), ["SCTP"]);
  t.strictSame(waitsFor(read({ op: "sleep", s: 60 })), ["60 s of sleep"]);
  t.strictSame(waitsFor(read({ op: "sysctl", key: "net.ipv4.vs.sloppy_tcp", value: 1 })), ["sloppy_tcp = 1"]);
  t.strictSame(waitsFor(read({ op: "sysctl", key: "net.ipv4.vs.sloppy_tcp", value: 0 }, PACKET)), []);
});

t.test("only documented differences are let pass", async (t) => {
  const unreachable: Outgoing = { side: "c", protocol: 1, icmp: [3, 3] };
  const reset: Outgoing = { side: "c", source: "10.0.0.100", sourcePort: 80, flags: "R" };
  const dropped = (reason: string, out: Outgoing, services = 1) =>
    explain({ packet: packet({ out: [out] }), verdict: "drop", reason, services });
  t.equal(dropped("no_real_server", unreachable), NO_ICMP);
  t.equal(dropped("no_real_server", { side: "r", protocol: 6 }), undefined);
  t.equal(dropped("table_full", unreachable), undefined);
  t.equal(dropped("real_server_removed", reset, 0), LAST_SERVICE);
  t.equal(dropped("real_server_removed", reset, 1), undefined);
  const arp: Outgoing = { side: "r", arp: "ff" };
  const forwarded = { verdict: "forward", reason: undefined, services: 1 } as const;
  t.equal(explain({ packet: packet({ out: [arp] }), ...forwarded }), STALE_ROUTE);
  t.equal(explain({ packet: packet({}), ...forwarded }), undefined);
  for (const { name, reason } of DIFFERENCES) t.ok(reason.length > name.length, name);
});
