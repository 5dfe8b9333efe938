/**
 * A row's image, read as far as filters ask for it and once for all of them. Images are what to_json renders; JSON.parse
 * rounds a bigint or a numeric, so their digits are taken from the text itself.
 */

import type { Torn } from '../channels/ring.ts';
import type { Codec, Comparable } from './types.ts';

export interface FilterColumn {
  readonly name: string;
  readonly codec: Codec;
  /** SQL for it in the row `t`, where it is not what the name says */
  readonly value?: string;
}

/**
 * The image does not say what it is asked: it is of another shape of the table, and the column had another type then; or of a row above the
 * bound, and the column was left out. Or it is none: who owns a table can make up its changes.
 */
export class ImageError extends Error {
  override readonly name = 'ImageError';
  readonly why: Torn;

  constructor(message: string, { why = 'shape', ...options }: ErrorOptions & { why?: Torn } = {}) {
    super(message, options);
    this.why = why;
  }
}

export class ParsedRow {
  readonly #text: string;
  /** of a row above the bound: columns that are not in it are not null */
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

  /** Null where the column is null, or is not in an image of before it was added. Throws ImageError. */
  read({ name, codec }: FilterColumn): Comparable | null {
    let value = this.#read.get(name);
    if (value === undefined) {
      const isThere = Object.hasOwn(this.#values, name);
      if (!isThere && this.#isPartial)
        throw new ImageError(`the column ${name} was left out of an image`, { why: 'left out' });
      const parsed = isThere ? this.#values[name] : null;
      value = parsed === null ? null : codec.read(parsed, () => this.#source(name));
      // to go on would be to misjudge
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

/** `text` is one JSON object, as Postgres rendered it; else this throws ImageError. */
export function parseImage(text: string): ParsedRow {
  return new ParsedRow(text);
}

/**
 * The texts of the numbers among an object's own members. Not by JSON.parse's reviver: it descends by recursion, and a json
 * column may be nested more deeply than the stack.
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
