// Owns how tests connect to a database with a pool of their own.

import { createPool, type Pool } from '#shared/postgres/postgres.ts';

/** A pool of `max` connections, whose statements have 30 s. The loss of an idle connection is no failure. The caller ends it. */
export function testPool(url: string, max = 4, applicationName = 'plank tests'): Pool {
  return createPool(url, { applicationName, statementTimeoutMs: 30_000, max, onError: () => {} });
}
