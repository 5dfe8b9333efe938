// The to-do lists of the examples, as two users run them, against two gateways behind nginx that are killed. A list
// never lacks an item or shows one twice. A user who leaves a list loses its rows at once, and nothing else.

import { mkdtemp, rm } from 'node:fs/promises';
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
import { secret } from '../support/stage/tokens.ts';
import { until } from '../support/wait.ts';

const root = join(import.meta.dirname, '../..');
const deadlineMs = 15_000;
const auth = { AUTH: 'jwt', AUTH_JWT_SECRET: secret };
const household = '00000000-0000-4000-8000-000000000003';

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
  cluster = await Cluster.start({ gateways: 2, databaseUrl: database.url, redisUrl: redis.url, env: auth });
  stack.defer(() => cluster.stop());
  const env = { DATABASE_URL: database.url, PORT: '0', PLANK_URL: cluster.url, AUTH_JWT_SECRET: secret };
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
    `insert into todos (id, list_id, text)
     select gen_random_uuid(), '${household}', 'number ' || n from generate_series(${first}, ${last}) n`,
  );

/** Opens the page as a user, and keeps a record of what a list shows from then on, each time that it changes. */
async function openAs(context: BrowserContext, user: 'Ada' | 'Bob'): Promise<Page> {
  const page = await context.newPage();
  page.setDefaultTimeout(deadlineMs);
  await page.goto(pageUrl);
  await page.getByRole('button', { name: user, exact: true }).click();
  await list(page, 'Household').waitFor();
  await page.evaluate(() => {
    const lists = document.getElementById('lists')!;
    const record = { fewest: Number.POSITIVE_INFINITY, fewestLists: Number.POSITIVE_INFINITY, doubled: 0 };
    Object.assign(globalThis, { record });
    new MutationObserver(() => {
      record.fewestLists = Math.min(record.fewestLists, lists.children.length);
      const items = lists.querySelectorAll<HTMLElement>('[data-name="Household"] li');
      const ids = Array.from(items, (item) => item.dataset['id']);
      record.fewest = Math.min(record.fewest, ids.length);
      if (new Set(ids).size < ids.length) record.doubled++;
    }).observe(lists, { childList: true, subtree: true });
  });
  return page;
}

const list = (page: Page, name: string) => page.locator(`section[data-name="${name}"]`);
const lists = (page: Page) =>
  page.locator('#lists h2').evaluateAll((all) => all.map((one) => one.firstChild!.textContent));
const shown = (page: Page, name = 'Household') =>
  list(page, name)
    .locator('li span')
    .evaluateAll((items) => items.map((item) => item.textContent ?? ''));

async function addTask(page: Page, name: string, text: string): Promise<void> {
  const field = list(page, name).locator('[name="text"]');
  await field.fill(text);
  await field.press('Enter');
}

/** Reads the table each time: the write of a click may not have reached it yet. */
async function expectSame(pages: Page[]): Promise<void> {
  const same = async (page: Page) => {
    const rows = await admin(
      database.url,
      `select text from todos where list_id = '${household}' order by created_at, id`,
    );
    return JSON.stringify(rows.map(({ text }) => text)) === JSON.stringify(await shown(page));
  };
  for (const page of pages) await until('a page shows what the table holds', () => same(page), deadlineMs);
}

/** Opens a window of each user. A window keeps its user in `sessionStorage`, which no other window sees. */
async function openBoth(): Promise<{ context: BrowserContext; ada: Page; bob: Page }> {
  const context = await browser.newContext();
  const [ada, bob] = await Promise.all([openAs(context, 'Ada'), openAs(context, 'Bob')]);
  return { context, ada, bob };
}

test('a shared list stays complete in the windows of two users when each gateway is killed', async () => {
  await add(1, 20);
  const { context, ada, bob } = await openBoth();
  const pages = [ada, bob];
  await expectSame(pages);
  for (const page of pages) await page.evaluate('record.fewest = Infinity');

  let next = 21;
  for (const gateway of cluster.gateways) {
    await gateway.kill();
    // the window whose gateway was killed writes to a dead connection at first
    for (const page of pages) await addTask(page, 'Household', `number ${next++}`);
    await add(next, next + 9);
    next += 10;
    await expect.poll(() => shown(ada).then((texts) => texts.length), { timeout: deadlineMs }).toBe(next - 1);
    await expectSame(pages);
    await gateway.start();
  }
  for (const page of pages) {
    expect(await page.evaluate('record')).toMatchObject({ doubled: 0 });
    expect(await page.evaluate('record.fewest')).toBeGreaterThanOrEqual(20);
  }

  await ada.getByLabel('number 7', { exact: true }).check();
  await bob.locator('li.done', { hasText: 'number 7' }).waitFor();
  await expect.poll(() => list(bob, 'Household').locator('small').innerText()).toBe(`${next - 2} of ${next - 1}`);
  await bob.getByRole('button', { name: 'Remove number 7', exact: true }).click();
  for (const page of pages) await page.getByText('number 7', { exact: true }).waitFor({ state: 'detached' });
  await expectSame(pages);
  await context.close();
});

