// AUTH=jwt: a token that is refused opens no path; without a token a client is anonymous; a token that expires ends what it began;
// renewing keeps a connection, and only for the same user. Nothing of a token is logged.

import { once } from 'node:events';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { describe, expect, test } from 'vitest';
import { WebSocket } from 'ws';
import { createPlank } from '#client/plank-client.ts';
import { FrameReader } from '../../support/stage/frames.ts';
import { type Peer, Stage } from '../../support/stage/stage.ts';
import { claimsOf, hmacToken, now, rsaKeys, rsaToken, secret, tokenOf, unsigned } from '../../support/stage/tokens.ts';
import { until } from '../../support/wait.ts';

const logged: string[] = [];
const stage = Stage.of(
  `create table todo (id int primary key, status text); select plank.attach('todo');
   select plank.allow('todo', 'authenticated', read => '{}', insert => '{}', update => '{}', "delete" => '{}')`,
  {
    AUTH: 'jwt',
    AUTH_JWT_SECRET: secret,
    AUTH_ISSUER: 'https://issuer.example',
    AUTH_AUDIENCE: 'plank',
    AUTH_MAX_LIFETIME_S: '3600',
    LOG_LEVEL: 'trace',
  },
  (line) => void logged.push(line),
);
const { sql } = stage;
const own = { iss: 'https://issuer.example', aud: ['other', 'plank'] };
const valid = (claims: object = {}) => tokenOf({ ...own, ...claims });
const rsa = rsaKeys();
const other = rsaKeys();

interface Sent {
  headers?: Record<string, string | string[]>;
  protocol?: string;
  url?: string;
  query?: string;
}

const bearer = (token: string) => ({ headers: { authorization: `Bearer ${token}` } });

/** The HTTP status of an upgrade: 101 where it succeeds. */
function upgrade({
  headers = {},
  protocol,
  url = stage.embedded.url,
  query = '',
}: Sent): Promise<{ status: number; challenge?: string; ws: WebSocket }> {
  const ws = new WebSocket(`${url.replace('http', 'ws')}/ws${query}`, protocol === undefined ? [] : [protocol], {
    headers: headers as Record<string, string>,
  });
  stage.afterwards(() => ws.terminate());
  ws.on('error', () => {});
  return new Promise((resolve, reject) => {
    ws.on('open', () => resolve({ status: 101, ws }));
    ws.on('error', reject);
    ws.on('unexpected-response', (request, response) => {
      request.destroy();
      resolve({ status: response.statusCode!, challenge: response.headers['www-authenticate']!, ws });
    });
  });
}

/** A plank.v1 connection, before its hello. */
async function peer(sent: Sent = {}): Promise<Peer> {
  const { ws, status } = await upgrade({ protocol: 'plank.v1', ...sent });
  expect(status).toBe(101);
  const reader = new FrameReader(() => ws.terminate());
  const self: Peer = { reader, ws, code: 0, reason: '', send: (message) => ws.send(JSON.stringify(message)) };
  ws.on('message', (data) => reader.push(JSON.parse((data as Buffer).toString())));
  ws.on('close', (code, reason) => {
    self.code = code;
    self.reason = reason.toString();
    reader.end(`closed with ${code}`);
  });
  return self;
}

async function welcomed(token: string, sent: Sent = {}): Promise<Peer> {
  const one = await peer(sent);
  one.send({ type: 'hello', token });
  await one.reader.expect('welcome');
  return one;
}

const closed = (one: Peer, deadlineMs = 5_000) => until('the connection is closed', () => one.code !== 0, deadlineMs);

interface Answer {
  status: number;
  challenge: string | null;
  body: unknown;
}

async function call(path: string, sent: Sent & { method?: string; body?: object } = {}): Promise<Answer> {
  const response = await fetch(`${sent.url ?? stage.embedded.url}${path}`, {
    method: sent.method ?? 'GET',
    headers: { 'content-type': 'application/json', ...(sent.headers as Record<string, string>) },
    ...(sent.body === undefined ? {} : { body: JSON.stringify(sent.body) }),
    signal: AbortSignal.timeout(5_000),
  });
  const isStream = response.headers.get('content-type') === 'text/event-stream';
  if (isStream) await response.body!.cancel();
  const body = isStream ? 'stream' : await response.json();
  return { status: response.status, challenge: response.headers.get('www-authenticate'), body };
}

