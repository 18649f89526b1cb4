/**
 * Writes bpf/crc32c_tables.h to standard output: the constants of bpf/crc32c.h, worked out from the polynomial alone.
 */

/** CRC-32C (RFC 9260, appendix A), reflected: bit 31 of a word is x^0, bit 0 is x^31. */
const POLYNOMIAL = 0x82f63b78;
const ONE = 0x80000000;

const WORDS = 512;
const RESTS = 128;

/** The word times x^8, modulo the polynomial. */
function timesByte(word) {
  let product = word;
  for (let bit = 0; bit < 8; bit++) product = product & 1 ? (product >>> 1) ^ POLYNOMIAL : product >>> 1;
  return product >>> 0;
}

function timesBytes(word, bytes) {
  let product = word;
  for (let n = 0; n < bytes; n++) product = timesByte(product);
  return product;
}

function initializer(values) {
  const lines = [];
  for (let at = 0; at < values.length; at += 8) {
    const line = values.slice(at, at + 8).map((value) => `0x${value.toString(16).padStart(8, "0")},`);
    lines.push(`\t${line.join(" ")}`);
  }
  return lines.join("\n");
}

const words = Array.from({ length: WORDS }, (_, n) => timesBytes(ONE, 4 * n));
const rests = Array.from({ length: RESTS }, (_, n) => timesBytes(ONE, 4 * WORDS * (n >> 2) + (n & 3)));
const nibbles = Array.from({ length: 8 }, (_, place) =>
  initializer(Array.from({ length: 16 }, (_, nibble) => timesBytes((nibble << (4 * place)) >>> 0, 4))),
);

process.stdout.write(`/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */
/* Written by scripts/crc32c-tables.js (make generate). */
#ifndef SLUICE_CRC32C_TABLES_H
#define SLUICE_CRC32C_TABLES_H

#include <linux/types.h>

/* clang-format off */

/* By n: x^(32 n), the distance of n words. */
static const __u32 crc32c_words[${WORDS}] = {
${initializer(words)}
};

/* By 4 m + n: the distance of m times ${WORDS} words, and n bytes. */
static const __u32 crc32c_rests[${RESTS}] = {
${initializer(rests)}
};

/* By a nibble's place in a word, from the lowest on, and its value: the nibble moved a word further. */
static const __u32 crc32c_nibbles[8][16] = {
${nibbles.map((lines) => `\t{\n${lines.replaceAll("\t", "\t\t")}\n\t},`).join("\n")}
};

/* clang-format on */

#endif
`);
