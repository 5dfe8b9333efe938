// Event streams as users read them, through nginx: with `curl -N`, and with a browser's own EventSource, which resumes after
// its network was cut and stays away once its table is gone.

import { spawn } from 'node:child_process';
import type { Browser, Page } from 'playwright-core';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { type LocalNginx, startNginx } from '#deploy/local/nginx.ts';
import { findProgram } from '#deploy/local/process.ts';
import { admin } from '../support/servers/admin.ts';
import { launchBrowser } from '../support/servers/browser.ts';
import { createDatabase } from '../support/servers/servers.ts';
import { startEmbedded } from '../support/stage/embedded.ts';
import { TcpProxy } from '../support/stage/tcp-proxy.ts';
import { until } from '../support/wait.ts';

const deadlineMs = 15_000;
const where = encodeURIComponent('{"value":{"gte":10}}');

const stack = new AsyncDisposableStack();
let databaseUrl: string;
let browser: Browser;
let nginx: LocalNginx;
let gateway: string;
let proxy: TcpProxy;
let url: string;

beforeAll(async () => {
  const [database, launched] = await Promise.all([createDatabase(), launchBrowser()]);
  stack.defer(() => database.drop());
  databaseUrl = database.url;
  browser = launched;
  stack.defer(() => browser.close());
  await admin(databaseUrl, `create table gone (id int primary key); select plank.attach('gone')`);
  const embedded = await startEmbedded(databaseUrl);
  stack.defer(() => embedded.stop());
  gateway = new URL(embedded.url).host;
  nginx = await startNginx({ upstreams: [gateway] });
  stack.defer(() => nginx.stop());
  proxy = await TcpProxy.start(nginx.url);
  stack.defer(() => proxy.stop());
  url = proxy.through(nginx.url);
});

afterAll(() => stack.disposeAsync());

interface Event {
  id: string;
  frame: { type: string; id?: number; effect?: string; rows?: unknown[]; data?: { name: string }; code?: string };
}

const insert = (name: string, value: number) =>
  admin(databaseUrl, `insert into items (name, value) values ('${name}', ${value})`);

async function listen(page: Page, path: string): Promise<() => Promise<Event[]>> {
  await page.evaluate((address) => {
    const events: unknown[] = [];
    const source = new EventSource(address);
    source.addEventListener('message', ({ data, lastEventId }) =>
      events.push({ id: lastEventId, frame: JSON.parse(data as string) as unknown }),
    );
    Object.assign(globalThis, { events, source });
  }, path);
  return () => page.evaluate<Event[]>('events');
}

test('an EventSource resumes by itself, and gets each change once', async () => {
  await insert('before', 10);
  await insert('not for it', 1);
  const page = await browser.newPage();
  await page.goto(url);
  const events = await listen(page, `/api/items/changes?snapshot=true&where=${where}`);
  const last = async () => (await events()).at(-1);
  await until('it is live', async () => (await last())?.frame.type === 'live', deadlineMs);
  expect((await events()).map(({ id, frame }) => [frame.type, frame.rows?.length, id === 'anew'])).toEqual([
    ['rows', 1, true],
    ['live', undefined, false],
  ]);
  const names = async () => (await events()).flatMap(({ frame }) => (frame.data ? [frame.data.name] : []));
  for (let round = 1; round <= 2; round++) {
    await insert(`seen ${round}`, 10);
    await until('the change arrives', async () => (await names()).includes(`seen ${round}`), deadlineMs);
    proxy.cut();
    await insert(`missed ${round}`, 10);
    await until('the missed change arrives', async () => (await names()).includes(`missed ${round}`), deadlineMs);
  }
  expect(await names()).toEqual(['seen 1', 'missed 1', 'seen 2', 'missed 2']);
  // no rows came again
  expect((await events()).filter(({ frame }) => frame.type === 'rows')).toHaveLength(1);
  await page.close();
});

test('an EventSource comes back after a time without any gateway', async () => {
  const page = await browser.newPage();
  await page.goto(url);
  const events = await listen(page, `/api/items/changes?where=${where}`);
  await until('it is live', async () => (await events()).at(-1)?.frame.type === 'live', deadlineMs);
  const answers: number[] = [];
  // (the page under it asks for its tables meanwhile)
  page.on('response', (response) => {
    if (response.url().includes('/changes')) answers.push(response.status());
  });
  await nginx.setUpstreams(['127.0.0.1:2']);
  // nginx's former workers may still answer, or finish their requests
  const isAway = () =>
    fetch(`${nginx.url}/health`, { headers: { connection: 'close' } }).then(
      ({ status }) => status === 502,
      () => false,
    );
  await until('nginx has no gateway', isAway, deadlineMs);
  proxy.cut();
  await until('nginx has answered that it should come later', () => answers.length > 0, deadlineMs);
  await insert('while nobody was there', 10);
  await nginx.setUpstreams([gateway]);
  const hasIt = async () => (await events()).some(({ frame }) => frame.data?.name === 'while nobody was there');
  await until('the change arrives', hasIt, deadlineMs);
  expect(new Set(answers)).toEqual(new Set([200]));
  await page.close();
});

test('an EventSource stays away once its table is gone', async () => {
  const page = await browser.newPage();
  await page.goto(url);
  const events = await listen(page, '/api/gone/changes?snapshot=true');
  await until('it is live', async () => (await events()).at(-1)?.frame.type === 'live', deadlineMs);
  await admin(databaseUrl, 'drop table gone');
  await until('it is closed for good', async () => (await page.evaluate('source.readyState')) === 2, deadlineMs);
  expect((await events()).at(-1)).toMatchObject({ id: 'end', frame: { type: 'error', code: 'UNKNOWN_TABLE' } });
  await page.close();
});

// not every machine has curl
const curlProgram = findProgram('curl');

test.skipIf(!curlProgram)('curl -N shows each change as it comes', async () => {
  const curl = spawn(curlProgram!, ['-sN', `${url}api/items/changes?where=${where}`], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  let output = '';
  curl.stdout.on('data', (chunk: Buffer) => {
    output += chunk.toString();
  });
  try {
    await until('it is live', () => output.includes('"type":"live"'), deadlineMs);
    await insert('for curl', 11);
    await until('the change is there', () => output.includes('"name":"for curl"'), deadlineMs);
    expect(output).toMatch(
      /^(?:retry: \d+\n\n)?id: e\d+\.\d+\ndata: \{"type":"live"[^\n]*\n\nid: e\d+\.\d+\ndata: \{"type":"change"[^\n]*\n\n$/,
    );
  } finally {
    curl.kill();
  }
});
