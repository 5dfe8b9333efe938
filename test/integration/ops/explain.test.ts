// "Why did I not get it?": the explanation names the place where a change is, and the reason why a client got it or not.

import { describe, expect, test } from 'vitest';
import { formatPosition, parsePosition } from '#shared/wire.ts';
import { type Peer, Stage } from '../../support/stage/stage.ts';
import { until } from '../../support/wait.ts';

interface Step {
  step: string;
  state: string;
  text: string;
  [field: string]: unknown;
}
interface Explanation {
  summary: string;
  changes: { pos: string | null; table: string; action: string; id: unknown; summary: string; steps: Step[] }[];
}

const stage = Stage.of(`
  create table todo (id integer primary key, status text, owner integer);
  select plank.attach('public.todo');
  create table parts (shop text, number bigint, name text, primary key (shop, number));
  select plank.attach('public.parts');
  create table other (id integer primary key);
  select plank.attach('public.other');
`);

async function ask(query: Record<string, string>): Promise<{ status: number; body: Record<string, unknown> }> {
  const response = await fetch(`${stage.embedded.opsUrl}/ops/explain?${new URLSearchParams(query)}`);
  return { status: response.status, body: (await response.json()) as Record<string, unknown> };
}

async function explain(query: Record<string, string>): Promise<Explanation> {
  const { status, body } = await ask(query);
  if (status !== 200) throw new Error(JSON.stringify(body));
  return body as unknown as Explanation;
}

/** The last step of the latest change of a row of todo, for a client. */
async function ofClient(id: number, peer: Peer): Promise<Step> {
  const { changes } = await explain({ table: 'todo', id: String(id), connection: nameOf(peer) });
  return changes[0]!.steps.at(-1)!;
}

/** The connection's name in `welcome`. */
function nameOf({ reader }: Peer): string {
  const [welcome] = reader.all;
  if (welcome?.type !== 'welcome') throw new Error('no welcome came');
  return welcome.connection!;
}

async function live(ask: object): Promise<Peer> {
  const peer = await stage.peer();
  await stage.subscribe(peer, ask);
  await until('the subscription is live', () => peer.reader.all.some(({ type }) => type === 'live'), 5_000);
  return peer;
}

