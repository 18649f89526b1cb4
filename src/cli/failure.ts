import { CommanderError } from "commander";
import { ApiError } from "../api/client.js";
import { ConfigurationError, describeProblem } from "../config/configuration.js";
import { ModelError } from "../model/index.js";

/** Exit statuses of `sluice`; --help tells users of them. */
export const EXIT = {
  ok: 0,
  /** It could not be done. */
  failure: 1,
  /** What was asked for is not valid: usage, a file, a value that the daemon refused. */
  invalid: 2,
  /** No daemon answers. */
  unreachable: 3,
} as const;

export interface Failure {
  readonly status: number;
  /** What stderr gets, a line each. */
  readonly lines: readonly string[];
}

/** More is no help to anyone. */
const MAX_LINES = 20;

/** How `sluice` tells of an error: a line `sluice: CODE: message` for everything that is wrong. */
export function failureOf(error: unknown): Failure {
  if (error instanceof CommanderError) {
    // Commander has written what there is to say: help, the version, or the usage error.
    return { status: error.exitCode === 0 ? EXIT.ok : EXIT.invalid, lines: [] };
  }
  if (error instanceof ConfigurationError) {
    const { file, problems } = error;
    return invalid(problems.map((problem) => ({ code: problem.code, message: describeProblem(file, problem) })));
  }
  if (error instanceof ModelError) {
    return invalid(error.violations);
  }
  if (error instanceof ApiError) {
    if (error.violations.length > 0) {
      return invalid(error.violations);
    }
    const status = error.code === "DAEMON_UNREACHABLE" ? EXIT.unreachable : EXIT.failure;
    return { status, lines: [line(error.code, error.message)] };
  }
  const code = error instanceof Error && "code" in error && typeof error.code === "string" ? error.code : undefined;
  if (error instanceof Error && code !== undefined) {
    return { status: EXIT.failure, lines: [line(code, error.message)] };
  }
  // Nobody foresaw it, so where it came from matters.
  const text = error instanceof Error ? (error.stack ?? error.message) : String(error);
  return { status: EXIT.failure, lines: [`sluice: INTERNAL: ${text}`] };
}

function invalid(problems: readonly { readonly code: string; readonly message: string }[]): Failure {
  const lines = problems.slice(0, MAX_LINES).map(({ code, message }) => line(code, message));
  const more = problems.length - lines.length;
  if (more > 0) {
    lines.push(line("MORE", `${String(more)} more of the kind`));
  }
  return { status: EXIT.invalid, lines };
}

function line(code: string, message: string): string {
  return `sluice: ${code}: ${message.replaceAll(/\s*\n\s*/g, " ")}`;
}
