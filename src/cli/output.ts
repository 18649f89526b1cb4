export const OUTPUT_FORMATS = ["table", "json"] as const;
export type OutputFormat = (typeof OUTPUT_FORMATS)[number];

export interface Column {
  readonly title: string;
  /** Numbers stand right. */
  readonly right?: boolean;
}

/** Columns as wide as they need to be, two spaces apart, titles on top. */
export function table(columns: readonly Column[], rows: readonly (readonly string[])[]): string {
  const lines = [columns.map(({ title }) => title), ...rows];
  const widths = columns.map((_, i) => lines.reduce((width, cells) => Math.max(width, cells[i]?.length ?? 0), 0));
  const format = (cells: readonly string[]): string =>
    columns
      .map(({ right = false }, i) => {
        const cell = cells[i] ?? "";
        const width = widths[i] ?? 0;
        return right ? cell.padStart(width) : cell.padEnd(width);
      })
      .join("  ")
      .trimEnd();
  return `${lines.map(format).join("\n")}\n`;
}

/** Without the columns that are empty in every row: few services have options, few real servers thresholds. */
export function tableOfUsed(columns: readonly Column[], rows: readonly (readonly string[])[]): string {
  const used = columns.map((_, i) => rows.length === 0 || rows.some((cells) => cells[i] !== ""));
  const isUsed = (_: unknown, i: number): boolean => used[i] === true;
  return table(
    columns.filter(isUsed),
    rows.map((cells) => cells.filter(isUsed)),
  );
}

/** Indented JSON. Counters are numbers: exact up to 2^53. */
export function json(value: unknown): string {
  return `${JSON.stringify(value, (_, member: unknown) => (typeof member === "bigint" ? Number(member) : member), 2)}\n`;
}

export function print(text: string): void {
  process.stdout.write(text);
}
