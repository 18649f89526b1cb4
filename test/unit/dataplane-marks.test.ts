/** Services of firewall marks and of every port, the rules that give marks, and the endpoints of nat real servers. */
import t from "tap";
import { compileMarkRules } from "../../src/dataplane/mark-rules.js";
import { markRulesGraceLeft } from "../../src/dataplane/plan-settings.js";
import { readRealServer } from "../../src/dataplane/real-server-record.js";
import { GRACE } from "../../src/dataplane/retire.js";
import { readMarkRuleRange } from "../../src/dataplane/settings.js";
import { layout, Protocol } from "../../src/dataplane/sluice.bpf.js";
import {
  type DesiredState,
  EMPTY_STATE,
  type MarkRule,
  type RealServer,
  type VirtualService,
} from "../../src/model/index.js";
import { Bench, kinds, server, service } from "./publish-bench.js";

const RULE: MarkRule = {
  mark: 1,
  family: "ipv4",
  destination: { family: "ipv4", address: "10.0.0.0", prefixLength: 8 },
};

function marked(fwmark: number, realServers: readonly RealServer[], family: "ipv4" | "ipv6" = "ipv4"): VirtualService {
  const { scheduler, schedulerFlags, onePacket } = service(80, []);
  return { fwmark, family, scheduler, schedulerFlags, onePacket, realServers };
}

function rules(...marks: MarkRule[]): DesiredState {
  return { ...EMPTY_STATE, marks };
}

t.test("a mark's service is found by its mark, has no VIP, and is known again after a restart", async (t) => {
  const bench = new Bench();
  const services = [marked(1, [server(1, { port: 0 })]), marked(0xfffffffe, [], "ipv6")];
  bench.publish(...services);
  const keys = Array.from(bench.tables.serviceIndex.entries(), ([{ vip, port, protocol, family }]) => {
    return [[...vip.bytes.subarray(0, 4)], vip.bytes.subarray(4).some(Boolean), port, protocol, family];
  });
  t.strictSame(keys, [
    [[0, 0, 0, 1], false, 0, Protocol.PROTOCOL_IP, 2],
    [[255, 255, 255, 254], false, 0, Protocol.PROTOCOL_IP, 10],
  ]);
  t.strictSame([...bench.tables.vips.entries()], []);
  bench.restart();
  t.strictSame([...bench.inventory.services.keys()], ["fwmark:1", "fwmark6:4294967294"]);
  t.strictSame(bench.publish(...services).writes, []);
  bench.publish();
  t.strictSame([...bench.tables.serviceIndex.entries()], []);
});

t.test("a service of every port has port 0, and so have its real servers", async (t) => {
  const bench = new Bench();
  bench.publish(service(0, [server(1, { port: 0 })]), service(80, [server(1)]));
  t.strictSame([...bench.inventory.services.keys()], ["tcp:10.0.0.100:0", "tcp:10.0.0.100:80"]);
  const { index } = bench.realServer("tcp:10.0.0.100:0", "10.1.0.1:0");
  t.equal(readRealServer(bench.tables.realServers, index)?.port, 0);
  t.strictSame(
    Array.from(bench.tables.vips.entries(), ([, { services }]) => services),
    [2],
  );
  bench.restart();
  t.strictSame(
    bench.publish(service(0, [server(1, { port: 0 })]), service(80, [server(1)])).writes,
    [],
    "known again after a restart",
  );
});