const requests: [string, string, object?][] = [
  ['GET', '/api/todo'],
  ['GET', '/api/todo?where={"id":1}'],
  ['GET', '/api/todo/1'],
  ['GET', '/api/todo/changes'],
  ['GET', '/api/todo/changes?snapshot=true'],
  ['GET', '/API/todo/CHANGES'],
  ['GET', '/api/nosuch'],
  ['GET', '/api/nosuch/changes'],
  ['GET', '/api//todo'],
  ['POST', '/api/todo', { id: 66 }],
  ['PUT', '/api/todo/66', { id: 66, status: 'x' }],
  ['PATCH', '/api/todo/1', { status: 'x' }],
  ['DELETE', '/api/todo/1'],
  ['GET', '/try/tables.json'],
];

/** On every path, a client with these headers is refused, and changes nothing. */
async function expectRefused(sent: Sent, challenge: string): Promise<void> {
  await sql(`insert into todo values (1, 'here') on conflict (id) do update set status = 'here'`);
  for (const [method, path, body] of requests) {
    const answer = await call(path, { ...sent, method, ...(body && { body }) });
    expect([path, answer]).toMatchObject([
      path,
      { status: 401, challenge, body: { code: 'UNAUTHORIZED', status: 401 } },
    ]);
  }
  for (const query of ['', '?tables=todo'])
    expect(await upgrade({ ...sent, query })).toMatchObject({ status: 401, challenge });
  expect((await sql(`select * from todo where id in (1, 66)`)).rows).toEqual([{ id: 1, status: 'here' }]);
}

const attacks: [string, () => string, string][] = [
  ['alg none', () => unsigned(claimsOf(own)), 'invalid'],
  ['alg None', () => unsigned(claimsOf(own), 'None'), 'invalid'],
  ['no signature', () => `${valid().split('.').slice(0, 2).join('.')}.`, 'invalid'],
  [
    'claims that were changed',
    () => valid().replace(/\.[^.]+\./, `.${valid({ sub: 'eve' }).split('.')[1]}.`),
    'invalid',
  ],
  ['another secret', () => hmacToken(claimsOf(own), `${secret}x`), 'invalid'],
  ['another algorithm', () => rsaToken(claimsOf(own), rsa.privateKey), 'invalid'],
  ['HS512 with the right secret', () => hmacToken(claimsOf(own), secret, { alg: 'HS512' }, 'sha512'), 'invalid'],
  ['an unknown critical header', () => hmacToken(claimsOf(own), secret, { crit: ['x'], x: 1 }), 'invalid'],
  ['a payload that is not encoded', () => hmacToken(claimsOf(own), secret, { crit: ['b64'], b64: false }), 'invalid'],
  ['another issuer', () => valid({ iss: 'https://other.example' }), 'issuer'],
  ['no issuer', () => valid({ iss: undefined }), 'issuer'],
  ['another audience', () => valid({ aud: 'other' }), 'audience'],
  ['no audience', () => valid({ aud: undefined }), 'audience'],
  ['it expired', () => valid({ exp: now() - 1 }), 'expired'],
  ['it is not valid yet', () => valid({ nbf: now() + 60 }), 'not_yet_valid'],
  ['a lifetime that is too long', () => valid({ exp: now() + 3_700 }), 'lifetime'],
  ['a lifetime that began long ago', () => valid({ iat: now() - 3_600, exp: now() + 60 }), 'lifetime'],
  ['a lifetime that is said to begin later', () => valid({ iat: now() + 3_600, exp: now() + 3_700 }), 'lifetime'],
  ['a lifetime without end', () => hmacToken(claimsOf({ ...own, exp: 1e300 })), 'lifetime'],
  ['no exp', () => valid({ exp: undefined }), 'claims'],
  ['an exp in words', () => valid({ exp: 'never' }), 'claims'],
  ['no sub', () => valid({ sub: undefined }), 'claims'],
  ['an empty sub', () => valid({ sub: '' }), 'claims'],
  ['a sub that is a number', () => valid({ sub: 7 }), 'claims'],
  ['a role that is a list', () => valid({ role: ['admin'] }), 'claims'],
  ['words', () => 'let-me-in', 'invalid'],
  ['dots', () => '..', 'invalid'],
  ['it is too large', () => valid({ pad: 'x'.repeat(7_000) }), 'invalid'],
];

