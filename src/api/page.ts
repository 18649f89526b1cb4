import { at, ModelError, Violations } from "../model/index.js";

const DEFAULT_PAGE_SIZE = 100;
const MAX_PAGE_SIZE = 1000;

export interface PageRequest {
  readonly pageSize: number;
  readonly pageToken: string;
}

/**
 * One page of items that are in order of their names (AIP-158). A token holds the name of the last item that was returned, and the next page
 * begins behind it, so it stays valid whatever is added or removed meanwhile.
 *
 * `costs` and `budget` end a page before it has pageSize items where items are big: gRPC's clients refuse messages over 4 MiB by default.
 */
export function page<Item>(
  names: readonly string[],
  itemOf: (name: string) => Item | undefined,
  request: PageRequest,
  costs: (item: Item) => number,
  budget: number,
): { readonly items: Item[]; readonly nextPageToken: string } {
  const size = pageSize(request.pageSize);
  let index = request.pageToken === "" ? 0 : firstAfter(names, lastName(request.pageToken));
  const items: Item[] = [];
  let spent = 0;
  for (; index < names.length && items.length < size && spent < budget; index++) {
    const item = itemOf(names[index] ?? "");
    if (item !== undefined) {
      items.push(item);
      spent += costs(item);
    }
  }
  const last = names[index - 1];
  return { items, nextPageToken: index < names.length && last !== undefined ? token(last) : "" };
}

function pageSize(requested: number): number {
  if (requested < 0) {
    const violations = new Violations();
    violations.add("PAGE_SIZE_NEGATIVE", at(undefined, "page_size"), requested, "0 or more");
    throw new ModelError(violations.list);
  }
  return requested === 0 ? DEFAULT_PAGE_SIZE : Math.min(requested, MAX_PAGE_SIZE);
}

function token(name: string): string {
  return Buffer.from(name).toString("base64url");
}

function lastName(pageToken: string): string {
  const name = Buffer.from(pageToken, "base64url").toString();
  if (token(name) !== pageToken) {
    const violations = new Violations();
    violations.add(
      "PAGE_TOKEN_MALFORMED",
      at(undefined, "page_token"),
      pageToken,
      "the next_page_token of the page before",
    );
    throw new ModelError(violations.list);
  }
  return name;
}

/** The index of the first of the sorted names that is greater than `name`. */
function firstAfter(names: readonly string[], name: string): number {
  let low = 0;
  let high = names.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if ((names[middle] ?? "") <= name) {
      low = middle + 1;
    } else {
      high = middle;
    }
  }
  return low;
}
