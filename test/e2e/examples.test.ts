// The examples as a user runs them, against two gateways behind nginx that are killed. The to-do list never lacks an item or
// shows one twice. The worker handles every change, wherever it was killed.

import { mkdtemp, readdir, readFile, rm, stat } from 'node:fs/promises';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Browser, BrowserContext, Page } from 'playwright-core';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { Cluster } from '#deploy/local/cluster.ts';
import { type Child, startChild } from '#deploy/local/process.ts';
import { type LocalRedis, startRedis } from '#deploy/local/redis.ts';
import { admin } from '../support/servers/admin.ts';
import { launchBrowser } from '../support/servers/browser.ts';
import { createDatabase, type TestDatabase } from '../support/servers/servers.ts';
import { until } from '../support/wait.ts';

const root = join(import.meta.dirname, '../..');
const deadlineMs = 15_000;

const stack = new AsyncDisposableStack();
let database: TestDatabase;
let redis: LocalRedis;
let cluster: Cluster;
let browser: Browser;
let folder: string;
let pageUrl: string;

beforeAll(async () => {
  [database, redis, browser] = await Promise.all([createDatabase(), startRedis(), launchBrowser()]);
  stack.defer(() => database.drop());
  stack.defer(() => redis.stop());
  stack.defer(() => browser.close());
  folder = await mkdtemp(join(tmpdir(), 'plank-examples-'));
  stack.defer(() => rm(folder, { recursive: true, force: true }));
  cluster = await Cluster.start({ gateways: 2, databaseUrl: database.url, redisUrl: redis.url });
  stack.defer(() => cluster.stop());
  const env = { DATABASE_URL: database.url, PORT: '0', PLANK_URL: cluster.url };
  const server = await run('examples/todo/serve.ts', env);
  stack.defer(() => server.stop());
  await server.waitUntil(() => server.logTail().includes('http://'), deadlineMs);
  pageUrl = server.logTail().trim();
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

const add = (first: number, last: number) =>
  admin(
    database.url,
    `insert into todo (id, text) select gen_random_uuid(), 'number ' || n from generate_series(${first}, ${last}) n`,
  );

/** Opens the list and keeps a record of what it shows from then on, each time that it changes. */
async function openList(context: BrowserContext): Promise<Page> {
  const page = await context.newPage();
  page.setDefaultTimeout(deadlineMs);
  await page.goto(pageUrl);
  await page.evaluate(() => {
    const list = document.getElementById('list')!;
    const record = { fewest: Number.POSITIVE_INFINITY, doubled: 0 };
    Object.assign(globalThis, { record });
    new MutationObserver(() => {
      const ids = Array.from(list.children, (item) => (item as HTMLElement).dataset['id']);
      record.fewest = Math.min(record.fewest, ids.length);
      if (new Set(ids).size < ids.length) record.doubled++;
    }).observe(list, { childList: true, subtree: true });
  });
  return page;
}

const shown = (page: Page) =>
  page.locator('#list li span').evaluateAll((items) => items.map((item) => item.textContent ?? ''));

/** Reads the table each time: the write of a click may not have reached it yet. */
async function expectSame(pages: Page[]): Promise<void> {
  const same = async (page: Page) => {
    const rows = await admin(database.url, 'select text from todo order by created_at, id');
    return JSON.stringify(rows.map(({ text }) => text)) === JSON.stringify(await shown(page));
  };
  for (const page of pages) await until('a page shows what the table holds', () => same(page), deadlineMs);
}

test('a to-do list stays complete in two windows when each gateway is killed', async () => {
  await add(1, 20);
  const context = await browser.newContext();
  const pages = await Promise.all([openList(context), openList(context)]);
  const [one, other] = pages;
  await expectSame(pages);
  for (const page of pages) await page.evaluate('record.fewest = Infinity');

  let next = 21;
  for (const gateway of cluster.gateways) {
    await gateway.kill();
    // the window whose gateway was killed writes to a dead connection at first
    for (const page of pages) {
      await page.fill('[name="text"]', `number ${next++}`);
      await page.press('[name="text"]', 'Enter');
    }
    await add(next, next + 9);
    next += 10;
    await expect.poll(() => shown(one).then((texts) => texts.length)).toBe(next - 1);
    await expectSame(pages);
    await gateway.start();
  }
  for (const page of pages) {
    expect(await page.evaluate('record')).toEqual({ fewest: expect.any(Number), doubled: 0 });
    expect(await page.evaluate('record.fewest')).toBeGreaterThanOrEqual(20);
  }

  await one.getByLabel('number 7', { exact: true }).check();
  await other.locator('li.done', { hasText: 'number 7' }).waitFor();
  await expect.poll(() => other.locator('#left').innerText()).toBe(`${next - 2} of ${next - 1}`);
  await other.getByRole('button', { name: 'Remove number 7', exact: true }).click();
  for (const page of pages) await page.getByText('number 7', { exact: true }).waitFor({ state: 'detached' });
  await expectSame(pages);
  await context.close();
});

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
  await admin(database.url, 'delete from todo');
  await until('its position moves on', async () => seq(await position()) > seq(inOrder.at(-1)!), deadlineMs);
  await worker.stop();
  expect(worker.ending).toBe('exit code 0');
});

const seq = (position: string) => Number(position.split('.')[1]);

test('the list runs no script from an address in its URL, nor from anywhere but its Plank', async () => {
  const requested: string[] = [];
  const elsewhere = createServer((request, response) => {
    requested.push(request.url!);
    response.setHeader('Access-Control-Allow-Origin', '*');
    response.setHeader('Content-Type', 'text/javascript');
    response.end('export const createPlank = () => document.title = "taken"; document.title = "taken";');
  });
  await new Promise<void>((resolve) => void elsewhere.listen(0, '127.0.0.1', resolve));
  const other = `http://127.0.0.1:${(elsewhere.address() as AddressInfo).port}`;
  const context = await browser.newContext();
  try {
    const page = await context.newPage();
    for (const query of [`?plank=${other}`, `?plank=javascript:alert(1)`, `#plank=${other}`, `?data-plank=${other}`]) {
      await page.goto(pageUrl + query);
      await page.locator('#list').waitFor({ state: 'attached' });
      await page.waitForFunction(() => !document.getElementById('note')!.textContent.startsWith('Connecting'));
    }
    // as text, because the compiler of this file would rewrite `import`
    const blocked = await page.evaluate(`import('${other}/plank.js').then(() => 'ran', () => 'blocked')`);
    expect([requested, blocked, await page.title()]).toEqual([[], 'blocked', 'To do']);
    for (const path of ['/constructor', '/__proto__', '//', '/../serve.ts', '/%2e%2e/serve.ts'])
      expect((await fetch(new URL(pageUrl).origin + path)).status).toBe(404);
  } finally {
    await context.close();
    elsewhere.close();
  }
});
