/**
 * Waits for tables that another session has locked, without taking a slot of the snapshots. All
 * requests for one table share one wait. All waits share one connection, which tries each lock for
 * 20 ms, and releases it at once if it gets it.
 */

import { DatabaseError, type Pool } from '#shared/postgres/postgres.ts';
import { Backoff, sleep } from '#shared/waiting.ts';
import { Limiter } from '../bounds/limiter.ts';
import type { Table } from '../catalog/catalog.ts';
import { accessShare } from './snapshot-transaction.ts';

const tryMs = 20;

/** lock_not_available */
export function isLocked(error: unknown): boolean {
  return error instanceof DatabaseError && error.code === '55P03';
}

interface Wait {
  readonly free: Promise<void>;
  readonly abort: AbortController;
  /** number of callers that share this wait */
  count: number;
}

export class LockedTables {
  readonly #pool: Pool;
  readonly #limiter = new Limiter(1);
  /** by Table.id */
  readonly #waits = new Map<number, Wait>();

  constructor(pool: Pool) {
    this.#pool = pool;
  }

  /** Resolves when the table can be locked for reading, when locking it fails for another reason, or on abort. */
  async free(table: Table, signal: AbortSignal): Promise<void> {
    if (signal.aborted) return;
    let wait = this.#waits.get(table.id);
    if (!wait) {
      const abort = new AbortController();
      wait = { free: this.#try(table, abort.signal), abort, count: 0 };
      this.#waits.set(table.id, wait);
      const own = wait;
      const forget = () => {
        if (this.#waits.get(table.id) === own) this.#waits.delete(table.id);
      };
      abort.signal.addEventListener('abort', forget, { once: true });
      void wait.free.then(forget);
    }
    const shared = wait;
    shared.count++;
    const left = Promise.withResolvers<void>();
    const leave = () => left.resolve();
    signal.addEventListener('abort', leave, { once: true });
    try {
      await Promise.race([shared.free, left.promise]);
    } finally {
      signal.removeEventListener('abort', leave);
      if (--shared.count === 0) shared.abort.abort();
    }
  }

  /** Never rejects. */
  async #try(table: Table, signal: AbortSignal): Promise<void> {
    const backoff = new Backoff(20, 1_000);
    while (!signal.aborted) {
      await sleep(backoff.next(), signal);
      try {
        await this.#limiter.run(() => this.#lock(table), signal);
        return;
      } catch (error) {
        if (!isLocked(error)) return;
      }
    }
  }

  async #lock(table: Table): Promise<void> {
    const client = await this.#pool.connect();
    let broken: Error | undefined;
    try {
      await client.query(`begin; ${accessShare(table, tryMs)}`);
    } catch (error) {
      if (!isLocked(error)) broken = error as Error;
      throw error;
    } finally {
      if (!broken) await client.query('rollback').catch((error: Error) => (broken = error));
      client.release(broken);
    }
  }
}
