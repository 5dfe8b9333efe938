// Revocation in the log: nothing with a later position reaches a revoked user, over any transport and at any gateway, and the tokens are
// refused from then on, also after a restart.

import { describe, expect, test } from 'vitest';
import { WebSocket } from 'ws';
import { parsePosition } from '#shared/wire.ts';
import { Stage } from '../../support/stage/stage.ts';
import { now, secret, tokenOf } from '../../support/stage/tokens.ts';
import { until } from '../../support/wait.ts';

const everyone = ['authenticated', 'anonymous'].map((role) => `select plank.allow('todo', '${role}', read => '{}')`);
const stage = Stage.of(
  `create table todo (id int primary key, status text); select plank.attach('todo'); ${everyone.join(';')}`,
  { AUTH: 'jwt', AUTH_JWT_SECRET: secret },
);
const { sql } = stage;

interface Watcher {
  /** the positions of changes that came */
  seqs: number[];
  code: number;
  reason: string;
  isLive: boolean;
}

const seqIn = (text: string) => parsePosition((JSON.parse(text) as { pos: string }).pos)!.seq;

function socket(token: string, protocol?: string, url = stage.embedded.url): Watcher {
  const self: Watcher = { seqs: [], code: 0, reason: '', isLive: protocol === undefined };
  const ws = new WebSocket(`${url.replace('http', 'ws')}/ws`, protocol ?? [], {
    headers: protocol === undefined ? { authorization: `Bearer ${token}` } : {},
  });
  stage.afterwards(() => ws.terminate());
  ws.on('error', () => {});
  ws.on('unexpected-response', (request, response) => {
    request.destroy();
    self.code = response.statusCode!;
  });
  ws.on('open', () => {
    if (protocol === undefined) return;
    ws.send(JSON.stringify({ type: 'hello', token }));
    ws.send(JSON.stringify({ type: 'subscribe', id: 1, table: 'todo' }));
  });
  ws.on('message', (data: Buffer) => {
    const text = data.toString();
    const { type } = JSON.parse(text) as { type?: string };
    if (type === 'live') self.isLive = true;
    if (type === undefined || type === 'change') self.seqs.push(seqIn(text));
  });
  ws.on('close', (code, reason) => Object.assign(self, { code, reason: reason.toString() }));
  return self;
}

function events(token: string): Watcher {
  const self: Watcher = { seqs: [], code: 0, reason: '', isLive: false };
  const abort = new AbortController();
  stage.afterwards(() => abort.abort());
  void (async () => {
    const response = await fetch(`${stage.embedded.url}/api/todo/changes`, {
      headers: { authorization: `Bearer ${token}` },
      signal: abort.signal,
    });
    let text = '';
    for await (const chunk of response.body!.pipeThrough(new TextDecoderStream())) {
      text += chunk;
      for (let end = text.indexOf('\n\n'); end >= 0; end = text.indexOf('\n\n')) {
        const data = /^data: (.*)$/m.exec(text.slice(0, end))?.[1];
        text = text.slice(end + 2);
        if (data?.includes('"live"')) self.isLive = true;
        if (data?.includes('"change"')) self.seqs.push(seqIn(data));
      }
    }
    self.code = 1;
  })().catch(() => {});
  return self;
}

/** Writes a row, revokes and writes another row, in three transactions that become one batch. */
async function writeAround(revoke: string): Promise<{ last: number }> {
  await stage.undrained(async () => {
    await sql(`insert into todo values (1, 'before') on conflict (id) do update set status = 'before'`);
    await sql(revoke);
    await sql(`update todo set status = 'after' where id = 1`);
  });
  await stage.arrived();
  const { rows } = await sql(`select max(seq)::int as last from plank.read_log(0) where action = 'V'`);
  return rows[0] as { last: number };
}

describe('revocation', () => {
  test.each([
    ['a user', `select plank.revoke('ada')`, { sub: 'ada' }, { sub: 'bob' }],
    ['a token', `select plank.revoke_token('t-1')`, { sub: 'dan', jti: 't-1' }, { sub: 'dan', jti: 't-2' }],
  ])('of %s ends its clients at its position, over every transport', async (_what, revoke, claims, others) => {
    const token = tokenOf({ iat: now() - 5, ...claims });
    const clients = [socket(token), socket(token, 'plank.v1'), events(token)];
    const stays = socket(tokenOf({ iat: now() - 5, ...others }), 'plank.v1');
    await until('all are live', () => [...clients, stays].every(({ isLive }) => isLive), 5_000);
    await stage.arrived();
    const { last } = await writeAround(revoke);
    await until('all have ended', () => clients.every(({ code }) => code !== 0), 5_000);
    for (const { seqs } of clients) {
      expect(seqs.length).toBeGreaterThan(0);
      expect(seqs.filter((seq) => seq > last)).toEqual([]);
      expect(seqs).toContain(last - 1);
    }
    expect(clients.slice(0, 2).map(({ code, reason }) => [code, reason])).toEqual([
      [4401, 'the token was revoked'],
      [4401, 'the token was revoked'],
    ]);
    await until('the others get the change after it', () => stays.seqs.some((seq) => seq > last), 5_000);
    expect(stays.code).toBe(0);

    const refused = socket(token);
    await until('the token is refused', () => refused.code !== 0, 5_000);
    expect(refused.code).toBe(401);
    const hello = socket(token, 'plank.v1');
    await until('the token is refused', () => hello.code !== 0, 5_000);
    expect([hello.code, hello.reason]).toEqual([4401, 'the token was revoked']);
    const rest = await fetch(`${stage.embedded.url}/api/todo`, { headers: { authorization: `Bearer ${token}` } });
    expect(rest.status).toBe(401);
    // a gateway that starts later knows it too
    const later = await stage.embedded.startGateway();
    const there = socket(token, undefined, `http://127.0.0.1:${later.port}`);
    await until('the token is refused', () => there.code !== 0, 5_000);
    expect(there.code).toBe(401);
  });

  test('does not concern tokens that are issued later', async () => {
    await sql(`select plank.revoke('cyd')`);
    await stage.arrived();
    const old = socket(tokenOf({ sub: 'cyd', iat: now() - 5 }));
    const never = socket(tokenOf({ sub: 'cyd', iat: undefined }));
    await until('both are refused', () => old.code !== 0 && never.code !== 0, 5_000);
    const next = socket(tokenOf({ sub: 'cyd', iat: now() + 1 }), 'plank.v1');
    await until('the new one is live', () => next.isLive, 5_000);
    expect([old.code, never.code, next.code]).toEqual([401, 401, 0]);
  });
});