test('each user sees the own lists and the shared one, and a list that is left disappears with its rows', async () => {
  await admin(database.url, 'delete from todos');
  const { context, ada, bob } = await openBoth();
  expect([await lists(ada), await lists(bob)]).toEqual([
    ['Garden', 'Household'],
    ['Household', 'Music'],
  ]);
  await addTask(ada, 'Household', 'Buy bread');
  await addTask(bob, 'Music', 'Tune the piano');
  await expect.poll(() => shown(bob)).toEqual(['Buy bread']);
  await expect.poll(() => shown(bob, 'Music')).toEqual(['Tune the piano']);
  const music = await bob.locator('section[data-name="Music"] li').elementHandle();

  await bob.getByRole('button', { name: 'Leave' }).click();
  await expect.poll(() => lists(bob)).toEqual(['Music']);
  expect(await bob.getByText('Buy bread').count()).toBe(0);
  // the rows that stay were neither removed nor drawn again
  expect(await bob.evaluate('record.fewestLists')).toBe(1);
  expect(await music.evaluate((item) => item.isConnected)).toBe(true);
  await list(ada, 'Household').getByRole('button', { name: 'Share with Bob' }).waitFor();
  await addTask(ada, 'Household', 'Wash up');
  await expect.poll(() => shown(ada)).toEqual(['Buy bread', 'Wash up']);
  expect(await lists(bob)).toEqual(['Music']);

  await list(ada, 'Household').getByRole('button', { name: 'Share with Bob' }).click();
  await expect.poll(() => shown(bob)).toEqual(['Buy bread', 'Wash up']);
  await list(ada, 'Household').getByRole('button', { name: 'Stop sharing' }).click();
  await expect.poll(() => lists(bob)).toEqual(['Music']);
  await list(ada, 'Household').getByRole('button', { name: 'Share with Bob' }).click();
  await expect.poll(() => lists(bob)).toEqual(['Household', 'Music']);
  await context.close();
});

test('no user reaches the list of another one by REST, and the server makes tokens for its users only', async () => {
  const token = (user: string) => fetch(new URL(`token/${user}`, pageUrl), { method: 'POST' });
  expect((await token('eve')).status).toBe(404);
  expect((await fetch(new URL('token/ada', pageUrl))).status).toBe(404);
  const headers = { Authorization: `Bearer ${await (await token('bob')).text()}`, 'Content-Type': 'application/json' };
  const post = (table: string, row: object) =>
    fetch(`${cluster.url}/api/${table}`, { method: 'POST', headers, body: JSON.stringify(row) });
  const garden = '00000000-0000-4000-8000-000000000001';
  const id = '00000000-0000-4000-8000-0000000000ff';
  expect((await post('todos', { id, list_id: garden, text: 'mine' })).status).toBe(403);
  expect((await post('memberships', { list_id: garden, user_id: 'bob' })).status).toBe(403);
  expect((await post('lists', { id, name: 'mine', owner_id: 'bob' })).status).toBe(403);
  expect((await fetch(`${cluster.url}/api/lists/${garden}`, { headers })).status).toBe(404);
});

test('the page runs no script from an address in its URL, nor from anywhere but its Plank', async () => {
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
      await page.locator('#lists').waitFor({ state: 'attached' });
      await page.waitForFunction(() => !document.getElementById('note')!.textContent.startsWith('Connecting'));
    }
    // as text, because the compiler of this file would rewrite `import`
    const blocked = await page.evaluate(`import('${other}/plank.js').then(() => 'ran', () => 'blocked')`);
    expect([requested, blocked, await page.title()]).toEqual([[], 'blocked', 'To do']);
    for (const path of [
      '/constructor',
      '/__proto__',
      '//',
      '/../serve.ts',
      '/%2e%2e/serve.ts',
      '/tokens.ts',
      '/tables.sql',
    ])
      expect((await fetch(new URL(pageUrl).origin + path)).status).toBe(404);
  } finally {
    await context.close();
    elsewhere.close();
  }
});
