// The operations port: who is admitted, which requests are accepted from whom, and the console's views.

import { once } from 'node:events';
import { get, type IncomingMessage } from 'node:http';
import { connect } from 'node:net';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { WebSocket } from 'ws';
import { createDatabase } from '../../support/servers/servers.ts';
import { type Embedded, startEmbedded } from '../../support/stage/embedded.ts';
import { Stage } from '../../support/stage/stage.ts';
import { until } from '../../support/wait.ts';

const token = 'a token of sixteen';
const stage = Stage.of(`
  create table todo (id integer primary key, status text);
  select plank.attach('public.todo');
`);
const opsUrl = () => stage.embedded.opsUrl;

/** 101, or the status of a refused upgrade. */
async function upgrade(url: string, headers: Record<string, string> = {}): Promise<number> {
  const ws = new WebSocket(url.replace('http', 'ws'), 'plank.v1', { headers });
  return new Promise((resolve) => {
    ws.on('open', () => resolve(101));
    ws.on('unexpected-response', (_request, response) => resolve(response.statusCode ?? 0));
    ws.on('error', () => {});
  }).finally(() => ws.terminate()) as Promise<number>;
}

type Row = Record<string, unknown>;

interface View {
  node: string;
  isAlone: boolean;
  status: { level: string };
  nodes: Row[];
  log: Row;
  clients: Row[];
  channels: Row[];
  tables: string[];
}

/** The views that a console gets; `last` is the newest. */
async function watchViews(): Promise<{ last: () => View | undefined; stop: () => void }> {
  const abort = new AbortController();
  const { body, headers } = await fetch(`${opsUrl()}/ops/view`, { signal: abort.signal });
  // nginx holds answers back until its buffer is full, except with this header
  expect(headers.get('x-accel-buffering')).toBe('no');
  let last: View | undefined;
  const read = async () => {
    let text = '';
    for await (const chunk of body!.pipeThrough(new TextDecoderStream())) {
      const events = (text + chunk).split('\n\n');
      text = events.pop()!;
      for (const event of events) if (event.startsWith('data: ')) last = JSON.parse(event.slice(6)) as View;
    }
  };
  read().catch(() => {});
  return { last: () => last, stop: () => abort.abort() };
}

describe('the view of the console', () => {
  test('the view has every process, the verdict, and the channels', async () => {
    const views = await watchViews();
    try {
      const { last } = views;
      await until('every process is in the view', () => last()?.nodes.length === 2, 5_000);
      expect(
        last()!
          .nodes.map(({ node, role }) => `${String(node)} ${String(role)}`)
          .sort(),
      ).toEqual(['test gateway', 'test listener']);
      expect(last()).toMatchObject({ node: 'test', isAlone: false, tables: ['items', 'todo'] });
      await until('all is well', () => last()!.status.level === 'good', 10_000);
      expect(last()!.log).toMatchObject({
        leader: 'test',
        postgres: 'answers',
        stream: 'answers',
        streamKind: 'memory',
        outboxDepth: 0,
      });

      const peers = await Promise.all([stage.peer(), stage.peer()]);
      for (const peer of peers) await stage.subscribe(peer, { table: 'todo', where: { status: 'open' } });
      const found = () => last()!.channels.find(({ table }) => table === 'todo');
      await until('both are counted', () => found()?.['subscribers'] === 2, 5_000);
      expect(found()).toMatchObject({ filter: 'status = "open"', replicas: 1 });
      const gateway = () => last()!.nodes.find(({ role }) => role === 'gateway')!;
      await until('their connections are counted', () => gateway()['connections'] === 2, 5_000);
      expect(gateway()['share']).toBe(1);
      for (const { ws } of peers) ws.terminate();
      await until('both are gone', () => found() === undefined && gateway()['connections'] === 0, 5_000);
    } finally {
      views.stop();
    }
  });

  test('the view names a client that reads nothing, which can be disconnected', async () => {
    const views = await watchViews();
    const peer = await stage.peer();
    await stage.subscribe(peer, { table: 'todo' });
    try {
      const clients = () => views.last()?.clients ?? [];
      peer.ws.pause();
      for (let i = 0; i < 25; i++)
        await stage.sql(`insert into todo select $1 + n, repeat('x', 2000) from generate_series(1, 500) n`, [i * 500]);
      await until('the client is in the view', () => clients().length === 1, 20_000);
      const [client] = clients();
      expect(client).toMatchObject({ address: '127.0.0.1', mode: 'plank.v1', node: 'test' });
      expect(client!['queuedBytes']).toBeGreaterThan(60_000);
      const url = `${opsUrl()}/ops/nodes/test/connections/${String(client!['id']).split('/')[1]}/disconnect`;
      expect((await fetch(url, { method: 'POST' })).status).toBe(204);
      peer.ws.resume();
      await until('the connection is closed', () => peer.code !== 0, 5_000);
      await until('the client is no longer in the view', () => clients().length === 0, 5_000);
      expect((await fetch(url, { method: 'POST' })).status).toBe(404);
    } finally {
      views.stop();
    }
  });

  test("HEAD does not open the view's stream", async () => {
    expect((await fetch(`${opsUrl()}/ops/view`, { method: 'HEAD' })).status).toBe(405);
  });
});

