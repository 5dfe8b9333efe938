// The worker of the examples, as a user runs it, against two gateways behind nginx. It handles every change, wherever it
// or a gateway was killed.

import { mkdtemp, readdir, readFile, rm, stat } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { Cluster } from '#deploy/local/cluster.ts';
import { type Child, startChild } from '#deploy/local/process.ts';
import { type LocalRedis, startRedis } from '#deploy/local/redis.ts';
import { admin } from '../support/servers/admin.ts';
import { createDatabase, type TestDatabase } from '../support/servers/servers.ts';
import { until } from '../support/wait.ts';

const root = join(import.meta.dirname, '../..');
const deadlineMs = 15_000;

const stack = new AsyncDisposableStack();
let database: TestDatabase;
let redis: LocalRedis;
let cluster: Cluster;
let folder: string;

beforeAll(async () => {
  [database, redis] = await Promise.all([createDatabase(), startRedis()]);
  stack.defer(() => database.drop());
  stack.defer(() => redis.stop());
  folder = await mkdtemp(join(tmpdir(), 'plank-examples-'));
  stack.defer(() => rm(folder, { recursive: true, force: true }));
  cluster = await Cluster.start({ gateways: 2, databaseUrl: database.url, redisUrl: redis.url });
  stack.defer(() => cluster.stop());
});

afterAll(() => stack.disposeAsync());

function run(script: string, env: Record<string, string>): Promise<Child> {
  const name = script.replace(/.*\/(\w+)\.ts/, '$1');
  const { PATH } = process.env;
  return startChild({
    name,
    command: process.execPath,
    args: [join(root, script)],
    logFile: join(folder, `${name}.log`),
    env: { PATH, ...env },
  });
}

test('a worker that is killed and started again handles every change', async () => {
  const made = join(folder, 'worker/made');
  const env = { PLANK_URL: cluster.url, TABLE: 'items', FOLDER: join(folder, 'worker') };
  let worker = await run('examples/worker/worker.ts', env);
  stack.defer(() => worker.kill());
  await worker.waitUntil(() => worker.logTail().includes('begins at'), deadlineMs);
  const files = async () => (await readdir(made)).filter((name) => name.endsWith('.json'));
  const times = async (names: string[]) =>
    new Map(await Promise.all(names.map(async (name) => [name, (await stat(join(made, name))).mtimeMs] as const)));
  const write = (first: number, last: number) =>
    admin(database.url, `insert into items (name) select 'number ' || n from generate_series(${first}, ${last}) n`);

  let next = 1;
  for (let round = 0; round < 3; round++) {
    const writing = write(next, next + 999);
    const soFar = (await files()).length;
    await until('it is at work', async () => (await files()).length > soFar, deadlineMs);
    await worker.kill();
    await writing;
    const before = await times(await files());
    if (round === 1) await cluster.gateways[0]!.kill();
    await write(next + 1_000, next + 1_099);
    next += 1_100;
    worker = await run('examples/worker/worker.ts', env);
    await until('it has caught up', async () => (await files()).length === next - 1, deadlineMs);
    // it resumed from its position: at most the change it was handling is handled again
    const after = await times([...before.keys()]);
    expect([...before].filter(([name, time]) => after.get(name) !== time).length).toBeLessThanOrEqual(1);
  }
  await cluster.gateways[0]!.start();

  const names: string[] = [];
  const inOrder = (await files()).map((name) => name.replace('.json', '')).sort((a, b) => seq(a) - seq(b));
  for (const pos of inOrder) {
    const { data } = JSON.parse(await readFile(join(made, `${pos}.json`), 'utf8')) as { data: { name: string } };
    names.push(data.name);
  }
  expect(names).toEqual(Array.from({ length: next - 1 }, (_, i) => `number ${i + 1}`));

  const position = () => readFile(join(folder, 'worker/position'), 'utf8');
  await until('all is noted as handled', async () => seq(await position()) >= seq(inOrder.at(-1)!), deadlineMs);
  // the position is stored for changes of other tables as well
  await admin(database.url, 'create table other (id int primary key)');
  await admin(database.url, "select plank.attach('other')");
  await admin(database.url, 'insert into other values (1)');
  await until('its position moves on', async () => seq(await position()) > seq(inOrder.at(-1)!), deadlineMs);
  await worker.stop();
  expect(worker.ending).toBe('exit code 0');
});

const seq = (position: string) => Number(position.split('.')[1]);
