/** Cuts columns out of an image without parsing their values, so that they stay the bytes that Postgres rendered. */

import { ImageError } from './filter-image.ts';

const quote = 0x22;
const backslash = 0x5c;
const comma = 0x2c;
const colon = 0x3a;

/** `image` is a JSON object as to_json writes it; the result has its members whose names are in `columns`, in its order. Throws ImageError. */
export function project(image: Buffer, columns: ReadonlySet<string>): Buffer {
  if (image[0] !== opening[0] || image.at(-1) !== closing[0]) throw new ImageError('an image is no object');
  const kept: Buffer[] = [];
  let at = 1; // behind the {
  while (at < image.length - 1) {
    const start = at;
    at = endOfString(image, at);
    const name = nameOf(image.toString('utf8', start, at));
    if (image[at] !== colon) throw new ImageError('an image is no JSON');
    at = endOfValue(image, at + 1);
    if (columns.has(name)) {
      if (kept.length > 0) kept.push(separator);
      kept.push(image.subarray(start, at));
    }
    at++; // the comma, or the }
  }
  return Buffer.concat([opening, ...kept, closing]);
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

/** `at` is an opening quote; returns the place behind the closing one. */
function endOfString(text: Buffer, at: number): number {
  for (let i = at + 1; i < text.length; i++) {
    const byte = text[i];
    if (byte === backslash) i++;
    else if (byte === quote) return i + 1;
  }
  throw new ImageError('an image is no JSON');
}

/** Returns the place of the comma or brace that ends the value which begins at `at`. */
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
