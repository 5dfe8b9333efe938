// plank.v1 message by message, with messages that the SDK would never send.

import { describe, expect, test } from 'vitest';
import { closed, Stage } from '../../support/stage/stage.ts';

const stage = Stage.of(`create table todo (id int primary key, status text); select plank.attach('todo')`);

const deep = (levels: number) => `${'['.repeat(levels)}${']'.repeat(levels)}`;

describe('messages', () => {
  test.each<[string, string | Buffer, number, RegExp]>([
    ['not JSON', 'hello', 4400, /not JSON/],
    ['an empty text', '', 4400, /not JSON/],
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
  ])('a message ends the connection: %s', async (_name, message, code, reason) => {
    const one = await stage.peer();
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
  ])('a message is answered with its id: %s', async (_name, message, code) => {
    const one = await stage.peer();
    one.send(message);
    const answer = await one.reader.expect('error');
    expect(answer.id).toBe(7);
    expect(answer.code).toMatch(code);
    one.send({ type: 'ping' });
    await one.reader.expect('pong');
  });

  test('hello must come first, and in time', async () => {
    const silent = await stage.peer(stage.embedded.url, false);
    const eager = await stage.peer(stage.embedded.url, false);
    eager.send({ type: 'subscribe', id: 1, table: 'todo' });
    await closed(eager);
    expect([eager.code, eager.reason]).toEqual([4400, 'hello comes first']);
    expect(await closed(silent, 8_000)).toBeGreaterThan(4_000);
    expect(silent.code).toBe(4408);
  });

  test('a message of 64 kB is accepted', async () => {
    const one = await stage.peer();
    one.send(`{"type":"ping"}${' '.repeat(64 * 1024 - 15)}`);
    await one.reader.expect('pong');
  });

  test('requests for the same channel make one subscription, however they are written', async () => {
    const one = await stage.peer();
    const ch = await stage.subscribe(one, {
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
    const other = await stage.subscribe(one, { table: 'todo', where: { status: 'open', id: { in: [1, 2] } } });
    expect(other).not.toBe(ch);
  });

  test('a connection has at most a hundred subscriptions, and room again once one ends', async () => {
    const one = await stage.peer();
    const channels: string[] = [];
    for (let id = 1; id <= 100; id++) one.send({ type: 'subscribe', id, table: 'todo', where: { id } });
    while (channels.length < 100) {
      const frame = await one.reader.next();
      if (frame.type === 'ok') channels.push(frame.ch!);
    }
    expect(new Set(channels).size).toBe(100);
    expect(await stage.metric('plank_subscriptions')).toBe(100);
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
