/** Picks columns from an image without parsing their values: each value stays the bytes that Postgres rendered. */

import { isPartial } from '#shared/log/batch.ts';
import { ImageError } from '../filter/row-filter.ts';

const quote = 0x22;
const backslash = 0x5c;
const comma = 0x2c;
const colon = 0x3a;

/**
 * The members of `image` whose names are in `columns`, in the image's order. `image` is a JSON
 * object as to_json writes it. Null: the image is partial and lacks one of the columns. Throws
 * ImageError if the image is malformed.
 */
export function project(image: Buffer, columns: ReadonlySet<string>): Buffer | null {
  const members = membersOf(image, columns);
  if (isPartial(image) && members.size < columns.size) return null;
  const kept = [...members.values()].flatMap((member, i) => (i === 0 ? [member] : [separator, member]));
  return Buffer.concat([opening, ...kept, closing]);
}

/**
 * The bytes of the primary key in a partial image, in the form of a change's `id`. Null: the image
 * lacks a column of the key. Throws ImageError if the image is malformed.
 */
export function keyIn(image: Buffer, keyColumns: readonly string[]): Buffer | null {
  const members = membersOf(image, new Set(keyColumns));
  const found = keyColumns.map((name) => members.get(name));
  if (found.includes(undefined)) return null;
  const [only] = found as [Buffer];
  if (found.length === 1) return only.subarray(endOfString(only, 0) + 1);
  return Buffer.concat([
    opening,
    ...found.flatMap((member, i) => (i === 0 ? [member!] : [separator, member!])),
    closing,
  ]);
}

/** The members by name, each as `"name":value`, in the order of the image. */
function membersOf(image: Buffer, columns: ReadonlySet<string>): Map<string, Buffer> {
  let at = isPartial(image) ? 1 : 0;
  if (image[at] !== opening[0] || image.at(-1) !== closing[0]) throw new ImageError('an image is no object');
  const members = new Map<string, Buffer>();
  at++; // the {
  while (at < image.length - 1) {
    const start = at;
    at = endOfString(image, at);
    const name = nameOf(image.toString('utf8', start, at));
    if (image[at] !== colon) throw new ImageError('an image is no JSON');
    at = endOfValue(image, at + 1);
    if (columns.has(name)) members.set(name, image.subarray(start, at));
    at++; // the comma, or the }
  }
  return members;
}

const opening = Buffer.from('{');
const closing = Buffer.from('}');
const separator = Buffer.from(',');

function nameOf(text: string): string {
  try {
    return JSON.parse(text) as string;
  } catch (cause) {
    throw new ImageError('an image is no JSON', { cause });
  }
}

/** `at` is an opening quote; returns the index after the closing one. */
function endOfString(text: Buffer, at: number): number {
  for (let i = at + 1; i < text.length; i++) {
    const byte = text[i];
    if (byte === backslash) i++;
    else if (byte === quote) return i + 1;
  }
  throw new ImageError('an image is no JSON');
}

/** Returns the index of the comma or brace that ends the value at `at`. */
function endOfValue(text: Buffer, at: number): number {
  let depth = 0;
  for (let i = at; i < text.length; i++) {
    const byte = text[i]!;
    if (byte === quote) i = endOfString(text, i) - 1;
    else if (byte === 0x7b || byte === 0x5b) depth++;
    else if (byte === 0x7d || byte === 0x5d) {
      if (depth === 0) return i;
      depth--;
    } else if (byte === comma && depth === 0) return i;
  }
  return text.length - 1;
}
