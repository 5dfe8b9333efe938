// A database that cannot be used: each program reports in one line what is wrong and what to do, without a password or a stack.

import { execFile } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { createServer as createHttpServer } from 'node:http';
import { type AddressInfo, createServer, type Server } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { type LocalPostgres, startPostgres } from '#deploy/local/postgres.ts';
import { withoutPassword } from '#shared/postgres/database-problem.ts';
import { migrate, requireMigrated } from '#shared/postgres/migrate.ts';
import { admin } from '../../support/servers/admin.ts';
import { postgresUrl, redisUrl } from '../../support/servers/servers.ts';

const run = promisify(execFile);
const stack = new AsyncDisposableStack();
const role = `plank_few_${randomBytes(4).toString('hex')}`;
const hush = 'hunter2hunter2';
/** problem → DATABASE_URL */
const urls: Record<string, string> = {};
let own: LocalPostgres;

async function listening(server: Server): Promise<number> {
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  stack.defer(() => new Promise<void>((resolve) => server.close(() => resolve())));
  return (server.address() as AddressInfo).port;
}

beforeAll(async () => {
  const shared = await postgresUrl();
  const folder = await mkdtemp(join(tmpdir(), 'plank-problems-'));
  stack.defer(() => rm(folder, { recursive: true, force: true }));
  own = await startPostgres({ dataDir: folder, fsync: false });
  stack.defer(() => own.stop());
  await admin(own.url, `create role tls login password '${hush}'`);
  // admits one role with TLS only, which this server lacks; and it becomes a standby
  const hba = join(folder, 'cluster/pg_hba.conf');
  await writeFile(hba, `host all postgres 127.0.0.1/32 scram-sha-256\nhostssl all tls 127.0.0.1/32 scram-sha-256\n`);
  await writeFile(join(folder, 'cluster/standby.signal'), '');
  await own.restart();
  await admin(shared, `create role ${role} login password '${hush}' connection limit 0`);
  stack.defer(async () => void (await admin(shared, `drop role ${role}`)));
  const sockets = new Set<{ destroy(): void }>();
  const silent = await listening(createServer((socket) => void sockets.add(socket.on('error', () => {}))));
  stack.defer(() => {
    for (const socket of sockets) socket.destroy();
  });
  const http = await listening(createHttpServer((_, response) => response.end()));
  const closed = createServer();
  const free = await listening(closed);
  await new Promise<void>((resolve) => closed.close(() => resolve()));

  const edited = (base: string, edit: (url: URL) => void) => {
    const url = new URL(base);
    edit(url);
    return url.href;
  };
  const elsewhere = (port: number) => `postgres://app:${hush}@127.0.0.1:${port}/shop`;
  Object.assign(urls, {
    'its host is unknown': `postgres://app:${hush}@no-such-host.invalid/shop`,
    'nothing listens there': elsewhere(free),
    'its password is wrong': edited(shared, (url) => (url.password = hush)),
    'its role is unknown': edited(shared, (url) => ([url.username, url.password] = ['nobody_here', hush])),
    'there is no such database': edited(shared, (url) => (url.pathname = '/no_such_database')),
    'it has no connection left': edited(shared, (url) => ([url.username, url.password] = [role, hush])),
    'it is a web server': elsewhere(http),
    'it is Redis': elsewhere(Number(new URL(await redisUrl()).port)),
    'it is silent': elsewhere(silent),
    'it has no TLS': edited(shared, (url) => url.searchParams.set('sslmode', 'verify-full')),
    'it wants TLS': edited(own.url, (url) => ([url.username, url.password] = ['tls', hush])),
    'it lets nobody in': edited(own.url, (url) => ([url.username, url.password] = ['other', hush])),
    'it is a standby': own.url,
  });
}, 60_000);

afterAll(() => stack.disposeAsync());

const expected: Record<string, RegExp> = {
  'its host is unknown':
    /^the host of the database cannot be resolved \(no-such-host\.invalid:5432\): correct DATABASE_URL$/,
  'nothing listens there': /^no database answers at 127\.0\.0\.1:\d+: start Postgres there, or correct DATABASE_URL$/,
  'its password is wrong': /^the database at \S+ refuses the password of "\w+": correct DATABASE_URL$/,
  'its role is unknown': /^the database at \S+ refuses the password of "nobody_here"/,
  'there is no such database': /^there is no database "no_such_database" at \S+: create it, or correct DATABASE_URL$/,
  'it has no connection left': /^the database at \S+ has no free connection: raise max_connections/,
  'it is a web server': /^the server at \S+ ends the connection: is it a Postgres database\?/,
  'it is Redis': /^the server at \S+ (ends the connection|does not answer in time): is it a Postgres/,
  'it is silent': /^the server at \S+ does not answer in time: is it a Postgres/,
  'it has no TLS': /^the database at \S+ does not support TLS: remove sslmode from DATABASE_URL$/,
  'it wants TLS': /^the database at \S+ does not let "tls" in without TLS: add \?sslmode=verify-full to DATABASE_URL/,
  'it lets nobody in': /^the database at \S+ does not let "other" in/,
  'it is a standby': /^the database at \S+ is read-only: DATABASE_URL must name the primary, not a standby$/,
};

