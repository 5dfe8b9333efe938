/** The values of a set, in the form in which filters compare them. A set does not change after it is complete. */
import { createHash } from 'node:crypto';
import type { Codec, Comparable } from './types.ts';
import { indexKey } from './types.ts';

export class Values {
  /** a decimal number is an object, so its text stands for it */
  readonly #all = new Set<Exclude<Comparable, object>>();
  readonly #hash = createHash('sha256');
  #digest: string | undefined;

  get size(): number {
    return this.#all.size;
  }

  /** Equal for sets that were filled with the same values in the same order. Completes the set. */
  get digest(): string {
    return (this.#digest ??= this.#hash.digest('base64url').slice(0, 22));
  }

  /** `json`: a value of the column as to_json renders it. Throws if it is not one of the codec's type. */
  add(json: string, codec: Codec): void {
    const value = codec.read(JSON.parse(json), () => json);
    if (value === undefined) throw new Error(`a value of a set is no ${codec.cast}`);
    this.#all.add(keyOf(value));
    this.#hash.update(json).update('\n');
  }

  has(value: Comparable): boolean {
    return this.#all.has(keyOf(value));
  }

  /** The values as an index finds them. */
  *indexKeys(): Iterable<string> {
    for (const value of this.#all) yield indexKey(value);
  }
}

const keyOf = (value: Comparable) => (typeof value === 'object' ? indexKey(value) : value);
