// plank.v1 message by message, as no client of ours would send them, and what becomes of a session when its table, its
// history or its replica goes. Then the same changes as server-sent events.

import { connect } from 'node:net';
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest';
import { WebSocket } from 'ws';
import { startNginx } from '../../deploy/local/nginx.ts';
import { createPool, type Pool } from '../../shared/postgres.ts';
import { type ChangeFrame, parsePosition, type ServerFrame } from '../../shared/wire.ts';
import { type Embedded, startEmbedded } from '../support/embedded.ts';
import { FrameReader, overEvents } from '../support/frames.ts';
import { createDatabase } from '../support/servers.ts';
import { until } from '../support/wait.ts';

const stack = new AsyncDisposableStack();
const peers: { close(): void }[] = [];
let databaseUrl: string;
let pool: Pool;
let embedded: Embedded;
const sql = (text: string, values: unknown[] = []) => pool.query(text, values);

beforeAll(async () => {
  const database = await createDatabase();
  stack.defer(() => database.drop());
  databaseUrl = database.url;
  pool = createPool(databaseUrl, { applicationName: 'test', statementTimeoutMs: 20_000, max: 4, onError: () => {} });
  stack.defer(() => pool.end());
  await sql(`create table todo (id int primary key, status text, doc json);
    create table gone (id int primary key);
    create table typed (id int primary key, n int);
    create table keyed (id int primary key, other int not null);
    create table big (id int primary key, note text);
    select plank.attach(t) from unnest('{todo,gone,typed,keyed,big}'::regclass[]) t`);
  embedded = await startEmbedded(databaseUrl, { MAX_QUEUE_BYTES: '16384', RING_BYTES: '65536' });
  stack.defer(() => embedded.stop());
});

afterEach(async () => {
  for (const peer of peers.splice(0)) peer.close();
  // whatever a test did, nothing of it is left
  for (const name of ['plank_subscriptions', 'plank_connections', 'plank_channels'])
    await until(`${name} is 0 again`, async () => (await metric(name)) === 0, 5_000);
  expect((await fetch(`${embedded.url}/health`)).status).toBe(200);
});

afterAll(() => stack.disposeAsync());

async function metric(name: string): Promise<number> {
  const text = await embedded.registry.metrics();
  if (!text.includes(`# TYPE ${name} `)) throw new Error(`there is no metric ${name}`);
  const lines = text.split('\n').filter((line) => line.startsWith(`${name}{`));
  return lines.reduce((sum, line) => sum + Number(line.slice(line.lastIndexOf(' ') + 1)), 0);
}

/** What was written so far has passed the gateway. */
async function arrived(): Promise<void> {
  const { rows } = await sql(
    `insert into todo values (-77, 'x') on conflict (id) do update set status = 'y' returning pg_current_xact_id() as tx`,
  );
  await until(
    'the gateway is there',
    async () => {
      const { rows: ends } = await sql(
        `select next_seq - 1 as seq, pg_visible_in_snapshot($1::text::xid8, snap) as drained from plank.leader`,
        [rows[0].tx],
      );
      const { position } = (await (await fetch(`${embedded.url}/health`)).json()) as { position: string };
      return ends[0].drained === true && parsePosition(position)!.seq >= Number(ends[0].seq);
    },
    5_000,
  );
}

interface Peer {
  reader: FrameReader;
  ws: WebSocket;
  /** 0 while it is open */
  code: number;
  reason: string;
  send: (message: unknown) => void;
}

/** A connection that says what it is told to, from `hello` on. */
async function peer(url = embedded.url, hello = true): Promise<Peer> {
  const ws = new WebSocket(`${url.replace('http', 'ws')}/ws`, 'plank.v1');
  const reader = new FrameReader(() => ws.terminate());
  peers.push(reader);
  const self: Peer = {
    reader,
    ws,
    code: 0,
    reason: '',
    send: (message) =>
      ws.send(typeof message === 'string' || Buffer.isBuffer(message) ? message : JSON.stringify(message)),
  };
  ws.on('message', (data) => reader.push(JSON.parse((data as Buffer).toString()) as ServerFrame));
  ws.on('error', () => {});
  ws.on('close', (code, reason) => {
    self.code = code;
    self.reason = reason.toString();
    reader.end(`closed with ${code}`);
  });
  await new Promise((resolve, reject) => ws.on('open', resolve).on('error', reject));
  if (hello) {
    self.send({ type: 'hello' });
    await reader.expect('welcome');
  }
  return self;
}

