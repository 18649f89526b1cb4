/** The replayer's reading: traces and the ipvsadm lines in them. */
import t from "tap";
import { EMPTY_STATE, type PlainMarkRule, plainDesiredState } from "../../src/model/index.js";
import { build, type Layer, parse } from "../packet/frame.js";
import { realMac } from "../packet/network.js";
import { CommandError, parseCommand } from "../replay/command.js";
import {
  DIFFERENCES,
  type Difference,
  explain,
  LAST_SERVICE,
  ONE_PACKET_REPLIES,
  STALE_ROUTE,
} from "../replay/differences.js";
import type { Fate } from "../replay/director.js";
import { changeRules, FirewallError, type MarkRules, markRules, parseFirewallCommand } from "../replay/firewall.js";
import { frameOf, outgoing, type Packet } from "../replay/frames.js";
import {
  afterCommand,
  afterFirewallChange,
  desiredState,
  EMPTY_TABLES,
  serviceOf,
  type Tables,
} from "../replay/tables.js";
import { type Outgoing, type PacketEvent, readTrace, type Trace, TraceError } from "../replay/trace.js";
import { settingName, waitsFor } from "../replay/waiting.js";

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
const REAL_MAC = realMac(1);
const CONNECTION = {
  proto: "TCP",
  c: "192.0.2.1 1000",
  v: "10.0.0.100 80",
  d: "10.1.0.11 8080",
  state: "SYN_RECV",
  expires: 59,
};
const READ_CONNECTION = {
  protocol: "tcp",
  client: "192.0.2.1 1000",
  virtual: "10.0.0.100 80",
  real: "10.1.0.11 8080",
  state: "SYN_RECV",
  seconds: 59,
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
      final: {
        "ipvsadm -L -n":
          "version\nProt\n  ->\nTCP  10.0.0.100:80 rr\n  -> 10.1.0.11:8080               Masq    1      1          0         \n",
        conns: [],
      },
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
      {
        kind: "listing",
        persistent: false,
        lines: ["TCP 10.0.0.100:80 rr", "-> 10.1.0.11:8080 Masq 1 1 0"],
        connections: [],
      },
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
});

t.test("what is no trace is refused by the name of what is wrong", async (t) => {
  for (const [event, problem] of [
    [{ op: "reboot" }, /events\[0\]\.op is "reboot"/],
    [{ op: "sleep", s: "1" }, /events\[0\]\.s is "1"; it takes a number/],
    [{ ...PACKET, side: "x" }, /events\[0\]\.side is "x"; it takes c or r/],
    [{ ...PACKET, ai: [[1, 2, 3]] }, /events\[0\]\.ai\[0\] .* it takes two numbers/],
    [{ op: "conns" }, /events\[0\]\.conns is missing; it takes a list/],
    [{ op: "pkt", side: "c", in_hex: "0", out: [] }, /events\[0\]\.in_hex is "0"; it takes bytes in hex/],
    [7, /events\[0\] is 7; it takes an object/],
  ] as const) {
    t.throws(() => read(event), { name: "TraceError", code: "TRACE_MALFORMED", message: problem });
  }
  t.throws(() => readTrace("{"), TraceError);
});

t.test("packets of SCTP, with its chunks, are read and put into frames", async (t) => {
  const event = packet({});
  const init = read({ ...PACKET, proto: "sctp", flags: undefined, chunk: "INIT" }).events[0];
  t.match(init, { kind: "packet", protocol: "sctp", flags: "", chunk: "INIT" });
  const sent: Packet = { ...event, protocol: "sctp", flags: "", chunk: "INIT", source: "192.0.2.1" };
  t.strictSame(outgoing(parse(build(frameOf(sent)))), {
    side: "r",
    source: "192.0.2.1",
    destination: "10.0.0.100",
    ttl: 64,
    protocol: 132,
    sourcePort: 1000,
    destinationPort: 80,
    chunk: "INIT",
  });
  t.throws(() => frameOf({ ...sent, chunk: "NONE" }), /NONE is no chunk/);
});

