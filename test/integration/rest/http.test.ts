// What a gateway serves over HTTP besides tables: health, metrics, the test page and the SDK, and to which origins.

import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { request as rawRequest } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { publicNames } from '#gateway/http/pages.ts';
import { RestApp } from '../../support/stage/rest-app.ts';

const app = RestApp.of();
const { call } = app;

test('the status of /health is 503 when the gateway is degraded', async () => {
  const good = await call('GET', '/health');
  expect([good.status, JSON.parse(good.text)]).toEqual([200, app.health]);
  app.health = { ...app.health, status: 'degraded', database: 'unreachable' };
  expect((await call('GET', '/health')).status).toBe(503);
  expect((await call('GET', '/health/live')).status).toBe(200);
  expect((await call('GET', '/health/ready')).status).toBe(200);
  app.ready = { ready: false, reason: 'draining' };
  const not = await call('GET', '/health/ready');
  expect([not.status, not.text]).toEqual([503, '{"ready":false,"reason":"draining"}']);
});

test('the metrics count requests by route', async () => {
  await call('GET', '/api/items/12345');
  await call('GET', '/nowhere/at/all');
  const { text, headers } = await call('GET', '/metrics');
  expect(headers.get('content-type')).toContain('text/plain');
  expect(text).toMatch(/plank_http_requests_total\{method="GET",route="\/api\/:table\/:id",status="404"\} \d/);
  expect(text).toMatch(/plank_http_requests_total\{method="GET",route="unknown",status="404"\} \d/);
  expect(text).not.toMatch(/12345|nowhere/);
});

test('only the configured origins may read answers, and see the paging headers', async () => {
  const allowed = await call('GET', '/api/items', undefined, { origin: 'https://shop.example' });
  expect(allowed.headers.get('access-control-allow-origin')).toBe('https://shop.example');
  expect(allowed.headers.get('access-control-expose-headers')).toContain('Plank-Next-Cursor');
  const other = await call('GET', '/api/items', undefined, { origin: 'https://evil.example' });
  expect(other.headers.get('access-control-allow-origin')).toBeNull();
});

test('the test page is served with a policy that allows no inline script', async () => {
  for (const path of ['/', '/try/page.js', '/try/rows.css', '/common/page.css', '/common/icon.svg']) {
    const page = await call('GET', path);
    expect([path, page.status]).toEqual([path, 200]);
    expect(page.headers.get('content-security-policy')).toContain("default-src 'self'");
    expect(page.headers.get('x-powered-by')).toBeNull();
  }
  expect((await call('GET', '/')).text).not.toMatch(/<script>|\son\w+=|\sstyle=/);
});

test('/try/tables.json lists the attached tables for the test page', async () => {
  const list = await call('GET', '/try/tables.json');
  expect(list.headers.get('cache-control')).toBe('no-store');
  expect(JSON.parse(list.text)).toEqual([
    {
      name: 'items',
      key: ['id'],
      columns: [
        { name: 'id', type: 'bigint', isWritable: false, isRequired: false, isJson: true },
        { name: 'name', type: 'text', isWritable: true, isRequired: true, isJson: false },
        { name: 'value', type: 'double precision', isWritable: true, isRequired: false, isJson: true },
        { name: 'created_at', type: 'timestamp with time zone', isWritable: false, isRequired: false, isJson: false },
        { name: 'updated_at', type: 'timestamp with time zone', isWritable: false, isRequired: false, isJson: false },
      ],
    },
  ]);
});

test('a file is not public because it is in a folder of pages', async () => {
  const folder = await mkdtemp(join(tmpdir(), 'plank-pages-'));
  try {
    for (const name of [
      'page.js',
      'page.css',
      'icon.svg',
      '.env',
      'key.pem',
      'dump.sql',
      'index.html',
      'page.js.bak',
      'a.b.js',
    ])
      await writeFile(join(folder, name), 'secret');
    await mkdir(join(folder, 'folder.js'));
    expect(publicNames(folder).sort()).toEqual(['icon.svg', 'page.css', 'page.js']);
  } finally {
    await rm(folder, { recursive: true });
  }
});

test('the SDK is served to pages of other origins, and again only when it has changed', async () => {
  const entry = await call('GET', '/plank.js', undefined, { origin: 'https://shop.example' });
  expect(entry).toMatchObject({ status: 200, text: "export * from './client/plank-client.js';\n" });
  expect(entry.headers.get('access-control-allow-origin')).toBe('https://shop.example');
  for (const path of ['/plank.js', '/client/plank-client.js', '/client/react.js', '/shared/wire.js']) {
    const { status, headers } = await call('GET', path);
    expect([path, status, headers.get('content-type')]).toEqual([path, 200, 'text/javascript; charset=utf-8']);
    expect(headers.get('cache-control')).toBe('no-cache');
    // with a tag, fetch would bypass caches
    const tag = { 'if-none-match': headers.get('etag')!, 'cache-control': 'max-age=0' };
    const again = await call('GET', path, undefined, tag);
    expect([path, again.status, again.text]).toEqual([path, 304, '']);
  }
  expect((await call('GET', '/client/plank-client.ts')).status).toBe(404);
});

test('a path cannot leave the folder of the page', async () => {
  // fetch would resolve the dots itself
  const status = await new Promise((resolve, reject) => {
    rawRequest(app.base, { path: '/../package.json' }, (response) => {
      response.resume();
      resolve(response.statusCode);
    })
      .on('error', reject)
      .end();
  });
  expect(status).toBe(404);
});
