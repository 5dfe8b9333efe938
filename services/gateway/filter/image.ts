/**
 * A row's image as filters read it. The image is parsed once for all filters, and a column is read when the
 * first filter needs it. An image is the text that to_json renders. JSON.parse rounds a bigint or a
 * numeric, so their digits are taken from the text itself.
 */

import type { Codec, Comparable } from './types.ts';

export interface FilterColumn {
  readonly name: string;
  readonly codec: Codec;
  /** SQL for the column's value in the row with the alias t; undefined: the value is the column itself */
  readonly value?: string;
}

/**
 * A filter cannot read a column of an image. `why` is one of:
 * - `shape`: the image was captured before the column had its type. Or the text is not an image at all:
 *   the owner of a table can forge changes of the table.
 * - `left out`: the row is above the size bound, and its image lacks the column.
 */
export class ImageError extends Error {
  override readonly name = 'ImageError';
  readonly why: 'shape' | 'left out';

  constructor(message: string, { why = 'shape', ...options }: ErrorOptions & { why?: ImageError['why'] } = {}) {
    super(message, options);
    this.why = why;
  }
}

export class ParsedRow {
  readonly #text: string;
  /** the row is above the size bound, so a column that the image lacks may have a value */
  readonly #isPartial: boolean;
  readonly #values: Readonly<Record<string, unknown>>;
  #sources: Map<string, string> | undefined;
  readonly #read = new Map<string, Comparable | null>();

  /** Throws ImageError. */
  constructor(text: string) {
    this.#text = text;
    this.#isPartial = text.startsWith(' ');
    this.#values = objectOf(text);
  }

  /**
   * The column's value; null if the column is null, or if it was added after the image was captured. Throws
   * ImageError.
   */
  read({ name, codec }: FilterColumn): Comparable | null {
    let value = this.#read.get(name);
    if (value === undefined) {
      const isThere = Object.hasOwn(this.#values, name);
      if (!isThere && this.#isPartial)
        throw new ImageError(`the column ${name} was left out of an image`, { why: 'left out' });
      const parsed = isThere ? this.#values[name] : null;
      value = parsed === null ? null : codec.read(parsed, () => this.#source(name));
      // if a value has the wrong type, the filter could admit or refuse the row wrongly
      if (value === undefined) throw new ImageError(`the column ${name} of an image is no ${codec.cast}`);
      this.#read.set(name, value);
    }
    return value;
  }

  #source(name: string): string {
    this.#sources ??= sourcesOf(this.#text);
    return this.#sources.get(name)!;
  }
}

function objectOf(text: string): Record<string, unknown> {
  let values: unknown;
  try {
    values = JSON.parse(text);
  } catch (cause) {
    throw new ImageError('an image is no JSON', { cause });
  }
  if (typeof values !== 'object' || values === null) throw new ImageError('an image is no object');
  return values as Record<string, unknown>;
}

/** Throws ImageError if `text` is no JSON object. */
export function parseImage(text: string): ParsedRow {
  return new ParsedRow(text);
}

/**
 * The text of each number that is a direct member of the object. A reviver of JSON.parse could find these
 * too, but it works by recursion, and a json column may be nested more deeply than the stack allows.
 */
function sourcesOf(text: string): Map<string, string> {
  const sources = new Map<string, string>();
  let name: string | undefined;
  let depth = 0;
  for (let index = 0; index < text.length; index++) {
    const char = text[index]!;
    if (char === '"') {
      const end = endOfString(text, index);
      if (depth === 1 && name === undefined) name = JSON.parse(text.slice(index, end)) as string;
      index = end - 1;
    } else if (char === '{' || char === '[') depth++;
    else if (char === '}' || char === ']') depth--;
    else if (depth !== 1) continue;
    else if (char === ',') name = undefined;
    else if (char === '-' || (char >= '0' && char <= '9')) {
      const start = index;
      while (/[\d.eE+-]/.test(text[index + 1]!)) index++;
      sources.set(name!, text.slice(start, index + 1));
    }
  }
  return sources;
}

function endOfString(text: string, start: number): number {
  for (let end = start; ; ) {
    end = text.indexOf('"', end + 1);
    let backslashes = 0;
    while (text[end - 1 - backslashes] === '\\') backslashes++;
    if (backslashes % 2 === 0) return end + 1;
  }
}
