// Owns the load of a torture run: writers over SQL and REST, with rollbacks, savepoints, key changes, statements of many rows and one long
// transaction after the other. What must stay true:
// - a committed change has its ledger row, and a rolled back one has none (both are in one transaction);
// - a write fails only for its own reasons (a deadlock, a key that was taken) or while Postgres is made to fail: any other failure is in
//   `problems`, because Plank never makes a user's commit fail.

import { setTimeout as delay } from 'node:timers/promises';
import { Client, DatabaseError } from 'pg';
import type { Random } from './random.ts';
import { accounts, hot, ordersPerRegion, owners, regions, things } from './schema.ts';

/** deadlock, unique violation by another writer, detached partition: these happen without Plank as well */
const ownFailures = new Set(['40P01', '23505', '23514']);
/** a session that an operator ended, a server that starts or stops, a lost connection */
const outage = /^(57P0|08|58|XX)/;

type Sql = (text: string, values?: unknown[]) => Promise<unknown>;

const insertAccount = `with i as (
  insert into accounts (id, owner, amount, ver, note) values ($1, $2, $3, nextval('ledger_id'), $4) on conflict do nothing returning id, ver)
  insert into ledger (id, tbl, action, key) select ver, 'accounts', 'INSERT', id::text from i`;
const updateAccounts = `with u as (
  update accounts set amount = amount + $2, owner = case when $3 = '' then owner else $3 end, ver = nextval('ledger_id')
  where id = any ($1) returning id, ver)
  insert into ledger (id, tbl, action, key) select ver, 'accounts', 'UPDATE', id::text from u`;
const deleteAccount = `with d as (delete from accounts where id = $1 returning id, ver)
  insert into ledger (id, tbl, action, key, was) select nextval('ledger_id'), 'accounts', 'DELETE', id::text, ver from d`;
const rekeyAccount = `with o as (select id, ver from accounts where id = $1 for update), u as (
  update accounts a set id = $2, ver = nextval('ledger_id') from o
  where a.id = o.id and not exists (select from accounts where id = $2) returning a.id, a.ver, o.id as former, o.ver as was)
  insert into ledger (id, tbl, action, key, was)
  select x.* from u cross join lateral (values
    (nextval('ledger_id'), 'accounts', 'DELETE', former::text, was), (ver, 'accounts', 'INSERT', id::text, null::bigint)) x`;
const putOrder = `with i as (
  insert into orders values ($1, $2, nextval('ledger_id'), $3, $4)
  on conflict (region, id) do update
  set ver = nextval('ledger_id'), state = excluded.state, amount = excluded.amount, revision = orders.revision + 1
  returning region, id, ver, revision = 0 as is_new)
  insert into ledger (id, tbl, action, key)
  select ver, 'orders', case when is_new then 'INSERT' else 'UPDATE' end, region || '/' || id from i`;
const deleteOrder = `with d as (delete from orders where region = $1 and id = $2 returning region, id, ver)
  insert into ledger (id, tbl, action, key, was) select nextval('ledger_id'), 'orders', 'DELETE', region || '/' || id, ver from d`;
const putThing = `with i as (
  insert into things (id, ver, size) values ($1, nextval('ledger_id'), $2)
  on conflict (id) do update set ver = nextval('ledger_id'), size = excluded.size returning id, ver, xmax = 0 as is_new)
  insert into ledger (id, tbl, action, key) select ver, 'things', case when is_new then 'INSERT' else 'UPDATE' end, id::text from i`;

export class Writers {
  commits = 0;
  rollbacks = 0;
  /** failures that a fault explains */
  outages = 0;
  readonly problems: string[] = [];
  readonly #databaseUrl: string;
  readonly #random: Random;
  readonly #perSecond: number;
  #abort = new AbortController();
  #running: Promise<void>[] = [];

  constructor(options: { databaseUrl: string; random: Random; perSecond: number }) {
    this.#databaseUrl = options.databaseUrl;
    this.#random = options.random;
    this.#perSecond = options.perSecond;
  }

  start(count: number): void {
    this.#abort = new AbortController();
    this.#running = Array.from({ length: count }, (_, i) => this.#writer(this.#random.of(`writer ${i}`), i));
  }