let requests = 0;
async function subscribe({ send, reader }: Peer, ask: object): Promise<string> {
  const id = ++requests;
  send({ type: 'subscribe', id, ...ask });
  const ok = await reader.expect('ok');
  expect(ok.id).toBe(id);
  return ok.ch!;
}

const closed = (one: Peer, deadlineMs = 2_000) => until('it is closed', () => one.code !== 0, deadlineMs);
const deep = (levels: number) => `${'['.repeat(levels)}${']'.repeat(levels)}`;

describe('messages', () => {
  test.each<[string, string | Buffer, number, RegExp]>([
    ['not JSON', 'hello', 4400, /not JSON/],
    ['nothing', '', 4400, /not JSON/],
    ['an array', '[]', 4400, /./],
    ['null', 'null', 4400, /./],
    ['a number', '7', 4400, /./],
    ['no type', '{}', 4400, /./],
    ['an unknown type', '{"type":"publish"}', 4400, /./],
    ['__proto__ alone', '{"__proto__":{"type":"ping"}}', 4400, /./],
    ['a type from the prototype', '{"type":"constructor"}', 4400, /./],
    ['many levels of arrays', deep(30_000), 4400, /./],
    ['many levels that never end', '['.repeat(60_000), 4400, /./],
    ['a ping with more', '{"type":"ping","x":1}', 4400, /unknown field "x"/],
    ['a subscribe without an id', '{"type":"subscribe","table":"todo"}', 4400, /id/],
    ['the id 0', '{"type":"subscribe","id":0,"table":"todo"}', 4400, /id/],
    ['a negative id', '{"type":"subscribe","id":-1,"table":"todo"}', 4400, /id/],
    ['a fraction', '{"type":"subscribe","id":1.5,"table":"todo"}', 4400, /id/],
    ['a string', '{"type":"subscribe","id":"1","table":"todo"}', 4400, /id/],
    ['the id 2^60', `{"type":"subscribe","id":${2n ** 60n},"table":"todo"}`, 4400, /id/],
    ['a second hello', '{"type":"hello"}', 4400, /hello comes once/],
    ['binary', Buffer.from('{"type":"ping"}'), 4400, /text/],
    ['64 kB and one byte', `{"type":"ping"}${' '.repeat(64 * 1024 + 1 - 15)}`, 1009, /^/],
    ['a reason that would be too long', JSON.stringify({ type: 'ping', ['ä'.repeat(500)]: 1 }), 4400, /…$/],
  ])('%s ends the connection', async (_name, message, code, reason) => {
    const one = await peer();
    one.send(message);
    await closed(one);
    expect(one.code).toBe(code);
    expect(one.reason).toMatch(reason);
  });

  test.each<[string, string, RegExp]>([
    ['an unknown field', '{"type":"subscribe","id":7,"table":"todo","filter":{}}', /MALFORMED/],
    ['a table that is no text', '{"type":"subscribe","id":7,"table":{"a":1}}', /MALFORMED/],
    ['no columns', '{"type":"subscribe","id":7,"table":"todo","columns":[]}', /MALFORMED/],
    ['an unsubscribe of nothing', '{"type":"unsubscribe","id":7}', /MALFORMED/],
    ['a channel that is not there', '{"type":"unsubscribe","id":7,"ch":"x"}', /UNKNOWN_CHANNEL/],
    ['a channel of the prototype', '{"type":"unsubscribe","id":7,"ch":"__proto__"}', /UNKNOWN_CHANNEL/],
    ['a table of the prototype', '{"type":"subscribe","id":7,"table":"constructor"}', /UNKNOWN_TABLE/],
    [
      'a filter with __proto__',
      '{"type":"subscribe","id":7,"table":"todo","where":{"__proto__":{"id":1}}}',
      /UNKNOWN_COLUMN/,
    ],
    [
      'a filter of many levels',
      `{"type":"subscribe","id":7,"table":"todo","where":{"not":${'{"not":'.repeat(500)}{}${'}'.repeat(501)}}`,
      /INVALID_FILTER/,
    ],
    ['a filter that is a list', '{"type":"subscribe","id":7,"table":"todo","where":[]}', /INVALID_FILTER/],
    ['a position in words', '{"type":"subscribe","id":7,"table":"todo","from":"now"}', /INVALID_POSITION/],
  ])('%s is answered with its id', async (_name, message, code) => {
    const one = await peer();
    one.send(message);
    const answer = await one.reader.expect('error');
    expect(answer.id).toBe(7);
    expect(answer.code).toMatch(code);
    one.send({ type: 'ping' });
    await one.reader.expect('pong');
  });

  test('hello must come first, and in time', async () => {
    const silent = await peer(embedded.url, false);
    const eager = await peer(embedded.url, false);
    eager.send({ type: 'subscribe', id: 1, table: 'todo' });
    await closed(eager);
    expect([eager.code, eager.reason]).toEqual([4400, 'hello comes first']);
    expect(await closed(silent, 8_000)).toBeGreaterThan(4_000);
    expect(silent.code).toBe(4408);
  });

  test('64 kB are not too much', async () => {
    const one = await peer();
    one.send(`{"type":"ping"}${' '.repeat(64 * 1024 - 15)}`);
    await one.reader.expect('pong');
  });

  test('one channel is one subscription, in whatever words', async () => {
    const one = await peer();
    const ch = await subscribe(one, {
      table: 'todo',
      where: { status: 'open', id: { in: [2, 1] } },
      columns: ['status'],
    });
    await one.reader.expect('live');
    one.send({
      type: 'subscribe',
      id: 900,
      table: 'todo',
      where: { and: [{ id: { in: [1, 2, 1] } }, { status: { eq: 'open' } }] },
      columns: ['id', 'status', 'id'],
    });
    expect(await one.reader.expect('error')).toMatchObject({ id: 900, code: 'ALREADY_SUBSCRIBED' });
    const other = await subscribe(one, { table: 'todo', where: { status: 'open', id: { in: [1, 2] } } });
    expect(other).not.toBe(ch);
  });

  test('a hundred subscriptions and no more, until one goes', async () => {
    const one = await peer();
    const channels: string[] = [];
    for (let id = 1; id <= 100; id++) one.send({ type: 'subscribe', id, table: 'todo', where: { id } });
    while (channels.length < 100) {
      const frame = await one.reader.next();
      if (frame.type === 'ok') channels.push(frame.ch!);
    }
    expect(new Set(channels).size).toBe(100);
    expect(await metric('plank_subscriptions')).toBe(100);
    one.send({ type: 'subscribe', id: 101, table: 'todo', where: { id: 101 } });
    one.send({ type: 'unsubscribe', id: 102, ch: channels[7] });
    one.send({ type: 'subscribe', id: 103, table: 'todo', where: { id: 103 } });
    const answers: unknown[] = [];
    while (answers.length < 3) {
      const frame = await one.reader.next();
      if (frame.type === 'ok' || frame.type === 'error') answers.push([frame.id, 'code' in frame ? frame.code : 'ok']);
    }
    expect(answers).toEqual([
      [101, 'TOO_MANY_SUBSCRIPTIONS'],
      [102, 'ok'],
      [103, 'ok'],
    ]);
  });
});