describe('refused on every path', () => {
  test.each(attacks)('%s', async (_name, make, reason) => {
    const count = () => metric(reason);
    const token = make();
    const before = await count();
    await expectRefused(bearer(token), 'Bearer error="invalid_token"');
    expect(await upgrade({ ...bearer(token), protocol: 'plank.v1' })).toMatchObject({ status: 401 });
    const one = await peer();
    one.send({ type: 'hello', token });
    one.send({ type: 'subscribe', id: 1, table: 'todo', snapshot: true });
    await closed(one);
    expect([one.code, one.reader.all]).toEqual([4401, []]);
    expect(await count()).toBe(before + requests.length + 4);
  });

  test.each<[string, () => Sent]>([
    ['another scheme', () => ({ headers: { authorization: `Basic ${valid()}` } })],
    ['no scheme', () => ({ headers: { authorization: valid() } })],
    ['two tokens in a header', () => ({ headers: { authorization: `Bearer ${valid()}, Bearer ${valid()}` } })],
    ['an empty header', () => ({ headers: { authorization: 'Bearer ' } })],
  ])('%s', async (_name, sent) => {
    await expectRefused(sent(), 'Bearer error="invalid_token"');
  });

  test('two Authorization headers', async () => {
    const { port } = new URL(stage.embedded.url);
    for (const tokens of [
      [valid(), 'x'],
      ['x', valid()],
      [valid(), valid()],
    ]) {
      const headers = tokens.map((token) => `Authorization: Bearer ${token}\r\n`).join('');
      expect(await raw(Number(port), `GET /api/todo HTTP/1.1\r\nHost: x\r\n${headers}\r\n`)).toMatch(/^HTTP\/1.1 401 /);
      const socket = `Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n`;
      expect(await raw(Number(port), `GET /ws HTTP/1.1\r\nHost: x\r\n${socket}${headers}\r\n`)).toMatch(
        /^HTTP\/1.1 401 /,
      );
    }
  });

  test('a token in a URL, in a cookie or in a subprotocol is not read', async () => {
    const token = valid();
    for (const query of [`token=${token}`, `access_token=${token}`]) {
      expect(await call(`/api/todo/changes?${query}`)).toMatchObject({ status: 400 });
      const { ws } = await upgrade({ query: `?${query}` });
      expect((await once(ws, 'close'))[0]).toBe(4400);
    }
    const sent = { headers: { cookie: `token=${token}; Authorization=${token}` } };
    expect(await call('/api/todo/changes', sent)).toMatchObject({ status: 404 });
    const one = await peer(sent);
    one.send({ type: 'hello' });
    expect(await one.reader.expect('welcome')).toMatchObject({ role: 'anonymous' });
    await expect(upgrade({ protocol: token })).rejects.toThrow('Server sent no subprotocol');
  });
});

test('a client without a token is anonymous, and sees no table without a policy for it', async () => {
  const one = await peer();
  one.send({ type: 'hello' });
  one.send({ type: 'subscribe', id: 1, table: 'todo', snapshot: true });
  const welcome = await one.reader.expect('welcome');
  expect(welcome).toMatchObject({ role: 'anonymous' });
  expect(welcome).not.toHaveProperty('user');
  expect(welcome).not.toHaveProperty('expires_in_s');
  expect(await one.reader.expect('error')).toMatchObject({ id: 1, code: 'UNKNOWN_TABLE' });
  expect(await call('/api/todo/changes')).toMatchObject({ status: 404 });
  const { ws } = await upgrade({ query: '?tables=todo' });
  const [code] = (await once(ws, 'close')) as [number];
  expect(code).toBe(4400);
  // a token makes it a user, on the same connection
  one.send({ type: 'auth', id: 2, token: valid() });
  expect(await one.reader.expect('ok')).toMatchObject({ id: 2, user: 'ada' });
  one.send({ type: 'subscribe', id: 3, table: 'todo' });
  expect(await one.reader.expect('ok')).toMatchObject({ id: 3 });
});

