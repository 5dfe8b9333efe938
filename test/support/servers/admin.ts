// Owns single statements of the tests on a Postgres server: one connection each, which cannot stay open.

import { Client } from 'pg';

/** The rows of one statement. It is given 30 s. */
export async function admin(url: string, sql: string): Promise<Record<string, string>[]> {
  const client = new Client({
    connectionString: url,
    application_name: 'plank tests',
    connectionTimeoutMillis: 10_000,
    query_timeout: 30_000,
  });
  // A lost connection fails the statement; the event itself must not end the process.
  client.on('error', () => {});
  await client.connect();
  try {
    return (await client.query<Record<string, string>>(sql)).rows;
  } finally {
    await client.end();
  }
}
