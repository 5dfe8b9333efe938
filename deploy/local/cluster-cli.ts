/**
 * `npm run cluster -- --gateways 4`: runs a cluster of real processes on this machine, until Ctrl-C.
 *
 *   --gateways N    (2)      --listeners N   (1)
 *   --port N        (PORT, else 8000) the port where nginx listens
 *   --host ADDRESS  (HOST, else localhost: this machine only) the address where nginx listens
 *   --fresh         deletes the data of an earlier run
 */
import { join } from 'node:path';
import { withoutPassword } from '#shared/postgres/database-problem.ts';
import { readFlags } from '#shared/process/cli.ts';
import { migrateSchema, readConfig } from '#shared/process/config.ts';
import { runService } from '#shared/process/lifecycle.ts';
import { authOff, isLoopback, openWarning } from '#shared/process/listen.ts';
import { Cluster } from './cluster.ts';

const say = (text: string) => process.stdout.write(`${text}\n`);

function count(name: string, text: string, max: number): number {
  const value = /^\d{1,6}$/.test(text) ? Number(text) : Number.NaN;
  if (!Number.isInteger(value) || value < 1 || value > max)
    throw new Error(`--${name} must be a whole number from 1 to ${max}`);
  return value;
}

await runService(
  'cluster',
  () => {
    const values = readFlags({
      gateways: { type: 'string', default: '2' },
      listeners: { type: 'string', default: '1' },
      port: { type: 'string', default: process.env.PORT || '8000' },
      host: { type: 'string', default: process.env.HOST || 'localhost' },
      fresh: { type: 'boolean', default: false },
    });
    return {
      gateways: count('gateways', values.gateways, 64),
      listeners: count('listeners', values.listeners, 8),
      port: count('port', values.port, 65_535),
      host: values.host,
      fresh: values.fresh,
      sample: process.env.PLANK_SAMPLE
        ? readConfig(migrateSchema.pick({ PLANK_SAMPLE: true })).PLANK_SAMPLE === 'true'
        : undefined,
      STOP_TIMEOUT_MS: 20_000,
    };
  },
  async ({ gateways, listeners, port, host, fresh, sample }, stack) => {
    const folder = join(import.meta.dirname, '../../.plank/cluster');
    const auth = Object.entries(process.env).filter(([name, value]) => /^AUTH(_|$)/.test(name) && value);
    const own = {
      gatewayEnv: Object.fromEntries(auth) as Record<string, string>,
      ...(process.env.DATABASE_URL ? { databaseUrl: process.env.DATABASE_URL } : {}),
      ...(sample === undefined ? {} : { sample }),
      ...(process.env.REDIS_URL ? { redisUrl: process.env.REDIS_URL } : {}),
    };
    const cluster = await Cluster.start({ gateways, listeners, port, host, fresh, folder, ...own, log: say });
    stack.defer(() => cluster.stop());
    const nodes = [...cluster.listeners, ...cluster.gateways]
      .map((node) => `  ${node.name.padEnd(12)}${node.url}   pid ${node.pid}`)
      .join('\n');
    if ((process.env.AUTH?.trim() || 'off') === 'off') say(isLoopback(host) ? authOff : openWarning(host));
    say(`
  clients     ${cluster.url}/   ${cluster.webSocketUrl}   (nginx)
  operators   ${cluster.nginx?.operationsUrl}/console
${nodes}
  database    ${withoutPassword(cluster.databaseUrl)}${own.databaseUrl ? '' : '   (password in .plank/cluster/postgres/pgpass)'}
  redis       ${withoutPassword(cluster.redisUrl)}
  logs        .plank/cluster/*.log

Ctrl-C stops it.`);
  },
);
