// The test page in a real browser, against two gateways behind nginx: one window shows what the
// other one does, whichever gateway serves it, and the death of a gateway costs a moment and
// nothing else.

import type { Browser, BrowserContext, Page } from 'playwright-core';
import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { Cluster, type ClusterNode } from '#deploy/local/cluster.ts';
import { type LocalRedis, startRedis } from '#deploy/local/redis.ts';
import { admin } from '../support/servers/admin.ts';
import { launchBrowser } from '../support/servers/browser.ts';
import { createDatabase, type TestDatabase } from '../support/servers/servers.ts';
import { health } from '../support/stage/nodes.ts';
import { until } from '../support/wait.ts';

const deadlineMs = 10_000;

let database: TestDatabase;
let redis: LocalRedis;
let cluster: Cluster;
let browser: Browser;

beforeAll(async () => {
  [database, redis, browser] = await Promise.all([createDatabase(), startRedis(), launchBrowser()]);
  cluster = await Cluster.start({ gateways: 2, databaseUrl: database.url, redisUrl: redis.url });
});

afterAll(async () => {
  await browser?.close();
  await cluster?.stop();
  await redis?.stop();
  await database?.drop();
});

/** One window of the page. */
class Window {
  readonly page: Page;
  readonly errors: string[] = [];

  private constructor(page: Page) {
    this.page = page;
    page.setDefaultTimeout(deadlineMs);
    page.on('pageerror', (error) => this.errors.push(error.message));
    page.on('console', (message) => {
      // the browser itself logs failed connections, which are expected where a test kills a gateway
      const expected = /net::ERR_|WebSocket connection to|status of 4\d\d/.test(message.text());
      if (message.type() === 'error' && !expected) this.errors.push(message.text());
    });
  }

  static async open(context: BrowserContext, query = ''): Promise<Window> {
    const window = new Window(await context.newPage());
    await window.page.goto(`${cluster.url}/${query}`);
    await window.isLive();
    return window;
  }

  state(): Promise<string> {
    return this.page.locator('#state-text').innerText();
  }

  /** Waits until the page is live and has read the rows. */
  async isLive(): Promise<void> {
    await this.page.locator('#state[data-state="live"]').waitFor();
    await until(
      'the list was read',
      async () => !/Reading|Connecting/.test(await this.page.locator('#rows-note').innerText()),
      deadlineMs,
    );
  }

  node(): Promise<string> {
    return this.page.locator('#node').innerText();
  }

  row(key: number | string) {
    return this.page.locator(`#rows tr[data-key=${JSON.stringify(String(key))}]`);
  }

  /** The input of a column in the form. */
  field(column: string) {
    return this.page.locator(`#form [name="column:${column}"]`);
  }

  async edit(key: number | string): Promise<void> {
    await this.row(key).getByRole('button', { name: /^Edit/ }).click();
  }

  async remove(key: number | string): Promise<void> {
    await this.row(key).getByText('Delete').click();
    await this.row(key).getByText('Sure?').click();
  }

  /** The first three columns of the rows as shown, newest first: "id name value". */
  rows(): Promise<string[]> {
    return this.page.locator('#rows tr').evaluateAll((rows) =>
      rows.map((row) =>
        Array.from(row.children, (cell) => cell.textContent)
          .slice(0, 3)
          .join(' '),
      ),
    );
  }

  async add(name: string, value = ''): Promise<void> {
    await this.field('name').fill(name);
    await this.field('value').fill(value);
    await this.page.click('#save');
  }

  async shows(rows: string[]): Promise<void> {
    await expect.poll(() => this.rows()).toEqual(rows);
  }

  /** The changes as shown, newest first: "INSERT items 1". */
  feed(): Promise<string[]> {
    return this.page.locator('#feed li:not(.gap)').evaluateAll((entries) =>
      entries.map((entry) =>
        Array.from(entry.children, (part) => part.textContent)
          .slice(0, 2)
          .join(' '),
      ),
    );
  }
}