describe('the way of a change', () => {
  test('a change is explained from its commit to every replica, by its row or its position', async () => {
    // a gateway that has just started may read the log for a moment
    const health = async () => (await (await fetch(`${stage.embedded.url}/health`)).json()) as { changes: string };
    await until('the gateway tails the stream', async () => (await health()).changes === 'tailing', 10_000);
    await stage.sql(`insert into todo values (1, 'open', 7)`);
    await stage.arrived();
    const byRow = await explain({ table: 'todo', id: '1' });
    expect(byRow.changes).toHaveLength(1);
    const [change] = byRow.changes;
    expect(change).toMatchObject({ table: 'todo', action: 'INSERT', id: 1 });
    expect(change!.steps.map(({ step, state }) => `${step} ${state}`)).toEqual([
      'captured done',
      'sequenced done',
      'published done',
      'received done',
      'matched no',
    ]);
    expect(change!.steps[3]).toMatchObject({ replicas: [{ node: 'test', received: true, reads: 'stream' }] });
    expect(byRow.summary).toBe('Nobody is subscribed to its table at the moment.');
    const byPosition = await explain({ pos: change!.pos! });
    expect(byPosition.changes[0]).toMatchObject({ pos: change!.pos, id: 1, action: 'INSERT' });
  });

  test('changes of a large transaction are explained in the order of their positions', async () => {
    await stage.sql(`insert into parts select 'a', n, 'x' from generate_series(1, 50) n`);
    await stage.arrived();
    const seqs: number[] = [];
    for (const number of [1, 25, 50]) {
      const { changes } = await explain({ table: 'parts', id: `a,${number}` });
      expect(changes[0]).toMatchObject({ id: { shop: 'a', number }, action: 'INSERT' });
      seqs.push(parsePosition(changes[0]!.pos!)!.seq);
    }
    expect([seqs[1]! - seqs[0]!, seqs[2]! - seqs[0]!]).toEqual([24, 49]);
  });

  test("an explanation has the row's key to the last digit", async () => {
    await stage.sql(`insert into parts values ('b', 9007199254740993, 'x')`);
    await stage.arrived();
    const query = new URLSearchParams({ table: 'parts', id: 'b,9007199254740993' });
    const text = await (await fetch(`${stage.embedded.opsUrl}/ops/explain?${query}`)).text();
    expect(text).toContain('"id":{"shop":"b","number":9007199254740993}');
  });

  test('an explanation ends where the change waits: in the outbox, while no listener drains', async () => {
    await stage.undrained(async () => {
      await stage.sql(`insert into todo values (2, 'open', 7)`);
      const { summary, changes } = await explain({ table: 'todo', id: '2' });
      expect(changes[0]).toMatchObject({ pos: null, action: 'INSERT' });
      expect(changes[0]!.steps.map(({ step, state }) => `${step} ${state}`)).toEqual([
        'captured done',
        'sequenced waiting',
      ]);
      expect(summary).toMatch(/^It waits in the outbox/);
    });
    await stage.arrived();
    expect((await explain({ table: 'todo', id: '2' })).changes[0]!.pos).not.toBeNull();
  });

  test('an explanation lists the last changes of a row, even a TRUNCATE', async () => {
    for (const status of ['a', 'b'])
      await stage.sql(`insert into todo values (3, $1) on conflict (id) do update set status = $1`, [status]);
    await stage.sql('truncate todo');
    await stage.arrived();
    const { summary, changes } = await explain({ table: 'todo', id: '3' });
    expect(changes.map(({ action }) => action)).toEqual(['TRUNCATE', 'UPDATE', 'INSERT']);
    expect(summary).toBe('All 3 changes of this row that are kept, the latest first.');
  });

  test('an explanation of a row that was not captured gives the possible reasons', async () => {
    expect((await explain({ table: 'other', id: '9' })).summary).toMatch(/^No change of other 9 was captured\. Either/);
    // outside of this setting an event trigger would repair it
    await stage.sql(
      'begin; set local session_replication_role = replica; alter table other disable trigger plank_insert; commit',
    );
    await stage.sql('insert into other values (9)');
    expect((await explain({ table: 'other', id: '9' })).summary).toMatch(
      /captured as it should be: trigger plank_insert is disabled/,
    );
    await stage.sql('alter table other enable trigger plank_insert');
  });

  test('a position that is not reached yet, or of another history, is reported as such', async () => {
    const { position } = (await (await fetch(`${stage.embedded.url}/health`)).json()) as { position: string };
    const { epoch, seq } = parsePosition(position)!;
    const summaryOf = async (pos: string) => (await explain({ pos })).summary;
    expect(await summaryOf(formatPosition({ epoch, seq: seq + 1_000_000 }))).toMatch(
      /^No change has this position yet/,
    );
    expect(await summaryOf(formatPosition({ epoch: epoch + 1, seq }))).toMatch(
      /history that this database does not have/,
    );
  });
});

