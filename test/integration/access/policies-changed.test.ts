// What happens to clients when their rights change: by a policy, by another token, while a snapshot is read, and on resuming.

import { beforeEach, describe, expect, test } from 'vitest';
import { Stage } from '../../support/stage/stage.ts';
import { secret, tokenOf } from '../../support/stage/tokens.ts';
import { policySchema, Viewers, type Watcher } from '../../support/stage/viewers.ts';
import { until } from '../../support/wait.ts';

const stage = Stage.of(policySchema, { AUTH: 'jwt', AUTH_JWT_SECRET: secret });
const { sql } = stage;
const viewers = new Viewers(stage);
const ada = tokenOf({ sub: 'ada' });

beforeEach(async () => {
  await sql(`truncate doc, own`);
  await sql(
    `insert into doc values (1, 'ada', 'a', 'hush 1'), (2, 'bob', 'b', 'hush 2'), (3, 'eve', 'public', 'hush 3')`,
  );
  await stage.arrived();
});

const row = (id: number, status: string) => ({ id, owner: 'ada', status });

describe('rights that change', () => {
  const forAda = (read: string) =>
    sql(`select plank.allow('doc', 'authenticated', read => $1, read_columns => '{owner,status}')`, [read]);
  const usual = '{"owner": {"$claim": "sub"}}';

  beforeEach(async () => {
    await forAda(usual);
    await stage.arrived();
  });

  test('a policy with other rows begins each subscription again, and nothing more comes under the former one', async () => {
    const rows = await viewers.live(ada, { snapshot: true });
    const live = await viewers.live(ada);
    const stream = await viewers.stream(ada, { snapshot: true });
    const plain = await viewers.plain(ada);
    const seen = rows.frames.length;
    // one batch: the changes around the policy are delivered together
    await stage.undrained(async () => {
      await sql(`update doc set status = 'before'`);
      await forAda('{"status": "public"}');
      await sql(`insert into doc values (10, 'ada', 'after', 'hush'), (11, 'bob', 'public', 'hush')`);
    });
    await rows.frame({ type: 'live' }, seen);
    const kinds = (watcher: Watcher) =>
      watcher.frames.map(({ type, effect, id, reason }) => [type, effect ?? reason, id].filter(Boolean).join(' '));
    expect(kinds(rows).slice(seen)).toEqual(['change change 1', 'resync access', 'rows', 'live']);
    expect(rows.rows(seen).map(({ id }) => id)).toEqual([11]);
    await live.frame({ id: 11 });
    expect(live.frames.slice(3).map(({ type, id, reason }) => [type, id ?? reason])).toEqual([
      ['change', 1],
      ['resync', 'access'],
      ['live', undefined],
      ['change', 11],
    ]);
    await stream.frame({ type: 'resync', reason: 'access' });
    await plain.ended();
    expect([plain.code, plain.reason]).toEqual([1012, 'your rights have changed, read the rows again']);
    expect(plain.seen).toEqual([['UPDATE', 1, row(1, 'before')]]);
  });

  test('a policy that leaves the rights as they were disturbs nobody', async () => {
    const watchers = [await viewers.live(ada, { snapshot: true }), await viewers.stream(ada), await viewers.plain(ada)];
    await sql(`select plank.allow('doc', 'other', read => '{}')`);
    await forAda(usual);
    await sql(`select plank.forbid('doc', 'other'); update doc set status = 'z'`);
    for (const watcher of watchers) await watcher.frame({ id: 1, action: 'UPDATE' });
    for (const { frames, code } of watchers)
      expect([code, frames.filter(({ type }) => type === 'resync' || type === 'error')]).toEqual([0, []]);
  });

  test('without a policy the subscription ends as if the table did not exist', async () => {
    const rows = await viewers.live(ada, { snapshot: true });
    const stream = await viewers.stream(ada);
    const plain = await viewers.plain(ada);
    await stage.undrained(async () => {
      await sql(`select plank.forbid('doc', 'authenticated'); select plank.forbid('doc', 'anonymous')`);
      await sql(`update doc set status = 'gone' where id = 1`);
    });
    const error = { type: 'error', code: 'UNKNOWN_TABLE', message: 'there is no table "doc"', retry: false };
    expect(await rows.frame({ type: 'error' })).toMatchObject({ ...error, ch: rows.ch });
    expect(await stream.frame({ type: 'error' })).toMatchObject(error);
    await stream.ended();
    await plain.ended();
    await stage.arrived();
    for (const { seen } of [rows, stream, plain]) expect(seen).toEqual([]);
    rows.send({ type: 'unsubscribe', id: 7, ch: rows.ch });
    expect(await rows.frame({ id: 7 })).toMatchObject({ code: 'UNKNOWN_CHANNEL' });
    await sql(`select plank.allow('doc', 'anonymous', read => '{"status": "public"}', read_columns => '{status}')`);
  });

  test('a token with other claims begins the subscriptions again that may see other rows', async () => {
    const one = await viewers.live(ada, { snapshot: true });
    one.send({ type: 'auth', id: 5, token: tokenOf({ sub: 'ada', extra: 1 }) });
    await one.frame({ id: 5, type: 'ok' });
    expect(one.frames.filter(({ type }) => type === 'resync')).toEqual([]);
    one.send({ type: 'auth', id: 6, token: tokenOf({ sub: 'ada', role: 'admin' }) });
    await one.frame({ type: 'resync', reason: 'access' });
    const seen = one.frames.findIndex(({ type }) => type === 'resync');
    await one.frame({ type: 'live' }, seen);
    expect(one.rows(seen).map(({ id, secret: text }) => [id, text])).toEqual([
      [1, 'hush 1'],
      [2, 'hush 2'],
      [3, 'hush 3'],
    ]);
    // and back
    one.send({ type: 'auth', id: 7, token: ada });
    const before = one.frames.length;
    await one.frame({ type: 'live' }, before);
    expect(one.rows(before)).toEqual([row(1, 'a')]);
    await sql(`update doc set secret = 'hush more'; update doc set status = 'y'`);
    await one.frame({ id: 1, type: 'change' });
    expect(one.seen).toEqual([['change', 1, row(1, 'y')]]);
  });

  test('a subscription keeps its name when its rights change, and another one gets another name', async () => {
    const one = await viewers.live(ada, { table: 'own' });
    one.send({ type: 'auth', id: 2, token: tokenOf({ sub: 'ada', role: 'admin' }) });
    await one.frame({ type: 'resync', reason: 'access', ch: one.ch });
    // for an administrator this request means what the first one meant for the user
    one.send({ type: 'subscribe', id: 3, table: 'own', where: { owner: 'ada' } });
    const { ch } = await one.frame({ id: 3, type: 'ok' });
    expect(ch).not.toBe(one.ch);
    await one.frame({ type: 'live', ch });
    await sql(`insert into own values (1, 'bob', 1), (2, 'ada', 1)`);
    await one.frame({ id: 2, ch });
    await one.frame({ id: 2, ch: one.ch });
    const ids = (name: string) => one.frames.filter((frame) => frame.effect && frame.ch === name).map(({ id }) => id);
    expect([ids(one.ch!), ids(ch!)]).toEqual([[1, 2], [2]]);
  });

  test('a snapshot in progress stops, and no page of it comes under other rights', async () => {
    await sql(`insert into doc select 1000 + i, 'ada', repeat('x', 2000), 'hush' from generate_series(1, 20000) i`);
    await stage.arrived();
    const one = await viewers.peer(ada);
    const read = await stage.metric('plank_snapshots_total');
    one.pause();
    one.send({ type: 'subscribe', id: 1, table: 'doc', snapshot: true });
    // a large result is read twice: until it proves to be large, then at the client's pace
    await until('it is read', async () => (await stage.metric('plank_snapshots_total')) === read + 2, 8_000);
    await forAda('{"status": "public"}');
    await stage.arrived();
    one.resume();
    await one.frame({ type: 'live' });
    const stop = one.frames.findIndex(({ type }) => type === 'resync');
    expect(one.frames[stop]).toMatchObject({ type: 'resync', reason: 'access' });
    expect(one.frames.slice(0, stop).map(({ type }) => type)).toContain('rows');
    expect(one.rows().length).toBeLessThan(10_000);
    expect(one.rows(stop)).toEqual([{ id: 3, owner: 'eve', status: 'public' }]);
  });

  test('a position is not resumed under other rights', async () => {
    const former = await viewers.live(ada, { snapshot: true });
    const { pos, ch } = former;
    const plain = await viewers.plain(ada);
    await sql(`update doc set status = 'one'`);
    await former.frame({ id: 1 });
    await plain.frame({ id: 1 });
    // another channel: that of other rights, or of another request
    for (const other of [{ ch: 'another' }, { ch: ch!, columns: ['status'] }]) {
      const again = await viewers.peer(ada);
      again.send({ type: 'subscribe', id: 1, table: 'doc', snapshot: true, from: pos, ...other });
      expect(await again.frame({ type: 'resync' })).toMatchObject({ reason: 'access' });
      await again.frame({ type: 'live' });
      expect([again.rows().length, again.seen]).toEqual([1, []]);
    }
    const events = await viewers.stream(ada);
    events.close();
    const asAdmin = tokenOf({ sub: 'ada', role: 'admin' });
    const other = await viewers.stream(asAdmin, { id: events.id });
    expect(other.frames.map(({ type, reason }) => reason ?? type)).toEqual(['access', 'live']);
    // the position alone is a position too
    const same = await viewers.stream(ada, { id: events.id.split('~')[0]! });
    expect(same.frames.map(({ type }) => type)).toEqual(['live']);
    // a position from before the policies changed, even where the rights are the same again
    await forAda('{}');
    await forAda(usual);
    await stage.arrived();
    for (const snapshot of [true, false]) {
      const again = await viewers.peer(ada);
      again.send({ type: 'subscribe', id: 1, table: 'doc', snapshot, from: pos, ch });
      expect(await again.frame({ type: 'resync' })).toMatchObject({ reason: 'access' });
      await again.frame({ type: 'live' });
      expect(again.seen).toEqual([]);
    }
    const stale = await viewers.plain(ada, `?since=${plain.pos}`);
    await stale.ended();
    expect([stale.code, stale.seen]).toEqual([4410, []]);
  });
});

test('with AUTH=off policies change nothing', async () => {
  const open = await stage.embedded.startGateway({ AUTH: 'off', AUTH_JWT_SECRET: '' });
  const url = `http://127.0.0.1:${open.port}`;
  const rows = await viewers.live(null, { snapshot: true }, url);
  const before = rows.frames.length;
  await sql(`select plank.allow('doc', 'other', read => '{}'); select plank.forbid('doc', 'other')`);
  await sql(`update doc set secret = 'hush still'`);
  await rows.frame({ id: 3 });
  expect(rows.rows()).toHaveLength(3);
  expect(rows.frames.slice(before).map(({ effect, id, data }) => [effect, id, data?.secret])).toEqual([
    ['change', 1, 'hush still'],
    ['change', 2, 'hush still'],
    ['change', 3, 'hush still'],
  ]);
  rows.close();
});
