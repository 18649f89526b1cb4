import { inspect } from "node:util";
import { type FinalResults, Parser, type Result } from "tap-parser";

export interface Failure {
  /** File and titles down to the test, as "file > test > subtest". */
  readonly name: string;
  /** What tap says about each broken assertion, ready to print. */
  readonly details: readonly string[];
}

export interface Skip {
  readonly name: string;
  readonly reason: string;
}

/** What a stretch of TAP amounts to, counted in tests that assert something. */
export interface Tally {
  passed: number;
  readonly failed: Failure[];
  readonly skipped: Skip[];
}

export interface FileTally extends Tally {
  readonly file: string;
  readonly seconds: number;
}

export function emptyTally(): Tally {
  return { passed: 0, failed: [], skipped: [] };
}

export function add(into: Tally, tally: Tally): void {
  into.passed += tally.passed;
  into.failed.push(...tally.failed);
  into.skipped.push(...tally.skipped);
}

/**
 * Reads what `tap --reporter=tap` writes: a stream with one subtest for each file.
 *
 * A test is a block (`t.test`, or a file's top level) with assertions of its own; it passes when all of them hold. So
 * neither a loop with 10,000 assertions nor a title that only groups others counts for more than it is. A block that ran
 * without one passes as well: fast-check and node:assert speak by throwing. A file that crashes, exits early, bails out or contains no test counts as failed,
 * whatever it reported before.
 */
export class TapReader {
  readonly #parser = new Parser();
  readonly #onFile: (file: FileTally) => void;
  #bailout: string | undefined;

  constructor(onFile: (file: FileTally) => void) {
    this.#onFile = onFile;
    const blocks: Tally[] = [];
    this.#parser.on("child", (child: Parser) => blocks.push(tallyBlock(child)));
    this.#parser.on("assert", (result: Result) => {
      // What is no file's end is tap's word that a file ran out of time, and that file has said so itself.
      if (result.closingTestPoint) this.#finishFile(result, blocks.pop() ?? emptyTally());
    });
    this.#parser.on("bailout", (reason: string) => {
      this.#bailout = reason;
    });
  }

  /** Why the run was given up, if a test bailed out. The files that had not reported by then never will. */
  get bailout(): string | undefined {
    return this.#bailout;
  }

  write(text: string | Uint8Array): void {
    this.#parser.write(text);
  }

  end(): void {
    this.#parser.end();
  }

  #finishFile(result: Result, tally: Tally): void {
    if (result.skip === "no tests found") {
      tally.failed.push({ name: result.name, details: ["the file contains no test"] });
    } else if (result.skip !== false) {
      tally.skipped.push({ name: result.name, reason: skipReason(result.skip) });
    } else if (!result.ok) {
      const { exitCode, signal } = (result.diag ?? {}) as { exitCode?: number | null; signal?: string | null };
      const last = tally.failed.pop();
      if (last === undefined) {
        const end =
          typeof signal === "string" ? `was killed by ${signal}` : `ended with status ${exitCode ?? "unknown"}`;
        tally.failed.push({ name: result.name, details: [`the file's process ${end}`] });
      } else {
        // Status 1 is what tap gives a file for its broken assertions, and those are told already.
        const end = typeof signal === "string" ? [`the file's process was killed by ${signal}`] : [];
        tally.failed.push({ name: last.name, details: [...last.details, ...end] });
      }
    }
    this.#onFile({ ...tally, file: result.name, seconds: (result.time ?? 0) / 1000 });
  }
}

/** The tally of one block and all below it; complete when the parser says so. */
function tallyBlock(parser: Parser): Tally {
  const tally = emptyTally();
  const children: Tally[] = [];
  const broken: string[] = [];
  let assertions = 0;

  parser.on("child", (child: Parser) => children.push(tallyBlock(child)));
  parser.on("assert", (result: Result) => {
    if (result.closingTestPoint) {
      const child = children.at(-1);
      if (child !== undefined) closeBlock(child, result);
    } else if (result.skip !== false || result.todo !== false) {
      const reason = result.skip === false ? `todo: ${skipReason(result.todo)}` : skipReason(result.skip);
      tally.skipped.push({ name: result.fullname, reason });
    } else {
      assertions++;
      if (!result.ok) broken.push(describe(result));
    }
  });
  parser.on("complete", (results: FinalResults) => {
    for (const failure of results.failures) {
      // Not an assertion but a breach of the protocol: the process ended in the middle of a test, or a plan was not kept.
      if (!("fullname" in failure)) broken.push(failure.tapError);
    }
    if (broken.length > 0) {
      tally.failed.push({ name: parser.fullname, details: broken });
    } else if (assertions > 0) {
      tally.passed++;
    }
    for (const child of children) add(tally, child);
  });
  return tally;
}

/** Completes a subtest's tally by how the subtest itself ended: its body may have thrown, been skipped, or asserted nothing. */
function closeBlock(tally: Tally, result: Result): void {
  if (!result.ok) {
    if (tally.failed.length === 0) tally.failed.push({ name: result.fullname, details: [describe(result)] });
  } else if (tally.passed + tally.failed.length + tally.skipped.length === 0) {
    if (result.skip === false) tally.passed++;
    else tally.skipped.push({ name: result.fullname, reason: skipReason(result.skip) });
  }
}

function skipReason(directive: string | boolean): string {
  return typeof directive === "string" && directive !== "" ? directive : "no reason given";
}

/** An assertion's name and diagnostics; multi-line values (diff, source, stack) keep their lines. */
function describe(result: Result): string {
  const lines = [result.name];
  const diagnostics: unknown = result.diag;
  if (typeof diagnostics === "object" && diagnostics !== null) {
    for (const [key, value] of Object.entries(diagnostics)) {
      const text = typeof value === "string" ? value.trimEnd() : inspect(value, { breakLength: 120 });
      lines.push(text.includes("\n") ? `${key}:\n  ${text.replaceAll("\n", "\n  ")}` : `${key}: ${text}`);
    }
  }
  return lines.join("\n").replaceAll("\n", "\n  ");
}