test('what holds no rows needs no token', async () => {
  for (const path of ['/health', '/health/live', '/health/ready', '/health/room'])
    expect(await call(path)).toMatchObject({ status: 200 });
  for (const path of ['/', '/plank.js', '/try/page.js'])
    expect((await fetch(stage.embedded.url + path)).status).toBe(200);
  const preflight = await fetch(`${stage.embedded.url}/api/todo`, {
    method: 'OPTIONS',
    headers: {
      origin: 'https://a.example',
      'access-control-request-method': 'POST',
      'access-control-request-headers': 'authorization',
    },
  });
  expect([preflight.status, preflight.headers.get('access-control-allow-headers')]).toEqual([204, 'authorization']);
});

test("the operators' port asks for no token of clients", async () => {
  const { ws, status } = await upgrade({ url: stage.embedded.opsUrl });
  expect(status).toBe(101);
  ws.terminate();
});

describe('admitted on every path', () => {
  test('a valid token reads and writes', async () => {
    await stage.arrived();
    const token = valid({ role: 'editor' });
    const plain = await upgrade(bearer(token));
    const frames: string[] = [];
    plain.ws.on('message', (data) => void frames.push((data as Buffer).toString()));
    const one = await peer();
    // without waiting for the welcome: what follows the hello waits for the token
    one.send({ type: 'hello', token });
    one.send({ type: 'subscribe', id: 1, table: 'todo' });
    one.send({ type: 'subscribe', id: 2, table: 'todo', where: { id: 9 } });
    expect(await one.reader.expect('welcome')).toMatchObject({
      user: 'ada',
      role: 'editor',
      expires_in_s: expect.any(Number),
    });
    expect(await one.reader.expect('ok')).toMatchObject({ id: 1 });
    const rest = [await one.reader.next(), await one.reader.next(), await one.reader.next()];
    expect(rest.map(({ type }) => type).sort()).toEqual(['live', 'live', 'ok']);
    const stream = await fetch(`${stage.embedded.url}/api/todo/changes`, bearer(token));
    expect(stream.status).toBe(200);
    await stream.body!.cancel();
    expect(await call('/api/todo', { ...bearer(token), method: 'POST', body: { id: 5, status: 'new' } })).toMatchObject(
      { status: 201 },
    );
    expect(await call('/api/todo/5', bearer(token))).toMatchObject({ status: 200, body: { id: 5, status: 'new' } });
    expect(await call('/try/tables.json', bearer(token))).toMatchObject({ status: 200 });
    await one.reader.changes(1);
    await until('the plain client has the change', () => frames.some((frame) => frame.includes('"id":5,')), 5_000);
  });

  test('a token of the upgrade serves plank.v1 without one in hello, and one in hello renews it', async () => {
    const one = await peer(bearer(valid()));
    one.send({ type: 'hello' });
    expect(await one.reader.expect('welcome')).toMatchObject({ user: 'ada', role: 'authenticated' });
    const two = await peer(bearer(valid()));
    two.send({ type: 'hello', token: valid({ role: 'editor' }) });
    expect(await two.reader.expect('welcome')).toMatchObject({ user: 'ada', role: 'editor' });
    const three = await peer(bearer(valid()));
    three.send({ type: 'hello', token: valid({ sub: 'eve' }) });
    await closed(three);
    expect([three.code, three.reader.all]).toEqual([4403, []]);
  });

  test('a public key and a key set admit their tokens, and no token of another key', async () => {
    const jwks = createServer((_request, response) =>
      response.end(JSON.stringify({ keys: [{ ...rsa.publicKey.export({ format: 'jwk' }), kid: 'a' }] })),
    );
    await once(jwks.listen(0, '127.0.0.1'), 'listening');
    try {
      const set = `http://127.0.0.1:${(jwks.address() as AddressInfo).port}/`;
      for (const setting of [{ AUTH_PUBLIC_KEY: rsa.pem }, { AUTH_JWKS_URL: set }] as Record<string, string>[]) {
        const gateway = await stage.embedded.startGateway({ AUTH_JWT_SECRET: '', ...setting });
        const url = `http://127.0.0.1:${gateway.port}`;
        const claims = claimsOf(own);
        const right = rsaToken(claims, rsa.privateKey, { kid: 'a' });
        expect(await call('/api/todo', { ...bearer(right), url })).toMatchObject({ status: 200 });
        (await welcomed(right, { url })).ws.terminate();
        for (const wrong of [
          rsaToken(claims, other.privateKey, { kid: 'a' }),
          hmacToken(claims, rsa.pem, { kid: 'a' }),
          hmacToken(claims, rsa.publicKey.export({ type: 'spki', format: 'der' }), { kid: 'a' }),
          unsigned(claims),
          valid(),
        ]) {
          expect(await call('/api/todo', { ...bearer(wrong), url })).toMatchObject({ status: 401 });
          const one = await peer({ url });
          one.send({ type: 'hello', token: wrong });
          await closed(one);
          expect(one.code).toBe(4401);
        }
        await gateway.stop();
      }
    } finally {
      jwks.close();
    }
  });

  test('where the keys cannot be fetched, nobody is told that his token is wrong', async () => {
    const gateway = await stage.embedded.startGateway({ AUTH_JWT_SECRET: '', AUTH_JWKS_URL: 'http://127.0.0.1:1/' });
    const url = `http://127.0.0.1:${gateway.port}`;
    const token = rsaToken(claimsOf(own), rsa.privateKey);
    expect(await call('/api/todo', { ...bearer(token), url })).toMatchObject({
      status: 503,
      body: { code: 'KEYS_UNAVAILABLE' },
    });
    expect(await upgrade({ ...bearer(token), url })).toMatchObject({ status: 503 });
    const one = await peer({ url });
    one.send({ type: 'hello', token });
    await closed(one);
    expect(one.code).toBe(4500);
    await gateway.stop();
  });
});