describe('subscriptions', () => {
  test('nothing of a subscription comes behind the ok of its end', async () => {
    await sql(`truncate todo; insert into todo select g, 'open' from generate_series(1, 3000) g`);
    const one = await peer();
    const witness = await peer();
    await subscribe(witness, { table: 'todo', where: { id: 300 } });
    await witness.reader.expect('live');
    for (let turn = 0; turn < 20; turn++) {
      const ch = await subscribe(one, { table: 'todo', snapshot: turn % 2 === 0 });
      const written = sql(`update todo set status = 'x' || $1 where id <= 300`, [turn]);
      one.send({ type: 'unsubscribe', id: 5_000 + turn, ch });
      while ((await one.reader.next()).type !== 'ok');
      await written;
      // the other client has what this one would have had
      await witness.reader.changes(1);
      one.send({ type: 'ping' });
      await one.reader.expect('pong');
    }
  });

  test('who sees nothing new is told how far it is all the same', async () => {
    const one = await peer();
    await subscribe(one, { table: 'todo', where: { id: -1 } });
    const { pos } = await one.reader.expect('live');
    await sql(`update todo set status = 'quiet' where id = (select min(id) from todo)`);
    await sql(`insert into big values (-1, '') on conflict (id) do update set note = big.note || 'x'`);
    const next = await one.reader.next();
    expect(next.type).toBe('pos');
    expect(seqOf(next)).toBeGreaterThan(parsePosition(pos)!.seq);
  });

  test('several on one connection that reads nothing fall behind, and arrive whole', async () => {
    await sql('truncate big, todo');
    await arrived();
    const slow = await peer();
    const quick = await peer();
    const asks = [{ table: 'big' }, { table: 'big', where: { id: { lt: 5_000 } }, columns: ['id'] }, { table: 'todo' }];
    const channels: string[] = [];
    for (const ask of asks) {
      channels.push(await subscribe(slow, ask));
      await slow.reader.expect('live');
    }
    await subscribe(quick, { table: 'todo' });
    await quick.reader.expect('live');
    slow.ws.pause();
    let written = 0;
    await until(
      'it is behind',
      async () => {
        await sql(`insert into big select g, repeat('x', 1000) from generate_series($1::int, $1::int + 999) g`, [
          written,
        ]);
        await sql('insert into todo values ($1, $2)', [written, 'open']);
        written += 1_000;
        return (await metric('plank_catching_up')) >= 3;
      },
      20_000,
    );
    await sql(`insert into todo values (-1, 'end')`);
    // nobody waits for it
    const quicks = await quick.reader.changes(written / 1_000 + 1);
    expect(quicks.at(-1)!.id).toBe(-1);
    slow.ws.resume();
    await until(
      'the slow one has all of it',
      () => {
        if (slow.code !== 0) throw new Error(`closed with ${slow.code}`);
        return count(slow, channels[0]!) >= written && count(slow, channels[2]!) > written / 1_000;
      },
      20_000,
    );
    for (const [i, ch] of channels.entries()) {
      const changes = changesOf(slow, ch);
      const ids = changes.map(({ id }) => id);
      const all = Array.from({ length: written }, (_, id) => id);
      expect(ids).toEqual([all, all.slice(0, 5_000), [...all.filter((id) => id % 1_000 === 0), -1]][i]);
      const seqs = changes.map(seqOf);
      expect(seqs.every((seq, at) => at === 0 || seq > seqs[at - 1]!)).toBe(true);
    }
  });

  test('who takes no rows keeps nobody else from theirs, and has them anew later', async () => {
    await sql(`truncate big; insert into big select g, repeat('x', 1000) from generate_series(1, 20000) g`);
    const slow: Peer[] = [];
    // as many as are read at once
    for (let n = 1; n <= 4; n++) {
      const one = await peer();
      await subscribe(one, { table: 'big', where: { id: { gt: -n } }, snapshot: true });
      await one.reader.expect('rows');
      one.ws.pause();
      slow.push(one);
    }
    const other = await peer();
    await subscribe(other, { table: 'big', where: { id: 7 }, snapshot: true });
    expect(await other.reader.rows()).toHaveLength(1);
    const [first] = slow;
    first!.ws.resume();
    while ((await first!.reader.next()).type !== 'resync');
    expect(await first!.reader.rows()).toHaveLength(20_000);
    await first!.reader.expect('live');
  });

  test('a TRUNCATE in the moment of a snapshot leaves no hole', async () => {
    await sql(`truncate todo; insert into todo values (1, 'a'), (2, 'b')`);
    const waits = (query: string) => async () =>
      (await sql(`select from pg_stat_activity where wait_event_type = 'Lock' and query like $1`, [query])).rowCount ===
      1;
    const holder = await pool.connect();
    let truncated: Promise<unknown>;
    const one = await peer();
    try {
      // the reader of rows has its snapshot, and waits for what comes next
      await holder.query('begin; lock table plank.leader in access exclusive mode');
      await subscribe(one, { table: 'todo', snapshot: true });
      await until('the snapshot is being taken', waits('%unnumbered%'), 5_000);
      let isDone = false;
      truncated = sql(`update todo set status = 'c' where id = 1`)
        .then(() => sql('truncate todo'))
        .finally(() => {
          isDone = true;
        });
      await until('it is done or waits', async () => isDone || (await waits('truncate todo')()), 5_000);
    } finally {
      await holder.query('rollback');
      holder.release();
    }
    await truncated;
    const rows = new Map((await one.reader.rows()).map((row) => [row['id'], row]));
    expect(new Set(rows.keys())).toEqual(new Set([1, 2]));
    while (rows.size > 0) {
      const frame = await one.reader.next();
      if (frame.type !== 'change') continue;
      if (frame.id === null) rows.clear();
      else expect([frame.effect, rows.has(frame.id)]).toEqual(['change', true]);
    }
    expect(one.reader.all.filter((frame) => frame.type === 'change').map(({ id }) => id)).toContain(null);
  });

  test('a dropped table ends its subscriptions, and no others', async () => {
    const one = await peer();
    const kept = await subscribe(one, { table: 'todo', where: { id: 77_777 } });
    await one.reader.expect('live');
    const ch = await subscribe(one, { table: 'gone', snapshot: true });
    await one.reader.rows();
    await one.reader.expect('live');
    await sql('drop table gone');
    expect(await one.reader.expect('error')).toMatchObject({ ch, code: 'UNKNOWN_TABLE', retry: false });
    one.send({ type: 'unsubscribe', id: 901, ch });
    expect(await one.reader.expect('error')).toMatchObject({ id: 901, code: 'UNKNOWN_CHANNEL' });
    await sql('insert into todo values (77777)');
    expect((await one.reader.changes(1))[0]).toMatchObject({ ch: kept, id: 77_777 });
  });

  test('a position of before a column got another type begins anew, and goes on', async () => {
    const first = await peer();
    await subscribe(first, { table: 'typed' });
    const { pos } = await first.reader.expect('live');
    await sql('insert into typed values (1, 5)');
    await first.reader.changes(1);
    await sql('alter table typed alter n type text');
    expect(await first.reader.expect('resync')).toMatchObject({ reason: 'shape' });
    const again = await peer();
    await subscribe(again, { table: 'typed', where: { n: '5' }, from: pos, snapshot: true });
    expect(await again.reader.expect('resync')).toMatchObject({ reason: 'shape' });
    expect(await again.reader.rows()).toEqual([{ id: 1, n: '5' }]);
    await again.reader.expect('live');
    await sql(`insert into typed values (2, '5')`);
    expect((await again.reader.changes(1))[0]).toMatchObject({ effect: 'add', id: 2 });
  });

  test('another key is another channel: the client must ask for it', async () => {
    const one = await peer();
    const ch = await subscribe(one, { table: 'keyed', columns: ['other'] });
    await one.reader.expect('live');
    await sql('alter table keyed drop constraint keyed_pkey, add primary key (other)');
    expect(await one.reader.expect('error')).toMatchObject({ ch, code: 'UNAVAILABLE', retry: true });
    await subscribe(one, { table: 'keyed', columns: ['other'] });
    await one.reader.expect('live');
  });
});

