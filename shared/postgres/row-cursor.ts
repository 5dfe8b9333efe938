/**
 * A cursor whose fetches are bounded in characters and not only in rows: behind 500 small rows may come 500 large ones. Where a fetch comes
 * to the bound, what has come is handed over, and the socket is not read until more is asked for.
 */
import Cursor from 'pg-cursor';
import type { CustomTypesConfig, PoolClient } from './postgres.ts';

interface Query {
  text: string;
  values: readonly unknown[];
  rowMode?: 'array';
  types?: CustomTypesConfig;
}

/** One fetch that is on its way. */
interface Fetch {
  readonly count: number;
  came: number;
  over: boolean;
  failure?: unknown;
}

export class RowCursor<R> {
  readonly #cursor: Cursor<R>;
  readonly #stream: PoolClient['connection']['stream'];
  readonly #sizeOf: (row: R) => number;
  readonly #maxCharacters: number;
  #fetch: Fetch | undefined;
  #rows: R[] = [];
  #characters = 0;
  #wake: (() => void) | undefined;

  constructor(
    client: PoolClient,
    { text, values, ...config }: Query,
    maxCharacters: number,
    sizeOf: (row: R) => number,
  ) {
    this.#stream = client.connection.stream;
    this.#maxCharacters = maxCharacters;
    this.#sizeOf = sizeOf;
    this.#cursor = client.query(new Cursor<R>(text, [...values], config));
    this.#cursor.on('row', (row: R) => this.#take(row));
  }

  /** The next rows: up to `count`, one at least while there are any. `more`: there may be others behind them. */
  async fetch(count: number): Promise<{ rows: R[]; more: boolean }> {
    const fetch = (this.#fetch ??= this.#begin(count));
    this.#stream.resume();
    if (!fetch.over && this.#characters < this.#maxCharacters)
      await new Promise<void>((resolve) => {
        this.#wake = resolve;
      });
    if (fetch.failure !== undefined) throw fetch.failure;
    const rows = this.#rows;
    this.#rows = [];
    this.#characters = 0;
    // it keeps what a fetch has brought until the fetch is over
    (this.#cursor as unknown as { _rows: R[] })._rows = [];
    if (fetch.over) this.#fetch = undefined;
    return { rows, more: !fetch.over || fetch.came === fetch.count };
  }

  /** Rejects within a fetch: the connection has rows on the way that nobody wants, and is to be given up. */
  async close(): Promise<void> {
    if (this.#fetch && !this.#fetch.over) throw new Error('closed within a fetch');
    // the fetch may have come to its end in the piece that came to the bound
    this.#stream.resume();
    await this.#cursor.close();
  }

  #begin(count: number): Fetch {
    const fetch: Fetch = { count, came: 0, over: false };
    const end = (failure?: unknown) => {
      fetch.over = true;
      fetch.failure = failure;
      this.#wake?.();
    };
    this.#cursor.read(count).then(
      () => end(),
      (error: unknown) => end(error),
    );
    return fetch;
  }

  #take(row: R): void {
    this.#rows.push(row);
    this.#fetch!.came++;
    this.#characters += this.#sizeOf(row);
    if (this.#characters < this.#maxCharacters) return;
    this.#stream.pause();
    this.#wake?.();
  }
}