const SERVICE = { protocol: "tcp", address: "10.0.0.100", port: 80 } as const;
const REAL_SERVER = { address: "10.1.0.11", port: 80, method: "dr", weight: 1, upperThreshold: 0, lowerThreshold: 0 };

t.test("ipvsadm lines are read", async (t) => {
  const service = (changes: object): object => ({
    key: SERVICE,
    scheduler: "wlc",
    flags: [],
    onePacket: false,
    ...changes,
  });
  for (const [line, command] of [
    ["-A -t 10.0.0.100:80", { kind: "add service", service: service({}) }],
    ["--add-service --tcp-service=10.0.0.100:80", { kind: "add service", service: service({}) }],
    [
      "-E -t 10.0.0.100:80 -s sh -b sh-port,sh-fallback",
      { kind: "edit service", service: service({ scheduler: "sh", flags: ["sh-port", "sh-fallback"] }) },
    ],
    [
      "-A -t 10.0.0.100:80 -s mh -b flag-1,flag-3",
      { kind: "add service", service: service({ scheduler: "mh", flags: ["mh-fallback"] }) },
    ],
    ["-A -t 10.0.0.100:80 -s rr -b flag-1", { kind: "add service", service: service({ scheduler: "rr" }) }],
    ["-A -t 10.0.0.100:80 -p", { kind: "add service", service: service({ persistence: { timeout: 360 } }) }],
    [
      "-A -t 10.0.0.100:80 -p 600 -M 255.255.255.240",
      { kind: "add service", service: service({ persistence: { timeout: 600, netmask: "255.255.255.240" } }) },
    ],
    [
      "-p600 -A -t 10.0.0.100:80 -M 24",
      { kind: "add service", service: service({ persistence: { timeout: 600, netmask: "0.0.0.24" } }) },
    ],
    [
      "-A -t 10.0.0.100 -p",
      { kind: "add service", service: service({ key: { ...SERVICE, port: 0 }, persistence: { timeout: 360 } }) },
    ],
    [
      "-A -u 10.0.0.100:80 -o",
      { kind: "add service", service: service({ key: { ...SERVICE, protocol: "udp" }, onePacket: true }) },
    ],
    [
      "-A --sctp-service 10.0.0.100:80",
      { kind: "add service", service: service({ key: { ...SERVICE, protocol: "sctp" } }) },
    ],
    ["-A -f 4294967295", { kind: "add service", service: service({ key: { fwmark: 4294967295, family: "ipv4" } }) }],
    ["-A -f 3 -6", { kind: "add service", service: service({ key: { fwmark: 3, family: "ipv6" } }) }],
    ["-D -u 10.0.0.100:80", { kind: "delete service", service: { ...SERVICE, protocol: "udp" } }],
    [
      "-a -t 10.0.0.100:80 -r 10.1.0.11:8080 -m -w 3 -x 8 -y 2",
      {
        kind: "add server",
        service: SERVICE,
        realServer: { ...REAL_SERVER, port: 8080, method: "nat", weight: 3, upperThreshold: 8, lowerThreshold: 2 },
      },
    ],
    ["-e -t 10.0.0.100:80 -r 10.1.0.11:8080", { kind: "edit server", service: SERVICE, realServer: REAL_SERVER }],
    [
      "-a -t 10.0.0.100:80 -r 10.1.0.11 -i --tun-type ipip",
      { kind: "add server", service: SERVICE, realServer: { ...REAL_SERVER, method: "tun" } },
    ],
    [
      "-a -f 1 -r 10.1.0.11 -m",
      {
        kind: "add server",
        service: { fwmark: 1, family: "ipv4" },
        realServer: { ...REAL_SERVER, method: "nat", port: 0 },
      },
    ],
    [
      "-a -f 1 -r 10.1.0.11:80 -g",
      { kind: "add server", service: { fwmark: 1, family: "ipv4" }, realServer: REAL_SERVER },
    ],
    [
      "-d -t 10.0.0.100:80 -r 10.1.0.11:8080",
      { kind: "delete server", service: SERVICE, realServer: { address: "10.1.0.11", port: 8080 } },
    ],
    ["-C", { kind: "clear" }],
    ["-Z", { kind: "zero", service: undefined }],
    ["-Z -t 10.0.0.100:80", { kind: "zero", service: SERVICE }],
    ["--set 2 0 3", { kind: "timeouts", tcp: 2, tcpFin: 0, udp: 3 }],
  ] as const) {
    t.strictSame(parseCommand(line), command, line);
  }
});