describe('access', () => {
  let guarded: Embedded;

  beforeAll(async () => {
    const database = await createDatabase();
    guarded = await startEmbedded(database.url, { OPS_TOKEN: token, CORS_ORIGINS: 'https://shop.example' });
    return () => database.drop();
  });

  afterAll(() => guarded.stop());

  test("everybody gets the console's page, and nobody its data without the token", async () => {
    const page = await fetch(`${guarded.opsUrl}/console`);
    expect(page.status).toBe(200);
    expect(page.headers.get('content-security-policy')).toMatch(/default-src 'self'/);
    expect(page.headers.get('content-security-policy')).not.toMatch(/unsafe/);
    const named = Array.from((await page.text()).matchAll(/(?:href|src)="([^"]+)"/g), ([, path]) => path!);
    expect(named).toContain('console/common/page.css');
    for (const path of named) expect([path, (await fetch(`${guarded.opsUrl}/${path}`)).status]).toEqual([path, 200]);
    for (const path of ['/ops/nodes', '/ops/status', '/ops/view', '/ops/explain?pos=e1.1']) {
      const answer = await fetch(guarded.opsUrl + path);
      expect([path, answer.status, answer.headers.get('www-authenticate')]).toEqual([path, 401, 'Bearer']);
    }
    expect(await upgrade(`${guarded.opsUrl}/ws`)).toBe(401);
  });

  test.each(['Bearer another of sixteen', `Basic ${token}`, token, 'Bearer '])(
    '%s is not admitted',
    async (authorization) => {
      expect((await fetch(`${guarded.opsUrl}/ops/nodes`, { headers: { authorization } })).status).toBe(401);
      expect(
        (await fetch(`${guarded.opsUrl}/ops/session`, { method: 'POST', headers: { authorization } })).status,
      ).toBe(401);
    },
  );

  test('the token is admitted, and the cookie that is given for it', async () => {
    const headers = { authorization: `Bearer ${token}` };
    expect((await fetch(`${guarded.opsUrl}/ops/nodes`, { headers })).status).toBe(200);
    expect(await upgrade(`${guarded.opsUrl}/ws`, headers)).toBe(101);
    const session = await fetch(`${guarded.opsUrl}/ops/session`, { method: 'POST', headers });
    expect(session.status).toBe(204);
    const given = session.headers.get('set-cookie')!;
    expect(given).toMatch(/; HttpOnly/i);
    expect(given).toMatch(/; SameSite=Strict/i);
    expect(given).not.toContain(token);
    const cookie = given.split(';')[0]!;
    expect((await fetch(`${guarded.opsUrl}/ops/nodes`, { headers: { cookie } })).status).toBe(200);
    const view = await fetch(`${guarded.opsUrl}/ops/view`, { headers: { cookie } });
    expect([view.status, view.headers.get('content-type')]).toEqual([200, 'text/event-stream; charset=utf-8']);
    await view.body!.cancel();
    expect(await upgrade(`${guarded.opsUrl}/ws`, { cookie })).toBe(101);
    // a forged cookie that lasts longer
    const [name, value] = decodeURIComponent(cookie).split('=', 2);
    const [until, mark] = value!.split('.');
    for (const forged of [`${Number(until) + 1}.${mark}`, `${until}.`, '9999999999999.x', ''])
      expect((await fetch(`${guarded.opsUrl}/ops/nodes`, { headers: { cookie: `${name}=${forged}` } })).status).toBe(
        401,
      );
  });

  test('the cookie is Secure if the browser used TLS, even if the nearest proxy did not', async () => {
    const isSecure = async (headers: Record<string, string>) => {
      const asking = { method: 'POST', headers: { authorization: `Bearer ${token}`, ...headers } };
      return / Secure/.test((await fetch(`${guarded.opsUrl}/ops/session`, asking)).headers.get('set-cookie')!);
    };
    const { host } = new URL(guarded.opsUrl);
    expect(await isSecure({ origin: `https://${host}`, 'x-forwarded-proto': 'http' })).toBe(true);
    expect(await isSecure({ origin: `https://${host}` })).toBe(true);
    expect(await isSecure({ origin: `http://${host}` })).toBe(false);
    expect(await isSecure({})).toBe(false);
  });

  test('a page of another origin can neither change anything nor open a WebSocket', async () => {
    const origin = 'http://elsewhere.example';
    const foreign = await fetch(`${opsUrl()}/ops/nodes/test/drain`, { method: 'POST', headers: { origin } });
    expect(foreign.status).toBe(403);
    expect(await upgrade(`${opsUrl()}/ws`, { origin })).toBe(403);
    expect(await upgrade(`${opsUrl()}/ws`, { origin: new URL(opsUrl()).origin })).toBe(101);
    expect(await upgrade(`${opsUrl()}/elsewhere`)).toBe(404);
  });

  test('a page cannot make a browser send requests, nor use a name that it pointed at the gateway', async () => {
    const status = async (url: string, headers: Record<string, string>) => {
      const { hostname, port, pathname } = new URL(url);
      const asking = get({ hostname, port, path: pathname, headers });
      const [answer] = (await once(asking, 'response')) as [IncomingMessage];
      return answer.resume().statusCode;
    };
    const nodes = `${opsUrl()}/ops/nodes`;
    const image = { 'sec-fetch-site': 'cross-site', 'sec-fetch-mode': 'no-cors' };
    expect(await status(nodes, image)).toBe(403);
    expect(await status(nodes, { ...image, 'sec-fetch-site': 'same-site' })).toBe(403);
    expect(await status(nodes, { ...image, 'sec-fetch-mode': 'navigate' })).toBe(200);
    expect(await status(nodes, { ...image, 'sec-fetch-site': 'same-origin' })).toBe(200);
    const rebound = { host: 'elsewhere.example:8002', origin: 'http://elsewhere.example:8002' };
    expect(await status(nodes, { host: rebound.host })).toBe(403);
    expect(await upgrade(`${opsUrl()}/ws`, rebound)).toBe(403);
    for (const host of ['localhost:1', 'plank.localhost', 'gateway-1:8002', '10.1.2.3', '[::1]:8002'])
      expect([host, await status(nodes, { host })]).toEqual([host, 200]);
    // a request with the token is no page
    const headers = { host: rebound.host, authorization: `Bearer ${token}` };
    expect(await status(`${guarded.opsUrl}/ops/nodes`, headers)).toBe(200);
  });

  test('the console follows changes whatever CORS_ORIGINS is', async () => {
    expect(await upgrade(`${guarded.url}/ws`)).toBe(403);
    const authorization = `Bearer ${token}`;
    expect(await upgrade(`${guarded.opsUrl}/ws`, { authorization, origin: new URL(guarded.opsUrl).origin })).toBe(101);
  });
});