describe('two windows on two gateways', () => {
  let context: BrowserContext;
  let one: Window;
  let other: Window;

  beforeEach(async () => {
    await context?.close();
    await admin(database.url, 'truncate items restart identity');
    context = await browser.newContext({ locale: 'en-GB' });
    [one, other] = await Promise.all([Window.open(context), Window.open(context)]);
    return () => expect([...one.errors, ...other.errors]).toEqual([]);
  });

  test('each window shows what the other one creates, edits and deletes', async () => {
    await one.add('Tea', '4.5');
    await one.shows(['1 Tea 4.5']);
    await other.shows(['1 Tea 4.5']);
    expect(await one.field('name').inputValue()).toBe('');

    await other.edit(1);
    await other.field('name').fill('Green tea');
    await other.field('value').fill('');
    await other.field('value').press('Enter');
    await one.shows(['1 Green tea –']);
    await other.shows(['1 Green tea –']);

    await one.remove(1);
    await one.shows([]);
    await other.shows([]);
    expect(await other.page.locator('#rows-note').innerText()).toBe('No rows yet.');

    const changes = ['DELETE items 1', 'UPDATE items 1', 'INSERT items 1'];
    for (const window of [one, other]) {
      await expect.poll(() => window.feed()).toEqual(changes);
      expect(await window.page.locator('#changes').innerText()).toBe('3');
      // a DELETE comes without its row: the page shows the one that it had
      expect(await window.page.locator('#feed li code').first().innerText()).toMatch(/"name":"Green tea","value":null/);
    }
  });

  test('the page shows rows that SQL writes, in order, and the end of all of them', async () => {
    await admin(
      database.url,
      `insert into items (name, value) select 'from SQL ' || n, n from generate_series(1, 3) n`,
    );
    await admin(database.url, `update items set value = 20 where id = 2`);
    await admin(database.url, 'delete from items where id = 1');
    for (const window of [one, other]) {
      await window.shows(['3 from SQL 3 3', '2 from SQL 2 20']);
      expect(await window.feed()).toEqual([
        'DELETE items 1',
        'UPDATE items 2',
        'INSERT items 3',
        'INSERT items 2',
        'INSERT items 1',
      ]);
    }
    await admin(database.url, 'truncate items');
    await one.shows([]);
    await other.shows([]);
    expect((await one.feed())[0]).toBe('TRUNCATE items');
  });

  test('the page holds the feed back while it is paused, and the rows not', async () => {
    await one.page.click('#pause');
    await admin(database.url, `insert into items (name) values ('unseen')`);
    await one.shows(['1 unseen –']);
    await expect.poll(() => one.page.locator('#pause').innerText()).toBe('Resume (1 new)');
    expect(await one.feed()).toEqual([]);
    await one.page.click('#pause');
    await expect.poll(() => one.feed()).toEqual(['INSERT items 1']);
    expect(await one.page.locator('#pause').innerText()).toBe('Pause');
  });

  test('the page shows a problem beside the input that it is about', async () => {
    const nameError = one.page.locator('[data-error="name"]');
    const valueError = one.page.locator('[data-error="value"]');
    await one.add('', '1');
    await expect.poll(() => nameError.innerText()).not.toBe('');
    expect(await one.field('name').getAttribute('aria-invalid')).toBe('true');
    expect(await one.page.locator('#editor-note').isVisible()).toBe(false);

    await one.add('Tea', 'many');
    await expect.poll(() => nameError.innerText()).toBe('');
    expect(await valueError.innerText()).toMatch(/number/i);
    expect(await one.field('value').evaluate((field) => field === document.activeElement)).toBe(true);

    await one.add('Tea', '4');
    await one.shows(['1 Tea 4']);
    expect(await valueError.innerText()).toBe('');

    await one.edit(1);
    await one.field('value').fill('none');
    await one.page.click('#save');
    await expect.poll(() => valueError.innerText()).toMatch(/number/i);
    await one.field('value').press('Escape');
    await one.shows(['1 Tea 4']);
    expect(await one.page.locator('#save').innerText()).toBe('Insert');
  });

  test('the page warns the one who edits that somebody else changed or deleted the row', async () => {
    await admin(database.url, `insert into items (name, value) values ('Tea', 1)`);
    await one.edit(1);
    await one.field('name').fill('Mine');
    await admin(database.url, 'update items set value = 2');
    await expect.poll(() => one.page.locator('#editor-note').innerText()).toMatch(/changed this row meanwhile/);
    await one.page.click('#save');
    // only what was edited is replaced
    await one.shows(['1 Mine 2']);

    await one.edit(1);
    await admin(database.url, 'delete from items');
    await expect.poll(() => one.page.locator('#problem').innerText()).toMatch(/deleted items 1/);
    await one.shows([]);
  });

  test('the page inserts sample rows into the empty sample table on one click', async () => {
    await one.page.getByRole('button', { name: 'Insert sample rows' }).click();
    for (const window of [one, other]) {
      await expect.poll(() => window.rows().then((rows) => rows.length)).toBe(5);
      await expect.poll(() => window.feed()).toHaveLength(5);
      expect(await window.page.locator('#samples').isVisible()).toBe(false);
    }
  });

  test('the page names the gateway that serves each window, as that gateway counts it', async () => {
    const windows = [one, other, ...(await Promise.all([1, 2, 3].map(() => Window.open(context))))];
    const shown = await Promise.all(windows.map((window) => window.node()));
    for (const gateway of cluster.gateways) {
      const { connections } = await health(gateway);
      expect(shown.filter((name) => name === gateway.name)).toHaveLength(connections!);
    }
    expect(new Set(shown)).toEqual(new Set(['gateway-1', 'gateway-2']));
  });

  test('the page comes back on the other gateway when its own is killed, with nothing missing', async () => {
    await admin(database.url, `insert into items (name) select 'before ' || n from generate_series(1, 3) n`);
    const name = await one.node();
    const serving = gatewayNamed(name);
    await serving.kill();
    await one.page.locator('#state[data-state="reconnecting"]').waitFor();
    expect(await one.state()).toBe('Reconnecting');
    expect(await one.node()).toBe('–');
    await admin(database.url, `insert into items (name) values ('meanwhile'); delete from items where id = 1`);
    await Promise.all([one.isLive(), other.isLive()]);
    const left = cluster.gateways.find((gateway) => gateway !== serving)!;
    expect(await one.node()).toBe(left.name);
    expect(await other.node()).toBe(left.name);
    expect(await health(left)).toMatchObject({ connections: 2 });
    const rows = ['4 meanwhile –', '3 before 3 –', '2 before 2 –'];
    await one.shows(rows);
    await other.shows(rows);

    await one.add('after');
    await other.shows(['5 after –', ...rows]);
    await serving.start();
  });

  test('the page stays away where the server says that coming back is of no use', async () => {
    await context.addInitScript(() => {
      const sockets: WebSocket[] = [];
      Object.assign(globalThis, {
        sockets,
        WebSocket: class extends WebSocket {
          constructor(url: string, protocol: string) {
            super(url, protocol);
            sockets.push(this);
          }
        },
      });
    });
    const window = await Window.open(context);
    await window.page.clock.install();
    await window.page.evaluate('sockets[0].send("not JSON")');
    await window.page.locator('#state[data-state="stopped"]').waitFor();
    expect(await window.state()).toMatch(/^Stopped: .*JSON/);
    await window.page.evaluate('dispatchEvent(new Event("online"))');
    await window.page.clock.fastForward('05:00');
    expect(await window.page.evaluate('sockets.length')).toBe(1);
    expect(await window.state()).toMatch(/^Stopped/);
  });
});