t.test("lines that ipvsadm refuses, or the replayer cannot follow, are refused", async (t) => {
  for (const line of [
    "",
    "-L -n",
    "-A",
    "-A -D -t 10.0.0.100:80",
    "-A -t nowhere",
    "-A -t 10.0.0.100:80 extra",
    "-A -t 10.0.0.100:0",
    "-A -t 10.0.0.100:80 -o",
    "-A -t 10.0.0.100:80 -p many",
    "-A -t 10.0.0.100:80 --pe sip -p",
    "-A -t 10.0.0.100:80 -t 10.0.0.101:80",
    "-A -f 0",
    "-A -f 4294967296",
    "-a -t 10.0.0.100:80 -m",
    "-a -t 10.0.0.100:80 -r 10.1.0.11:80 -m -g",
    "-a -t 10.0.0.100:80 -r 10.1.0.11:80 -w many",
    "-a -t 10.0.0.100:80 -r",
    "--set 1 2",
  ]) {
    t.throws(() => parseCommand(line), CommandError, line);
  }
});

function after(tables: Tables, ...lines: string[]): Tables {
  return lines.reduce((changed, line) => afterCommand(changed, parseCommand(line)), tables);
}

t.test("the desired state is what the commands would make of the kernel's tables", async (t) => {
  const tables = after(
    EMPTY_TABLES,
    "-A -t 10.0.0.100:80 -s sh -b sh-port -p 600 -M 255.255.255.0",
    "-a -t 10.0.0.100:80 -r 10.1.0.11:8080 -m -x 8",
    "-a -t 10.0.0.100:80 -r 10.1.0.12:8080 -m",
    "-e -t 10.0.0.100:80 -r 10.1.0.11:8080 -m -w 0",
    "-A -t 10.0.0.101:0 -s mh -p",
    "-a -t 10.0.0.101:0 -r 10.1.0.13:99 -m",
    "-A -f 1",
    "-a -f 1 -r 10.1.0.14:80 -g",
    "-a -f 1 -r 10.1.0.14:81 -m",
    "--set 0 1 0",
  );
  t.strictSame(plainDesiredState(desiredState(tables, EMPTY_STATE)), {
    settings: { icmp_rate: 1_000_000 },
    timeouts: { tcp_fin_wait: "1s" },
    services: [
      {
        ...SERVICE,
        scheduler: "sh",
        scheduler_flags: ["sh-port"],
        persistence: { timeout: "600s", netmask: "255.255.255.0" },
        real_servers: [
          { address: "10.1.0.12", port: 8080, method: "nat", weight: 1 },
          { address: "10.1.0.11", port: 8080, method: "nat", weight: 0 },
        ],
      },
      {
        ...SERVICE,
        address: "10.0.0.101",
        port: 0,
        scheduler: "mh",
        scheduler_flags: [],
        table_size: 4093,
        persistence: { timeout: "360s", netmask: "255.255.255.255" },
        real_servers: [{ address: "10.1.0.13", port: 0, method: "nat", weight: 1 }],
      },
      {
        fwmark: 1,
        family: "ipv4",
        scheduler: "wlc",
        real_servers: [
          { address: "10.1.0.14", port: 81, method: "nat", weight: 1 },
          { address: "10.1.0.14", port: 0, method: "dr", weight: 1 },
        ],
      },
    ],
  });
  t.strictSame(after(tables, "-C").services, []);
  t.strictSame(after(tables, "-Z"), tables);
});

