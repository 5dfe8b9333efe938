/**
 * The door to `pg`: pools and dedicated connections with keepalive, deadlines and an application name. Sessions render
 * values exactly as captured images are rendered (plank.canonical_settings in sql/003_capture.sql).
 */
import { type ClientConfig, type CustomTypesConfig, DatabaseError, Pool, type PoolClient, type QueryConfig } from 'pg';
import { Client } from './binary-client.ts';

export type { Client, Pool, PoolClient };
export { DatabaseError };

const canonicalOptions = [
  'timezone=UTC',
  'datestyle=ISO,YMD',
  'intervalstyle=iso_8601',
  'extra_float_digits=1',
  'bytea_output=hex',
  'lc_monetary=C',
]
  .map((setting) => `-c ${setting}`)
  .join(' ');

/** an attempt that met silence must not outlast the silence by much */
const dedicatedConnectTimeoutMs = 2_500;

interface ConnectionOptions {
  applicationName: string;
  /** the server cancels a statement after this long; 0: never */
  statementTimeoutMs: number;
  /** the server cancels a statement that has waited for one lock for this long; 0: never */
  lockTimeoutMs?: number;
}

function settings(url: string, options: ConnectionOptions): ClientConfig {
  return {
    connectionString: url,
    application_name: options.applicationName,
    statement_timeout: options.statementTimeoutMs,
    ...(options.lockTimeoutMs ? { lock_timeout: options.lockTimeoutMs } : {}),
    connectionTimeoutMillis: 5_000,
    keepAlive: true,
    keepAliveInitialDelayMillis: 5_000,
    options: canonicalOptions,
  };
}

/** A pool whose idle connections may fail without ending the process: the next query opens another. */
export function createPool(
  url: string,
  options: ConnectionOptions & {
    max: number;
    /** an unused connection is closed after this long: one that a broken network left behind dead is not met again then */
    idleTimeoutMs?: number;
    onError: (error: Error) => void;
  },
): Pool {
  const pool = new Pool({
    ...settings(url, options),
    Client,
    max: options.max,
    idleTimeoutMillis: options.idleTimeoutMs ?? 30_000,
    // the client gives up a little after the server should have: a silent server must not hold a request for ever
    ...(options.statementTimeoutMs ? { query_timeout: options.statementTimeoutMs + 1_000 } : {}),
  });
  pool.on('error', options.onError);
  // the pool listens to idle ones only: where one that is taken out ends, its query fails, and that is all
  pool.on('connect', (client) => client.on('error', () => {}));
  return pool;
}

/** Postgres refused the statement, and its session goes on: the connection can be used again. */
export function isStatementError(error: unknown): error is DatabaseError {
  return error instanceof DatabaseError && error.severity === 'ERROR';
}

/** A query that fails after `ms`, and whose connection the pool then gives up: a silent server must not hold its caller. */
export function limited(ms: number, text: string, values: unknown[] = []): QueryConfig {
  return { text, values, query_timeout: ms } as QueryConfig;
}

/** Rows to fetch first where their size is not known, and at most. */
export const firstFetch = 32;
const maxFetch = 512;

/** How many rows to fetch next for about `target` characters, at most `most`: what came before says how large they are. */
export function nextFetch(count: number, rows: number, characters: number, target: number, most = maxFetch): number {
  return Math.max(1, Math.min(most, count * 2, Math.floor((target * rows) / Math.max(1, characters))));
}

/** An identifier as SQL. */
export function quoted(name: string): string {
  return `"${name.replaceAll('"', '""')}"`;
}

/** For queries whose values are to stay the text that Postgres rendered: `types: asText`. */
export const asText = { getTypeParser: () => (value: string) => value } as unknown as CustomTypesConfig;

/** A dedicated connection. `lost` aborts, with the reason, when it ends in any way. */
export interface Connection {
  client: Client;
  lost: AbortSignal;
}

/** One connection, connected. Its owner ends it. */
export async function connect(url: string, options: ConnectionOptions): Promise<Connection> {
  const client = new Client({ ...settings(url, options), connectionTimeoutMillis: dedicatedConnectTimeoutMs });
  const lost = new AbortController();
  client.on('error', (error) => lost.abort(error));
  client.on('end', () => lost.abort(new Error('the connection to Postgres ended')));
  await client.connect();
  return { client, lost: lost.signal };
}

/** Ends a connection that may no longer answer: politely, and by force after a moment. */
export async function disconnect(client: Client): Promise<void> {
  const { stream } = client.connection;
  const force = setTimeout(() => stream.destroy(), 500);
  await client.end().catch(() => {});
  clearTimeout(force);
  stream.destroy();
}

/** Postgres is away, starting, stopping or refuses connections: the same request may succeed later. */
export function isUnavailable(error: unknown): boolean {
  if (!(error instanceof Error)) return false;
  const code = (error as { code?: string }).code ?? '';
  return (
    /^(08|57P|53)/.test(code) ||
    ['ECONNREFUSED', 'ECONNRESET', 'EPIPE', 'ETIMEDOUT', 'ENOTFOUND', 'EAI_AGAIN'].includes(code) ||
    /timeout|terminated|Connection ended|not queryable/i.test(error.message)
  );
}
