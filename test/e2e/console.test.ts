// The operators' console in a real browser, over two gateways and two listeners: it shows at a
// glance what is wrong while a listener is dead, Redis is down, a replica drains or a client reads
// nothing, and it drains and disconnects on request.

import { createServer, request, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import type { Browser, BrowserContext, Page } from 'playwright-core';
import { afterAll, afterEach, beforeAll, expect, test } from 'vitest';
import { WebSocket } from 'ws';
import { Cluster, type ClusterNode } from '#deploy/local/cluster.ts';
import { type LocalRedis, startRedis } from '#deploy/local/redis.ts';
import { admin } from '../support/servers/admin.ts';
import { launchBrowser } from '../support/servers/browser.ts';
import { createDatabase, type TestDatabase } from '../support/servers/servers.ts';
import { leader } from '../support/stage/nodes.ts';
import { remains, until } from '../support/wait.ts';

const token = 'sixteen characters';
const deadlineMs = 20_000;

let database: TestDatabase;
let redis: LocalRedis;
let cluster: Cluster;
let browser: Browser;
const contexts: BrowserContext[] = [];
const sockets: WebSocket[] = [];
const errors: string[] = [];

beforeAll(async () => {
  [database, redis, browser] = await Promise.all([createDatabase(), startRedis(), launchBrowser()]);
  cluster = await Cluster.start({
    gateways: 2,
    listeners: 2,
    balanced: false,
    databaseUrl: database.url,
    redisUrl: redis.url,
    env: { OPS_TOKEN: token, CANARY_INTERVAL_MS: '500', LEASE_MS: '1000' },
  });
});

afterEach(async () => {
  for (const socket of sockets.splice(0)) socket.terminate();
  await Promise.all(contexts.splice(0).map((context) => context.close()));
  expect(errors.splice(0)).toEqual([]);
});

afterAll(async () => {
  await browser?.close();
  await cluster?.stop();
  await redis?.stop();
  await database?.drop();
});

/** Opens the console of a gateway, with the token. */
async function open(gateway: Pick<ClusterNode, 'opsUrl'>, viewport = { width: 1400, height: 1000 }): Promise<Page> {
  const context = await browser.newContext({ locale: 'en-GB', viewport });
  contexts.push(context);
  const page = await context.newPage();
  page.setDefaultTimeout(deadlineMs);
  page.on('pageerror', (error) => errors.push(error.message));
  page.on('console', (message) => {
    // the browser and the SDK log failed connections, and a wrong token gets 401
    const expected = /net::ERR_|WebSocket connection to|status of 4\d\d|plank: no connection/.test(message.text());
    if (message.type() === 'error' && !expected) errors.push(message.text());
  });
  await page.goto(`${gateway.opsUrl}/console`);
  await page.getByLabel('Token').fill(token);
  await page.getByLabel('Token').press('Enter');
  await page.locator('#gateways tbody tr').nth(1).waitFor();
  return page;
}

const poll = <T>(look: () => T | Promise<T>) => expect.poll(look);

/** Waits for the sentence at the top. */
async function says(page: Page, level: string, words: RegExp): Promise<void> {
  const told = async () =>
    `${await page.locator('#status').getAttribute('data-level')}: ${await page.locator('#status').innerText()}`;
  await poll(told).toMatch(new RegExp(`^${level}: (.|\n)*${words.source}`));
}

const isWell = (page: Page) => says(page, 'good', /All is well/);
const rowOf = (page: Page, name: string) =>
  page.locator('tbody tr').filter({ has: page.getByRole('rowheader', { name, exact: true }) });

test('the console asks for the token, and keeps who has none out', async () => {
  const context = await browser.newContext();
  contexts.push(context);
  const page = await context.newPage();
  await page.goto(`${cluster.gateways[0]!.opsUrl}/console`);
  const field = page.getByLabel('Token');
  await poll(() => field.evaluate((input) => input === document.activeElement)).toBe(true);
  await field.fill('not this one at all');
  await field.press('Enter');
  await poll(() => page.locator('#token-error').innerText()).toBe('This is not the token.');
  expect(await page.locator('#board').isVisible()).toBe(false);
  await field.fill(token);
  await page.getByRole('button', { name: 'Open' }).click();
  await page.locator('#gateways tbody tr').nth(1).waitFor();
  // a reload needs no token: the cookie is there, and no script can read it
  await page.reload();
  await page.locator('#gateways tbody tr').nth(1).waitFor();
  expect(await page.evaluate('document.cookie + JSON.stringify([localStorage, sessionStorage])')).toBe('[{},{}]');
});

test('the console shows every process, what it carries, and that all is well', async () => {
  sockets.push(...cluster.gateways.map(({ url }) => new WebSocket(`${url.replace('http', 'ws')}/ws`)));
  const page = await open(cluster.gateways[1]!);
  await isWell(page);
  expect(await page.locator('#node').innerText()).toBe('gateway-2');
  for (const name of ['gateway-1', 'gateway-2']) {
    const cells = rowOf(page, name);
    await poll(() => cells.locator('td').nth(0).innerText()).toBe('serving');
    await poll(() => cells.locator('td').nth(1).innerText()).toBe('1');
    await poll(() => cells.locator('td').nth(2).innerText()).toBe('50 %');
  }
  const states = async () => (await page.locator('#listeners .pill').allInnerTexts()).sort();
  await poll(states).toEqual(['leads', 'stands by']);
  await expect
    .poll(() => page.locator('#channels tbody tr').allInnerTexts())
    .toEqual([expect.stringMatching(/^every table\s+every row\s+2\s+2$/)]);
  await admin(database.url, `insert into items (name) select 'x' from generate_series(1, 50)`);
  await poll(() => page.locator('#fact-p99').innerText()).toMatch(/ m?s$/);
  // the charts are drawn, and say what they show
  await poll(() => page.locator('#chart-events').getAttribute('aria-label')).toMatch(/^At most [1-9]/);
  expect(await page.locator('.charts canvas').count()).toBe(3);
  expect(await page.textContent('#gateways-open')).toMatch(
    /not authenticated \(AUTH=off\) by gateway-1, gateway-2: everybody/,
  );
});

test('the sentence says so while the leading listener is dead, and that another leads', async () => {
  const page = await open(cluster.gateways[0]!);
  await isWell(page);
  const leading = await leader(cluster.listeners);
  await leading.kill();
  await says(page, 'wait', new RegExp(`${leading.name} does not answer`));
  await poll(() => rowOf(page, leading.name).locator('.pill').innerText()).toMatch(/^silent/);
  const other = cluster.listeners.find((listener) => listener !== leading)!;
  await poll(() => rowOf(page, other.name).locator('.pill').innerText()).toBe('leads');
  await other.kill();
  await says(page, 'bad', /No listener leads: changes wait/);
  await poll(() => page.locator('#status-todo').innerText()).toMatch(/^Start a listener/);
  expect(await page.locator('#status-also').innerText()).not.toContain('arrive');
  expect(await page.title()).toMatch(/^✕ No listener leads/);
  await Promise.all([leading.start(), other.start()]);
  await isWell(page);
});

test('the console leaves a dead gateway out of shares and counts', async () => {
  sockets.push(...cluster.gateways.map(({ url }) => new WebSocket(`${url.replace('http', 'ws')}/ws`)));
  const page = await open(cluster.gateways[0]!);
  await poll(() => rowOf(page, 'gateway-1').locator('.share').innerText()).toBe('50 %');
  await cluster.gateways[1]!.kill();
  await poll(() => rowOf(page, 'gateway-2').locator('.pill').innerText()).toMatch(/^silent/);
  await poll(() => page.locator('#gateways-count').innerText()).toBe('1, 1 silent');
  await poll(() => page.locator('#fact-connections').innerText()).toBe('1');
  expect(await rowOf(page, 'gateway-1').locator('.share').innerText()).toBe('100 %');
  expect(await rowOf(page, 'gateway-2').locator('.share').innerText()).toBe('–');
  expect(await rowOf(page, 'gateway-2').locator('td').nth(1).innerText()).toBe('–');
  await cluster.gateways[1]!.start();
  await isWell(page);
});

test('the sentence says so while Redis is down', async () => {
  const page = await open(cluster.gateways[0]!);
  await isWell(page);
  await redis.kill();
  await says(page, 'wait', /Redis does not answer: changes come from the log in Postgres/);
  // nothing is claimed about the other gateway and the listeners, and no action can reach them
  await poll(() => page.locator('#status-also').innerText()).toContain('gateway-1 cannot hear the others');
  await poll(() => page.locator('#channels-note').innerText()).toBe('Not known while Redis does not answer.');
  await poll(() => rowOf(page, 'gateway-1').locator('.share').innerText()).toBe('–');
  expect(await page.getByRole('button', { name: 'Drain gateway-1' }).isDisabled()).toBe(true);
  await redis.restart();
  await isWell(page);
});

test('the console shows names, keys and rows as text, whatever is in them', async () => {
  const markup = '"><img src=x onerror=alert(1)>';
  const table = `"${markup.replace('"', '""')}"`;
  await admin(database.url, `create table ${table} (id text primary key); select plank.attach('${table}')`);
  const page = await open(cluster.gateways[0]!);
  await page.locator('#tail-table option', { hasText: markup }).waitFor({ state: 'attached' });
  await page.locator('#tail-table').selectOption(markup);
  await page.getByRole('button', { name: 'Follow' }).click();
  await page.locator('#channels tbody th', { hasText: markup }).waitFor();
  await admin(database.url, `insert into ${table} values ('${markup}')`);
  await page
    .locator('#tail li', { hasText: `${markup} ${markup}` })
    .locator('.pos')
    .click();
  await page.locator('#explained h3', { hasText: `${markup} ${markup}` }).waitFor();
  expect(await page.locator('img').count()).toBe(1);
  await admin(database.url, `drop table ${table}`);
});

test('the console follows changes with a filter, and explains one of them', async () => {
  const page = await open(cluster.gateways[0]!);
  await page.locator('#tail-table option[value="items"]').waitFor({ state: 'attached' });
  await page.locator('#tail-table').selectOption('items');
  await page.locator('#tail-where').fill('{"value": {"gt": ');
  await page.getByRole('button', { name: 'Follow' }).click();
  expect(await page.locator('#tail-error').innerText()).toMatch(/is not JSON/);
  await page.locator('#tail-where').fill('{"value": {"gt": 10}}');
  await page.getByRole('button', { name: 'Follow' }).click();
  await page.getByRole('button', { name: 'Stop' }).waitFor();
  await until(
    'it follows',
    async () => {
      await admin(database.url, `insert into items (name, value) values ('small', 1), ('large', 100)`);
      return (await page.locator('#tail li').count()) > 0;
    },
    deadlineMs,
  );
  const shown = await page.locator('#tail li').allInnerTexts();
  expect(shown.every((text) => /INSERT/.test(text) && /"name":"large"/.test(text))).toBe(true);
  await page.locator('#tail li .pos').first().click();
  await poll(() => page.locator('#explained .way li').count()).toBe(5);
  await poll(() => page.locator('#explained .say').innerText()).toMatch(/it concerns 1\./);
  const large = '9007199254740993';
  await admin(
    database.url,
    `insert into items (id, name, value) overriding system value values (${large}, 'large', 100)`,
  );
  await page.locator('#tail li').filter({ hasText: large }).locator('.pos').click();
  await poll(() => page.locator('#explained h3').innerText()).toMatch(new RegExp(`items ${large} e`));
  await page.getByLabel('Position').fill('yesterday');
  await page.getByRole('button', { name: 'Explain' }).click();
  await poll(() => page.locator('[data-error="pos"]').innerText()).toMatch(/is not a position/);
  await page.getByRole('button', { name: 'Stop' }).click();
  await page.getByRole('button', { name: 'Follow' }).waitFor();
});

test('the console drains a gateway and takes it back, by the keyboard', async () => {
  const page = await open(cluster.gateways[0]!);
  await isWell(page);
  const button = rowOf(page, 'gateway-2').getByRole('button');
  await button.focus();
  await page.keyboard.press('Enter');
  await poll(() => button.innerText()).toBe('Sure?');
  expect(await page.locator('#gateways-warning').isVisible()).toBe(false);
  await page.keyboard.press('Enter');
  await says(page, 'wait', /gateway-2 is drained and accepts no clients/);
  await poll(() => rowOf(page, 'gateway-2').locator('.pill').innerText()).toBe('drained');
  await poll(() => button.innerText()).toBe('Undrain');
  // the other one is the last now, and the question whether one is sure says so
  const last = rowOf(page, 'gateway-1').getByRole('button');
  const { y } = (await last.boundingBox())!;
  await last.focus();
  await page.keyboard.press('Enter');
  await poll(() => page.locator('#gateways-warning').innerText()).toMatch(/^No other replica accepts clients/);
  expect((await last.boundingBox())!.y).toBe(y);
  await page.keyboard.press('Tab');
  await poll(() => page.locator('#gateways-warning').isVisible()).toBe(false);
  await button.focus();
  await page.keyboard.press('Enter');
  await isWell(page);
});

test('the console names a client that reads nothing, and ends it', async () => {
  const page = await open(cluster.gateways[1]!);
  const client = new WebSocket(`${cluster.gateways[0]!.url.replace('http', 'ws')}/ws`);
  sockets.push(client);
  const closed = new Promise<number>((resolve) => client.on('close', resolve));
  await new Promise((resolve) => client.on('open', resolve));
  client.pause();
  await admin(database.url, `insert into items (name) select repeat('x', 250) from generate_series(1, 30000)`);
  await says(page, 'wait', /1 client of gateway-1 reads too slowly/);
  const row = page.locator('#clients tbody tr');
  await poll(() => row.locator('th').innerText()).toMatch(/^gateway-1\/\d+$/);
  await row.getByRole('button', { name: /^Disconnect/ }).click();
  await poll(() => row.getByRole('button', { name: /^Disconnect/ }).innerText()).toBe('Sure?');
  await row.getByRole('button', { name: /^Disconnect/ }).click();
  await poll(() => page.locator('#clients-note').isVisible()).toBe(true);
  client.resume();
  expect(await closed).toBeGreaterThan(0);
});

test('the console fits a phone, where its tables stay tables', async () => {
  const page = await open(cluster.gateways[0]!, { width: 390, height: 844 });
  await page.locator('#listeners tbody tr').nth(1).waitFor();
  expect(await page.evaluate('document.documentElement.scrollWidth')).toBe(390);
  expect(await page.getByRole('table').count()).toBeGreaterThanOrEqual(2);
  await rowOf(page, 'gateway-1').getByRole('button', { name: 'Drain gateway-1' }).waitFor();
  // the sentence is what is seen first
  expect((await page.locator('#status').boundingBox())!.y).toBeLessThan(100);
});

/** A proxy before a gateway's operations port. */
class Proxy {
  /** streams of the view that are open */
  streams = 0;
  /** requests for the status that wait, while the proxy is closed */
  readonly held: (() => void)[] = [];
  #isClosed = false;
  readonly #server: Server;

  constructor(target: string) {
    this.#server = createServer((incoming, response) => {
      const isView = incoming.url === '/ops/view';
      if (isView && this.#isClosed) {
        response.writeHead(429).end();
        return;
      }
      const pass = () => {
        const { method, headers } = incoming;
        const outgoing = request(target + incoming.url, { method: method!, headers }, (answer) => {
          response.writeHead(answer.statusCode!, answer.headers);
          answer.pipe(response);
        });
        outgoing.on('error', () => response.destroy());
        incoming.pipe(outgoing);
        if (isView) this.streams++;
        response.once('close', () => {
          if (isView) this.streams--;
          outgoing.destroy();
        });
      };
      if (this.#isClosed) this.held.push(pass);
      else pass();
    });
  }

  async start(): Promise<string> {
    await new Promise<void>((resolve) => this.#server.listen(0, '127.0.0.1', resolve));
    return `http://127.0.0.1:${(this.#server.address() as AddressInfo).port}`;
  }

  /** Ends the streams and refuses new ones; other requests wait. */
  close(): void {
    this.#isClosed = true;
    this.#server.closeAllConnections();
  }

  open(): void {
    this.#isClosed = false;
    for (const pass of this.held.splice(0)) pass();
  }

  stop(): void {
    this.#server.closeAllConnections();
    this.#server.close();
  }
}

test('the page opens one stream again, however late a proxy answers', async () => {
  const proxy = new Proxy(cluster.gateways[0]!.opsUrl);
  try {
    const page = await open({ opsUrl: await proxy.start() });
    await isWell(page);
    proxy.close();
    await until('the page asks whether its session is over', () => proxy.held.length > 0, deadlineMs);
    await remains('the page asks once', () => proxy.held.length === 1, 4_000);
    proxy.open();
    await until('the stream is open again', () => proxy.streams === 1, deadlineMs);
    await remains('there is one stream', () => proxy.streams === 1, 2_000);
    await isWell(page);
  } finally {
    proxy.stop();
  }
});

test('the sentence says so while the gateway that serves the page hangs or is gone', async () => {
  const page = await open(cluster.gateways[0]!);
  await isWell(page);
  // its connections stay open
  cluster.gateways[0]!.signal('SIGSTOP');
  await says(page, 'bad', /gateway-1, which serves this page, does not answer/);
  cluster.gateways[0]!.signal('SIGCONT');
  await isWell(page);
  await cluster.gateways[0]!.kill();
  await says(page, 'bad', /gateway-1, which serves this page, does not answer/);
  await cluster.gateways[0]!.start();
  await isWell(page);
});