describe.concurrent('databases that cannot be used', () => {
  test.each(Object.entries(expected))('migrate and start name the problem: %s', async (name, words) => {
    const url = urls[name]!;
    const messages = await Promise.all(
      [migrate, requireMigrated].map((use) =>
        use(url).then(
          () => 'it can be used',
          (error: Error) => error.message,
        ),
      ),
    );
    for (const text of messages) {
      expect(text).toMatch(words);
      expect(text).not.toMatch(/\n|hunter2/);
      expect(text).not.toContain(new URL(url).password || hush);
    }
  });
});

test.each([
  ['migrate', 'shared/postgres/migrate-cli.ts'],
  ['start', 'deploy/local/start.ts'],
  ['listener', 'services/listener/main.ts'],
  ['gateway', 'services/gateway/main.ts'],
])('%s reports the problem in one line, and ends with exit code 1', async (name, program) => {
  const env = { PATH: process.env.PATH, REDIS_URL: await redisUrl(), AUTH: 'off', PORT: '0', LISTENER_PORT: '0' };
  const wrong = { ...env, DATABASE_URL: urls['its password is wrong'], LOG_LEVLE: 'info' };
  const ended = await run(process.execPath, [program], { env: wrong, timeout: 30_000 }).catch(
    (error: unknown) => error,
  );
  const { code, stdout, stderr } = ended as { code: number; stdout: string; stderr: string };
  expect(stderr).toMatch(
    new RegExp(
      `^plank ${name}: LOG_LEVLE is not a setting of Plank; did you mean LOG_LEVEL\\?\nplank ${name}: the database at \\S+ refuses the password of "\\w+": correct DATABASE_URL\n$`,
    ),
  );
  expect([code, stdout]).toEqual([1, '']);

  const unknown = await run(process.execPath, [program, '--dry-run'], { env: wrong }).catch((error: unknown) => error);
  expect(unknown).toMatchObject({
    code: 1,
    stderr: expect.stringMatching(new RegExp(`^plank ${name}: unknown option --dry-run: .+\n$`)),
  });
});

test.each([
  [
    'deploy/local/cluster-cli.ts',
    ['--gateways', 'zero'],
    'plank cluster: --gateways must be a whole number from 1 to 64',
  ],
  [
    'deploy/local/cluster-cli.ts',
    ['--gateway', '2'],
    'plank cluster: unknown option --gateway: known are --gateways, --listeners,',
  ],
  ['deploy/local/start.ts', ['--data=', '--fresh'], 'plank start: --data needs a value'],
  ['deploy/local/start.ts', ['--fresh=yes'], 'plank start: --fresh: takes no value'],
  [
    'deploy/doctor/main.ts',
    ['--url', 'https://'],
    'plank doctor: --url must be an address like https://live.example.org',
  ],
])('%s refuses the option %j', async (program, args, words) => {
  const env = { PATH: process.env.PATH, DATABASE_URL: 'postgres://h/d' };
  const ended = await run(process.execPath, [program, ...args], { env, timeout: 20_000 }).catch(
    (error: unknown) => error,
  );
  const { code, stdout, stderr } = ended as { code: number; stdout: string; stderr: string };
  expect(stderr.startsWith(words), stderr).toBe(true);
  expect(stderr.split('\n')).toHaveLength(2);
  expect([code > 0, stdout]).toEqual([true, '']);
});

test.each([
  ['postgres://u:hunter2@h:1/d', 'postgres://u@h:1/d'],
  ['postgres://u@h/d?password=hunter2&sslmode=require', 'postgres://u@h/d?sslmode=require'],
  ['postgres://u:hunter2@/d?host=/run', 'postgres://u@/d?host=/run'],
  ['redis://:hunter2@h:6379/0', 'redis://h:6379/0'],
])('%s is printed as %s', (url, shown) => {
  expect(withoutPassword(url)).toBe(shown);
});
