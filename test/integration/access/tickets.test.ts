// Tickets for plain WebSockets and EventSource, and the cookie: each stands for a token that was checked, on each path that takes it.

import { randomBytes } from 'node:crypto';
import { pino } from 'pino';
import { describe, expect, test } from 'vitest';
import { WebSocket } from 'ws';
import { Tickets } from '#gateway/access/tickets.ts';
import { LocalState } from '#shared/bus/shared-state.ts';
import { RedisState } from '#shared/bus/shared-state-redis.ts';
import { redisUrl } from '../../support/servers/servers.ts';
import { Stage } from '../../support/stage/stage.ts';
import { now, secret, tokenOf } from '../../support/stage/tokens.ts';
import { until } from '../../support/wait.ts';

const origin = 'https://app.example';
const logged: string[] = [];
const stage = Stage.of(
  `create table todo (id int primary key, status text); select plank.attach('todo');
   select plank.allow('todo', 'authenticated', read => '{}', insert => '{}')`,
  { AUTH: 'jwt', AUTH_JWT_SECRET: secret, AUTH_COOKIE: 'session', CORS_ORIGINS: origin, LOG_LEVEL: 'trace' },
  (line) => void logged.push(line),
);
const token = () => tokenOf({ sub: 'ada' });

async function ticket(bearer = token()): Promise<string> {
  const response = await fetch(`${stage.embedded.url}/auth/tickets`, {
    method: 'POST',
    headers: { authorization: `Bearer ${bearer}` },
  });
  expect(response.status).toBe(200);
  expect(response.headers.get('cache-control')).toBe('no-store');
  const body = (await response.json()) as { ticket: string; expires_in_s: number };
  expect(body.expires_in_s).toBe(30);
  return body.ticket;
}

/** The status of an upgrade; 101: it succeeded and the client got a change. */
async function webSocket(
  query: string,
  headers: Record<string, string> = { origin },
  protocol?: string,
): Promise<number> {
  const ws = new WebSocket(`${stage.plainUrl}${query}`, protocol ?? [], { headers });
  stage.afterwards(() => ws.terminate());
  let status = 0;
  ws.on('error', () => {});
  ws.on('unexpected-response', (request, response) => {
    request.destroy();
    status = response.statusCode!;
  });
  ws.on('open', () => {
    if (protocol) ws.send('{"type":"hello"}');
  });
  ws.on('message', (data: Buffer) => {
    const { type, user } = JSON.parse(data.toString()) as { type?: string; user?: string };
    if (type === undefined || user === 'ada') status = 101;
  });
  await until(
    'the answer',
    async () => {
      if (status === 0 && !protocol) await stage.arrived();
      return status !== 0;
    },
    5_000,
  );
  return status;
}

async function http(path: string, init: RequestInit = {}): Promise<number> {
  const response = await fetch(`${stage.embedded.url}${path}`, init);
  await response.body?.cancel();
  return response.status;
}

