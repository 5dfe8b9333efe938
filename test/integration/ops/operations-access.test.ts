// How often the operators' token can be guessed, and what a page of another origin cannot make a browser do by form, image or link.

import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { WebSocket } from 'ws';
import { launchBrowser } from '../../support/servers/browser.ts';
import { createDatabase, type TestDatabase } from '../../support/servers/servers.ts';
import { type Embedded, startEmbedded } from '../../support/stage/embedded.ts';

const token = 'a token of sixteen';
let database: TestDatabase;
beforeAll(async () => {
  database = await createDatabase();
});
afterAll(() => database.drop());

describe('the token', () => {
  let one: Embedded;
  // a gateway for each test, as earlier guesses count
  beforeEach(async () => {
    one = await startEmbedded(database.url, { OPS_TOKEN: token });
    return () => one.stop();
  });

  const ask = async (given: string | undefined, from?: string, path = '/ops/nodes') => {
    const headers: Record<string, string> = {};
    if (given !== undefined) headers['authorization'] = `Bearer ${given}`;
    if (from !== undefined) headers['x-forwarded-for'] = from;
    const answer = await fetch(one.opsUrl + path, { headers });
    await answer.body?.cancel();
    return answer;
  };

  test('an address has ten guesses of the token a minute, over any path and WebSocket', async () => {
    const guesses = await Promise.all(Array.from({ length: 2_000 }, (_, i) => ask(`guess number ${i}`, '192.0.2.1')));
    expect(guesses.filter(({ status }) => status === 401)).toHaveLength(10);
    const late = guesses.filter(({ status }) => status === 429);
    expect(late).toHaveLength(1_990);
    expect(Number(late[0]!.headers.get('retry-after'))).toBeGreaterThan(0);
    // the right token is refused as well, or its answer would reveal it
    expect((await ask(token, '192.0.2.1')).status).toBe(429);
    expect((await ask(token, '192.0.2.1', '/ops/status')).status).toBe(429);
    const ws = new WebSocket(`${one.opsUrl.replace('http', 'ws')}/ws`, 'plank.v1', {
      headers: { authorization: `Bearer ${token}`, 'x-forwarded-for': '192.0.2.1' },
    });
    const status = await new Promise((resolve) => {
      ws.on('unexpected-response', (_request, response) => resolve(response.statusCode));
      ws.on('open', () => resolve(101));
      ws.on('error', () => {});
    });
    expect(status).toBe(429);
    ws.terminate();
    // other addresses are admitted
    expect((await ask(token, '192.0.2.2')).status).toBe(200);
    expect((await ask(token)).status).toBe(200);
    // a request without a token is still answered with 401
    expect((await ask(undefined, '192.0.2.1')).status).toBe(401);
  });

  test('a network has ten guesses of the token as well, and all addresses together a bounded number', async () => {
    for (let i = 0; i < 10; i++) expect((await ask('wrong', `2001:db8:0:1::${i}`)).status).toBe(401);
    expect((await ask(token, '2001:db8:0:1:ffff::1')).status).toBe(429);
    expect((await ask(token, '2001:db8:0:2::1')).status).toBe(200);
    for (let i = 0; i < 10; i++)
      await Promise.all(Array.from({ length: 100 }, (_, j) => ask('wrong', `198.51.${i}.${j}`)));
    expect((await ask(token, '203.0.113.1')).status).toBe(429);
    // an address that sent the right token before is admitted
    expect((await ask(token, '2001:db8:0:2::1')).status).toBe(200);
  });

  test('a client with a cookie needs no token', async () => {
    const given = await fetch(`${one.opsUrl}/ops/session`, {
      method: 'POST',
      headers: { authorization: `Bearer ${token}` },
    });
    const cookie = given.headers.get('set-cookie')!.split(';')[0]!;
    for (let i = 0; i < 20; i++) await ask('wrong');
    expect((await ask(token)).status).toBe(429);
    expect((await fetch(`${one.opsUrl}/ops/nodes`, { headers: { cookie } })).status).toBe(200);
  });
});

describe('a page of another origin', () => {
  let one: Embedded;
  beforeAll(async () => {
    one = await startEmbedded(database.url);
    return () => one.stop();
  });
  const drain = () => `${one.opsUrl}/ops/nodes/test/drain`;

  test.each<[string, Record<string, string>, number]>([
    ['curl', {}, 202],
    ['a script', { 'content-type': 'application/json' }, 202],
    ['the console', { 'sec-fetch-site': 'same-origin', 'sec-fetch-mode': 'cors' }, 202],
    ['a form elsewhere', { 'sec-fetch-site': 'cross-site', 'sec-fetch-mode': 'navigate' }, 403],
    ['a form on another port', { 'sec-fetch-site': 'same-site', 'sec-fetch-mode': 'navigate' }, 403],
    ['a form without an origin', { origin: 'null' }, 403],
    ['a form of an old browser', { 'content-type': 'application/x-www-form-urlencoded' }, 403],
    ['another form of an old browser', { 'content-type': 'multipart/form-data; boundary=x' }, 403],
    ['a third form of an old browser', { 'content-type': 'Text/Plain;charset=UTF-8' }, 403],
  ])('a POST of %s is admitted or refused', async (_who, headers, status) => {
    const answer = await fetch(drain(), { method: 'POST', headers });
    expect(answer.status).toBe(status);
    if (status === 202) await fetch(drain().replace('/drain', '/undrain'), { method: 'POST' });
  });

  test('a form of another page cannot drain a gateway or write a row, in Chromium', async () => {
    const targets = [drain(), `${one.url}/api/items`];
    const pages = createServer((request, response) => {
      const [, index, type] = request.url!.split('/');
      const referrer = `<meta name="referrer" content="no-referrer">`;
      response
        .setHeader('content-type', 'text/html')
        .end(`${referrer}<form method="post" action="${targets[Number(index)]}"
        enctype="${decodeURIComponent(type ?? '')}"><input name='{"name":"forged","x":"' value='"}'></form><script>document.forms[0].submit()</script>`);
    });
    await new Promise<void>((resolve) => pages.listen(0, '127.0.0.1', resolve));
    const { port } = pages.address() as AddressInfo;
    const browser = await launchBrowser();
    try {
      const page = await browser.newPage();
      const seen: unknown[] = [];
      for (const host of ['localhost', '127.0.0.1'])
        for (const index of [0, 1])
          for (const type of ['text/plain', 'application/x-www-form-urlencoded', 'multipart/form-data']) {
            const answered = page.waitForResponse((answer) => answer.url() === targets[index]);
            await page.goto(`http://${host}:${port}/${index}/${encodeURIComponent(type)}`).catch(() => {});
            seen.push((await answered).status());
          }
      expect(seen).toEqual([403, 403, 403, 415, 415, 415, 403, 403, 403, 415, 415, 415]);
      const state = (await (await fetch(`${one.opsUrl}/ops/nodes`)).json()) as {
        role: string;
        state: { draining: boolean };
      }[];
      expect(state.find(({ role }) => role === 'gateway')!.state.draining).toBe(false);
    } finally {
      await browser.close();
      pages.close();
      pages.closeAllConnections();
    }
  });
});