t.test("what the kernel refuses changes nothing", async (t) => {
  const tables = after(EMPTY_TABLES, "-A -t 10.0.0.100:80", "-a -t 10.0.0.100:80 -r 10.1.0.11");
  for (const line of [
    "-A -t 10.0.0.100:80",
    "-E -t 10.0.0.100:81",
    "-D -t 10.0.0.100:81",
    "-Z -t 10.0.0.100:81",
    "-a -t 10.0.0.100:80 -r 10.1.0.11",
    "-a -t 10.0.0.100:81 -r 10.1.0.11",
    "-e -t 10.0.0.100:80 -r 10.1.0.12",
    "-d -t 10.0.0.100:80 -r 10.1.0.12",
  ]) {
    t.throws(() => after(tables, line), { code: "COMMAND_REFUSED" }, line);
  }
});

t.test("iptables' commands become mark rules", async (t) => {
  const mark = "iptables-legacy -t mangle -A PREROUTING -i c0";
  for (const [command, rules] of [
    [`${mark} -d 203.0.113.0/24 -j MARK --set-mark 1`, [{ mark: 1, destination: "203.0.113.0/24" }]],
    [
      `${mark} -d 203.0.113.7/255.255.255.0 -p udp -m udp --dport 53 -j MARK --set-xmark 0x10/0xffffffff`,
      [{ mark: 16, protocol: "udp", destination: "203.0.113.0/24", destination_ports: "53" }],
    ],
    [
      `${mark} -s 198.18.0.1 -d 10.0.0.100/32 -j MARK --set-mark 2`,
      [{ mark: 2, source: "198.18.0.1", destination: "10.0.0.100" }],
    ],
    [
      `${mark} -p tcp -m multiport --dports 80,8000:8099 --sport 1024: -j MARK --set-mark 3`,
      [
        { mark: 3, family: "ipv4", protocol: "tcp", source_ports: "1024-65535", destination_ports: "80" },
        { mark: 3, family: "ipv4", protocol: "tcp", source_ports: "1024-65535", destination_ports: "8000-8099" },
      ],
    ],
    ["iptables -t mangle -A PREROUTING -d 0.0.0.0/0 -j MARK --set-mark 4", [{ mark: 4, family: "ipv4" }]],
  ] as const) {
    t.strictSame(parseFirewallCommand(command), { kind: "append", rules }, command);
    const tables = afterFirewallChange(EMPTY_TABLES, parseFirewallCommand(command));
    t.equal(desiredState(tables, EMPTY_STATE).marks.length, rules.length, "the model takes them");
  }
  for (const command of [
    "true",
    "ip route add local 203.0.113.0/24 dev lo",
    "iptables -t filter -A PREROUTING -j MARK --set-mark 1",
    "iptables -t mangle -A OUTPUT -j MARK --set-mark 1",
    "iptables -t mangle -A PREROUTING -i r0 -j MARK --set-mark 1",
    "iptables -t mangle -A PREROUTING -j ACCEPT",
    "iptables -t mangle -A PREROUTING -j MARK --set-mark 0",
    "iptables -t mangle -A PREROUTING -j MARK --set-mark 1/0xff",
    "iptables -t mangle -A PREROUTING ! -d 10.0.0.100 -j MARK --set-mark 1",
    "iptables -t mangle -A PREROUTING -d 10.0.0.100 ! -s 10.0.0.1 -j MARK --set-mark 1",
    "iptables -t mangle -A PREROUTING -m statistic --mode random -j MARK --set-mark 1",
    "iptables -t mangle -A PREROUTING -p gre -j MARK --set-mark 1",
    "iptables -t mangle -L",
  ]) {
    t.throws(() => parseFirewallCommand(command), FirewallError, command);
  }
});

