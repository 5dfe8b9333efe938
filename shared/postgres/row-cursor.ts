/**
 * A cursor whose fetches are bounded in characters and not only in rows, because 500 large rows may come after 500
 * small ones. When a fetch reaches the bound, the fetch returns the rows that have come. The socket is then not read
 * until the next fetch.
 */
import Cursor from 'pg-cursor';
import type { CustomTypesConfig, PoolClient } from './postgres.ts';

interface Query {
  text: string;
  values: readonly unknown[];
  rowMode?: 'array';
  types?: CustomTypesConfig;
}

/** One fetch in progress. */
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

  /**
   * Resolves with the next rows: up to `count`, and at least one row if there are any. `more` is true if other rows may
   * follow.
   */
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
    // Without this line, pg-cursor would keep all rows of a fetch until the end of the fetch.
    (this.#cursor as unknown as { _rows: R[] })._rows = [];
    if (fetch.over) this.#fetch = undefined;
    return { rows, more: !fetch.over || fetch.came === fetch.count };
  }

  /**
   * Closes the cursor. Rejects during a fetch: unread rows are on their way, so the caller must discard the connection.
   */
  async close(): Promise<void> {
    if (this.#fetch && !this.#fetch.over) throw new Error('the cursor was closed during a fetch');
    // The last rows of the fetch may have reached the bound, which pauses the socket.
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