describe('a live connection', () => {
  test('ends when its token expires, on every path, and gets nothing after that', async () => {
    await stage.arrived();
    const expiresAt = now() + 2;
    const token = valid({ exp: expiresAt });
    const plain = await upgrade(bearer(token));
    const frames: string[] = [];
    let code = 0;
    plain.ws.on('message', (data) => void frames.push((data as Buffer).toString()));
    plain.ws.on('close', (given) => {
      code = given;
    });
    const one = await welcomed(token);
    await stage.subscribe(one, { table: 'todo' });
    await one.reader.expect('live');
    const stream = await fetch(`${stage.embedded.url}/api/todo/changes`, bearer(token));
    const text = stream.text();
    await closed(one);
    await until('the plain connection is closed', () => code !== 0, 5_000);
    expect([code, one.code, one.reason]).toEqual([4401, 4401, 'the token has expired']);
    expect(await text).not.toContain('"change"');
    expect(Date.now() / 1_000).toBeGreaterThanOrEqual(expiresAt);
    // who comes back with the same token stays away
    expect(
      await call('/api/todo/changes', { headers: { ...bearer(token).headers, 'last-event-id': 'anew' } }),
    ).toMatchObject({ status: 401 });
    await sql(`insert into todo values (70, 'later')`);
    await stage.arrived();
    expect(frames).toEqual([]);
  });

  test('goes on with a renewed token, with its subscriptions', async () => {
    const short = valid({ exp: now() + 2 });
    const one = await welcomed(short);
    const witness = await welcomed(short);
    await stage.subscribe(one, { table: 'todo' });
    await one.reader.expect('live');
    one.send({ type: 'auth', id: 5, token: valid({ role: 'editor' }) });
    one.send({ type: 'ping' });
    const ok = await one.reader.expect('ok');
    expect(ok).toMatchObject({ id: 5, user: 'ada', role: 'editor' });
    expect(ok.expires_in_s).toBeGreaterThan(590);
    await one.reader.expect('pong');
    await closed(witness);
    await sql(`insert into todo values (71, 'renewed')`);
    expect(await one.reader.changes(1)).toMatchObject([{ id: 71 }]);
    expect(one.code).toBe(0);
  });

  test.each<[string, () => string, number]>([
    ['of another user', () => valid({ sub: 'eve' }), 4403],
    ['that expired', () => valid({ exp: now() - 1 }), 4401],
    ['with a wrong signature', () => hmacToken(claimsOf(own), `${secret}x`), 4401],
    ['that is empty', () => '', 4401],
  ])('ends with a renewed token %s', async (_name, make, code) => {
    const one = await welcomed(valid());
    one.send({ type: 'auth', id: 5, token: make() });
    one.send({ type: 'subscribe', id: 6, table: 'todo', snapshot: true });
    await closed(one);
    expect([one.code, one.reader.all.map(({ type }) => type)]).toEqual([code, ['welcome']]);
  });

  test('is closed as malformed where auth comes before hello', async () => {
    const one = await peer();
    one.send({ type: 'auth', id: 5, token: valid() });
    await closed(one);
    expect(one.code).toBe(4400);
  });
});

