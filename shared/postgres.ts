/**
 * The door to `pg`: pools and dedicated connections with keepalive, deadlines and an application name. Sessions render
 * values exactly as captured images are rendered (plank.canonical_settings in sql/003_capture.sql).
 */
import type { EventEmitter } from 'node:events';
import {
  type ClientConfig,
  type CustomTypesConfig,
  DatabaseError,
  Client as PgClient,
  Pool,
  type PoolClient,
  Query,
  type QueryConfig,
} from 'pg';
import { wholeMessages } from './whole-messages.ts';

export type { Pool, PoolClient };
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
}

function settings(url: string, options: ConnectionOptions): ClientConfig {
  return {
    connectionString: url,
    application_name: options.applicationName,
    statement_timeout: options.statementTimeoutMs,
    connectionTimeoutMillis: 5_000,
    keepAlive: true,
    keepAliveInitialDelayMillis: 5_000,
    options: canonicalOptions,
  };
}

/** A client whose parser gets whole messages. */
export class Client extends PgClient {
  constructor(config?: ClientConfig) {
    super(config);
    const connection = this.connection as unknown as { attachListeners(stream: Pick<EventEmitter, 'on'>): void };
    const attach = connection.attachListeners.bind(connection);
    connection.attachListeners = (stream) => {
      const on: typeof stream.on = (event, listener) =>
        stream.on(event, event === 'data' ? wholeMessages(listener) : listener);
      attach({ on });
    };
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

/** A statement `copy (…) to stdout (format binary)`, which takes bytes as they are and costs neither text nor an object a value. */
class CopyOut extends Query {
  readonly messages: Buffer[] = [];

  /** Called by the client; nobody else keeps or changes the bytes (shared/whole-messages.ts). */
  handleCopyData({ chunk }: { chunk: Buffer }): void {
    this.messages.push(chunk);
  }
}

/**
 * The rows of a query without parameters, each value in Postgres' binary format. The bytes are the caller's, those of a
 * row are one buffer.
 */
export async function binaryRows(client: Client, sql: string): Promise<(Buffer | null)[][]> {
  const { promise, resolve, reject } = Promise.withResolvers<void>();
  const copy = new CopyOut(`copy (${sql}) to stdout (format binary)`, undefined, (error) =>
    error ? reject(error) : resolve(),
  );
  client.query(copy);
  await promise;
  return copyRows(copy.messages);
}

/**
 * The file format of COPY: a header of 19 bytes and its extension, then rows, then -1 instead of a count of values. No row goes over
 * the end of a message.
 */
function copyRows(messages: readonly Buffer[]): (Buffer | null)[][] {
  const rows: (Buffer | null)[][] = [];
  let at = 19 + messages[0]!.readInt32BE(15);
  for (const bytes of messages) {
    while (at < bytes.length) {
      const row: (Buffer | null)[] = [];
      const count = bytes.readInt16BE(at);
      at += 2;
      if (count < 0) return rows;
      for (let i = 0; i < count; i++) {
        const length = bytes.readInt32BE(at);
        at += 4;
        row.push(length < 0 ? null : bytes.subarray(at, at + length));
        at += Math.max(0, length);
      }
      rows.push(row);
    }
    at = 0;
  }
  return rows;
}

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
