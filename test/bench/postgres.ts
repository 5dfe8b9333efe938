// Owns the Postgres of the benchmarks that write.

import { join } from 'node:path';
import { startPostgres } from '#deploy/local/postgres.ts';

/**
 * Resolves with its address. It is durable as in earnest, but has no checkpoint in the middle, which would be charged to whoever is
 * measured just then. It is stopped with the stack.
 */
export async function benchPostgres(folder: string, stack: AsyncDisposableStack): Promise<string> {
  const settings = { max_wal_size: '16GB', checkpoint_timeout: '1h' };
  const postgres = await startPostgres({ dataDir: join(folder, 'postgres'), fresh: true, fsync: true, settings });
  stack.defer(() => postgres.stop());
  return postgres.url;
}
