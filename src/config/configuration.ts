import { readFile } from "node:fs/promises";
import {
  at,
  DESIRED_STATE_FIELDS,
  type DesiredState,
  field,
  type InterfaceSettings,
  type Limits,
  type Path,
  readChoice,
  readDesiredState,
  readFields,
  readInterfaces,
  readLimits,
  readText,
  type Violation,
  Violations,
} from "../model/index.js";
import { type Position, YamlSource, YamlSyntaxError } from "./yaml-source.js";

export const LOG_LEVELS = ["trace", "debug", "info", "warn", "error", "fatal", "silent"] as const;
export type LogLevel = (typeof LOG_LEVELS)[number];

/** What the daemon is, as opposed to what it balances. Fixed while it runs, but for the log level. */
export interface InstanceSettings {
  readonly interfaces: readonly InterfaceSettings[];
  readonly limits: Limits;
  /** Path of the API's unix socket; undefined: the instance's own. */
  readonly socket: string | undefined;
  readonly logLevel: LogLevel;
}

export interface Configuration {
  readonly instance: InstanceSettings;
  readonly desired: DesiredState;
}

/** One thing that is wrong with a file. */
export interface ConfigurationProblem {
  readonly code: Violation["code"] | "FILE_UNREADABLE" | "YAML_SYNTAX";
  /** `services[3].port`; empty where it is about the whole file. */
  readonly field: string;
  /** Undefined where the file could not be read at all. */
  readonly position: Position | undefined;
  readonly message: string;
}

/** A configuration that was refused, with everything that is wrong with it. `code` is the first problem's. */
export class ConfigurationError extends Error {
  override readonly name = "ConfigurationError";
  readonly code: ConfigurationProblem["code"];
  readonly file: string;
  readonly problems: readonly ConfigurationProblem[];

  constructor(file: string, problems: readonly ConfigurationProblem[], options?: ErrorOptions) {
    const first = problems[0];
    if (first === undefined) {
      throw new RangeError("a ConfigurationError takes at least one problem");
    }
    const more = problems.length === 1 ? "" : ` (and ${String(problems.length - 1)} more)`;
    super(describeProblem(file, first) + more, options);
    this.code = first.code;
    this.file = file;
    this.problems = problems;
  }
}

/** `sluice.yaml:12:7: services[3].port is 70000; it takes …`: as compilers do, so that editors find the place. */
export function describeProblem(file: string, problem: ConfigurationProblem): string {
  const { position } = problem;
  const place = position === undefined ? file : `${file}:${String(position.line)}:${String(position.column)}`;
  return `${place}: ${problem.message}`;
}

/** Reads and validates a YAML file; throws a ConfigurationError that lists all that is wrong with it. */
export async function readConfiguration(file: string): Promise<Configuration> {
  let text: string;
  try {
    text = new TextDecoder("utf-8", { fatal: true }).decode(await readFile(file));
  } catch (error) {
    const message = unreadable(error);
    throw new ConfigurationError(file, [{ code: "FILE_UNREADABLE", field: "", position: undefined, message }], {
      cause: error,
    });
  }
  return parseConfiguration(text, file);
}

function unreadable(error: unknown): string {
  const code = error instanceof Error && "code" in error ? error.code : undefined;
  switch (code) {
    case "ENOENT":
      return "there is no such file";
    case "EACCES":
      return "no permission to read the file";
    case "EISDIR":
      return "is a directory, not a file";
    case "ERR_ENCODING_INVALID_ENCODED_DATA":
      return "is not UTF-8 text";
    default:
      return `cannot be read: ${String(error)}`;
  }
}

/** Validates YAML text; `file` is what errors call it. */
export function parseConfiguration(text: string, file: string): Configuration {
  let source: YamlSource;
  try {
    source = new YamlSource(text);
  } catch (error) {
    if (error instanceof YamlSyntaxError) {
      const { message, position } = error;
      throw new ConfigurationError(file, [{ code: "YAML_SYNTAX", field: "", position, message }], { cause: error });
    }
    throw error;
  }
  const violations = new Violations();
  const configuration = readPlain(source.value, violations);
  if (configuration === undefined || violations.list.length > 0) {
    const problems = violations.list.map(({ code, field, path, message }) => ({
      code,
      field,
      position: source.positionOf(path, code === "UNKNOWN_FIELD"),
      message,
    }));
    // As one reads the file.
    problems.sort((a, b) => a.position.line - b.position.line || a.position.column - b.position.column);
    throw new ConfigurationError(file, problems);
  }
  return configuration;
}

const FIELDS = ["interfaces", "limits", "api", "log", ...DESIRED_STATE_FIELDS];

function readPlain(input: unknown, violations: Violations): Configuration | undefined {
  const fields = readFields(input, undefined, FIELDS, violations);
  if (fields === undefined) {
    return undefined;
  }
  const instance: InstanceSettings = {
    interfaces: readInterfaces(field(fields, "interfaces"), at(undefined, "interfaces"), violations),
    limits: readLimits(field(fields, "limits"), at(undefined, "limits"), violations),
    socket: readSocket(field(fields, "api"), at(undefined, "api"), violations),
    logLevel: readLogLevel(field(fields, "log"), at(undefined, "log"), violations),
  };
  const desired = readDesiredState(fields, violations);
  checkCapacity(desired, instance.limits, violations);
  return { instance, desired };
}

/** sun_path has 108 bytes, the last of which is zero (unix(7)). */
const MAX_SOCKET_PATH = 107;

function readSocket(input: unknown, path: Path, violations: Violations): string | undefined {
  const fields = input === undefined ? undefined : readFields(input, path, ["socket"], violations);
  const given = fields === undefined ? undefined : field(fields, "socket");
  if (given === undefined) {
    return undefined;
  }
  const allowed = `an absolute path of at most ${String(MAX_SOCKET_PATH)} bytes`;
  const socket = readText(given, at(path, "socket"), allowed, violations);
  if (socket === undefined) {
    return undefined;
  }
  if (!socket.startsWith("/") || socket.includes("\0") || Buffer.byteLength(socket) > MAX_SOCKET_PATH) {
    violations.add("SOCKET_PATH_INVALID", at(path, "socket"), socket, allowed);
  }
  return socket;
}

function readLogLevel(input: unknown, path: Path, violations: Violations): LogLevel {
  const fields = input === undefined ? undefined : readFields(input, path, ["level"], violations);
  const given = fields === undefined ? undefined : field(fields, "level");
  const levelPath = at(path, "level");
  return given === undefined
    ? "info"
    : (readChoice(given, levelPath, LOG_LEVELS, "UNKNOWN_LOG_LEVEL", violations) ?? "info");
}

/** What the tables have no room for is told here, with the place in the file, rather than by the data plane. */
function checkCapacity(desired: DesiredState, limits: Limits, violations: Violations): void {
  const path = at(undefined, "services");
  const services = desired.services.length;
  if (services > limits.services) {
    const allowed = `at most ${String(limits.services)} services (limits.services)`;
    violations.add(
      "CAPACITY_EXCEEDED",
      path,
      services,
      allowed,
      `has ${String(services)} services; it takes ${allowed}`,
    );
  }
  const realServers = desired.services.reduce((sum, service) => sum + service.realServers.length, 0);
  if (realServers > limits.realServers) {
    const allowed = `at most ${String(limits.realServers)} real servers in all (limits.real_servers)`;
    const problem = `has ${String(realServers)} real servers; it takes ${allowed}`;
    violations.add("CAPACITY_EXCEEDED", path, realServers, allowed, problem);
  }
}