describe('the replica and its history', () => {
  test('a replica that stops says when to come back', async () => {
    const leaving = await startEmbedded(databaseUrl);
    const one = await peer(leaving.url);
    await subscribe(one, { table: 'todo', where: { id: -1 } });
    await one.reader.expect('live');
    const stopped = leaving.stop();
    const { after_ms } = await one.reader.expect('drain');
    expect(after_ms).toBeGreaterThanOrEqual(0);
    await closed(one);
    expect(one.code).toBe(1012);
    await stopped;
  });

  test('of a promotion only those notice it who were past the fork', async () => {
    const one = await peer();
    await subscribe(one, { table: 'todo', where: { id: { gt: 100_000 } } });
    await one.reader.expect('live');
    await sql('insert into todo values (100001)');
    const [before] = await one.reader.changes(1);
    const { epoch } = parsePosition(before!.pos)!;
    const { rows } = await sql('select next_seq - 1 as seq from plank.leader');
    const fork = Number(rows[0].seq);
    // what a listener finds on a promoted standby
    await sql(
      `update plank.epochs set timeline = '0000FFFF'; update plank.leader set term = term + 1, holder = null, expires_at = '-infinity'`,
    );
    await until(
      'a new epoch has begun',
      async () => (await sql('select epoch from plank.leader')).rows[0].epoch > epoch,
      10_000,
    );
    await sql('insert into todo values (100002)');
    const [after] = await one.reader.changes(1);
    expect(after).toMatchObject({ effect: 'add', id: 100_002 });
    expect(parsePosition(after!.pos)!.epoch).toBeGreaterThan(epoch);
    const ask = { table: 'todo', where: { id: { gt: 100_000 } } };
    for (const seq of [fork - 1, fork]) {
      const shared = await peer();
      await subscribe(shared, { ...ask, from: `e${epoch}.${seq}` });
      const changes: unknown[] = [];
      for (;;) {
        const frame = await shared.reader.next();
        if (frame.type !== 'change') {
          expect(frame.type).toBe('live');
          break;
        }
        changes.push(frame.id);
      }
      expect(changes.at(-1)).toBe(100_002);
    }
    const past = await peer();
    await subscribe(past, { ...ask, from: `e${epoch}.${fork + 1}`, snapshot: true });
    expect(await past.reader.expect('resync')).toMatchObject({ reason: 'epoch' });
    expect(await past.reader.rows()).toMatchObject([{ id: 100_001 }, { id: 100_002 }]);
    await past.reader.expect('live');
  });
});

