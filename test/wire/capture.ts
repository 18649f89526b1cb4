/** Frames as tcpdump sees them on one end of a wire. */
import type { CableEnd } from "../network/namespace.js";
import type { BackgroundProgram } from "../network/program.js";

export class Capture {
  private constructor(private readonly tcpdump: BackgroundProgram) {}

  /** Returns once frames are being captured. "in" and "out" are as the host sees it. */
  static async start(end: CableEnd, direction: "in" | "out", filter: string): Promise<Capture> {
    const tcpdump = end.host.start([
      ...`tcpdump --immediate-mode -U -n -t -q -xx -s 0 -Q ${direction} -i ${end.interface}`.split(" "),
      filter,
    ]);
    await tcpdump.waitForOutput(/listening on/);
    return new Capture(tcpdump);
  }

  /** Ends it; the frames in hex, Ethernet header included, sorted (several CPUs may have reordered them). */
  async stop(): Promise<string[]> {
    const { stdout } = await this.tcpdump.stop();
    return stdout
      .split(/^(?=\S)/m)
      .map((frame) =>
        [...frame.matchAll(/^\s+0x[0-9a-f]+:\s+(.*)$/gm)].map(([, hex = ""]) => hex.replaceAll(" ", "")).join(""),
      )
      .filter((hex) => hex !== "")
      .sort();
  }
}
