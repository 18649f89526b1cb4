/** The demo's output: headings, explanations, tables, and checks that decide its exit status. */

const WIDTH = 110;
const decorated = process.stdout.isTTY;

function style(code: number, text: string): string {
  return decorated ? `\u001b[${code}m${text}\u001b[0m` : text;
}

export class Report {
  private readonly began = performance.now();
  private readonly failed: string[] = [];
  private checks = 0;

  heading(text: string): void {
    const seconds = ((performance.now() - this.began) / 1000).toFixed(1);
    console.log(`\n${style(1, text)} ${style(2, `${"─".repeat(WIDTH - text.length - 12)} ${seconds.padStart(5)} s`)}`);
  }

  say(text: string): void {
    console.log(wrap(text));
  }

  /** Text as it is: pictures, commands, other programs' output. */
  verbatim(text: string, indent = "    "): void {
    console.log(text.trimEnd().replaceAll(/^/gm, indent));
  }

  command(text: string): void {
    console.log(style(36, `  $ ${text}`));
  }

  /** Columns are as wide as they need be; numbers are set to the right. */
  table(headings: readonly string[], rows: readonly (readonly (string | number)[])[]): void {
    const widths = headings.map((heading, i) =>
      Math.max(heading.length, ...rows.map((row) => String(row[i] ?? "").length)),
    );
    const line = (cells: readonly (string | number)[]): string =>
      cells
        .map((cell, i) => {
          const width = widths[i] ?? 0;
          return typeof cell === "number" ? String(cell).padStart(width) : cell.padEnd(width);
        })
        .join("   ")
        .trimEnd();
    console.log(`    ${style(2, line(headings))}`);
    for (const row of rows) console.log(`    ${line(row)}`);
  }

  check(claim: string, holds: boolean): void {
    this.checks++;
    if (!holds) this.failed.push(claim);
    console.log(`  ${holds ? style(32, "✔") : style(31, "✘ FAILED:")} ${claim}`);
  }

  /** The last lines; whether everything held. */
  conclude(): boolean {
    const seconds = ((performance.now() - this.began) / 1000).toFixed(0);
    if (this.failed.length === 0) {
      console.log(`\n${style(32, `All ${this.checks} checks held, in ${seconds} s.`)}`);
      return true;
    }
    console.log(`\n${style(31, `${this.failed.length} of ${this.checks} checks failed:`)}`);
    for (const claim of this.failed) console.log(`  ${claim}`);
    return false;
  }
}

function wrap(text: string): string {
  const lines: string[] = [];
  let line = "";
  for (const word of text.split(/\s+/)) {
    if (line !== "" && line.length + 1 + word.length > WIDTH) {
      lines.push(line);
      line = word;
    } else {
      line = line === "" ? word : `${line} ${word}`;
    }
  }
  return [...lines, line].join("\n");
}