describe('the SDK', () => {
  const connect = (token: string | (() => string)) => {
    const errors: Error[] = [];
    const plank = createPlank({
      url: `${stage.embedded.url}/ws`,
      token,
      WebSocket: WebSocket as never,
      onError: (error) => void errors.push(error),
    });
    stage.afterwards(() => plank.close());
    const codes = () => errors.map((error) => (error as Error & { code?: string }).code);
    return { plank, codes };
  };

  test('renews its token on the live connection', async () => {
    let given = 0;
    const { plank, codes } = connect(() => {
      given++;
      return valid({ exp: now() + 3 });
    });
    const states: string[] = [];
    plank.onState(({ status }) => void states.push(status));
    const changes = new Set<unknown>();
    const subscription = plank.table('todo').subscribe({}, { onChange: ({ id }) => void changes.add(id) });
    await until('it is live', () => subscription.state === 'live', 5_000);
    await until('it has renewed twice', () => given >= 3, 10_000);
    await until('it has lived longer than its first token', async () => (await metric('ok')) > 0 && given >= 4, 10_000);
    await sql(`insert into todo values (72, 'sdk')`);
    await until('the change is there', () => changes.has(72), 5_000);
    expect(states.filter((state) => state === 'connecting')).toHaveLength(1);
    expect(codes()).toEqual([]);
    plank.close();
  });

  test('asks for another token where one has expired, and gives up where that is refused', async () => {
    const tokens = [valid({ exp: now() - 1 }), valid({ exp: now() + 600 })];
    const { plank, codes } = connect(() => tokens.shift()!);
    const subscription = plank.table('todo').subscribe({}, {});
    await until('it is live', () => subscription.state === 'live', 10_000);
    plank.close();
    const refused = connect('let-me-in');
    refused.plank.table('todo').subscribe({}, {});
    await until('it has given up', () => refused.plank.state === 'closed', 10_000);
    expect(codes()).toEqual(['UNREACHABLE']);
    expect(refused.codes()).toEqual(['UNREACHABLE', 'UNAUTHORIZED']);
  });
});

test('with AUTH=off tokens are ignored', async () => {
  const gateway = await stage.embedded.startGateway({ AUTH: 'off', AUTH_JWT_SECRET: '' });
  const url = `http://127.0.0.1:${gateway.port}`;
  expect(await call('/api/todo', { ...bearer('x'), url })).toMatchObject({ status: 200 });
  expect(await upgrade({ ...bearer('x'), url })).toMatchObject({ status: 101 });
  const one = await peer({ url });
  one.send({ type: 'hello', token: 'x' });
  expect(await one.reader.expect('welcome')).not.toHaveProperty('user');
  one.send({ type: 'auth', id: 1, token: 'x' });
  expect(await one.reader.expect('ok')).toEqual({ type: 'ok', id: 1 });
  one.ws.terminate();
  await gateway.stop();
});

test('nothing of a token was logged, and each refusal was, with its reason and address', () => {
  const text = logged.join('');
  const refusals = logged.map((line) => JSON.parse(line)).filter(({ msg }) => msg === 'a client was refused');
  expect(refusals.length).toBeGreaterThan(300);
  for (const { reason, address } of refusals) expect([typeof reason, address]).toEqual(['string', '127.0.0.1']);
  // of every token: its header, or its claims (iss, sub), encoded or not
  expect(text).not.toMatch(/eyJ|let-me-in|issuer\.example|Bearer|"ada"|"eve"/);
});

/** The value of plank_auth_total with this result. */
async function metric(result: string): Promise<number> {
  const text = await stage.embedded.registry.metrics();
  const line = text
    .split('\n')
    .find((each) => each.startsWith('plank_auth_total{') && each.includes(`result="${result}"`));
  return line === undefined ? 0 : Number(line.slice(line.lastIndexOf(' ') + 1));
}

/** The answer to a request that is sent as it is. */
async function raw(port: number, request: string): Promise<string> {
  const { connect } = await import('node:net');
  const socket = connect(port, '127.0.0.1');
  stage.afterwards(() => socket.destroy());
  socket.write(request);
  const [answer] = (await once(socket, 'data')) as [Buffer];
  socket.destroy();
  return answer.toString();
}
