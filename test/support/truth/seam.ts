// Owns the parts of the seam's test: random requests, the picture that a subscription makes of its frames, clients that come and
// go, and writers. What must stay true: a picture throws at the first frame that does not fit; the same seed does the same.

import { WebSocket } from 'ws';
import type { PoolClient } from '#shared/postgres/postgres.ts';
import { parsePosition, type ServerFrame } from '#shared/wire.ts';
import { until } from '../wait.ts';

/** rows of the large statements */
export const bigStatement = 3_000;

/** mulberry32: the same numbers for the same seed. */
export function randomFrom(seed: number): (below: number) => number {
  let state = seed;
  return (below) => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return Math.floor((((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32) * below);
  };
}
export type Random = ReturnType<typeof randomFrom>;
export const oneOf = <T>(random: Random, items: readonly T[]): T => items[random(items.length)]!;

export interface Request {
  table: 'todo' | 'pair';
  where?: object;
  sql: string;
  columns?: string[];
}

export const keys = { todo: ['id'], pair: ['b', 'a'] };
export const columns = { todo: ['id', 'grp', 'status', 'price', 'at', 'note'], pair: ['a', 'b', 'n', 'doc'] };

export function requestOf(random: Random): Request {
  const n = random(8);
  const requests: Request[] = [
    { table: 'todo', sql: 'true' },
    { table: 'todo', where: { grp: n }, sql: `grp = ${n}` },
    {
      table: 'todo',
      where: { grp: { in: [n, n + 1] }, status: 'open' },
      sql: `grp in (${n}, ${n + 1}) and status = 'open'`,
    },
    { table: 'todo', where: { price: { gt: 50.5 }, status: { ne: 'done' } }, sql: `price > 50.5 and status <> 'done'` },
    { table: 'todo', where: { or: [{ grp: n }, { status: null }] }, sql: `grp = ${n} or status is null` },
    { table: 'todo', where: { not: { status: 'open' } }, sql: `not (status = 'open')` },
    { table: 'todo', where: { at: { lt: '2026-01-05T00:00:00Z' } }, sql: `at < '2026-01-05T00:00:00Z'` },
    { table: 'pair', sql: 'true' },
    { table: 'pair', where: { b: 'x' }, sql: `b = 'x'` },
    { table: 'pair', where: { n: { gte: 3 }, a: { lt: 40 } }, sql: 'n >= 3 and a < 40' },
    { table: 'pair', where: { n: null }, sql: 'n is null' },
  ];
  const request = oneOf(random, requests);
  const all = columns[request.table];
  return random(3) === 0 ? { ...request, columns: all.filter(() => random(2) === 0).concat(all[0]!) } : request;
}

/** The rows of one subscription, made of its frames. Throws at the first frame that does not fit. */
export class Picture {
  readonly request: Request;
  readonly rows = new Map<string, string>();
  readonly reasons: string[] = [];
  seq = 0;
  /** the position to resume from; before the first `live` after rows there is none, as the rows may hold later changes */
  from: string | null = null;
  /** since the last `live` of this connection: only then the connection's `pos` covers this subscription */
  isLive = false;
  #state: 'rows' | 'changes' = 'rows';

  constructor(request: Request) {
    this.request = request;
  }

  get ask(): object {
    const { table, where, columns } = this.request;
    return { table, where, columns, snapshot: true, ...(this.from === null ? {} : { from: this.from }) };
  }

  begin(): void {
    this.isLive = false;
    if (this.from === null) this.void();
  }

  void(): void {
    this.rows.clear();
    this.seq = 0;
    this.from = null;
    this.isLive = false;
    this.#state = 'rows';
  }

  take(frame: ServerFrame): void {
    try {
      this.#take(frame);
    } catch (cause) {
      throw new Error(
        `${(cause as Error).message}: ${JSON.stringify(this.request)}, ${JSON.stringify(frame).slice(0, 400)}`,
        {
          cause,
        },
      );
    }
  }

  #take(frame: ServerFrame): void {
    switch (frame.type) {
      case 'rows':
        if (this.#state !== 'rows') throw new Error('rows after the last rows');
        for (const row of frame.rows) {
          const key = this.#keyOf(row);
          if (this.rows.has(key)) throw new Error(`the row ${key} comes twice`);
          this.rows.set(key, JSON.stringify(row));
        }
        if (!frame.more) this.#state = 'changes';
        return;
      case 'live':
        if (this.#state !== 'changes') throw new Error('live before the last rows');
        this.passed(frame.pos);
        this.from = frame.pos;
        this.isLive = true;
        return;
      case 'change': {
        if (this.#state !== 'changes') throw new Error('a change before the last rows');
        const { seq } = parsePosition(frame.pos)!;
        if (seq <= this.seq) throw new Error(`not after ${this.seq}`);
        this.seq = seq;
        if (this.from !== null) this.from = frame.pos;
        if (frame.id === null) return this.rows.clear();
        const key = this.#keyOf(keys[this.request.table].length > 1 ? (frame.id as object) : { id: frame.id });
        if (this.rows.has(key) !== (frame.effect !== 'add'))
          throw new Error(this.rows.has(key) ? 'the row is there already' : 'there is no such row');
        if (frame.effect === 'remove') {
          if (frame.data !== undefined) throw new Error('data of a row that is not for this subscription');
          this.rows.delete(key);
        } else {
          if (this.#keyOf(frame.data!) !== key) throw new Error('the id differs from the key of the row');
          this.rows.set(key, JSON.stringify(frame.data));
        }
        return;
      }
      case 'resync':
        this.void();
        this.reasons.push(frame.reason);
        return;
      default:
        throw new Error('no frame of a subscription');
    }
  }

  /** Every change up to here has come. */
  passed(position: string): void {
    const { seq } = parsePosition(position)!;
    if (seq < this.seq) throw new Error(`${position} is before ${this.seq}`);
    this.seq = seq;
    if (this.from !== null) this.from = position;
  }

  #keyOf(row: object): string {
    return JSON.stringify(keys[this.request.table].map((name) => (row as Record<string, unknown>)[name]));
  }
}

/** One client: its subscriptions on one connection at a time. */
export class Client {
  readonly pictures: Picture[];
  failure: Error | undefined;
  #ws: WebSocket | undefined;

  constructor(pictures: Picture[]) {
    this.pictures = pictures;
  }

  /** Resolves when every subscription has its `ok`. */
  async join(url: string): Promise<void> {
    const channels = new Map<string, Picture>();
    let answered = 0;
    for (const picture of this.pictures) picture.begin();
    const ws = new WebSocket(`${url.replace('http', 'ws')}/ws`, 'plank.v1');
    this.#ws = ws;
    const take = (frame: ServerFrame) => {
      if (frame.type === 'ok') {
        channels.set(frame.ch!, this.pictures[frame.id - 1]!);
        answered++;
      } else if (frame.type === 'pos') {
        for (const picture of this.pictures) if (picture.isLive) picture.passed(frame.pos);
      } else if (frame.type === 'error') throw new Error(JSON.stringify(frame));
      else if ('ch' in frame) channels.get(frame.ch)!.take(frame);
    };
    ws.on('message', (data) => {
      // frames that still come on a connection that was left do not count
      if (this.#ws !== ws || this.failure) return;
      try {
        take(JSON.parse((data as Buffer).toString()) as ServerFrame);
      } catch (error) {
        this.failure = error as Error;
      }
    });
    ws.on('close', (code) => {
      if (this.#ws === ws) this.failure ??= new Error(`closed with ${code}`);
    });
    ws.on('error', (error) => {
      if (this.#ws === ws) this.failure ??= error;
    });
    ws.on('open', () => {
      ws.send(JSON.stringify({ type: 'hello' }));
      this.pictures.forEach((picture, i) => {
        ws.send(JSON.stringify({ type: 'subscribe', id: i + 1, ...picture.ask }));
      });
    });
    await until('every subscription is answered', () => this.#ok && answered === this.pictures.length, 15_000);
  }

  leave(): void {
    const ws = this.#ws;
    this.#ws = undefined;
    ws?.terminate();
  }

  pause(): void {
    this.#ws?.pause();
  }

  resume(): void {
    this.#ws?.resume();
  }

  get #ok(): boolean {
    if (this.failure) throw this.failure;
    return true;
  }
}

/** One round of a writer. Writers may conflict with each other. */
export async function write(db: PoolClient, random: Random): Promise<void> {
  const id = () => random(2_000);
  const text = () => `${random(1e9)}`.repeat(1 + random(40));
  const status = () => oneOf(random, [`'open'`, `'done'`, 'null']);
  const row = (n: string) =>
    `${n}, ${random(9)}, ${status()}, ${random(100)}.${random(100)}, '2026-01-0${1 + random(9)}T00:00:00.5Z', '${text()}'`;
  const doc = () => `'{"a": [${random(9)}, "${random(99)}"]}'`;
  const statements: (() => string)[] = [
    () =>
      `insert into todo values (${row(`${id()}`)}) on conflict (id) do update set status = excluded.status, note = excluded.note`,
    () =>
      `update todo set grp = ${random(9)}, price = price + 1 where id between ${id()} and ${id()} and grp = ${random(9)}`,
    () => `update todo set status = ${status()} where id % 13 = ${random(13)}`,
    () => `update todo set id = id + 2000 where id = ${id()}`,
    () => `update todo set id = id - 2000 where id in (select id from todo where id >= 2000 limit 3)`,
    () => `delete from todo where id % 31 = ${random(31)}`,
    () =>
      `insert into pair values (${random(60)}, '${oneOf(random, ['x', 'y'])}', ${oneOf(random, [random(6), 'null'])}, ${doc()}) on conflict do nothing`,
    () => `update pair set n = ${oneOf(random, [random(6), 'null'])}, doc = ${doc()} where a % 5 = ${random(5)}`,
    () => `update pair set b = case b when 'x' then 'y' else 'x' end where a = ${random(60)}`,
    () => `delete from pair where a = ${random(60)}`,
  ];
  const some = async (count: number) => {
    for (let i = 0; i < count; i++) await db.query(oneOf(random, statements)());
  };
  try {
    const kind = random(20);
    if (kind === 0) {
      // TRUNCATE waits for the long transaction, and other writers wait for TRUNCATE
      await db.query(
        `begin; set local lock_timeout = '300ms'; truncate ${oneOf(random, ['pair', 'pair', 'todo'])}; commit`,
      );
    } else if (kind === 1)
      await db.query(
        `insert into todo select g, ${random(9)}, ${status()}, g % 100, '2026-01-01T00:00:00Z', '${text()}' from generate_series(1, ${bigStatement}) g on conflict (id) do update set note = excluded.note`,
      );
    else if (kind < 12) await some(1);
    else {
      await db.query('begin');
      await some(1 + random(3));
      if (kind < 17) {
        await db.query('savepoint a');
        await some(1 + random(3));
        await db.query(random(2) === 0 ? 'rollback to a' : 'release a');
        await some(1);
      }
      await db.query(kind === 19 ? 'rollback' : 'commit');
    }
  } catch (error) {
    const { code } = error as { code?: string };
    // a unique violation, a deadlock, a lock timeout
    if (code !== '23505' && code !== '40P01' && code !== '55P03') throw error;
    await db.query('rollback');
  }
}
