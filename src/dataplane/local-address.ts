/**
 * Where FULLNAT's local addresses lie in their map. Connections name them by index, so one that stays keeps its index. The
 * elements in use are the first ones without a gap: where an address goes and none comes in its place, another is
 * repeated there, which does no harm, as a local port is taken by its flow and not by this index.
 */
export function arrangeLocalAddresses(current: readonly string[], wanted: readonly string[]): string[] {
  const first = wanted[0];
  if (first === undefined) {
    return [];
  }
  const placed = new Set<string>();
  // Of each address that stays the first element counts; others are there to be used again.
  const arranged: (string | undefined)[] = current.map((address) => {
    if (!wanted.includes(address) || placed.has(address)) {
      return undefined;
    }
    placed.add(address);
    return address;
  });
  for (const address of wanted) {
    if (!placed.has(address)) {
      const gap = arranged.indexOf(undefined);
      arranged[gap < 0 ? arranged.length : gap] = address;
    }
  }
  while (arranged[arranged.length - 1] === undefined) {
    arranged.pop();
  }
  return arranged.map((address) => address ?? first);
}