t.test("of iptables' rules the last one that matches counts, of mark rules the first", async (t) => {
  const change = (rules: readonly MarkRules[], what: string): readonly MarkRules[] =>
    changeRules(rules, parseFirewallCommand(`iptables -t mangle ${what}`));
  const rule = (n: number): string => `-d 10.0.0.${n} -j MARK --set-mark ${n}`;
  const plain = (n: number): PlainMarkRule => ({ mark: n, destination: `10.0.0.${n}` });
  let rules = change([], `-A PREROUTING ${rule(1)}`);
  rules = change(rules, `-A PREROUTING ${rule(2)}`);
  rules = change(rules, `-I PREROUTING ${rule(3)}`);
  t.strictSame(markRules(rules), [plain(2), plain(1), plain(3)]);
  rules = change(rules, `-D PREROUTING ${rule(1)}`);
  t.strictSame(markRules(rules), [plain(2), plain(3)]);
  t.strictSame(markRules(change(rules, "-D PREROUTING 1")), [plain(2)]);
  t.strictSame(markRules(change(rules, "-F PREROUTING")), []);
  t.strictSame(markRules(change(rules, "-F")), []);
});

t.test("a packet's service is found by its mark, by address and port, by address alone", async (t) => {
  const marked = afterFirewallChange(
    EMPTY_TABLES,
    parseFirewallCommand("iptables -t mangle -A PREROUTING -d 10.0.0.96/28 -p tcp --dport 443 -j MARK --set-mark 7"),
  );
  const tables = after(marked, "-A -t 10.0.0.100:80", "-A -t 10.0.0.100:0 -p", "-A -f 7");
  const found = (changes: Partial<PacketEvent>): object | undefined => serviceOf(tables, packet(changes))?.key;
  t.match(found({}), { port: 80 });
  t.match(found({ destinationPort: 81 }), { port: 0 });
  t.match(found({ destinationPort: 443 }), { fwmark: 7 });
  t.match(found({ destinationPort: 443, destination: "10.0.0.111" }), { fwmark: 7 });
  t.equal(found({ destinationPort: 443, destination: "10.0.0.112" }), undefined);
  t.equal(found({ protocol: "udp" }), undefined);
});

t.test("a trace waits for what Sluice does not have", async (t) => {
  const command = (args: string) => read({ op: "ipvsadm", args, rc: 0 });
  t.strictSame(waitsFor(command("-A -f 1 -s rr -p 600 -o")), []);
  t.strictSame(waitsFor(command("-A -t [2001:db8::1]:80")), ["IPv6"]);
  t.strictSame(waitsFor(command("-A -f 1 -6")), ["IPv6"]);
  t.strictSame(waitsFor(command("-a -t 10.0.0.100:80 -r 10.1.0.11 -i --tun-type ipip")), []);
  t.strictSame(waitsFor(command("-a -t 10.0.0.100:80 -r 10.1.0.11 -i --tun-type gre")), ["tunnels beyond IPIP"]);
  t.strictSame(waitsFor(command("-A -u 10.0.0.100:5060 --pe sip -p")), ["persistence engines"]);
  t.strictSame(waitsFor(read({ ...PACKET, proto: "icmp" })), ["ICMP"]);
  const frame = (...layers: Layer[]) => {
    const whole: Layer[] = [{ kind: "ethernet", destination: REAL_MAC, source: REAL_MAC }, ...layers];
    return read({ op: "pkt", side: "c", in_hex: Buffer.from(build(whole)).toString("hex"), out: [] });
  };
  const ends = { source: "192.0.2.1", destination: "10.0.0.100" };
  t.strictSame(waitsFor(frame({ kind: "ipv4", ...ends }, { kind: "udp", sourcePort: 1, destinationPort: 2 })), []);
  t.strictSame(waitsFor(frame({ kind: "ipv4", ...ends }, { kind: "icmp", type: 8, code: 0 })), ["ICMP"]);
  t.strictSame(waitsFor(frame({ kind: "ipv4", ...ends, moreFragments: true, protocol: 17 })), ["fragments"]);
  t.strictSame(waitsFor(frame({ kind: "ipv6", source: "::1", destination: "::2", nextHeader: 6 })), ["IPv6"]);
  t.strictSame(waitsFor(read({ ...PACKET, proto: "sctp" }, { op: "sleep", s: 60 })), []);
  const sysctl = (name: string, value: number) => read({ op: "sysctl", key: `net.ipv4.vs.${name}`, value });
  t.strictSame(waitsFor(sysctl("sloppy_tcp", 1)), []);
  t.strictSame(waitsFor(sysctl("schedule_icmp", 0)), []);
  t.strictSame(waitsFor(sysctl("schedule_icmp", 1)), ["schedule_icmp = 1"]);
  t.strictSame(waitsFor(read({ op: "sysctl", key: "net.ipv4.ip_forward", value: 0 })), ["net.ipv4.ip_forward = 0"]);
  t.match(waitsFor(read({ op: "sh", cmd: "reboot", rc: 0 })), [/"reboot" is none of iptables/]);
  t.equal(settingName("net.ipv4.vs.conn_reuse_mode"), "conn_reuse_mode");
});

