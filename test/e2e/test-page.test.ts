// The test page in a real browser, against two gateways behind nginx: what one window does the other shows, whoever serves
// it, and the death of a gateway costs a moment and nothing else.

import type { Browser, BrowserContext, Page } from 'playwright-core';
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';
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

/** One window, and what a test asks it. */
class Window {
  readonly page: Page;
  readonly errors: string[] = [];

  private constructor(page: Page) {
    this.page = page;
    page.setDefaultTimeout(deadlineMs);
    page.on('pageerror', (error) => this.errors.push(error.message));
    page.on('console', (message) => {
      // that the network failed is the browser's own line, and where a gateway is killed, it is meant to
      const expected = /net::ERR_|WebSocket connection to|status of 4\d\d/.test(message.text());
      if (message.type() === 'error' && !expected) this.errors.push(message.text());
    });
  }

  static async open(context: BrowserContext): Promise<Window> {
    const window = new Window(await context.newPage());
    await window.page.goto(cluster.url);
    await window.isLive();
    return window;
  }

  state(): Promise<string> {
    return this.page.locator('#state-text').innerText();
  }

  /** Live, and its list is read. */
  async isLive(): Promise<void> {
    await this.page.locator('#state[data-state="live"]').waitFor();
    await until(
      'the list was read',
      async () => !/Reading|again/.test(await this.page.locator('#items-note').innerText()),
      deadlineMs,
    );
  }

  node(): Promise<string> {
    return this.page.locator('#node').innerText();
  }

  row(id: number | string) {
    return this.page.locator(`#items tr[data-id="${id}"]`);
  }

  /** The rows as shown, newest first: "id name value". */
  rows(): Promise<string[]> {
    return this.page.locator('#items tr').evaluateAll((rows) =>
      rows.map((row) =>
        Array.from(row.children, (cell) => cell.textContent)
          .slice(0, 3)
          .join(' '),
      ),
    );
  }

