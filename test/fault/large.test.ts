// Rows of hundreds of megabytes are written, changed and deleted as without Plank. Their changes arrive with the key, other
// changes arrive whole. No process dies or grows, and none that starts with such rows in the log does.

import { readFile } from 'node:fs/promises';
import { afterAll, beforeAll, beforeEach, expect, test } from 'vitest';
import { Cluster } from '#deploy/local/cluster.ts';
import { admin } from '../support/servers/admin.ts';
import { createDatabase, redisUrl } from '../support/servers/servers.ts';
import { TestClient } from '../support/stage/client.ts';
import { tellOnFailure } from '../support/stage/nodes.ts';
import { until } from '../support/wait.ts';

const megabyte = 1024 ** 2;
const stack = new AsyncDisposableStack();
let cluster: Cluster;
let databaseUrl: string;

beforeAll(async () => {
  const database = await createDatabase();
  stack.defer(() => database.drop());
  databaseUrl = database.url;
  await admin(
    databaseUrl,
    `create table files (id integer primary key, n integer default 0, body bytea, note text, doc jsonb, many text[]);
     alter table files alter body set storage external, alter note set storage external; -- compression would take its time
     select plank.attach('files')`,
  );
  cluster = await Cluster.start({
    gateways: 1,
    databaseUrl,
    redisUrl: await redisUrl(),
    env: { PLANK_LOG_NAME: database.name },
  });
  stack.defer(() => cluster.stop());
});

beforeEach(() => tellOnFailure(() => [...cluster.listeners, ...cluster.gateways]));

afterAll(() => stack.disposeAsync());

/** The most memory that each process has had, in MB. */
async function peaks(): Promise<number[]> {
  return Promise.all(
    [...cluster.gateways, ...cluster.listeners].map(async ({ pid }) => {
      const status = await readFile(`/proc/${pid}/status`, 'utf8');
      return Number(/VmHWM:\s+(\d+)/.exec(status)![1]) / 1024;
    }),
  );
}

const writes: [what: string, sql: string, changes: string][] = [
  ['a bytea of 270 MB', `insert into files (id, body) values (1, decode(repeat('ab', 270000000), 'hex'))`, 'I'],
  ['a text of 150 MB of quotes', `insert into files (id, note) values (2, repeat('"', 150000000))`, 'I'],
  [
    'jsonb of 60 MB that compresses',
    `insert into files (id, doc) values (3, jsonb_build_object('k', repeat('a', 60000000)))`,
    'I',
  ],
  ['an array of 20 MB', `insert into files (id, many) values (4, array_fill(repeat('b', 1000000), array[20]))`, 'I'],
  ['an update of another column', 'update files set n = 1 where id = 1', 'U'],
  ['one statement over all', 'update files set n = n + 1', 'UUUU'],
  ['another key', 'update files set id = 11 where id = 1', 'DI'],
  ['a delete', 'delete from files where id = 2', 'D'],
]; // prettier-ignore

test('rows of hundreds of megabytes arrive with their keys, and harm no process', async () => {
  const url = cluster.webSocketUrl;
  const files = await TestClient.connect({ url, tables: 'files', keepsFrames: true });
  const others = await TestClient.connect({ url, tables: 'items' });
  await admin(databaseUrl, `insert into items (name, value) values ('first', 1)`);
  await until('the first', () => others.count === 1, 5_000);
  const since = others.pos!;
  const before = await peaks();
  const pids = [...cluster.gateways, ...cluster.listeners].map(({ pid }) => pid);
  let expected = 0;
  let written = 1;
  for (const [what, sql, changes] of writes) {
    const started = performance.now();
    await admin(databaseUrl, sql);
    const ms = performance.now() - started;
    await admin(databaseUrl, `insert into items (name, value) values ('beside', 1)`);
    expected += changes.length;
    written++;
    await until(`${what}: its changes and others'`, () => files.count === expected && others.count === written, 15_000);
    console.log(`${what}: written in ${ms.toFixed(0)} ms`);
  }
  for (const text of files.frames)
    expect(JSON.parse(text)).toMatchObject({ table: 'files', data: null, truncated: true });

  const rest = cluster.url.replace(/\/$/, '');
  expect((await fetch(`${rest}/api/files/11`)).status).toBe(422);
  expect(await (await fetch(`${rest}/api/files`)).json()).toMatchObject([{ id: 3 }, { id: 4 }, { id: 11 }]);
  const after = await peaks();
  console.log(
    `memory at most: ${before.map(Math.round).join(', ')} MB before, ${after.map(Math.round).join(', ')} MB after`,
  );
  for (const [i, peak] of after.entries()) expect(peak - before[i]!).toBeLessThan(100);
  expect([...cluster.gateways, ...cluster.listeners].map(({ pid }) => pid)).toEqual(pids);

  // resumes from before the large rows, on both tables, at restarted processes
  for (const node of [...cluster.listeners, ...cluster.gateways]) {
    await node.stop();
    await node.start();
  }
  const resumed = await TestClient.connect({ url, tables: 'items', since });
  const again = await TestClient.connect({ url, tables: 'files', since, keepsFrames: true });
  await until('every change comes again', () => resumed.count === written - 1 && again.count === expected, 15_000);
  expect(again.frames).toEqual(files.frames);
  await admin(databaseUrl, `insert into items (name, value) values ('last', 1)`);
  await until('later changes arrive', () => resumed.count === written, 15_000);
  for (const client of [files, others, resumed, again]) client.stop();
}, 120_000);

test('an image from before there was a bound harms no process either', async () => {
  const url = cluster.webSocketUrl;
  const files = await TestClient.connect({ url, tables: 'files', keepsFrames: true });
  await admin(
    databaseUrl,
    `insert into plank.outbox (relation, action, key, new, old)
     select id, 'U', '3', image, image from plank.attached, (select '{"id":3,"note":"' || repeat('x', ${40 * megabyte}) || '"}' as image) i where name = 'files';
     select plank.ring()`,
  );
  await until('its change', () => files.count === 1, 15_000);
  expect(JSON.parse(files.frames[0]!)).toMatchObject({ id: 3, data: null, truncated: true });
  files.stop();
}, 60_000);
