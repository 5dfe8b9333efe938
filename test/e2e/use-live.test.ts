// `useLive` in a real browser, with React's development build in strict mode and the modules that a gateway serves.
// Components with the same filter share one subscription, which ends with the last of them.

import { readFile } from 'node:fs/promises';
import { createServer } from 'node:http';
import { createRequire } from 'node:module';
import type { AddressInfo } from 'node:net';
import type { Browser, Page } from 'playwright-core';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { admin } from '../support/servers/admin.ts';
import { launchBrowser } from '../support/servers/browser.ts';
import { createDatabase, type TestDatabase } from '../support/servers/servers.ts';
import { type Embedded, startEmbedded } from '../support/stage/embedded.ts';
import { until } from '../support/wait.ts';

const deadlineMs = 10_000;
const require = createRequire(import.meta.url);
const reactFiles = {
  react: 'react/cjs/react.development.js',
  scheduler: 'scheduler/cjs/scheduler.development.js',
  'react-dom': 'react-dom/cjs/react-dom.development.js',
  'react-dom/client': 'react-dom/cjs/react-dom-client.development.js',
};

const stack = new AsyncDisposableStack();
let database: TestDatabase;
let plank: Embedded;
let browser: Browser;
let pageUrl: string;

beforeAll(async () => {
  [database, browser] = await Promise.all([createDatabase(), launchBrowser()]);
  stack.defer(() => database.drop());
  stack.defer(() => browser.close());
  plank = await startEmbedded(database.url);
  stack.defer(() => plank.stop());
  const files: Record<string, [type: string, body: string]> = {
    '/': ['text/html', html],
    '/page.js': ['text/javascript', script],
    '/modules.js': ['text/javascript', await reactModules()],
    '/react.js': ['text/javascript', reactAsModule()],
  };
  const server = createServer(({ url = '' }, response) => {
    const [type, body] = files[url] ?? ['text/plain', ''];
    response.writeHead(files[url] ? 200 : 404, { 'Content-Type': type }).end(body);
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  stack.defer(async () => {
    server.closeAllConnections();
    await new Promise((resolve) => server.close(resolve));
  });
  pageUrl = `http://127.0.0.1:${(server.address() as AddressInfo).port}/`;
});

afterAll(() => stack.disposeAsync());

/** React is CommonJS only: this wraps its files as functions of one module. */
async function reactModules(): Promise<string> {
  const parts = Object.entries(reactFiles).map(async ([name, file]) => {
    // React's packages export no files by name; its folder's package.json is always there
    const [, folder = '', rest = ''] = /^([^/]+)(.*)$/.exec(file)!;
    const path = require.resolve(`${folder}/package.json`).replace(/\/package\.json$/, rest);
    return `define(${JSON.stringify(name)}, (module, exports) => {${await readFile(path, 'utf8')}\n});`;
  });
  return `const process = { env: { NODE_ENV: 'development' } };
    export const modules = {};
    const require = (name) => modules[name];
    function define(name, run) {
      const module = { exports: {} };
      run(module, module.exports);
      modules[name] = module.exports;
    }
    ${(await Promise.all(parts)).join('\n')}`;
}

function reactAsModule(): string {
  const names = Object.keys(require('react') as object).filter((name) => /^\w+$/.test(name));
  return `import { modules } from './modules.js'; export const { ${names.join(', ')} } = modules.react;`;
}

const html = `<!doctype html><meta charset="utf-8"><link rel="icon" href="data:,">
  <script type="importmap">{"imports": {"react": "/react.js"}}</script>
  <script type="module" src="/page.js"></script><div id="root"></div>`;

const script = `
  import { modules } from './modules.js';
  const plankUrl = new URL(location.hash.slice(1));
  globalThis.sent = [];
  globalThis.drawn = [];
  globalThis.WebSocket = class extends WebSocket {
    send(text) { sent.push(JSON.parse(text)); super.send(text); }
  };
  const { createPlank } = await import(new URL('/plank.js', plankUrl));
  const { useLive } = await import(new URL('/client/react.js', plankUrl));
  const { Activity, createElement, StrictMode, useState } = modules.react;

  const items = createPlank({ url: new URL('/ws', plankUrl) }).table('items');
  function List({ least }) {
    const { rows, isReady } = useLive(items, { where: { value: { gte: least } } });
    if (isReady) drawn.push([least, ...[...rows.values()].map(({ name }) => name).sort()]);
    const texts = [...rows.values()].map(({ id, name }) => createElement('li', { key: id }, name));
    return isReady ? createElement('ul', null, texts) : 'reading';
  }
  function Count({ least }) {
    return createElement('b', null, useLive(items, { where: { value: { gte: least } } }).rows.size);
  }
  function App() {
    const [least, setLeast] = useState(10);
    const [parts, setParts] = useState(2);
    const [mode, setMode] = useState('visible');
    Object.assign(globalThis, { setLeast, setParts, setMode });
    const shown = [parts > 0 && createElement(Count, { key: 1, least }), parts > 1 && createElement(List, { key: 2, least })];
    return createElement(Activity, { mode }, shown);
  }
  modules['react-dom/client'].createRoot(document.getElementById('root'))
    .render(createElement(StrictMode, null, createElement(App)));`;

const frames = (page: Page, type: string) =>
  page.evaluate(
    (wanted) => (Reflect.get(globalThis, 'sent') as { type: string }[]).filter((f) => f.type === wanted),
    type,
  );

async function shows(page: Page, count: string, names: string[]): Promise<void> {
  const now = async () => [
    await page.locator('#root b').allInnerTexts(),
    await page.locator('#root li').allInnerTexts(),
  ];
  await expect.poll(now).toEqual([[count], names]);
}

async function openPage(): Promise<{ page: Page; errors: string[] }> {
  const page = await browser.newPage();
  const errors: string[] = [];
  page.on('pageerror', ({ message }) => errors.push(message));
  page.on('console', (message) => message.type() === 'error' && errors.push(message.text()));
  await page.goto(`${pageUrl}#${plank.url}`);
  await page.waitForFunction('globalThis.setLeast');
  return { page, errors };
}

test('components with the same filter share a subscription, draw its changes, and end it', async () => {
  await admin(database.url, `insert into items (name, value) values ('few', 1), ('ten', 10), ('many', 100)`);
  const { page, errors } = await openPage();

  await shows(page, '2', ['ten', 'many']);
  expect(await frames(page, 'subscribe')).toMatchObject([{ table: 'items', where: { value: { gte: 10 } } }]);

  await admin(database.url, `update items set value = 11 where name = 'few'; delete from items where name = 'ten'`);
  await shows(page, '2', ['many', 'few']);

  await page.evaluate('setLeast(50)');
  await shows(page, '1', ['many']);
  await expect.poll(() => frames(page, 'subscribe')).toHaveLength(2);
  // the former filter's
  await expect.poll(() => frames(page, 'unsubscribe')).toHaveLength(1);

  await page.evaluate('setParts(1)');
  await admin(database.url, `update items set value = 49 where name = 'many'`);
  await shows(page, '0', []);
  expect(await frames(page, 'unsubscribe')).toHaveLength(1);
  await page.evaluate('setParts(0)');
  await expect.poll(() => frames(page, 'unsubscribe')).toHaveLength(2);

  await page.evaluate('setParts(2)');
  await admin(database.url, `insert into items (name, value) values ('again', 60)`);
  await shows(page, '1', ['again']);
  expect(await frames(page, 'subscribe')).toHaveLength(3);
  expect(await frames(page, 'hello')).toHaveLength(1);
  expect(errors).toEqual([]);
  await page.close();
});

test('a component that is unmounted, hidden and shown again draws only rows that the table had', async () => {
  // after each transaction one row of each pair is in sight
  const pairs = ['a', 'b', 'c'];
  for (const pair of pairs)
    await admin(database.url, `insert into items (name, value) values ('${pair}0', 900), ('${pair}1', 1100)`);
  let transactions = 0;
  const end = new AbortController();
  const write = async () => {
    for (; !end.signal.aborted; transactions++) {
      const pair = pairs[transactions % pairs.length]!;
      await admin(database.url, `update items set value = 2000 - value where name like '${pair}_'`);
    }
  };
  const more = (count: number) => {
    const goal = transactions + count;
    return until('transactions go on', () => transactions >= goal, deadlineMs);
  };
  const { page, errors } = await openPage();
  const writing = write();
  try {
    await page.evaluate('setLeast(1000)');
    const inSight = () => page.locator('#root li:visible').count();
    await expect.poll(inSight).toBe(3);
    for (const parts of [1, 2, 0, 2, 1, 2, 0, 1, 2, 0, 2]) {
      await page.evaluate(`setParts(${parts})`);
      await more(2);
    }
    // longer than the SDK keeps a subscription without watchers
    for (const hide of [`setMode('hidden')`, 'setParts(0)']) {
      const ended = (await frames(page, 'unsubscribe')).length;
      await page.evaluate(hide);
      await expect.poll(() => frames(page, 'unsubscribe')).toHaveLength(ended + 1);
      await more(3);
      await page.evaluate(`setMode('visible'); setParts(2)`);
      await expect.poll(inSight).toBe(3);
      await more(3);
    }
    // hidden for a moment
    await page.evaluate(`setMode('hidden')`);
    await more(3);
    await page.evaluate(`setMode('visible')`);
  } finally {
    end.abort();
    await writing;
  }
  const rows = await admin(database.url, 'select name from items where value >= 1000 order by name');
  const listed = async () => (await page.locator('#root li').allInnerTexts()).sort();
  await expect.poll(listed).toEqual(rows.map(({ name }) => name));
  const drawn = await page.evaluate<[number, ...string[]][]>('drawn');
  const pictures = drawn
    .filter(([least]) => least === 1_000)
    .map(([, ...names]) => names.map(([pair]) => pair).join(''));
  expect(new Set(pictures)).toEqual(new Set(['abc']));
  expect(pictures.length).toBeGreaterThan(20);
  expect(await frames(page, 'hello')).toHaveLength(1);
  expect(errors).toEqual([]);
  await page.close();
});
