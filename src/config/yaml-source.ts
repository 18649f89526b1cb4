import {
  CORE_SCHEMA,
  constructFromEvents,
  EVENT_ID,
  type Event,
  getScalarValue,
  parseEvents,
  YAMLException,
} from "js-yaml";

/** A place in a file, both counted from 1. */
export interface Position {
  readonly line: number;
  readonly column: number;
}

/** Text that is not YAML, or not one document. */
export class YamlSyntaxError extends Error {
  override readonly name = "YamlSyntaxError";
  readonly position: Position;

  constructor(message: string, position: Position) {
    super(message);
    this.position = position;
  }
}

/** A node's place in the text and its children's, by the keys of the plain value. */
interface Located {
  offset: number;
  readonly children: Map<string | number, Child>;
}

/**
 * One YAML document: its plain value, and on demand where each part of it stands. The parser's events are kept and turned into
 * positions only when something has to be reported, since positions for 100,000 real servers cost more than parsing them.
 */
export class YamlSource {
  readonly #text: string;
  readonly #events: Event[];
  readonly value: unknown;
  #root: Located | undefined;
  #lineStarts: number[] | undefined;

  /** Throws YamlSyntaxError. An empty document's value is null. */
  constructor(text: string) {
    this.#text = text.startsWith("\uFEFF") ? text.slice(1) : text;
    try {
      this.#events = parseEvents(this.#text, {});
      const documents = constructFromEvents(this.#events, { source: this.#text, schema: CORE_SCHEMA });
      if (documents.length > 1) {
        throw new YamlSyntaxError("more than one YAML document", this.#secondDocument());
      }
      this.value = documents[0] ?? null;
    } catch (error) {
      if (error instanceof YAMLException) {
        const { line = 0, column = 0 } = error.mark ?? {};
        throw new YamlSyntaxError(error.reason, { line: line + 1, column: column + 1 });
      }
      throw error;
    }
  }

  /**
   * Where the value at `path` stands, or its key if `ofKey`; of something that is not there, where the innermost thing that
   * should hold it begins.
   */
  positionOf(path: readonly (string | number)[], ofKey = false): Position {
    let node = this.#located();
    let offset = node.offset;
    for (const [depth, key] of path.entries()) {
      const child = node.children.get(key);
      if (child === undefined) {
        break;
      }
      offset = ofKey && depth === path.length - 1 ? child.keyOffset : child.node.offset;
      node = child.node;
    }
    return this.#positionAt(offset);
  }

  #located(): Located {
    this.#root ??= new Locator(this.#text, this.#events).locate();
    return this.#root;
  }

  #positionAt(offset: number): Position {
    this.#lineStarts ??= lineStarts(this.#text);
    const starts = this.#lineStarts;
    let low = 0;
    let high = starts.length - 1;
    while (low < high) {
      const middle = (low + high + 1) >> 1;
      if ((starts[middle] ?? 0) <= offset) {
        low = middle;
      } else {
        high = middle - 1;
      }
    }
    return { line: low + 1, column: offset - (starts[low] ?? 0) + 1 };
  }

  #secondDocument(): Position {
    let documents = 0;
    for (const event of this.#events) {
      documents += event.type === EVENT_ID.DOCUMENT ? 1 : 0;
      const offset = "start" in event ? event.start : "valueStart" in event ? event.valueStart : -1;
      if (documents === 2 && offset >= 0) {
        return this.#positionAt(offset);
      }
    }
    return { line: 1, column: 1 };
  }
}

function lineStarts(text: string): number[] {
  const starts = [0];
  for (let end = text.indexOf("\n"); end !== -1; end = text.indexOf("\n", end + 1)) {
    starts.push(end + 1);
  }
  return starts;
}

interface Child {
  readonly keyOffset: number;
  readonly node: Located;
}

/** Walks a document's events once, in the order in which the parser made them. */
class Locator {
  readonly #text: string;
  readonly #events: readonly Event[];
  readonly #anchors = new Map<string, Located>();
  #next = 0;
  /** An empty value has no place of its own; it is reported where the last thing before it stood. */
  #lastOffset = 0;

  constructor(text: string, events: readonly Event[]) {
    this.#text = text;
    this.#events = events;
  }

  locate(): Located {
    this.#next = 1; // past the document's own event
    return this.#node().located;
  }

  #node(): { readonly located: Located; readonly text: string } {
    const event = this.#events[this.#next++];
    if (event === undefined || event.type === EVENT_ID.POP || event.type === EVENT_ID.DOCUMENT) {
      return { located: { offset: this.#lastOffset, children: new Map() }, text: "" };
    }
    if (event.type === EVENT_ID.ALIAS) {
      const target = this.#anchors.get(this.#text.slice(event.anchorStart, event.anchorEnd));
      this.#lastOffset = event.anchorStart - 1; // the asterisk
      return {
        located: { offset: this.#lastOffset, children: target?.children ?? new Map<string | number, Child>() },
        text: "",
      };
    }
    const start = event.type === EVENT_ID.SCALAR ? event.valueStart : event.start;
    this.#lastOffset = start === -1 ? this.#lastOffset : start;
    const located: Located = { offset: this.#lastOffset, children: new Map() };
    if (event.anchorStart !== -1) {
      this.#anchors.set(this.#text.slice(event.anchorStart, event.anchorEnd), located);
    }
    switch (event.type) {
      case EVENT_ID.SCALAR:
        return { located, text: start === -1 ? "" : getScalarValue(this.#text, event) };
      case EVENT_ID.SEQUENCE:
        for (let index = 0; !this.#popped(); index++) {
          const { located: node } = this.#node();
          located.children.set(index, { keyOffset: node.offset, node });
        }
        return { located, text: "" };
      case EVENT_ID.MAPPING:
        while (!this.#popped()) {
          const key = this.#node();
          const { located: node } = this.#node();
          located.children.set(key.text, { keyOffset: key.located.offset, node });
        }
        return { located, text: "" };
    }
  }

  /** Whether the innermost collection ends here; if so, steps over its end. */
  #popped(): boolean {
    const event = this.#events[this.#next];
    if (event !== undefined && event.type !== EVENT_ID.POP) {
      return false;
    }
    this.#next++;
    return true;
  }
}