  /** Resolves when no transaction is open any more. */
  async pause(): Promise<void> {
    this.#abort.abort();
    await Promise.all(this.#running);
  }

  async #writer(random: Random, index: number): Promise<void> {
    const { signal } = this.#abort;
    const pauseMs = 1_000 / this.#perSecond;
    let client: Client | undefined;
    while (!signal.aborted) {
      const started = performance.now();
      try {
        client ??= await this.#connect();
        await this.#transaction(client, random, index === 0, signal);
      } catch (error) {
        if (!this.#explain(error)) continue;
        await client?.end().catch(() => {});
        client = undefined;
        await delay(100);
      }
      await delay(Math.max(0, pauseMs - (performance.now() - started)), undefined, { signal }).catch(() => {});
    }
    await client?.end().catch(() => {});
  }

  async #connect(): Promise<Client> {
    const client = new Client({
      connectionString: this.#databaseUrl,
      application_name: 'torture writer',
      connectionTimeoutMillis: 5_000,
      query_timeout: 20_000,
    });
    client.on('error', () => {});
    await client.connect();
    return client;
  }

  async #transaction(client: Client, random: Random, isLong: boolean, signal: AbortSignal): Promise<void> {
    const sql: Sql = (text, values) => client.query(text, values);
    const dice = random.next();
    await sql(random.chance(0.1) ? 'begin isolation level repeatable read' : 'begin');
    try {
      const steps = isLong ? random.between(3, 6) : random.between(1, 3);
      for (let i = 0; i < steps; i++) {
        await step(sql, random);
        // stays open for seconds, without locks that others wait for long
        if (isLong && !signal.aborted) await delay(random.between(50, 600), undefined, { signal }).catch(() => {});
      }
      await sql(dice < 0.1 ? 'rollback' : 'commit');
      if (dice < 0.1) this.rollbacks++;
      else this.commits++;
    } catch (error) {
      if (error instanceof DatabaseError && !outage.test(error.code ?? '')) {
        await sql('rollback');
        this.rollbacks++;
      }
      throw error;
    }
  }

  /** Whether the connection has to be given up. */
  #explain(error: unknown): boolean {
    const code = error instanceof DatabaseError ? (error.code ?? '') : '';
    if (ownFailures.has(code)) return false;
    // under repeatable read, a row that another transaction has changed
    if (code === '40001' && /could not serialize access due to concurrent (update|delete)/.test(String(error)))
      return false;
    if (code === '' || outage.test(code)) {
      this.outages++;
      return true;
    }
    if (this.problems.length < 20) this.problems.push(`a write failed: ${code} ${(error as Error).message}`);
    return false;
  }
}

async function step(sql: Sql, random: Random): Promise<void> {
  const account = () => (random.chance(0.5) ? random.between(1, hot) : random.between(1, accounts));
  const owner = () => `u${random.between(1, owners)}`;
  const dice = random.next();
  if (dice < 0.2)
    await sql(insertAccount, [account(), owner(), random.between(0, 99_999) / 100, 'x'.repeat(random.between(0, 400))]);
  else if (dice < 0.5)
    await sql(updateAccounts, [[account()], random.between(-500, 500) / 100, random.chance(0.3) ? owner() : '']);
  else if (dice < 0.56) {
    const from = random.between(1, accounts);
    const ids = Array.from({ length: random.between(2, 20) }, (_, i) => from + i);
    await sql(updateAccounts, [ids, 1, '']);
  } else if (dice < 0.62) await sql(deleteAccount, [account()]);
  else if (dice < 0.66) await sql(rekeyAccount, [account(), account()]);
  else if (dice < 0.8)
    await sql(putOrder, [random.pick(regions), random.between(1, ordersPerRegion), owner(), random.between(1, 999)]);
  else if (dice < 0.84) await sql(deleteOrder, [random.pick(regions), random.between(1, ordersPerRegion)]);
  else if (dice < 0.95) await sql(putThing, [random.between(1, things), random.between(1, 100)]);
  else {
    // a subtransaction that is taken back, before one that stays
    await sql('savepoint s');
    await sql(updateAccounts, [[account()], 1_000, '']);
    await sql('rollback to savepoint s');
    await sql(updateAccounts, [[account()], 2, '']);
  }
}