function gatewayNamed(name: string): ClusterNode {
  const found = cluster.gateways.find((gateway) => gateway.name === name);
  if (!found) throw new Error(`the page names no gateway of ours: ${name}`);
  return found;
}

describe('tables of an application', () => {
  let context: BrowserContext;
  const long = 'x'.repeat(5_000);

  beforeEach(async () => {
    await context?.close();
    context = await browser.newContext({ locale: 'en-GB' });
    await admin(
      database.url,
      `drop table if exists lines, "odd name", items;
       create table lines (sku text, line integer, doc jsonb, tags text[], at timestamptz, primary key (sku, line));
       create table "odd name" ("the key" bigint primary key, note text, constructor text);
       select plank.attach('lines'), plank.attach('"odd name"');
       insert into "odd name" values (9007199254740993, '${long}')`,
    );
    return () => context.close();
  });

  test('tables are picked by name, with their own columns and keys', async () => {
    const window = await Window.open(context);
    const { page } = window;
    await expect.poll(() => page.locator('#table option').allInnerTexts()).toEqual(['lines', 'odd name']);
    // there is no table items: the first one is shown
    expect(await page.locator('#columns th').allInnerTexts()).toEqual(['sku', 'line', 'doc', 'tags', 'at', 'Actions']);
    await page.locator('#editor-title').click();
    const fields = { sku: 'A,1', line: '7', doc: '{"a": [1, 2]}', tags: '["x"]' };
    for (const [column, text] of Object.entries(fields)) await window.field(column).fill(text);
    await page.click('#save');
    const key = '{"line":7,"sku":"A,1"}';
    await expect.poll(() => window.row(key).locator('td').allInnerTexts()).toContain('{"a":[1,2]}');
    await window.edit(key);
    await window.field('doc').fill('');
    await page.click('#save');
    await expect.poll(() => window.row(key).locator('td').nth(2).innerText()).toBe('–');
    await window.remove(key);
    await expect
      .poll(() => window.feed())
      .toEqual(['DELETE', 'UPDATE', 'INSERT'].map((action) => `${action} lines A,1, 7`));
    expect(await page.locator('#feed li code').first().innerText()).toContain('"tags":["x"]');
    // changes of the other table are in the feed as well
    await admin(database.url, 'insert into "odd name" values (1)');
    await expect.poll(() => window.feed().then(([first]) => first)).toBe('INSERT odd name 1');
    expect(window.errors).toEqual([]);
  });

  test('rows show long values whole on request, and large integers with all digits', async () => {
    const window = await Window.open(context, '?table=odd+name');
    const { page } = window;
    const row = window.row('9007199254740993');
    expect(await row.locator('td').first().innerText()).toBe('9007199254740993');
    expect((await row.locator('td').nth(1).innerText()).length).toBeLessThan(300);
    await row.getByRole('button', { name: /^Show all/ }).click();
    await expect.poll(() => row.locator('td').nth(1).innerText()).toContain(long);
    await window.edit('9007199254740993');
    // no object of the page has a member of this name
    expect(await page.locator('[data-error="constructor"]').innerText()).toBe('');
    expect(await window.field('constructor').getAttribute('aria-invalid')).toBe('false');
    await window.field('note').fill(`${long}!`);
    await page.click('#save');
    const entry = page.locator('#feed li').first();
    await entry.getByRole('button', { name: /^Show all/ }).click();
    expect(await entry.locator('code').innerText()).toContain(`"the key":9007199254740993,"note":"${long}!"`);
    expect(window.errors).toEqual([]);
  });

  test('tables are offered while they are attached', async () => {
    const window = await Window.open(context, '?table=odd+name');
    await admin(database.url, `select plank.detach('"odd name"')`);
    await expect.poll(() => window.page.locator('#table').inputValue()).toBe('lines');
    await admin(database.url, `select plank.detach('lines')`);
    await expect
      .poll(() => window.page.locator('#rows-note').innerText())
      .toMatch(/^No table is attached.*select plank\.attach/);
    const fresh = await context.newPage();
    await fresh.goto(cluster.url);
    await expect.poll(() => fresh.locator('#state-text').innerText()).toBe('Not connected: no table is attached');
    await admin(database.url, `select plank.attach('"odd name"')`);
    await fresh.locator('#state[data-state="live"]').waitFor();
    await expect.poll(() => window.page.locator('#table').inputValue()).toBe('odd name');
    await window.row('9007199254740993').waitFor();
    expect(window.errors).toEqual([]);
  });

  test('rows and changes are both in sight on a phone', async () => {
    await context.close();
    context = await browser.newContext({ viewport: { width: 390, height: 844 } });
    const window = await Window.open(context, '?table=odd+name');
    await admin(database.url, `insert into "odd name" select n, 'row ' || n from generate_series(1, 50) n`);
    await expect.poll(() => window.feed()).toHaveLength(50);
    const { page } = window;
    expect(
      await page.evaluate('[document.documentElement.scrollWidth, document.documentElement.scrollHeight]'),
    ).toEqual([390, 844]);
    for (const shown of ['#rows tr', '#feed li']) {
      const { y, height } = (await page.locator(shown).first().boundingBox())!;
      expect(y).toBeGreaterThan(0);
      expect(y + height).toBeLessThanOrEqual(844);
    }
  });
});
