/**
 * The door to `pg`: pools and dedicated connections with keepalive, deadlines and an application name. No session inherits a default of
 * its role or database that could change what Plank does in it. Sessions render values exactly as captured images are rendered
 * (plank.canonical_settings in sql/003_images.sql).
 */
import {
  type ClientBase,
  type ClientConfig,
  type CustomTypesConfig,
  DatabaseError,
  Pool,
  type PoolClient,
  type QueryConfig,
} from 'pg';
import { Client } from './binary-client.ts';

export type { Client, CustomTypesConfig, Pool, PoolClient };
export { DatabaseError };

/**
 * What each of our sessions depends on, whatever the role and the database have as defaults. A startup option overrides those.
 * The search path is not among them: triggers and defaults of users' tables run in the gateways' sessions, and find what they call by it.
 */
const pinned: Record<string, string> = {
  // what a value looks like
  timezone: 'UTC',
  datestyle: 'ISO,YMD',
  intervalstyle: 'iso_8601',
  extra_float_digits: '1',
  bytea_output: 'hex',
  lc_monetary: 'C',
  // what a text means
  standard_conforming_strings: 'on',
  backslash_quote: 'safe_encoding',
  array_nulls: 'on',
  transform_null_equals: 'off',
  quote_all_identifiers: 'off',
  xmloption: 'content',
  xmlbinary: 'base64',
  // how transactions run: writers fail where a drain or a read is serializable
  default_transaction_isolation: 'read\\ committed',
  default_transaction_read_only: 'off',
  default_transaction_deferrable: 'off',
  row_security: 'on',
  exit_on_error: 'off',
  // when the server gives up: a session may wait for hours for a notification, a cursor for its reader
  idle_in_transaction_session_timeout: '0',
  idle_session_timeout: '0',
  // how queries run: the log's take a millisecond, and to compile one takes 300 of them
  jit: 'off',
  plan_cache_mode: 'auto',
  enable_bitmapscan: 'on',
  enable_hashagg: 'on',
  enable_hashjoin: 'on',
  enable_indexonlyscan: 'on',
  enable_indexscan: 'on',
  enable_material: 'on',
  enable_mergejoin: 'on',
  enable_nestloop: 'on',
  enable_seqscan: 'on',
  enable_sort: 'on',
  enable_tidscan: 'on',
};

const startupOptions = Object.entries(pinned)
  .map(([name, value]) => `-c ${name}=${value}`)
  .join(' ');

/**
 * The same for what not every version has, and for what only a superuser may set: as a startup option it would refuse the session. Where a
 * role has another default and may not change it, the session is refused with Postgres' own words, as its writes would go uncaptured.
 */
const pinnedWhereKnown = `select pg_catalog.set_config(s.name, s.value, false)
  from (values ('transaction_timeout', '0'), ('restrict_nonsystem_relation_kind', ''), ('session_replication_role', 'origin')) s(name, value)
  where pg_catalog.current_setting(s.name, true) <> s.value`;

/** an attempt that met silence must not outlast the silence by much */
const dedicatedConnectTimeoutMs = 2_500;
const pinTimeoutMs = 2_500;

interface ConnectionOptions {
  applicationName: string;
  /** the server cancels a statement after this long; 0: never */
  statementTimeoutMs: number;
  /** the server cancels a statement that has waited for one lock for this long; 0: never */
  lockTimeoutMs?: number;
  /** names without a schema are Postgres' own, as in capture; else what the role has, which triggers may rely on */
  isOwnNamesOnly?: boolean;
}

function settings(url: string, options: ConnectionOptions): ClientConfig {
  const { connectionString, options: given } = withoutOptions(url);
  return {
    connectionString,
    application_name: options.applicationName,
    connectionTimeoutMillis: 5_000,
    keepAlive: true,
    keepAliveInitialDelayMillis: 5_000,
    options: `${given} ${startupOptions} -c statement_timeout=${options.statementTimeoutMs} -c lock_timeout=${options.lockTimeoutMs ?? 0}${options.isOwnNamesOnly ? ' -c search_path=pg_catalog,pg_temp' : ''}`,
  };
}

/** pg would take the URL's options in place of ours. The last one counts, so ours come behind them. */
function withoutOptions(url: string): { connectionString: string; options: string } {
  if (!URL.canParse(url)) return { connectionString: url, options: '' };
  const parsed = new URL(url);
  const options = parsed.searchParams.getAll('options').join(' ');
  if (options === '') return { connectionString: url, options };
  parsed.searchParams.delete('options');
  return { connectionString: parsed.href, options };
}

async function pin(client: ClientBase): Promise<void> {
  try {
    await client.query(limited(pinTimeoutMs, pinnedWhereKnown));
  } catch (error) {
    // one that is silent would not say that it ends, either
    (client as Client).connection.stream.destroy();
    throw error;
  }
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
    // the pool waits for it, which its types do not say
    onConnect: (client) => pin(client) as unknown as void,
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
  const own = settings(url, options);
  const client = new Client({
    ...own,
    options: `${own.options} -c search_path=pg_catalog,pg_temp`,
    connectionTimeoutMillis: dedicatedConnectTimeoutMs,
  });
  const lost = new AbortController();
  client.on('error', (error) => lost.abort(error));
  client.on('end', () => lost.abort(new Error('the connection to Postgres ended')));
  await client.connect();
  await pin(client);
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
