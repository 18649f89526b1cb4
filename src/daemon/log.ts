import { pino } from "pino";

/** The part of pino that the daemon uses. */
export type Log = Pick<pino.Logger, "debug" | "info" | "warn" | "error"> & { level: string };

/** JSON lines on stdout, one an event, with the instance in each. Written at once, so that none is lost when the process ends. */
export function openLog(instance: string, level: string): Log {
  return pino({ level, base: { instance, pid: process.pid } }, pino.destination({ dest: 1, sync: true }));
}

/** The fields of an error that a log line needs. Stacks are for what nobody foresaw. */
export function errorFields(error: unknown): Readonly<Record<string, unknown>> {
  if (!(error instanceof Error)) {
    return { error: String(error) };
  }
  const code = "code" in error ? error.code : undefined;
  return code === undefined ? { error: error.message, stack: error.stack } : { code, error: error.message };
}
