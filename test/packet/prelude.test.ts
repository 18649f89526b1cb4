/** The instrument itself: that every run begins with the packet it should, whatever the last one left behind. */
import "./own-namespace.js";
import path from "node:path";
import { type BpfObject, openObject } from "libbpf-ts";
import t from "tap";
import { tcpFrame, udpFrame } from "../bench/frames.js";
import { clientFlows, type Flows } from "../prelude/flows.js";
import { Prelude, preludeFolder } from "../prelude/prelude.js";
import { ipv4Text } from "./addresses.js";
import { type Ipv4, parse, type Tcp, type Udp, wrongChecksums } from "./frame.js";

const XDP_ABORTED = 0;
const XDP_TX = 3;
const FLOWS = 50;
const SERVICE = 0x0a00_0064; // 10.0.0.100

let prelude: Prelude;
let references: BpfObject;

t.before(async () => {
  prelude = await Prelude.load(FLOWS);
  references = await openObject(path.join(preludeFolder, "reference.bpf.o")).load();
});
t.teardown(() => {
  prelude.close();
  references.close();
});

function nameOf(source: string, sourcePort: number, destination: string, destinationPort: number): string {
  return `${source}:${sourcePort} ${destination}:${destinationPort}`;
}

function flowName(flows: Flows, i: number): string {
  const text = (address = 0): string => ipv4Text(Uint8Array.of(address >>> 24, address >>> 16, address >>> 8, address));
  const { source, sourcePort, destination, destinationPort } = flows;
  return nameOf(text(source[i]), sourcePort[i] ?? 0, text(destination[i]), destinationPort[i] ?? 0);
}

/** The flow of a frame whose checksums hold. */
function flowOf(frame: Uint8Array): string {
  const layers = parse(frame);
  const wrong = wrongChecksums(layers);
  if (wrong.length > 0) return `wrong checksums: ${JSON.stringify(wrong)}`;
  const [, ip, transport] = layers as [unknown, Ipv4, Tcp | Udp];
  return nameOf(ip.source, transport.sourcePort, ip.destination, transport.destinationPort);
}

t.test("without a program under test it says so", async (t) => {
  prelude.setPackets({ frame: tcpFrame("198.18.0.1", "10.0.0.100", 80, "A"), flows: clientFlows(1, SERVICE, 80) });
  t.equal((await prelude.run(1)).returnValue, XDP_ABORTED);
});

for (const [protocol, frame] of [
  ["tcp", tcpFrame("198.18.0.1", "10.0.0.100", 80, "A")],
  ["udp", udpFrame("198.18.0.1", "10.0.0.100", 80)],
] as const) {
  t.test(`${protocol}: the flows of the list in turn, with right checksums`, async (t) => {
    const flows = clientFlows(FLOWS, SERVICE, 80);
    prelude.setProgram(references.program("reference_transmit"));
    prelude.setPackets({ frame, flows });
    const seen: string[] = [];
    for (let i = 0; i < FLOWS; i++) {
      const { returnValue, data } = await prelude.run(1);
      t.equal(returnValue, XDP_TX);
      seen.push(flowOf(data));
    }
    t.strictSame(
      seen,
      Array.from({ length: FLOWS }, (_, i) => flowName(flows, i)),
    );
    t.equal(new Set(seen).size, FLOWS, "all differ");
    t.equal(flowOf((await prelude.run(FLOWS + 3)).data), seen[2], "round again");
  });

  t.test(`${protocol}: new flows differ, with right checksums`, async (t) => {
    prelude.setProgram(references.program("reference_transmit"));
    prelude.setPackets({ frame, flows: "new", first: 1_000_000 });
    const seen = new Set<string>();
    for (let i = 0; i < 200; i++) seen.add(flowOf((await prelude.run(1)).data));
    t.equal(seen.size, 200);
    for (const flow of seen) t.match(flow, /^198\.1[89]\.\d+\.\d+:\d+ 10\.0\.0\.100:80$/);
  });
}

t.test("what a program changed or put on is gone in the next run", async (t) => {
  const frame = tcpFrame("198.18.0.1", "10.0.0.100", 80, "A");
  const flows = clientFlows(1, SERVICE, 80);
  prelude.setPackets({ frame, flows });
  prelude.setProgram(references.program("reference_transmit"));
  const { data: plain } = await prelude.run(1);
  prelude.setProgram(references.program("reference_swap_macs"));
  const { data: swapped } = await prelude.run(3);
  t.strictSame(swapped, Uint8Array.of(...plain.slice(6, 12), ...plain.slice(0, 6), ...plain.slice(12)));
  prelude.setProgram(references.program("reference_push_ipip"));
  const { data: wrapped } = await prelude.run(3);
  t.equal(wrapped.length, frame.length + 20, "one outer header and not three");
  t.strictSame(wrapped.slice(34), plain.slice(14));
  t.strictSame(wrongChecksums(parse(wrapped)), []);
});