t.test("only documented differences are let pass", async (t) => {
  const tables = after(EMPTY_TABLES, "-A -u 10.0.0.100:53 -o", "-a -u 10.0.0.100:53 -r 10.1.0.11 -m");
  const reset: Outgoing = { side: "c", source: "10.0.0.100", sourcePort: 80, flags: "R" };
  const dropped = (reason: string, { services } = EMPTY_TABLES) =>
    explain(packet({ out: [reset] }), { verdict: "drop", reason }, services, new Set());
  t.equal(dropped("real_server_removed"), LAST_SERVICE);
  t.equal(dropped("real_server_removed", tables), undefined);
  t.equal(dropped("no_real_server"), undefined);
  const refused: Outgoing = { side: "c", source: "10.0.0.100", icmp: [3, 3] };
  const removed: Fate = { verdict: "drop", reason: "real_server_removed" };
  t.equal(explain(packet({ protocol: "udp", out: [refused] }), removed, [], new Set()), LAST_SERVICE);
  const fromReal = { source: "10.1.0.11", sourcePort: 80, destination: "192.0.2.1", destinationPort: 1000 };
  const untranslated = packet({ side: "r", ...fromReal, out: [{ side: "c", ...fromReal }] });
  const answered: Fate = { verdict: "forward", out: { side: "c", ...fromReal, source: "10.0.0.100" } };
  t.equal(explain(untranslated, answered, [], new Set()), LAST_SERVICE);
  t.equal(explain(untranslated, answered, tables.services, new Set()), undefined);

  const forwarded: Outgoing = { side: "r", source: "192.0.2.1" };
  const forward = (event: PacketEvent, out = forwarded) =>
    explain(event, { verdict: "forward", out }, tables.services, met);
  const met = new Set<Difference>();
  t.equal(forward(packet({ out: [{ side: "r", arp: "ff" }] })), STALE_ROUTE);
  t.equal(forward(packet({})), undefined);
  const toVip: Outgoing = { side: "r", source: "192.0.2.1", destination: "10.0.0.100" };
  t.equal(forward(packet({ out: [] }), toVip), undefined);
  met.add(STALE_ROUTE);
  t.equal(forward(packet({ out: [] }), toVip), STALE_ROUTE, "after it was asked in vain");
  t.equal(forward(packet({ out: [] })), undefined);

  const ends = { source: "10.1.0.11", sourcePort: 53, destination: "198.18.0.1", destinationPort: 1000 };
  const reply = packet({ side: "r", protocol: "udp", ...ends, out: [{ side: "c", ...ends }] });
  const translated: Outgoing = { side: "c", ...ends, source: "10.0.0.100" };
  t.equal(forward(reply, translated), ONE_PACKET_REPLIES);
  t.equal(forward({ ...reply, source: "10.1.0.12" }, translated), undefined, "not of that service");
  t.equal(forward({ ...reply, protocol: "tcp" }, translated), undefined);

  for (const { name, reason } of DIFFERENCES) t.ok(reason.length > name.length, name);
});
