// Limits of one user and of one address, counted over two gateways; each refusal says when to try again.

import { describe, expect, test } from 'vitest';
import { WebSocket } from 'ws';
import { Stage } from '../../support/stage/stage.ts';
import { secret, tokenOf } from '../../support/stage/tokens.ts';
import { until } from '../../support/wait.ts';

const stage = Stage.of(
  `create table todo (id int primary key, status text); select plank.attach('todo');
   select plank.allow('todo', 'authenticated', read => '{}')`,
  {
    AUTH: 'jwt',
    AUTH_JWT_SECRET: secret,
    LIMIT_USER_CONNECTIONS: '3',
    LIMIT_ADDRESS_CONNECTIONS: '6',
    LIMIT_REQUESTS_PER_SECOND: '5',
    LIMIT_REFUSED_TOKENS: '4',
  },
);

interface Opened {
  /** 101, or the status of the refusal; 0: no answer yet */
  status: number;
  retryAfter: string | undefined;
  code: number;
  reason: string;
  close(): void;
}

let lastAddress = 0;
/** An address of its own for each test. */
const address = () => `198.51.100.${++lastAddress}`;

async function open(
  { from, token, hello }: { from: string; token?: string; hello?: string },
  url = stage.embedded.url,
): Promise<Opened> {
  const ws = new WebSocket(`${url.replace('http', 'ws')}/ws`, hello === undefined ? [] : 'plank.v1', {
    headers: { 'x-forwarded-for': from, ...(token === undefined ? {} : { authorization: `Bearer ${token}` }) },
  });
  const self: Opened = { status: 0, retryAfter: undefined, code: 0, reason: '', close: () => ws.terminate() };
  stage.afterwards(() => ws.terminate());
  ws.on('error', () => {});
  ws.on('open', () => {
    if (hello === undefined) self.status = 101;
    else ws.send(JSON.stringify({ type: 'hello', token: hello }));
  });
  ws.on('message', () => {
    self.status = 101;
  });
  ws.on('unexpected-response', (request, response) => {
    request.destroy();
    self.retryAfter = response.headers['retry-after'];
    self.status = response.statusCode!;
  });
  ws.on('close', (code, reason) => Object.assign(self, { code, reason: reason.toString() }));
  await until('the answer', () => self.status !== 0 || self.code !== 0, 5_000);
  return self;
}

const call = (path: string, from: string, token?: string) =>
  fetch(`${stage.embedded.url}${path}`, {
    headers: { 'x-forwarded-for': from, ...(token === undefined ? {} : { authorization: `Bearer ${token}` }) },
  });

describe('connections', () => {
  test('of one user are limited over all gateways and transports, and free again after a close', async () => {
    const token = tokenOf({ sub: 'ada' });
    const other = `http://127.0.0.1:${(await stage.embedded.startGateway()).port}`;
    const first = await open({ from: address(), token });
    expect((await open({ from: address(), hello: token }, other)).status).toBe(101);
    const abort = new AbortController();
    const stream = await fetch(`${other}/api/todo/changes`, {
      headers: { 'x-forwarded-for': address(), authorization: `Bearer ${token}` },
      signal: abort.signal,
    });
    expect(stream.status).toBe(200);

    const refused = await open({ from: address(), token }, other);
    expect([refused.status, refused.retryAfter]).toEqual([429, '10']);
    const late = await open({ from: address(), hello: token });
    expect([late.code, late.reason]).toEqual([4429, expect.stringContaining('there are 3 connections of this user')]);
    const events = await call('/api/todo/changes', address(), token);
    expect([events.status, events.headers.get('retry-after')]).toEqual([429, '10']);
    await events.body?.cancel();

    expect((await open({ from: address(), token: tokenOf({ sub: 'bob' }) })).status).toBe(101);
    first.close();
    await until('a seat is free', async () => (await open({ from: address(), token })).status === 101, 5_000);
    abort.abort();
  });

  test('of one address are limited, whoever the users are', async () => {
    const from = address();
    for (let i = 0; i < 6; i++) expect((await open({ from, token: tokenOf({ sub: `user ${i}` }) })).status).toBe(101);
    expect((await open({ from })).status).toBe(429);
    expect((await open({ from: address() })).status).toBe(101);
  });

  test('that are refused for another reason take no seat', async () => {
    const from = address();
    for (let i = 0; i < 10; i++) {
      const response = await call('/api/nosuch/changes', from, tokenOf({ sub: 'cyd' }));
      expect(response.status).toBe(404);
      await response.body?.cancel();
    }
    expect((await open({ from, token: tokenOf({ sub: 'cyd' }) })).status).toBe(101);
  });
});

test('REST requests of one user are limited, and of one address without a token', async () => {
  for (const token of [tokenOf({ sub: 'dan' }), undefined]) {
    const from = address();
    const statuses: number[] = [];
    for (let i = 0; i < 12; i++) {
      const response = await call('/api/todo', token === undefined ? from : address(), token);
      statuses.push(response.status);
      if (response.status === 429) expect(Number(response.headers.get('retry-after'))).toBeGreaterThan(0);
      await response.body?.cancel();
    }
    expect(statuses.filter((status) => status === 429)).toHaveLength(2);
    const others = await call('/api/todo', address(), tokenOf({ sub: 'eve' }));
    expect(others.status).toBe(200);
    await others.body?.cancel();
  }
});

test('tickets of one user are limited as requests are', async () => {
  const statuses: number[] = [];
  for (let i = 0; i < 12; i++) {
    const response = await fetch(`${stage.embedded.url}/auth/tickets`, {
      method: 'POST',
      headers: { 'x-forwarded-for': address(), authorization: `Bearer ${tokenOf({ sub: 'hal' })}` },
    });
    statuses.push(response.status);
    await response.body?.cancel();
  }
  expect([statuses.filter((status) => status === 200).length, statuses.at(-1)]).toEqual([10, 429]);
});

test('an address whose tokens are refused may try only some, and others go on', async () => {
  const from = address();
  const statuses: number[] = [];
  for (let i = 0; i < 8; i++) {
    const response = await call('/api/todo', from, 'x.y.z');
    statuses.push(response.status);
    await response.body?.cancel();
  }
  expect(statuses.slice(0, 4)).toEqual([401, 401, 401, 401]);
  expect(statuses.at(-1)).toBe(429);
  // even the right one
  const right = await call('/api/todo', from, tokenOf({ sub: 'fay' }));
  expect([right.status, Number(right.headers.get('retry-after')) > 30]).toEqual([429, true]);
  await right.body?.cancel();
  const hello = await open({ from, hello: tokenOf({ sub: 'fay' }) });
  expect(hello.code).toBe(4429);
  expect((await open({ from: address(), token: tokenOf({ sub: 'fay' }) })).status).toBe(101);
  // a token that has expired is no guess
  const honest = address();
  for (let i = 0; i < 8; i++) {
    const response = await call('/api/todo', honest, tokenOf({ sub: `gus ${i}`, iat: 1, exp: 2 }));
    expect(response.status).toBe(401);
    await response.body?.cancel();
  }
});
