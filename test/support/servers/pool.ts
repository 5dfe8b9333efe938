// Owns how tests connect to a database by a pool of their own.

import { createPool, type Pool } from '#shared/postgres/postgres.ts';

/** Of `max` connections, whose statements are given 30 s. That one is lost while idle is no failure. The caller ends it. */
export function testPool(url: string, max = 4, applicationName = 'plank tests'): Pool {
  return createPool(url, { applicationName, statementTimeoutMs: 30_000, max, onError: () => {} });
}