describe('server-sent events', () => {
  const stream = async (ask: Parameters<typeof overEvents>[1], url = embedded.url) => {
    const reader = await overEvents(url, ask);
    peers.push(reader);
    return reader;
  };

  test.each([
    ['an unknown parameter', 'table=todo'],
    ['a parameter twice', 'columns=id&columns=status'],
    ['a filter that is not JSON', 'where={'],
    ['a deep filter', `where=${'['.repeat(4_000)}`],
    ['a snapshot that is neither', 'snapshot=maybe'],
    ['a position in words', 'since=yesterday'],
  ])('%s is refused', async (_name, query) => {
    const response = await fetch(`${embedded.url}/api/todo/changes?${query}`, { signal: AbortSignal.timeout(5_000) });
    expect(response.status).toBe(400);
    expect(response.headers.get('content-type')).toMatch('application/problem+json');
    await response.body?.cancel();
  });

  test.each(['HEAD', 'POST'])('%s is not for a stream', async (method) => {
    const response = await fetch(`${embedded.url}/api/todo/changes`, { method, signal: AbortSignal.timeout(5_000) });
    expect([response.status, response.headers.get('allow')]).toEqual([405, 'GET']);
  });

  test('goes on behind the last event, with values that have line breaks', async () => {
    await sql('truncate todo');
    const first = await stream({ table: 'todo', snapshot: true });
    await first.rows();
    await first.expect('live');
    await sql('insert into todo values (1, $1, $2)', ['a\nb\r\n\u2028', '{"a":\n\n[1,\r2]\r\n}']);
    const row = { id: 1, status: 'a\nb\r\n\u2028', doc: { a: [1, 2] } };
    const [change] = await first.changes(1);
    expect(change!.data).toEqual(row);
    first.close();
    await sql('insert into todo values (2)');
    const again = await stream({ table: 'todo', from: change!.pos, snapshot: true });
    // it may have been live before the row came
    while (!again.all.some((frame) => frame.type === 'change')) await again.next();
    expect(again.all.filter((frame) => frame.type !== 'live')).toMatchObject([{ effect: 'add', id: 2 }]);
    const anew = await stream({ table: 'todo', where: { id: 1 }, snapshot: true });
    expect(await anew.rows()).toEqual([row]);
    await anew.expect('live');
  });

  test('a client that is gone is forgotten, in the middle of a snapshot too', async () => {
    await sql(`truncate big; insert into big select g, repeat('x', 1000) from generate_series(1, 20000) g`);
    const { port } = new URL(embedded.url);
    const socket = connect({ port: Number(port), host: '127.0.0.1' });
    socket.write('GET /api/big/changes?snapshot=true HTTP/1.1\r\nHost: x\r\n\r\n');
    await new Promise((resolve) => socket.once('data', resolve));
    socket.pause();
    expect(await metric('plank_subscriptions')).toBe(1);
    socket.destroy();
    await until('it is forgotten', async () => (await metric('plank_subscriptions')) === 0, 5_000);
  });

  test('comes through nginx as it is sent', async () => {
    const nginx = await startNginx({ upstreams: [new URL(embedded.url).host] });
    try {
      const started = performance.now();
      const reader = await stream({ table: 'todo', where: { id: 55 } }, nginx.url);
      await reader.expect('live');
      expect(performance.now() - started).toBeLessThan(3_000);
      const written = performance.now();
      await sql(`insert into todo values (55) on conflict (id) do update set status = 'x'`);
      await reader.changes(1);
      expect(performance.now() - written).toBeLessThan(3_000);
      reader.close();
    } finally {
      await nginx.stop();
    }
  });
});

const seqOf = (frame: ServerFrame): number => parsePosition((frame as { pos: string }).pos)!.seq;

function changesOf({ reader }: Peer, ch: string): ChangeFrame[] {
  return reader.all.filter((frame): frame is ChangeFrame => frame.type === 'change' && frame.ch === ch);
}

function count(one: Peer, ch: string): number {
  return changesOf(one, ch).length;
}
