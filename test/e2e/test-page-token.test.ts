// The test page where the gateway checks tokens: a window takes a token, shows as whom it is served, and shows the rows
// of this role only.

import type { Browser, Page } from 'playwright-core';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { Cluster } from '#deploy/local/cluster.ts';
import { type LocalRedis, startRedis } from '#deploy/local/redis.ts';
import { admin } from '../support/servers/admin.ts';
import { launchBrowser } from '../support/servers/browser.ts';
import { createDatabase, type TestDatabase } from '../support/servers/servers.ts';
import { now, secret, tokenOf } from '../support/stage/tokens.ts';

let database: TestDatabase;
let redis: LocalRedis;
let cluster: Cluster;
let browser: Browser;
let page: Page;

beforeAll(async () => {
  [database, redis, browser] = await Promise.all([createDatabase(), startRedis(), launchBrowser()]);
  const env = { AUTH: 'jwt', AUTH_JWT_SECRET: secret };
  cluster = await Cluster.start({ gateways: 1, databaseUrl: database.url, redisUrl: redis.url, env });
  const editor = `{"name": {"$claim": "sub"}}`;
  await admin(
    database.url,
    `select plank.allow('items', 'editor', read => '${editor}', insert => '${editor}', update => '${editor}')`,
  );
  page = await browser.newPage({ locale: 'en-GB' });
  page.setDefaultTimeout(10_000);
  await page.goto(cluster.url);
});

afterAll(async () => {
  await browser?.close();
  await cluster?.stop();
  await redis?.stop();
  await database?.drop();
});

const title = () => page.locator('#session-title').innerText();
const names = () =>
  page.locator('#rows tr').evaluateAll((rows) => rows.map((row) => row.children[1]?.textContent ?? ''));

async function enter(token: string): Promise<void> {
  await page.evaluate('document.getElementById("session").open = true');
  await page.fill('#session-form [name="token"]', token);
  await page.getByRole('button', { name: 'Use this token' }).click();
}

test('a window shows the rows of its token, and what its role may do', async () => {
  await expect.poll(title).toBe('No token');
  await expect.poll(() => page.locator('#rows-note').innerText()).toMatch(/none is visible without a token/);

  await enter('not a token');
  await expect.poll(() => page.locator('#session-problem').innerText()).toMatch(/^This is not a token/);

  await enter(tokenOf({ sub: 'ada', role: 'editor', exp: now() + 600 }));
  await expect.poll(title).toMatch(/^ada, role editor, until \d\d:\d\d:\d\d$/);
  await admin(database.url, "insert into items (name) values ('ada'), ('bob')");
  await expect.poll(names).toEqual(['ada']);
  expect(page.url()).toBe(`${cluster.url}/`);
  await page.fill('#form [name="column:name"]', 'eve');
  await page.click('#save');
  await expect.poll(() => page.locator('#editor-note').innerText()).not.toBe('');
  await page.fill('#form [name="column:name"]', 'ada');
  await page.click('#save');
  await expect.poll(names).toEqual(['ada', 'ada']);

  await enter(tokenOf({ sub: 'bob', role: 'editor' }));
  await expect.poll(title).toMatch(/^bob, /);
  await expect.poll(names).toEqual(['bob']);

  await enter(tokenOf({ sub: 'ada' }));
  await expect.poll(title).toMatch(/^ada, role authenticated, /);
  await expect.poll(() => page.locator('#rows-note').innerText()).toMatch(/^No table is visible for this role/);
  expect(await names()).toEqual([]);

  await enter(tokenOf({ sub: 'ada', role: 'editor', iat: now() - 700, exp: now() - 600 }));
  await expect.poll(title).toBe('Token refused');
  await expect.poll(() => page.locator('#session-problem').innerText()).toMatch(/expired/);

  expect(await page.locator('#state-text').innerText()).toBe('Stopped: the token was refused');
  await page.getByRole('button', { name: 'Forget the token' }).click();
  await expect.poll(title).toBe('No token');
  expect(await page.evaluate('sessionStorage.length')).toBe(0);
});