  async add(name: string, value = ''): Promise<void> {
    await this.page.fill('#create [name="name"]', name);
    await this.page.fill('#create [name="value"]', value);
    await this.page.click('#create button');
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

  it('shows in the other window what one creates, edits and deletes', async () => {
    await one.add('Tea', '4.5');
    await one.shows(['1 Tea 4.5']);
    await other.shows(['1 Tea 4.5']);
    expect(await one.page.locator('#create [name="name"]').inputValue()).toBe('');

    await other.row(1).getByText('Edit').click();
    await other.row(1).getByLabel('Name').fill('Green tea');
    await other.row(1).getByLabel('Value').fill('');
    await other.row(1).getByLabel('Value').press('Enter');
    await one.shows(['1 Green tea –']);
    await other.shows(['1 Green tea –']);

    await one.row(1).getByText('Delete').click();
    await one.row(1).getByText('Sure?').click();
    await one.shows([]);
    await other.shows([]);
    expect(await other.page.locator('#items-note').innerText()).toBe('There are no items yet. Add one above.');

    const told = ['DELETE items 1', 'UPDATE items 1', 'INSERT items 1'];
    for (const window of [one, other]) {
      await expect.poll(() => window.feed()).toEqual(told);
      expect(await window.page.locator('#changes').innerText()).toBe('3');
    }
  });

  it('shows rows that SQL writes, in order, and the end of all of them', async () => {
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

  it('holds the feed back while it is paused, and the rows not', async () => {
    await one.page.click('#pause');
    await admin(database.url, `insert into items (name) values ('unseen')`);
    await one.shows(['1 unseen –']);
    await expect.poll(() => one.page.locator('#pause').innerText()).toBe('Resume (1 new)');
    expect(await one.feed()).toEqual([]);
    await one.page.click('#pause');
    await expect.poll(() => one.feed()).toEqual(['INSERT items 1']);
    expect(await one.page.locator('#pause').innerText()).toBe('Pause');
  });

  it('says beside the input what is wrong with it', async () => {
    const nameError = one.page.locator('#create-name-error');
    const valueError = one.page.locator('#create-value-error');
    await one.add('', '1');
    await expect.poll(() => nameError.innerText()).not.toBe('');
    expect(await one.page.locator('#create [name="name"]').getAttribute('aria-invalid')).toBe('true');
    expect(await one.page.locator('#problem').isVisible()).toBe(false);

    await one.add('Tea', 'many');
    await expect.poll(() => nameError.innerText()).toBe('');
    expect(await valueError.innerText()).toMatch(/number/i);
    expect(await one.page.locator('#create [name="value"]').evaluate((field) => field === document.activeElement)).toBe(
      true,
    );

    // the refused one has used up the first id
    await one.add('Tea', '4');
    await one.shows(['2 Tea 4']);
    expect(await valueError.innerText()).toBe('');

    await one.row(2).getByText('Edit').click();
    await one.row(2).getByLabel('Value').fill('none');
    await one.row(2).getByRole('button', { name: 'Save' }).click();
    await expect.poll(() => one.row(2).locator('.row-note').innerText()).toMatch(/number/i);
    await one.row(2).getByLabel('Value').press('Escape');
    await one.shows(['2 Tea 4']);
  });

  it('tells the one who edits that somebody else changed or deleted the row', async () => {
    await admin(database.url, `insert into items (name, value) values ('Tea', 1)`);
    await one.row(1).getByText('Edit').click();
    await one.row(1).getByLabel('Name').fill('Mine');
    await admin(database.url, 'update items set value = 2');
    await expect.poll(() => one.row(1).locator('.row-note').innerText()).toMatch(/changed it meanwhile/);
    await one.row(1).getByRole('button', { name: 'Save' }).click();
    // only what was edited is replaced
    await one.shows(['1 Mine 2']);

    await one.row(1).getByText('Edit').click();
    await admin(database.url, 'delete from items');
    await expect.poll(() => one.page.locator('#problem').innerText()).toMatch(/deleted the item 1/);
    await one.shows([]);
  });

  it('names the gateway that serves each window, as that gateway counts it', async () => {
    const windows = [one, other, ...(await Promise.all([1, 2, 3].map(() => Window.open(context))))];
    const shown = await Promise.all(windows.map((window) => window.node()));
    for (const gateway of cluster.gateways) {
      const { connections } = await health(gateway);
      expect(shown.filter((name) => name === gateway.name)).toHaveLength(connections!);
    }
    expect(new Set(shown)).toEqual(new Set(['gateway-1', 'gateway-2']));
  });

  it('comes back on the other gateway when its own is killed, with nothing missing', async () => {
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

  it('stays away where the server says that coming back is of no use', async () => {
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

describe('a database without the sample', () => {
  it.each([
    [
      '',
      'select 1',
      /^No table “items” is attached\. Attach one of yours .*select plank\.attach\('orders'\)/,
      'INSERT orders 1',
    ],
    [
      'whose items is another table',
      "create table items (id text primary key, price numeric); insert into items values ('a', 1); select plank.attach('items')",
      /^The table “items” here is not the sample/,
      'INSERT orders 2',
    ],
  ])('%s gets a page that says so, and shows the changes of other tables', async (_, sql, note, change) => {
    const context = await browser.newContext({ locale: 'en-GB' });
    try {
      await admin(
        database.url,
        `drop table if exists items; create table if not exists orders (id integer generated always as identity primary key);
         select plank.attach('orders'); ${sql}`,
      );
      const page = await context.newPage();
      const errors: string[] = [];
      page.on('pageerror', (error) => errors.push(error.message));
      await page.goto(`${cluster.url}/?tables=orders`);
      await page.locator('#state[data-state="live"]').waitFor();
      await expect.poll(() => page.locator('#items-note').innerText()).toMatch(note);
      expect(
        await page.locator('#create, #items-table').evaluateAll((all) => all.map((one) => (one as HTMLElement).hidden)),
      ).toEqual([true, true]);
      await admin(database.url, 'insert into orders default values');
      await expect.poll(() => page.locator('#feed li').first().innerText()).toContain(change.slice(7));
      expect(errors).toEqual([]);
    } finally {
      await context.close();
    }
  });
});