describe('clients', () => {
  test('an explanation names the subscription by which a client got a change', async () => {
    const plain = await live({ table: 'todo' });
    const filtered = await live({ table: 'todo', where: { owner: 7 }, columns: ['status'] });
    await stage.sql(`insert into todo values (10, 'open', 7)`);
    await stage.arrived();
    expect(await ofClient(10, plain)).toMatchObject({ step: 'written', state: 'done', queuedBytes: 0 });
    const { changes } = await explain({ table: 'todo', id: '10', connection: nameOf(filtered) });
    expect(changes[0]!.steps.at(-2)).toMatchObject({
      step: 'matched',
      text: 'Matched by its subscription to todo where owner = 7: the row entered it (only id, status are sent).',
    });
    await stage.sql('update todo set owner = 8 where id = 10');
    await stage.arrived();
    const left = await explain({ table: 'todo', id: '10', connection: nameOf(filtered) });
    expect(left.changes[0]!.steps.at(-2)!.text).toMatch(/the row left it/);
    // without a connection: the number of subscriptions that it concerns
    expect((await explain({ pos: left.changes[0]!.pos! })).changes[0]!.steps.at(-1)!.text).toMatch(
      /^Of the 2 subscriptions that its table has now, it concerns 2\./,
    );
  });

  test.each<[string, object, RegExp]>([
    [
      'its filter admits it neither before nor after',
      { table: 'todo', where: { owner: { gt: 100 } } },
      /admits the row neither .*: owner > 100\.$/,
    ],
    ['it is not subscribed to that table', { table: 'parts' }, /^It is not subscribed to this table, only to parts\.$/],
  ])('an explanation says why a client did not get a change: %s', async (_why, subscription, words) => {
    const peer = await live(subscription);
    await stage.sql(
      `insert into todo values (11, 'open', 7) on conflict (id) do update set status = todo.status || 'x'`,
    );
    await stage.arrived();
    expect(await ofClient(11, peer)).toMatchObject({
      step: 'matched',
      state: 'no',
      text: expect.stringMatching(words),
    });
  });

  test('an explanation says that a change was before the subscription, or in its rows', async () => {
    await stage.sql(`insert into todo values (12, 'open', 7)`);
    await stage.arrived();
    expect((await ofClient(12, await live({ table: 'todo' }))).text).toMatch(/began after this change/);
    expect((await ofClient(12, await live({ table: 'todo', snapshot: true }))).text).toMatch(
      /began with rows that hold this change/,
    );
  });

  test('an explanation says that a client has no subscription, or is gone', async () => {
    await stage.sql(`insert into todo values (13, 'open', 7)`);
    await stage.arrived();
    const peer = await stage.peer();
    expect((await ofClient(13, peer)).text).toBe('It has no subscription at the moment.');
    peer.ws.terminate();
    await until('the connection is gone', async () => (await ofClient(13, peer)).state === 'unknown', 5_000);
    expect((await ofClient(13, peer)).text).toMatch(/has no connection \d+: it is gone/);
  });

  test('an explanation says how far a client that reads nothing lags behind', async () => {
    const peer = await live({ table: 'todo' });
    peer.ws.pause();
    for (let i = 0; i < 25; i++)
      await stage.sql(`insert into todo select $1 + n, repeat('x', 2000) from generate_series(1, 500) n`, [
        100_000 + i * 500,
      ]);
    await stage.arrived();
    const last = 100_000 + 24 * 500 + 500;
    await until('the client lags behind', async () => (await ofClient(last, peer)).state === 'waiting', 20_000);
    expect((await ofClient(last, peer)).text).toMatch(
      /^Not written yet: it is catching up and has [\d,]+ changes to go/,
    );
  });
});

describe('wrong requests', () => {
  test.each<[string, Record<string, string>, string, RegExp]>([
    ['nothing', {}, 'pos', /is needed, or table and id/],
    ['a position in words', { pos: 'yesterday' }, 'pos', /is not a position/],
    ['an unknown table', { table: 'nothere', id: '1' }, 'table', /is not attached/],
    ['a table alone', { table: 'todo' }, 'id', /is needed with table/],
    ['an id alone', { id: '1' }, 'pos', /is needed/],
    ['an id of another type', { table: 'todo', id: 'seven' }, 'id', /number/],
    ['half of a key', { table: 'parts', id: 'a' }, 'id', /must be 2 values/],
    ['a connection in words', { table: 'todo', id: '1', connection: 'mine' }, 'connection', /is not the name of one/],
    [
      'a replica that is not there',
      { table: 'todo', id: '1', connection: 'gateway-9/1' },
      'connection',
      /does not answer: gateway-9/,
    ],
    ['an unknown parameter', { pos: 'e1.1', tabel: 'x' }, 'tabel', /is not a parameter/],
  ])('a request is refused by the field: %s', async (_what, query, path, message) => {
    const { status, body } = await ask(query);
    expect(status).toBe(400);
    expect(body).toMatchObject({ code: 'INVALID', errors: [{ path, message: expect.stringMatching(message) }] });
  });

  test('a position of another table is refused by the table', async () => {
    await stage.sql(`insert into parts values ('b', 1, 'x')`);
    await stage.arrived();
    const { changes } = await explain({ table: 'parts', id: 'b,1' });
    const { status, body } = await ask({ pos: changes[0]!.pos!, table: 'todo' });
    expect(status).toBe(400);
    expect(body).toMatchObject({ errors: [{ path: 'table', message: expect.stringMatching(/one of parts/) }] });
  });
});
