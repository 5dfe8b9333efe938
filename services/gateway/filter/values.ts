/** The values of a set, in the form in which filters compare them. A set does not change after it is complete. */
import { createHash } from 'node:crypto';
import type { Codec, Comparable } from './types.ts';
import { indexKey } from './types.ts';

export class Values {
  /** a decimal number is an object, so this contains the number's index key instead */
  readonly #all = new Set<Exclude<Comparable, object>>();
  readonly #hash = createHash('sha256');
  #digest: string | undefined;

  get size(): number {
    return this.#all.size;
  }

  /** Equal for sets to which the same values were added in the same order. No value may be added after this. */
  get digest(): string {
    return (this.#digest ??= this.#hash.digest('base64url').slice(0, 22));
  }

  /** Adds a value. `json`: the value as to_json renders it. Throws if the value does not have the codec's type. */
  add(json: string, codec: Codec): void {
    const value = codec.read(JSON.parse(json), () => json);
    if (value === undefined) throw new Error(`a value of a set is no ${codec.cast}`);
    this.#all.add(keyOf(value));
    this.#hash.update(json).update('\n');
  }

  has(value: Comparable): boolean {
    return this.#all.has(keyOf(value));
  }

  /** The keys by which an index finds the values. */
  *indexKeys(): Iterable<string> {
    for (const value of this.#all) yield indexKey(value);
  }
}

const keyOf = (value: Comparable) => (typeof value === 'object' ? indexKey(value) : value);
