/** What changes in a live service or for all of them: persistence, one-packet scheduling, thresholds, settings. */
import t from "tap";
import { isOverloaded } from "../../src/dataplane/real-load.js";
import { readService } from "../../src/dataplane/service-record.js";
import { readSetting } from "../../src/dataplane/settings.js";
import {
  DEFAULT_SETTINGS,
  EMPTY_STATE,
  type Persistence,
  SETTING_NAMES,
  type VirtualService,
} from "../../src/model/index.js";
import { loadField, setLoad } from "./plain-tables.js";
import { Bench, kinds, server, service } from "./publish-bench.js";

const NAME = "tcp:10.0.0.100:80";

function persistent(persistence: Persistence, address = "10.0.0.100"): VirtualService {
  return { ...service(80, [server(1)]), address, persistence };
}

t.test("persistence comes, changes and goes in a live service", async (t) => {
  const bench = new Bench();
  const stored = (): { mask: string; ticks: number } => {
    const { mask, ticks } = readService(bench.tables.services, 0)!.persistence;
    return { mask: Buffer.from(mask).toString("hex"), ticks };
  };
  const { services } = bench.tables;
  // What the data plane might see while a publish writes.
  const seen: ReturnType<typeof stored>[] = [];
  bench.watch = () => {
    if (services.bytes.some(Boolean)) {
      seen.push(stored());
    }
  };
  bench.publish(service(80, [server(1)]));
  t.strictSame(stored(), { mask: "0".repeat(32), ticks: 0 });
  const plan = bench.publish(persistent({ timeout: 360, netmask: "255.255.255.240" }));
  t.strictSame(kinds(plan.writes), ["persistence"]);
  t.strictSame(plan.changes.services.changed, [NAME]);
  t.strictSame(stored(), { mask: `fffffff0${"0".repeat(24)}`, ticks: Math.ceil((360 * 1e9) / 2 ** 22) });
  bench.restart();
  t.strictSame(bench.publish(persistent({ timeout: 360, netmask: "255.255.255.240" })).writes, []);
  bench.publish(persistent({ timeout: 60, netmask: "255.255.255.0" }));
  t.equal(stored().mask, `ffffff00${"0".repeat(24)}`);
  bench.publish(service(80, [server(1)]));
  t.strictSame(stored(), { mask: "0".repeat(32), ticks: 0 });
  t.notOk(
    seen.some(({ mask, ticks }) => ticks > 0 && mask === "0".repeat(32)),
    "never a time without a mask",
  );
});

t.test("an IPv6 netmask is a prefix length", async (t) => {
  const bench = new Bench();
  bench.publish(persistent({ timeout: 60, netmask: 61 }, "2001:db8::1"));
  t.equal(
    Buffer.from(readService(bench.tables.services, 0)!.persistence.mask).toString("hex"),
    "fffffffffffffff80000000000000000",
  );
});

t.test("one-packet scheduling is switched in a live service", async (t) => {
  const bench = new Bench();
  bench.publish(service(80, [server(1)]));
  t.strictSame(kinds(bench.publish({ ...service(80, [server(1)]), onePacket: true }).writes), ["one packet"]);
  t.equal(readService(bench.tables.services, 0)?.onePacket, true);
  bench.restart();
  t.strictSame(bench.publish({ ...service(80, [server(1)]), onePacket: true }).writes, []);
  bench.publish(service(80, [server(1)]));
  t.equal(readService(bench.tables.services, 0)?.onePacket, false);
});

t.test(
  "a real server that may have more connections is no longer overloaded; one that may have fewer not yet",
  async (t) => {
    const rows: [before: [number, number], after: [number, number], overloaded: 0 | 1][] = [
      [[8, 0], [9, 0], 0],
      [[8, 4], [0, 0], 0],
      [[8, 0], [8, 4], 1],
      [[8, 4], [6, 2], 1],
      [[0, 0], [4, 2], 0],
    ];
    for (const [before, after, overloaded] of rows) {
      const bench = new Bench();
      const publish = ([upperThreshold, lowerThreshold]: [number, number]): string[] => {
        const plan = bench.publish(service(80, [server(1, { upperThreshold, lowerThreshold })]));
        return kinds(plan.writes).filter((kind) => kind === "thresholds");
      };
      publish(before);
      setLoad(bench.tables, 0, { overloaded: 1, active: 8 });
      t.strictSame(publish(after), ["thresholds"], `${before.join("/")} to ${after.join("/")}`);
      t.strictSame(
        [loadField(bench.tables, 0, "upper"), loadField(bench.tables, 0, "lower")],
        after,
        "both are written",
      );
      t.equal(loadField(bench.tables, 0, "overloaded"), overloaded);
      t.equal(loadField(bench.tables, 0, "active"), 8, "counts are the data plane's");
      bench.restart();
      t.strictSame(publish(after), []);
    }
  },
);

t.test("one that is removed keeps its thresholds, and its overload, until it is freed", async (t) => {
  const bench = new Bench();
  const limited = server(1, { upperThreshold: 8 });
  bench.publish(service(80, [limited]));
  setLoad(bench.tables, 0, { overloaded: 1, active: 8 });
  bench.publish(service(80, []));
  bench.publish(service(80, [limited]));
  t.equal(loadField(bench.tables, 0, "overloaded"), 1, "as in IPVS, which finds it in its trash");
});

t.test("overload is told as the data plane judges it", async (t) => {
  const bench = new Bench();
  const rows: [fields: Parameters<typeof setLoad>[2], overloaded: boolean][] = [
    [{ overloaded: 0, upper: 8, lower: 0, active: 8 }, false],
    [{ overloaded: 1, upper: 8, lower: 0, active: 4, inactive: 2 }, true],
    [{ overloaded: 1, upper: 8, lower: 0, active: 4, inactive: 1 }, false],
    [{ overloaded: 1, upper: 8, lower: 4, active: 4, inactive: 0 }, true],
    [{ overloaded: 1, upper: 8, lower: 4, active: 3, inactive: 0 }, false],
    [{ overloaded: 1, upper: 0, lower: 0, active: 9, inactive: 0 }, false],
  ];
  for (const [fields, overloaded] of rows) {
    setLoad(bench.tables, 0, fields);
    t.equal(isOverloaded(bench.tables.realLoad, 0), overloaded, JSON.stringify(fields));
  }
});

t.test("each setting is written where the data plane reads it, and only when it changes", async (t) => {
  const bench = new Bench();
  bench.publish();
  for (const name of SETTING_NAMES) {
    const value = name === "icmp_rate" ? 999_999 : 1 - DEFAULT_SETTINGS[name];
    const plan = bench.publishState({ ...EMPTY_STATE, settings: { ...DEFAULT_SETTINGS, [name]: value } });
    t.strictSame(plan.writes, [{ kind: "setting", name, value }]);
    t.equal(readSetting(bench.tables.settings, name), value);
    const others = SETTING_NAMES.filter((other) => other !== name);
    t.ok(
      others.every((other) => readSetting(bench.tables.settings, other) === DEFAULT_SETTINGS[other]),
      "no other one is",
    );
    bench.restart();
    bench.publish();
  }
});
