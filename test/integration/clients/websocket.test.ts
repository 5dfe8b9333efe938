// Plain mode: its frames byte for byte, its parameters and messages, and the answers to wrong ones.

import { describe, expect, test } from 'vitest';
import { formatPosition, parsePosition } from '#shared/wire.ts';
import { seqOf, type TestClient } from '../../support/stage/client.ts';
import { Stage } from '../../support/stage/stage.ts';

const stage = Stage.of(`
  create table pairs (a integer, b text, note text, primary key (b, a));
  select plank.attach('pairs');
  create schema sales;
  create table sales.orders (id uuid primary key default gen_random_uuid(), value integer);
  select plank.attach('sales.orders')`);
const { sql } = stage;

async function insert(name: string, value = 1): Promise<number> {
  const { rows } = await sql('insert into items (name, value) values ($1, $2) returning id', [name, value]);
  return Number(rows[0].id);
}

/** The position up to which everything written so far has been delivered. */
async function position(): Promise<string> {
  const client = await stage.plain({ tables: 'items' });
  await insert('here');
  await client.take(1);
  client.stop();
  return client.pos!;
}

const names = (frames: string[]) => frames.map((frame) => (JSON.parse(frame) as { data: { name: string } }).data.name);

describe('frames', () => {
  test('a frame has the keys table, action, id and data in this order, then pos, and the row as Postgres renders it', async () => {
    const client = await stage.plain({ tables: 'items' });
    const id = await insert('Test "Item" é😀', 42.5);
    const image = async () =>
      (await sql('select to_json(t)::text as image from items t where id = $1', [id])).rows[0]!.image;
    const made = await image();
    await sql('update items set value = null where id = $1', [id]);
    const changed = await image();
    await sql('delete from items where id = $1', [id]);

    const frames = await client.take(3);
    const { epoch, seq } = parsePosition(client.pos!)!;
    const frame = (action: string, data: string, back: number) =>
      `{"table":"items","action":"${action}","id":${id},"data":${data},"pos":"e${epoch}.${seq - back}"}`;
    expect(frames).toEqual([frame('INSERT', made, 2), frame('UPDATE', changed, 1), frame('DELETE', changed, 0)]);
  });

  test('a frame names the schema of a table, and has a composite key as an object', async () => {
    const client = await stage.plain();
    await sql(`insert into pairs (a, b, note) values (7, 'x"y', null)`);
    await sql(`insert into sales.orders (id, value) values ('5f9a3d36-6b8e-4f6e-9d53-0d3c1f1d9a01', 1)`);
    const [pair, order] = await client.take(2);
    expect(pair).toMatch(
      /^\{"table":"pairs","action":"INSERT","id":\{"b":"x\\"y","a":7\},"data":\{"a":7,"b":"x\\"y","note":null\},"pos":"e\d+\.\d+"\}$/,
    );
    expect(order).toMatch(
      /^\{"table":"sales\.orders","action":"INSERT","id":"5f9a3d36-6b8e-4f6e-9d53-0d3c1f1d9a01","data":/,
    );
  });

  test('a frame of a TRUNCATE has neither id nor data', async () => {
    const client = await stage.plain({ tables: 'pairs' });
    await sql('truncate pairs');
    const [frame] = await client.take(1);
    expect(frame).toMatch(/^\{"table":"pairs","action":"TRUNCATE","id":null,"data":null,"pos":"e\d+\.\d+"\}$/);
  });

  test('changes come of a table that is attached while the client is connected', async () => {
    const client = await stage.plain();
    await sql(`create table later (id integer primary key, value integer)`);
    await sql(`select plank.attach('later')`);
    await sql(`insert into later values (1, 1)`);
    const [frame] = await client.take(1);
    expect(frame).toMatch(/^\{"table":"later","action":"INSERT","id":1,"data":\{"id":1,"value":1\},/);
  });
});

describe('?tables=', () => {
  test('?tables= limits the changes to those tables', async () => {
    const client = await stage.plain({ tables: ' pairs , sales.orders,pairs' });
    await insert('not for it');
    await sql(`insert into pairs (a, b) values (1, 'for it')`);
    await sql('insert into sales.orders (value) values (1)');
    const frames = await client.take(2);
    expect(frames.map((frame) => (JSON.parse(frame) as { table: string }).table)).toEqual(['pairs', 'sales.orders']);
    expect(client.count).toBe(2);
  });

  test.each(['nothing', 'items,nothing', '"x";--', 'pg_catalog.pg_class', '__proto__', 'constructor', 'é'.repeat(200)])(
    '?tables= with the unknown table %s closes with 4400',
    async (tables) => {
      const client = await stage.plain({ tables });
      expect(await client.closed()).toBe(4400);
      expect(client.closeReasons[0]).toMatch(/^tables: there is no table "/);
      expect(Buffer.byteLength(client.closeReasons[0]!)).toBeLessThanOrEqual(123);
    },
  );
});

describe('?since=', () => {
  test('?since= resumes after a position: no change is lost or doubled between history and live', async () => {
    const since = await position();
    await insert('away 1');
    await insert('away 2');
    const client = await stage.plain({ tables: 'items', since });
    await insert('live');
    expect(names(await client.take(3))).toEqual(['away 1', 'away 2', 'live']);
    expect(client.problems).toEqual([]);
  });

  test('?since= resumes in the middle of a transaction', async () => {
    await position();
    const first = await stage.plain({ tables: 'items' });
    await sql(`insert into items (name, value) select 'n' || n, n from generate_series(1, 5) n`);
    const frames = await first.take(5);
    const second = await stage.plain({ tables: 'items', since: (JSON.parse(frames[2]!) as { pos: string }).pos });
    expect(await second.take(2)).toEqual(frames.slice(3));
  });

  test.each(['', 'x', 'e1', 'e1.', '1.5', 'e-1.5', 'e1.5x', 'e1.1e3', `e1.${'9'.repeat(30)}`])(
    '?since= that is malformed closes with 4400: "%s"',
    async (since) => {
      const client = await stage.plain({ url: `${stage.plainUrl}?since=${encodeURIComponent(since)}` });
      expect(await client.closed()).toBe(4400);
      expect(client.closeReasons[0]).toBe('since: not a position');
    },
  );

  test('?since= of another epoch, ahead of the log or made up closes with 4410', async () => {
    const { epoch, seq } = parsePosition((await stage.health()).position)!;
    const wrong = [
      { epoch: epoch + 1, seq: 1 },
      { epoch: epoch - 1, seq },
      { epoch: 0, seq: 0 },
      { epoch, seq: seq + 1_000 },
      { epoch, seq: 999_999_999_999_999 },
    ];
    for (const forged of wrong) {
      const client = await stage.plain({ url: `${stage.plainUrl}?since=${formatPosition(forged)}` });
      expect([forged, await client.closed()]).toEqual([forged, 4410]);
      expect(client.count).toBe(0);
    }
  });
});

describe('messages', () => {
  test('subscribe and unsubscribe choose tables', async () => {
    const client = await stage.plain();
    client.send('{"action":"subscribe","table":"pairs"}');
    client.send('{"action":"subscribe","table":"items"}');
    client.send('{"action":"unsubscribe","table":"pairs"}');
    await settled(client);
    await sql(`insert into pairs (a, b) values (2, 'no')`);
    await insert('yes');
    expect(names(await client.take(1))).toEqual(['yes']);
    client.send('{"action":"unsubscribe","table":"items"}');
    client.send('{"action":"subscribe","table":"sales.orders"}');
    await settled(client);
    await insert('no more');
    await sql('insert into sales.orders (value) values (2)');
    const [order] = await client.take(1);
    expect(JSON.parse(order!)).toMatchObject({ table: 'sales.orders' });
    expect(client.count).toBe(2);
  });

  test.each([
    ['not JSON', '{', /JSON/],
    ['no object', '[]', /./],
    ['an unknown action', '{"action":"destroy","table":"items"}', /action/],
    ['no table', '{"action":"subscribe"}', /table/],
    ['an unknown field', '{"action":"subscribe","table":"items","limit":1}', /unknown field "limit"/],
    ['an unknown table', '{"action":"subscribe","table":"nothing"}', /there is no table "nothing"/],
    ['a long unknown table', `{"action":"subscribe","table":"${'😀'.repeat(60)}"}`, /there is no table "😀/],
    ['a long unknown field', `{"action":"subscribe","table":"items","${'é'.repeat(9_000)}":1}`, /unknown field "é/],
    ['a table that is no text', '{"action":"subscribe","table":{"length":2,"0":"x"}}', /table/],
    ['a prototype', '{"action":"subscribe","table":"__proto__"}', /there is no table/],
    ['deep nesting', '['.repeat(20_000), /JSON/],
  ])('a message that is wrong closes with 4400 and a reason: %s', async (_, message, reason) => {
    const client = await stage.plain();
    client.send(message);
    expect(await client.closed()).toBe(4400);
    expect(client.closeReasons[0]).toMatch(reason);
    expect(Buffer.byteLength(client.closeReasons[0]!)).toBeLessThanOrEqual(123);
  });

  test('a binary message closes with 4400', async () => {
    const client = await stage.plain();
    client.send(Buffer.from('{"action":"subscribe","table":"items"}'));
    expect(await client.closed()).toBe(4400);
    expect(client.closeReasons[0]).toMatch(/text/);
  });

  test('a message of 1 MB closes with 1009', async () => {
    const client = await stage.plain();
    client.send('x'.repeat(1024 ** 2));
    expect(await client.closed()).toBe(1009);
  });

  test('a flood of messages closes with 4429', async () => {
    const client = await stage.plain();
    for (let i = 0; i < 3_000; i++) client.send('{"action":"subscribe","table":"items"}');
    expect(await client.closed()).toBe(4429);
  });
});

/** Resolves when the gateway has read everything that the client sent: frames are answered in order. */
async function settled(client: TestClient): Promise<void> {
  await client.ping();
}

describe('stop', () => {
  test('a gateway that stops closes its sockets with 1012, refuses new ones, and may be stopped twice', async () => {
    const own = await stage.embedded.startGateway();
    const clients = await Promise.all(
      Array.from({ length: 5 }, () => stage.plain({ url: `ws://127.0.0.1:${own.port}/ws`, tables: 'items' })),
    );
    await insert('before');
    for (const client of clients) await client.take(1);
    await Promise.all([own.stop(), own.stop()]);
    for (const client of clients) {
      expect(await client.closed()).toBe(1012);
      expect(client.count).toBe(1);
    }
    // a client resumes from its position at another gateway
    await insert('meanwhile');
    const resumed = await stage.plain({ tables: 'items', since: clients[0]!.pos! });
    expect(names(await resumed.take(1))).toEqual(['meanwhile']);
    expect(seqOf(resumed.pos!)).toBeGreaterThan(seqOf(clients[0]!.pos!));
  });
});
