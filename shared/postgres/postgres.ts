/**
 * Pools and dedicated connections of `pg`, with keepalive, deadlines and an application name. Sessions pin their
 * settings, so no default of the role or the database changes what Plank does. Sessions render values exactly as
 * captured images are rendered (plank.canonical_settings in sql/003_images.sql).
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
 * The settings that Plank's sessions depend on. As startup options, they override the defaults of the role and the
 * database. search_path is not among them: triggers and defaults of users' tables run in the gateways' sessions, and
 * may need the role's search_path to find the functions that they call.
 */
const pinned: Record<string, string> = {
  // how values are rendered
  timezone: 'UTC',
  datestyle: 'ISO,YMD',
  intervalstyle: 'iso_8601',
  extra_float_digits: '1',
  bytea_output: 'hex',
  lc_monetary: 'C',
  // how texts are parsed
  standard_conforming_strings: 'on',
  backslash_quote: 'safe_encoding',
  array_nulls: 'on',
  transform_null_equals: 'off',
  quote_all_identifiers: 'off',
  xmloption: 'content',
  xmlbinary: 'base64',
  // how transactions run: a serializable drain or read would make writers fail
  default_transaction_isolation: 'read\\ committed',
  default_transaction_read_only: 'off',
  default_transaction_deferrable: 'off',
  row_security: 'on',
  exit_on_error: 'off',
  // timeouts: a session may wait for hours until a notification comes, or until the reader of a cursor goes on
  idle_in_transaction_session_timeout: '0',
  idle_session_timeout: '0',
  // how queries run: a query of the log takes 1 ms, and compiling it (jit) takes 300 ms
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
 * More pinned settings. As startup options, they would make connecting fail, because some versions lack them, or
 * because only a superuser may change them. If a role has another default and may not change it, connecting fails with
 * Postgres' error. This is intended: with session_replication_role = replica, the role's writes would not be captured.
 */
const pinnedWhereKnown = `select pg_catalog.set_config(s.name, s.value, false)
  from (values ('transaction_timeout', '0'), ('restrict_nonsystem_relation_kind', ''), ('session_replication_role', 'origin')) s(name, value)
  where pg_catalog.current_setting(s.name, true) <> s.value`;

/** The timeout is short, so that an attempt during an outage ends soon after the outage. */
const dedicatedConnectTimeoutMs = 2_500;
const pinTimeoutMs = 2_500;

interface ConnectionOptions {
  applicationName: string;
  /** the server cancels a statement after this long; 0: never */
  statementTimeoutMs: number;
  /** the server cancels a statement that has waited for one lock for this long; 0: never */
  lockTimeoutMs?: number;
  /**
   * sets search_path to pg_catalog, as in capture; otherwise the role's default applies, because triggers may rely on
   * it
   */
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

/**
 * Moves the options out of the URL. If the URL had options, pg would use only these and not Plank's. If an option is
 * given twice, Postgres takes the last one, so the caller appends Plank's options.
 */
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
    // The connection is destroyed, because ending a silent connection would wait for an answer.
    (client as Client).connection.stream.destroy();
    throw error;
  }
}

/** Creates a pool. If an idle connection fails, the next query opens another one. */
export function createPool(
  url: string,
  options: ConnectionOptions & {
    max: number;
    /** closes a connection that has been idle for this long, because it may have died in a broken network */
    idleTimeoutMs?: number;
    onError: (error: Error) => void;
  },
): Pool {
  const pool = new Pool({
    ...settings(url, options),
    Client,
    // The pool awaits the promise that `pin` returns, although the pool's types do not say so.
    onConnect: (client) => pin(client) as unknown as void,
    max: options.max,
    idleTimeoutMillis: options.idleTimeoutMs ?? 30_000,
    // The timeout is a second longer than the server's timeout, so that a silent server blocks no request forever.
    ...(options.statementTimeoutMs ? { query_timeout: options.statementTimeoutMs + 1_000 } : {}),
  });
  pool.on('error', options.onError);
  // The pool handles errors of idle connections only. If a connection in use ends, its query fails, and this handler
  // need do nothing.
  pool.on('connect', (client) => client.on('error', () => {}));
  return pool;
}

/** Whether Postgres refused the statement but kept the session, so that the connection can be used again. */
export function isStatementError(error: unknown): error is DatabaseError {
  return error instanceof DatabaseError && error.severity === 'ERROR';
}

/**
 * Makes a query that fails after `ms`, so that a silent server does not block the caller. The pool then discards the
 * connection.
 */
export function limited(ms: number, text: string, values: unknown[] = []): QueryConfig {
  return { text, values, query_timeout: ms } as QueryConfig;
}

/** the number of rows of the first fetch, when the size of rows is not known */
export const firstFetch = 32;
const maxFetch = 512;

/**
 * How many rows to fetch next, to get about `target` characters and at most `most` rows. The sizes of the last fetch's
 * rows decide.
 */
export function nextFetch(count: number, rows: number, characters: number, target: number, most = maxFetch): number {
  return Math.max(1, Math.min(most, count * 2, Math.floor((target * rows) / Math.max(1, characters))));
}

/** An identifier as SQL. */
export function quoted(name: string): string {
  return `"${name.replaceAll('"', '""')}"`;
}

/** `types: asText` keeps the values of a query as the text that Postgres rendered. */
export const asText = { getTypeParser: () => (value: string) => value } as unknown as CustomTypesConfig;

/** A dedicated connection. When it ends in any way, `lost` aborts with the reason. */
export interface Connection {
  client: Client;
  lost: AbortSignal;
}

/** Opens a dedicated connection. The caller must end it. */
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

/** Ends a connection that may no longer answer: first in the normal way, and by force after 500 ms. */
export async function disconnect(client: Client): Promise<void> {
  const { stream } = client.connection;
  const force = setTimeout(() => stream.destroy(), 500);
  await client.end().catch(() => {});
  clearTimeout(force);
  stream.destroy();
}

/**
 * Whether the error means that Postgres cannot be reached, is starting or stopping, or refuses connections. The same
 * request may then succeed later.
 */
export function isUnavailable(error: unknown): boolean {
  if (!(error instanceof Error)) return false;
  const code = (error as { code?: string }).code ?? '';
  return (
    /^(08|57P|53)/.test(code) ||
    ['ECONNREFUSED', 'ECONNRESET', 'EPIPE', 'ETIMEDOUT', 'ENOTFOUND', 'EAI_AGAIN'].includes(code) ||
    /timeout|terminated|Connection ended|not queryable/i.test(error.message)
  );
}