describe('a ticket', () => {
  test('opens one plain WebSocket, event stream or session, once', async () => {
    for (const use of [
      (one: string) => webSocket(`?ticket=${one}&tables=todo`),
      (one: string) => webSocket(`?ticket=${one}`, { origin }, 'plank.v1'),
      async (one: string) => ((await http(`/api/todo/changes?ticket=${one}`)) === 200 ? 101 : 401),
    ]) {
      const one = await ticket();
      expect(await use(one)).toBe(101);
      expect(await use(one)).toBe(401);
    }
  });

  test.each(['', 'x', 'A'.repeat(32), '../../x', '%00'])('that was never issued is refused: %j', async (one) => {
    expect(await webSocket(`?ticket=${one}`)).toBe(401);
    expect(await http(`/api/todo/changes?ticket=${one}`)).toBe(401);
  });

  test('is not taken by REST, and two are a wrong request', async () => {
    // as without a token
    expect(await http(`/api/todo?ticket=${await ticket()}`)).toBe(404);
    expect(await http(`/api/todo/changes?ticket=${await ticket()}&ticket=${await ticket()}`)).not.toBe(200);
  });

  test('is issued only for a token', async () => {
    const post = { method: 'POST' };
    expect(await http('/auth/tickets', post)).toBe(401);
    expect(await http('/auth/tickets', { ...post, headers: { authorization: 'Bearer x' } })).toBe(401);
    expect(await http('/auth/tickets')).toBe(405);
  });

  test('does not outlive its token, and a revoked one is refused', async () => {
    const exp = now() + 2;
    const short = await ticket(tokenOf({ sub: 'ada', exp }));
    const revoked = await ticket(tokenOf({ sub: 'eve', iat: now() - 5 }));
    await stage.sql(`select plank.revoke('eve')`);
    await stage.arrived();
    expect(await webSocket(`?ticket=${revoked}`)).toBe(401);
    await until('the token has expired', () => now() > exp, 5_000);
    expect(await webSocket(`?ticket=${short}`)).toBe(401);
  });

  test('is in no log', async () => {
    const one = await ticket();
    await webSocket(`?ticket=${one}`);
    await webSocket(`?ticket=${one}`);
    expect(logged.filter((line) => line.includes(one))).toEqual([]);
  });
});

describe('tickets', () => {
  test.each(['in memory', 'in Redis'])('%s keep who the client is, for any replica', async (kind) => {
    const log = pino({ level: 'silent' });
    const url = await redisUrl();
    const name = randomBytes(6).toString('hex');
    const local = new LocalState();
    const open = () => (kind === 'in memory' ? local : new RedisState(url, { name, log }));
    const [here, there] = [open(), open()];
    stage.afterwards(() => void Promise.all([here.stop(), there.stop()]));
    const identity = {
      user: 'ada',
      role: 'editor',
      claims: { sub: 'ada', org: { id: 5 } },
      expiresAt: now() + 60,
      issuedAt: now(),
      tokenId: null,
    };
    let one = '';
    await until(
      'a ticket is issued',
      () =>
        new Tickets(here).issue(identity).then(
          (issued) => (one = issued.ticket) !== '',
          () => false,
        ),
      5_000,
    );
    expect(await new Tickets(there).redeem(one)).toEqual(identity);
    expect(await new Tickets(here).redeem(one)).toBeNull();
  });
});

describe('the cookie', () => {
  const cookie = () => `other=1; session=${token()}; more=2`;
  test.each([
    ['reads, from its own origin', () => http('/api/todo', { headers: { cookie: cookie() } }), 200],
    ['reads, from a listed origin', () => http('/api/todo', { headers: { cookie: cookie(), origin } }), 200],
    [
      'does not read from another',
      () => http('/api/todo', { headers: { cookie: cookie(), origin: 'https://e.vil' } }),
      401,
    ],
    ['does not read from null', () => http('/api/todo', { headers: { cookie: cookie(), origin: 'null' } }), 401],
    ['opens a WebSocket', () => webSocket('', { cookie: cookie(), origin }), 101],
    ['opens no foreign WebSocket', () => webSocket('', { cookie: cookie(), origin: 'https://e.vil' }), 403],
    ['opens no WebSocket without an origin', () => webSocket('', { cookie: cookie() }), 403],
    [
      'is refused twice',
      () => http('/api/todo', { headers: { cookie: `session=${token()}; session=${token()}` } }),
      401,
    ],
    ['is refused where it is no token', () => http('/api/todo', { headers: { cookie: 'session=x' } }), 401],
  ])('%s', async (_what, use, status) => {
    expect(await use()).toBe(status);
  });

  test.each([
    [{ origin }, 201],
    [{ origin: 'https://e.vil' }, 401],
    [{}, 401],
  ])('writes only with a listed origin: %j', async (headers, status) => {
    const init = { method: 'POST', body: `{"id": ${status + Object.keys(headers).length}}` };
    const all = { 'content-type': 'application/json', cookie: cookie(), ...headers };
    expect(await http('/api/todo', { ...init, headers: all })).toBe(status);
  });
});
