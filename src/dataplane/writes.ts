/** The writes of a plan by its phases: see plan.ts. */
import type { Write } from "./write.js";

export class PhasedWrites {
  readonly build: Write[] = [];
  readonly change: Write[] = [];
  readonly switch: Write[] = [];
  readonly quiesce: Write[] = [];
  readonly close: Write[] = [];
  readonly free: Write[] = [];
  readonly take: Write[] = [];
  readonly open: Write[] = [];
  readonly teardown: Write[] = [];

  /** How many there are so far. */
  get count(): number {
    const { build, change, switch: words, quiesce, close, free, take, open, teardown } = this;
    const before = build.length + change.length + words.length + quiesce.length + close.length;
    return before + free.length + take.length + open.length + teardown.length;
  }

  /** All but those of `build`, in their order. */
  afterBuild(): (readonly Write[])[] {
    return [this.change, this.switch, this.quiesce, this.close, this.free, this.take, this.open, this.teardown];
  }
}
