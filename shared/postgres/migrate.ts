/**
 * Applies the numbered migrations of shared/sql in order, each once and in its own transaction. It is safe to run this
 * again, and in several processes at once: an advisory lock lets one process work, and the others then have nothing to
 * do.
 */
import { createHash } from 'node:crypto';
import { readdir, readFile } from 'node:fs/promises';
import { sleep } from '../waiting.ts';
import { databaseProblem } from './database-problem.ts';
import { type Client, connect, disconnect, isUnavailable } from './postgres.ts';

const folder = new URL('../sql/', import.meta.url);
const migrationLock = 0x706c6e6b; // "plnk"

/**
 * Throws if Postgres is older than 14, if a schema "plank" is not Plank's, or if the database has a migration that
 * differs from the migration of this version.
 */
export function migrate(databaseUrl: string, options: { log?: (message: string) => void } = {}): Promise<void> {
  const log = options.log ?? (() => {});
  return alone(databaseUrl, async (client) => {
    const version = Number(
      (await client.query<{ server_version_num: string }>('show server_version_num')).rows[0]!.server_version_num,
    );
    if (version < 140_000)
      throw new Error(`Plank needs PostgreSQL 14 or newer, this is ${Math.floor(version / 10_000)}`);
    await requireOwnSchema(client);
    const applied = new Map(
      (
        await client.query<{ number: number; checksum: string }>('select number, checksum from plank.migrations')
      ).rows.map((row) => [row.number, row.checksum]),
    );
    const names = (await readdir(folder)).filter((name) => /^\d{3}_\w+\.sql$/.test(name)).sort();
    let count = 0;
    for (const name of names) {
      const number = Number(name.slice(0, 3));
      const sql = await readFile(new URL(name, folder), 'utf8');
      const checksum = createHash('sha256').update(sql).digest('hex').slice(0, 16);
      const before = applied.get(number);
      if (before === checksum) continue;
      if (before !== undefined)
        throw new Error(
          `migration ${name} was applied in another version: this database belongs to another release of Plank. If its data may be deleted, start with --fresh. Otherwise run "drop schema plank cascade", migrate, and attach your tables again (their rows stay; clients read them again)`,
        );
      log(`applying ${name}`);
      count++;
      await client.query('begin');
      try {
        await client.query(sql);
        await client.query('insert into plank.migrations (number, name, checksum) values ($1, $2, $3)', [
          number,
          name,
          checksum,
        ]);
        await client.query('commit');
      } catch (error) {
        await client.query('rollback');
        throw new Error(`migration ${name} failed: ${error instanceof Error ? error.message : String(error)}`, {
          cause: error,
        });
      }
    }
    log(count === 0 ? `the database is up to date (${names.length} migrations)` : 'the database is ready');
  });
}

/** Runs `work` with a connection. No other migration of this database runs at the same time. */
export async function alone<T>(databaseUrl: string, work: (client: Client) => Promise<T>): Promise<T> {
  const { client } = await connect(databaseUrl, { applicationName: 'plank migrate', statementTimeoutMs: 0 }).catch(
    (error: unknown) => {
      throw databaseProblem(error, databaseUrl);
    },
  );
  try {
    await requirePrimary(client, databaseUrl);
    await client.query('select pg_advisory_lock($1)', [migrationLock]);
    return await work(client);
  } finally {
    await disconnect(client);
  }
}

async function requirePrimary(client: Client, databaseUrl: string): Promise<void> {
  const { rows } = await client.query<{ standby: boolean }>('select pg_is_in_recovery() as standby');
  if (rows[0]!.standby) throw databaseProblem({ code: '25006' }, databaseUrl);
}

/** Creates the schema "plank", or uses an empty one. Throws if the schema exists and is not Plank's. */
async function requireOwnSchema(client: Client): Promise<void> {
  const { rows } = await client.query<{ exists: boolean; is_empty: boolean; is_ours: boolean }>(`
    select n.oid is not null as exists,
      not exists (select from pg_class where relnamespace = n.oid) and not exists (select from pg_proc where pronamespace = n.oid)
        and not exists (select from pg_type where typnamespace = n.oid) as is_empty,
      (select array_agg(attname::text order by attnum) from pg_attribute
        where attrelid = (select oid from pg_class where relnamespace = n.oid and relname = 'migrations') and attnum > 0 and not attisdropped)
        = '{number,name,checksum,applied_at}' as is_ours
    from (values (to_regnamespace('plank'))) n(oid)`);
  const { exists, is_empty, is_ours } = rows[0]!;
  if (is_ours) return;
  if (exists && !is_empty)
    throw new Error(
      'the database has a schema "plank" already, which Plank did not make. Nothing was changed: rename that schema, or give Plank another database',
    );
  // "if not exists" is not used, because it needs the right to create schemas even if the schema exists.
  if (!exists) await client.query('create schema plank');
  await client.query(`
    create table plank.migrations (
      number integer primary key, name text not null, checksum text not null, applied_at timestamptz not null default now())`);
}

class NotMigrated extends Error {}

/**
 * For start-up: waits up to 10 s for the database. If the database is unavailable or not migrated, throws an error of
 * one line.
 */
export async function requireMigrated(databaseUrl: string): Promise<void> {
  const deadline = performance.now() + 10_000;
  for (;;) {
    try {
      const { client } = await connect(databaseUrl, { applicationName: 'plank check', statementTimeoutMs: 5_000 });
      try {
        await requirePrimary(client, databaseUrl);
        const { rows } = await client.query<{ migrated: boolean }>(
          `select to_regprocedure('plank.drain(bigint, integer, interval, boolean)') is not null
             and to_regprocedure('plank.canary(integer)') is not null as migrated`,
        );
        if (!rows[0]!.migrated)
          throw new NotMigrated(
            'the database has no schema "plank" of this version yet: run "npm run migrate" with the same DATABASE_URL',
          );
        return;
      } finally {
        await disconnect(client);
      }
    } catch (error) {
      if (!isUnavailable(error)) throw error instanceof NotMigrated ? error : databaseProblem(error, databaseUrl);
      if (performance.now() > deadline) throw databaseProblem(error, databaseUrl);
      await sleep(250);
    }
  }
}
