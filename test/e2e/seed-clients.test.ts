// The clients of Plank's first users, exactly as they wrote them: curl, a page of another origin, Node, Python. They know
// four keys of a notification, and neither positions nor subprotocols.

import { execFile } from 'node:child_process';
import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { promisify } from 'node:util';
import type { Browser } from 'playwright-core';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { WebSocket as WsSocket } from 'ws';
import { Cluster } from '#deploy/local/cluster.ts';
import { findProgram } from '#deploy/local/process.ts';
import { type LocalRedis, startRedis } from '#deploy/local/redis.ts';
import { launchBrowser } from '../support/servers/browser.ts';
import { pythonWithWebsockets } from '../support/servers/python.ts';
import { createDatabase, type TestDatabase } from '../support/servers/servers.ts';
import { until } from '../support/wait.ts';

interface Notification {
  table: string;
  action: string;
  id: number;
  data: { id: number; name: string; value: number | null; created_at: string; updated_at: string };
}

const run = promisify(execFile);
const deadlineMs = 10_000;

let database: TestDatabase;
let redis: LocalRedis;
let cluster: Cluster;

beforeAll(async () => {
  [database, redis] = await Promise.all([createDatabase(), startRedis()]);
  cluster = await Cluster.start({ gateways: 1, databaseUrl: database.url, redisUrl: redis.url });
});

afterAll(async () => {
  await cluster?.stop();
  await redis?.stop();
  await database?.drop();
});

/** Creates, changes and deletes an item over REST. Resolves with the three notifications that must follow. */
async function writeItem(name: string): Promise<object[]> {
  const headers = { 'Content-Type': 'application/json' };
  const items = `${cluster.url}/api/items`;
  const created = await fetch(items, { method: 'POST', headers, body: JSON.stringify({ name, value: 42 }) });
  const row = (await created.json()) as Notification['data'];
  const changed = await fetch(`${items}/${row.id}`, { method: 'PATCH', headers, body: '{"value":43}' });
  const changedRow = await changed.json();
  await fetch(`${items}/${row.id}`, { method: 'DELETE' });
  return [
    { table: 'items', action: 'INSERT', id: row.id, data: row },
    { table: 'items', action: 'UPDATE', id: row.id, data: changedRow },
    { table: 'items', action: 'DELETE', id: row.id, data: changedRow },
  ];
}

/** The four known keys come first, in this order. Old clients ignore later ones. */
function asKnown(text: string): Notification {
  const { table, action, id, data, ...others } = JSON.parse(text) as Notification;
  const known = { table, action, id, data };
  expect(Object.keys(JSON.parse(text) as object)).toEqual([...Object.keys(known), ...Object.keys(others)]);
  return known;
}

describe('curl', () => {
  // exactly the line of the README; its answer is what curl prints
  test('curl creates an item', async () => {
    const curl = findProgram('curl');
    const url = `${cluster.url}/api/items`;
    const body = '{"name": "Test Item", "value": 42}';
    const text = curl
      ? (await run(curl, ['-sS', '-X', 'POST', url, '-H', 'Content-Type: application/json', '-d', body])).stdout
      : await (await fetch(url, { method: 'POST', headers: { 'Content-Type': 'application/json' }, body })).text();
    const row = JSON.parse(text) as Notification['data'];
    expect(row).toEqual({
      id: expect.any(Number),
      name: 'Test Item',
      value: 42,
      created_at: expect.any(String),
      updated_at: expect.any(String),
    });
    expect(Date.parse(row.created_at)).toBeGreaterThan(Date.now() - 60_000);
  });
});

