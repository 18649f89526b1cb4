/** Text forms of the addresses in frames, to and from bytes as on the wire. */

export function macBytes(text: string): Uint8Array {
  const bytes = text.split(":").map((part) => Number.parseInt(part, 16));
  if (bytes.length !== 6 || bytes.some((byte) => !(byte >= 0 && byte <= 255))) throw new TypeError(`${text} is no MAC`);
  return Uint8Array.from(bytes);
}

export function macText(bytes: Uint8Array): string {
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join(":");
}

export function ipv4Bytes(text: string): Uint8Array {
  const bytes = text.split(".").map((part) => (/^\d{1,3}$/.test(part) ? Number(part) : Number.NaN));
  if (bytes.length !== 4 || bytes.some((byte) => !(byte <= 255))) throw new TypeError(`${text} is no IPv4 address`);
  return Uint8Array.from(bytes);
}

export function ipv4Text(bytes: Uint8Array): string {
  return Array.from(bytes).join(".");
}

/** RFC 4291, 2.2: forms 1 and 2 (no embedded IPv4). */
export function ipv6Bytes(text: string): Uint8Array {
  const halves = text.split("::");
  const groups = halves.map((half) => (half === "" ? [] : half.split(":")));
  const given = groups.reduce((count, half) => count + half.length, 0);
  const missing = 8 - given;
  if (halves.length > 2 || (halves.length === 2 ? missing < 1 : missing !== 0)) {
    throw new TypeError(`${text} is no IPv6 address`);
  }
  const all = [...(groups[0] ?? []), ...Array<string>(missing).fill("0"), ...(groups[1] ?? [])];
  return Uint8Array.from(
    all.flatMap((group) => {
      if (!/^[0-9a-fA-F]{1,4}$/.test(group)) throw new TypeError(`${text} is no IPv6 address`);
      const value = Number.parseInt(group, 16);
      return [value >> 8, value & 0xff];
    }),
  );
}

/** RFC 5952: lower case, the longest run of two or more zero groups as "::", the first of equal runs. */
export function ipv6Text(bytes: Uint8Array): string {
  const groups: number[] = [];
  for (let i = 0; i < 16; i += 2) groups.push(((bytes[i] ?? 0) << 8) | (bytes[i + 1] ?? 0));
  let best = { start: 0, length: 1 };
  for (let start = 0; start < 8; start++) {
    let length = 0;
    while (start + length < 8 && groups[start + length] === 0) length++;
    if (length > best.length) best = { start, length };
  }
  const hex = groups.map((group) => group.toString(16));
  if (best.length < 2) return hex.join(":");
  return `${hex.slice(0, best.start).join(":")}::${hex.slice(best.start + best.length).join(":")}`;
}
