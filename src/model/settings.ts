import { field, type IntegerRange, readFields, readInteger } from "./read.js";
import { at, type Path, type Violations } from "./violation.js";

/**
 * What holds for all services and may change at any time: those of IPVS's net.ipv4.vs that there are here, under their names and with
 * their defaults (the kernel's Documentation/networking/ipvs-sysctl.rst), and `icmp_rate`: ICMP errors a second, at most, from each
 * processor.
 */
export const DEFAULT_SETTINGS = {
  conn_reuse_mode: 1,
  expire_nodest_conn: 0,
  expire_quiescent_template: 0,
  nat_icmp_send: 0,
  sloppy_tcp: 0,
  sloppy_sctp: 0,
  icmp_rate: 1000,
} as const;
export type SettingName = keyof typeof DEFAULT_SETTINGS;
export const SETTING_NAMES = Object.keys(DEFAULT_SETTINGS) as SettingName[];
export type Settings = Readonly<Record<SettingName, number>>;

function range(max: number): IntegerRange {
  return { min: 0, max, code: "SETTING_OUT_OF_RANGE", noun: "a whole number" };
}

const RANGES: Readonly<Record<SettingName, IntegerRange>> = {
  conn_reuse_mode: range(3),
  expire_nodest_conn: range(1),
  expire_quiescent_template: range(1),
  nat_icmp_send: range(1),
  sloppy_tcp: range(1),
  sloppy_sctp: range(1),
  icmp_rate: range(1_000_000),
};

/** All settings; those that are not given have their defaults. */
export function readSettings(input: unknown, path: Path, violations: Violations): Settings {
  const fields = input === undefined ? {} : (readFields(input, path, SETTING_NAMES, violations) ?? {});
  const settings: Record<SettingName, number> = { ...DEFAULT_SETTINGS };
  for (const name of SETTING_NAMES) {
    const given = field(fields, name);
    if (given !== undefined) {
      settings[name] = readInteger(given, at(path, name), RANGES[name], violations) ?? settings[name];
    }
  }
  return settings;
}

/** Those that differ from the defaults. */
export function changedSettings(settings: Settings): Readonly<Partial<Record<SettingName, number>>> {
  return Object.fromEntries(
    SETTING_NAMES.filter((name) => settings[name] !== DEFAULT_SETTINGS[name]).map((name) => [name, settings[name]]),
  );
}