test.each([
  '/console',
  '/',
  '/console/operators/main.js',
  '/console/plank.js',
  '/ops/status',
  '/ops/nothing',
  '/nothing',
])('%s loads nothing else and cannot be framed', async (path) => {
  const { headers } = await fetch(opsUrl() + path, { redirect: 'manual' });
  const policy = headers.get('content-security-policy')?.split('; ');
  expect(policy).toEqual(expect.arrayContaining(["default-src 'self'", "base-uri 'none'", "frame-ancestors 'none'"]));
  expect(policy?.join()).not.toMatch(/unsafe|\*|https?:/);
  expect(headers.get('referrer-policy')).toBe('no-referrer');
  expect(headers.get('x-content-type-options')).toBe('nosniff');
});

test("the operators' paths are not on the clients' port", async () => {
  for (const path of ['/console', '/ops/nodes', '/ops/explain', '/ops/session'])
    expect([path, (await fetch(stage.embedded.url + path)).status]).toEqual([path, 404]);
});

test('the operations server stops with its gateway, even if a page reads nothing', async () => {
  const database = await createDatabase();
  const one = await startEmbedded(database.url);
  const { port } = new URL(one.opsUrl);
  const mute = connect(Number(port), '127.0.0.1');
  mute.write('GET /ops/view HTTP/1.1\r\nHost: x\r\n\r\n');
  await new Promise((resolve) => mute.once('data', resolve));
  mute.pause();
  const started = performance.now();
  await one.stop();
  expect(performance.now() - started).toBeLessThan(5_000);
  mute.destroy();
  await database.drop();
});
