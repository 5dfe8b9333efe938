/** `npm run migrate`: migrates the database of DATABASE_URL. With PLANK_SAMPLE=true it also makes the sample table. */
import { readFlags } from '../process/cli.ts';
import { ConfigError, migrateSchema, misspelt, readConfig } from '../process/config.ts';
import { migrate } from './migrate.ts';
import { makeSample } from './sample.ts';

try {
  readFlags({});
  const config = readConfig(migrateSchema);
  for (const line of misspelt()) process.stderr.write(`plank migrate: ${line}\n`);
  const say = (message: string) => process.stdout.write(`${message}\n`);
  await migrate(config.DATABASE_URL, { log: say });
  const problem = config.PLANK_SAMPLE === 'true' ? await makeSample(config.DATABASE_URL) : undefined;
  if (problem) say(problem);
} catch (error) {
  const text = error instanceof Error ? error.message : String(error);
  process.stderr.write(`plank migrate: ${text}${error instanceof ConfigError ? ' (see docs/configuration.md)' : ''}\n`);
  process.exitCode = 1;
}
