// Owns single statements of tests on a Postgres server: each has its own connection, which cannot stay open.

import { Client } from 'pg';

/** The rows of one statement, which has 30 s. */
export async function admin(url: string, sql: string): Promise<Record<string, string>[]> {
  const client = new Client({
    connectionString: url,
    application_name: 'plank tests',
    connectionTimeoutMillis: 10_000,
    query_timeout: 30_000,
  });
  // a lost connection fails the statement; the event must not end the process
  client.on('error', () => {});
  await client.connect();
  try {
    return (await client.query<Record<string, string>>(sql)).rows;
  } finally {
    await client.end();
  }
}