describe('a page of another origin', () => {
  let browser: Browser;
  let site: Server;

  beforeAll(async () => {
    browser = await launchBrowser();
    const html = `<!doctype html>
<p>connecting</p>
<ul></ul>
<script>
  const ws = new WebSocket('${cluster.webSocketUrl}');
  ws.onopen = () => { document.querySelector('p').textContent = 'connected'; };
  ws.onmessage = (event) => {
    const notification = JSON.parse(event.data);
    const line = document.createElement('li');
    line.textContent = notification.action + ' on ' + notification.table + ': ' + JSON.stringify(notification.data);
    document.querySelector('ul').append(line);
  };
</script>`;
    site = createServer((_, response) => response.setHeader('Content-Type', 'text/html').end(html));
    await new Promise<void>((resolve) => site.listen(0, '127.0.0.1', resolve));
  });

  afterAll(async () => {
    await browser?.close();
    site?.closeAllConnections();
    await new Promise((resolve) => site?.close(resolve));
  });

  test('a page of another origin receives changes, and writes', async () => {
    const page = await browser.newPage();
    await page.goto(`http://127.0.0.1:${(site.address() as AddressInfo).port}/`);
    await page.getByText('connected').waitFor({ timeout: deadlineMs });
    // a JSON body of another origin needs a CORS preflight
    const row = await page.evaluate(
      (to) =>
        fetch(to, {
          method: 'POST',
          headers: { 'Content-Type': 'application/json' },
          body: JSON.stringify({ name: 'From a browser', value: 42 }),
        }).then((answer) => answer.json() as Promise<unknown>),
      `${cluster.url}/api/items`,
    );
    expect(row).toMatchObject({ name: 'From a browser', value: 42 });
    const lines = () => page.locator('li').allInnerTexts();
    await until('the page shows its own change', async () => (await lines()).length === 1, deadlineMs);
    const written = (await writeItem('From elsewhere')) as Notification[];
    await until('the page shows all changes', async () => (await lines()).length === 4, deadlineMs);
    const all = [{ table: 'items', action: 'INSERT', data: row }, ...written];
    const shown = (await lines()).map((line) => /^(\w+) on (\w+): (.*)$/.exec(line)!);
    expect(shown.map(([, action, table, data]) => [action, table, JSON.parse(data!) as unknown])).toEqual(
      all.map(({ action, table, data }) => [action, table, data]),
    );
    await page.close();
  });
});

describe('Node', () => {
  test("Node's own WebSocket receives changes", async () => {
    const ws = new WebSocket(cluster.webSocketUrl);
    const texts: string[] = [];
    ws.addEventListener('message', ({ data }) => texts.push(data as string));
    await new Promise((resolve, reject) => {
      ws.addEventListener('open', resolve);
      ws.addEventListener('error', () => reject(new Error('it cannot connect')));
    });
    const written = await writeItem("Node's own");
    await until('three notifications', () => texts.length >= written.length, deadlineMs);
    expect(texts.map(asKnown)).toEqual(written);
    ws.close();
  });

  // with its defaults, ws offers compression
  test('the package ws receives changes', async () => {
    const ws = new WsSocket(cluster.webSocketUrl);
    const texts: string[] = [];
    ws.on('message', (data: Buffer) => texts.push(data.toString()));
    await new Promise((resolve, reject) => ws.once('open', resolve).once('error', reject));
    const written = await writeItem('ws');
    await until('three notifications', () => texts.length >= written.length, deadlineMs);
    expect(texts.map(asKnown)).toEqual(written);
    ws.terminate();
  });
});

describe('Python', () => {
  test("Python's websockets receives changes", async () => {
    const script = `
import asyncio, json, sys, websockets

async def listen():
    async with websockets.connect(sys.argv[1]) as websocket:
        print("connected", flush=True)
        async for message in websocket:
            notification = json.loads(message)
            print(json.dumps([notification["action"], notification["table"], notification["data"]]), flush=True)

asyncio.run(listen())`;
    const { program, env } = await pythonWithWebsockets();
    const child = execFile(program, ['-c', script, cluster.webSocketUrl], { env });
    try {
      let output = '';
      child.stdout!.on('data', (text: string) => (output += text));
      const lines = () => output.split('\n').slice(0, -1);
      await until('it is connected', () => lines().length === 1, deadlineMs);
      const written = (await writeItem('Python')) as Notification[];
      await until('three notifications', () => lines().length > written.length, deadlineMs);
      expect(
        lines()
          .slice(1)
          .map((line) => JSON.parse(line) as unknown),
      ).toEqual(written.map(({ action, table, data }) => [action, table, data]));
    } finally {
      child.kill();
    }
  });
});