t.test("rules lie in the map as the data plane reads them", async (t) => {
  const { offsets, size } = layout.MarkRule;
  const bytes = compileMarkRules([
    RULE,
    {
      mark: 0xfffffffe,
      family: "ipv6",
      protocol: "sctp",
      source: { family: "ipv6", address: "2001:db8::", prefixLength: 35 },
      sourcePorts: [1, 2],
      destinationPorts: [80, 80],
    },
  ]);
  const rule = (index: number): { bytes: (at: number, length: number) => number[]; view: DataView } => ({
    bytes: (at, length) => [...bytes.subarray(index * size + at, index * size + at + length)],
    view: new DataView(bytes.buffer, index * size, size),
  });
  const any = rule(0);
  t.strictSame(any.bytes(offsets.destination, 5), [10, 0, 0, 0, 0]);
  t.strictSame(any.bytes(offsets.destination_mask, 5), [255, 0, 0, 0, 0]);
  t.notOk(any.bytes(offsets.source_mask, 16).some(Boolean), "any source");
  t.equal(any.view.getUint32(offsets.source_ports, true), 0xffff0000, "any port");
  t.equal(any.view.getUint8(offsets.protocol), Protocol.PROTOCOL_IP);
  const narrow = rule(1);
  t.strictSame(narrow.bytes(offsets.source_mask, 6), [255, 255, 255, 255, 0xe0, 0]);
  t.equal(narrow.view.getUint32(offsets.source_ports, true), 0x00020001);
  t.equal(narrow.view.getUint32(offsets.destination_ports, true), 0x00500050);
  t.equal(narrow.view.getUint32(offsets.mark, true), 0xfffffffe);
  t.equal(narrow.view.getUint8(offsets.protocol), Protocol.PROTOCOL_SCTP);
  t.equal(narrow.view.getUint8(offsets.family), 10);
});

t.test("rules are written to the half that does not hold, and hold by one word", async (t) => {
  const bench = new Bench();
  const range = (): number[] => {
    const { first, count } = readMarkRuleRange(bench.tables.settings);
    return [first, count];
  };
  const left = (desired: DesiredState): number => markRulesGraceLeft(bench.inventory, bench.tables, desired, bench.now);
  const [one, two] = [rules(RULE), rules({ ...RULE, mark: 2 }, RULE)];
  t.equal(left(one), 0, "nothing was there before");
  const plan = bench.publishState(one);
  t.strictSame(kinds(plan.preparations), ["mark rules"]);
  t.equal(kinds(plan.writes).at(-1), "mark rule range");
  t.strictSame(range(), [4, 1]);
  t.equal(left(one), 0);
  t.equal(left(two), GRACE, "packets in flight may still walk through the other half");
  bench.publishState(two);
  t.strictSame(range(), [0, 2]);
  bench.restart();
  t.strictSame(bench.publishState(two).writes, [], "they hold after a restart");
  t.equal(left(rules()), GRACE, "and it is not known since when");
  bench.publishState(rules());
  t.equal(range()[1], 0);
  bench.publishState(two);
  t.equal(range()[1], 2);
});

t.test("nat real servers in service are known by address and port, whoever of several goes", async (t) => {
  const bench = new Bench();
  const endpoints = (): [string, number][] =>
    Array.from(bench.tables.natEndpoints.entries(), ([{ vip, port, protocol }, index]) => [
      `${vip.bytes.subarray(0, 4).join(".")}:${port}/${protocol}`,
      index,
    ]);
  const others = [server(2, { method: "dr", port: 80 }), server(3, { port: 0 })];
  bench.publish(service(80, [server(1), ...others]), service(81, [server(1)]));
  const first = bench.realServer("tcp:10.0.0.100:80", "10.1.0.1:8080").index;
  const second = bench.realServer("tcp:10.0.0.100:81", "10.1.0.1:8080").index;
  t.strictSame(endpoints(), [["10.1.0.1:8080/6", first]]);
  bench.restart();
  bench.publish(service(80, others), service(81, [server(1)]));
  t.strictSame(endpoints(), [["10.1.0.1:8080/6", second]], "the other one has it");
  bench.publish(service(80, [server(1)]), service(81, [server(1, { method: "fullnat" })]));
  t.strictSame(endpoints(), [["10.1.0.1:8080/6", first]]);
  bench.publish(service(80, []));
  t.strictSame(endpoints(), []);
  bench.publish(marked(1, [server(1)]));
  t.strictSame(
    endpoints().map(([text]) => text),
    ["10.1.0.1:8080/6", "10.1.0.1:8080/17", "10.1.0.1:8080/132"],
    "of a mark, for each protocol",
  );
  bench.publish();
  t.strictSame(endpoints(), []);
});
