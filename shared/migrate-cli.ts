/** `npm run migrate`: brings the database of DATABASE_URL up to date. */
import { ConfigError, migrateSchema, readConfig } from './config.ts';
import { migrate } from './migrate.ts';

try {
  const config = readConfig(migrateSchema);
  await migrate(config.DATABASE_URL, { log: (message) => process.stdout.write(`${message}\n`) });
} catch (error) {
  const text = error instanceof Error ? error.message : String(error);
  process.stderr.write(
    `plank migrate: ${text}${error instanceof ConfigError ? ' (see the configuration table in README)' : ''}\n`,
  );
  process.exitCode = 1;
}
