// The plain WebSocket mode, one gateway and one listener in this process: what is sent byte for byte, what may be asked for,
// and every way of breaking the protocol.

import { once } from 'node:events';
import { connect, type Socket } from 'node:net';
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { Gateway } from '../../services/gateway/gateway.ts';
import { Listener } from '../../services/listener/listener.ts';
import { gatewaySchema, listenerSchema, readConfig } from '../../shared/config.ts';
import { LocalFanout } from '../../shared/fanout-local.ts';
import { createLog } from '../../shared/log.ts';
import { createRegistry, gatewayMetrics, listenerMetrics } from '../../shared/metrics.ts';
import { createPool, type Pool } from '../../shared/postgres.ts';
import { formatPosition, parsePosition } from '../../shared/wire.ts';
import { type ClientOptions, seqOf, TestClient } from '../support/client.ts';
import { createDatabase } from '../support/servers.ts';
import { until } from '../support/wait.ts';

const pingIntervalMs = 500;
const maxConnections = 20;

const stack = new AsyncDisposableStack();
const opened: { stop(): void }[] = [];
const log = createLog('silent', 'test', 'test');
let databaseUrl: string;
let pool: Pool;
let tail: LocalFanout;
let gateway: Gateway;
let url: string;

beforeAll(async () => {
  const database = await createDatabase();
  stack.defer(() => database.drop());
  databaseUrl = database.url;
  pool = createPool(databaseUrl, { applicationName: 'test', statementTimeoutMs: 10_000, max: 4, onError: () => {} });
  stack.defer(() => pool.end());
  await pool.query(`
    create table pairs (a integer, b text, note text, primary key (b, a));
    select plank.attach('pairs');
    create schema sales;
    create table sales.orders (id uuid primary key default gen_random_uuid(), value integer);
    select plank.attach('sales.orders');`);
  tail = new LocalFanout();
  const config = readConfig(listenerSchema, {
    DATABASE_URL: databaseUrl,
    LOG_LEVEL: 'silent',
    CANARY_INTERVAL_MS: '0',
  });
  const listener = new Listener({ config, publisher: tail, log, metrics: listenerMetrics(createRegistry('test')) });
  stack.defer(() => listener.stop());
  await listener.start();
  gateway = await startGateway();
  url = urlOf(gateway);
});

afterEach(async () => {
  for (const one of opened.splice(0)) one.stop();
  await until('the gateway has forgotten them', async () => (await connections()) === 0, 5_000);
});

afterAll(() => stack.disposeAsync());

async function startGateway(env: Record<string, string> = {}): Promise<Gateway> {
  const config = readConfig(gatewaySchema, {
    DATABASE_URL: databaseUrl,
    NODE_NAME: 'gw',
    PORT: '0',
    PING_INTERVAL_MS: `${pingIntervalMs}`,
    MAX_CONNECTIONS: `${maxConnections}`,
    MAX_QUEUE_BYTES: `${64 * 1024}`,
    ...env,
  });
  const started = new Gateway({ config, tail, log, metrics: gatewayMetrics(createRegistry('gw')) });
  stack.defer(() => started.stop());
  await started.start();
  return started;
}

function urlOf({ port }: Gateway): string {
  return `ws://127.0.0.1:${port}/ws`;
}

async function open(options: Partial<ClientOptions> = {}): Promise<TestClient> {
  const client = await TestClient.connect({ url, keepsFrames: true, reconnects: false, ...options });
  opened.push({ stop: () => client.stop() });
  return client;
}

async function health(): Promise<{ connections: number; position: string }> {
  return (await (await fetch(`http://127.0.0.1:${gateway.port}/health`)).json()) as {
    connections: number;
    position: string;
  };
}

async function connections(): Promise<number> {
  return (await health()).connections;
}

async function insert(name: string, value = 1): Promise<number> {
  const { rows } = await pool.query<{ id: string }>('insert into items (name, value) values ($1, $2) returning id', [
    name,
    value,
  ]);
  return Number(rows[0]!.id);
}

/** The position up to which everything written so far has been delivered. */
async function position(): Promise<string> {
  const client = await open({ tables: 'items' });
  await insert('here');
  await client.take(1);
  client.stop();
  return client.pos!;
}

const names = (frames: string[]) => frames.map((frame) => (JSON.parse(frame) as { data: { name: string } }).data.name);

describe('frames', () => {
  it('have the keys table, action, id and data in this order, then the position, and the row as Postgres renders it', async () => {
    const client = await open({ tables: 'items' });
    const id = await insert('Test "Item" é😀', 42.5);
    const image = async () =>
      (await pool.query<{ image: string }>('select to_json(t)::text as image from items t where id = $1', [id]))
        .rows[0]!.image;
    const made = await image();
    await pool.query('update items set value = null where id = $1', [id]);
    const changed = await image();
    await pool.query('delete from items where id = $1', [id]);

    const frames = await client.take(3);
    const { epoch, seq } = parsePosition(client.pos!)!;
    const frame = (action: string, data: string, back: number) =>
      `{"table":"items","action":"${action}","id":${id},"data":${data},"pos":"e${epoch}.${seq - back}"}`;
    expect(frames).toEqual([frame('INSERT', made, 2), frame('UPDATE', changed, 1), frame('DELETE', changed, 0)]);
  });

  it('name tables of other schemas with them, and composite keys by an object', async () => {
    const client = await open();
    await pool.query(`insert into pairs (a, b, note) values (7, 'x"y', null)`);
    await pool.query(`insert into sales.orders (id, value) values ('5f9a3d36-6b8e-4f6e-9d53-0d3c1f1d9a01', 1)`);
    const [pair, order] = await client.take(2);
    expect(pair).toMatch(
      /^\{"table":"pairs","action":"INSERT","id":\{"b":"x\\"y","a":7\},"data":\{"a":7,"b":"x\\"y","note":null\},"pos":"e\d+\.\d+"\}$/,
    );
    expect(order).toMatch(
      /^\{"table":"sales\.orders","action":"INSERT","id":"5f9a3d36-6b8e-4f6e-9d53-0d3c1f1d9a01","data":/,
    );
  });

  it('tell of a TRUNCATE without id and data', async () => {
    const client = await open({ tables: 'pairs' });
    await pool.query('truncate pairs');
    const [frame] = await client.take(1);
    expect(frame).toMatch(/^\{"table":"pairs","action":"TRUNCATE","id":null,"data":null,"pos":"e\d+\.\d+"\}$/);
  });

  it('come of a table that is attached while the client is connected', async () => {
    const client = await open();
    await pool.query(`create table later (id integer primary key, value integer)`);
    await pool.query(`select plank.attach('later')`);
    await pool.query(`insert into later values (1, 1)`);
    const [frame] = await client.take(1);
    expect(frame).toMatch(/^\{"table":"later","action":"INSERT","id":1,"data":\{"id":1,"value":1\},/);
  });
});

describe('?tables=', () => {
  it('narrows to those tables', async () => {
    const client = await open({ tables: ' pairs , sales.orders,pairs' });
    await insert('not for it');
    await pool.query(`insert into pairs (a, b) values (1, 'for it')`);
    await pool.query('insert into sales.orders (value) values (1)');
    const frames = await client.take(2);
    expect(frames.map((frame) => (JSON.parse(frame) as { table: string }).table)).toEqual(['pairs', 'sales.orders']);
    expect(client.count).toBe(2);
  });

  it.each(['nothing', 'items,nothing', '"x";--', 'pg_catalog.pg_class', '__proto__', 'constructor', 'é'.repeat(200)])(
    'closes with 4400 and says that there is no table %s',
    async (tables) => {
      const client = await open({ tables });
      expect(await client.closed()).toBe(4400);
      expect(client.closeReasons[0]).toMatch(/^tables: there is no table "/);
      expect(Buffer.byteLength(client.closeReasons[0]!)).toBeLessThanOrEqual(123);
    },
  );
});

describe('?since=', () => {
  it('resumes behind a position: nothing is lost or doubled between history and live', async () => {
    const since = await position();
    await insert('away 1');
    await insert('away 2');
    const client = await open({ tables: 'items', since });
    await insert('live');
    expect(names(await client.take(3))).toEqual(['away 1', 'away 2', 'live']);
    expect(client.problems).toEqual([]);
  });

  it('resumes in the middle of a transaction', async () => {
    await position();
    const first = await open({ tables: 'items' });
    await pool.query(`insert into items (name, value) select 'n' || n, n from generate_series(1, 5) n`);
    const frames = await first.take(5);
    const second = await open({ tables: 'items', since: (JSON.parse(frames[2]!) as { pos: string }).pos });
    expect(await second.take(2)).toEqual(frames.slice(3));
  });

  it.each(['', 'x', 'e1', 'e1.', '1.5', 'e-1.5', 'e1.5x', 'e1.1e3', `e1.${'9'.repeat(30)}`])(
    'closes with 4400 where it is malformed: "%s"',
    async (since) => {
      const client = await open({ url: `${url}?since=${encodeURIComponent(since)}` });
      expect(await client.closed()).toBe(4400);
      expect(client.closeReasons[0]).toBe('since: not a position');
    },
  );

  it('closes with 4410 where it is of another epoch, ahead of the log, or made up', async () => {
    const { epoch, seq } = parsePosition((await health()).position)!;
    const wrong = [
      { epoch: epoch + 1, seq: 1 },
      { epoch: epoch - 1, seq },
      { epoch: 0, seq: 0 },
      { epoch, seq: seq + 1_000 },
      { epoch, seq: 999_999_999_999_999 },
    ];
    for (const forged of wrong) {
      const client = await open({ url: `${url}?since=${formatPosition(forged)}` });
      expect([forged, await client.closed()]).toEqual([forged, 4410]);
      expect(client.count).toBe(0);
    }
  });
});

describe('messages', () => {
  it('subscribe and unsubscribe choose tables', async () => {
    const client = await open();
    client.send('{"action":"subscribe","table":"pairs"}');
    client.send('{"action":"subscribe","table":"items"}');
    client.send('{"action":"unsubscribe","table":"pairs"}');
    await settled(client);
    await pool.query(`insert into pairs (a, b) values (2, 'no')`);
    await insert('yes');
    expect(names(await client.take(1))).toEqual(['yes']);
    client.send('{"action":"unsubscribe","table":"items"}');
    client.send('{"action":"subscribe","table":"sales.orders"}');
    await settled(client);
    await insert('no more');
    await pool.query('insert into sales.orders (value) values (2)');
    const [order] = await client.take(1);
    expect(JSON.parse(order!)).toMatchObject({ table: 'sales.orders' });
    expect(client.count).toBe(2);
  });

  it.each([
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
  ])('close with 4400 and a reason: %s', async (_, message, reason) => {
    const client = await open();
    client.send(message);
    expect(await client.closed()).toBe(4400);
    expect(client.closeReasons[0]).toMatch(reason);
    expect(Buffer.byteLength(client.closeReasons[0]!)).toBeLessThanOrEqual(123);
  });

  it('in binary close with 4400', async () => {
    const client = await open();
    client.send(Buffer.from('{"action":"subscribe","table":"items"}'));
    expect(await client.closed()).toBe(4400);
    expect(client.closeReasons[0]).toMatch(/text/);
  });

  it('of 1 MB close with 1009', async () => {
    const client = await open();
    client.send('x'.repeat(1024 ** 2));
    expect(await client.closed()).toBe(1009);
  });

  it('in a flood close with 4429', async () => {
    const client = await open();
    for (let i = 0; i < 3_000; i++) client.send('{"action":"subscribe","table":"items"}');
    expect(await client.closed()).toBe(4429);
  });
});

/** Resolves when the gateway has read everything that the client sent: frames are answered in order. */
async function settled(client: TestClient): Promise<void> {
  await client.ping();
}

describe('upgrades', () => {
  /** The status and the end of what a raw request is answered; the socket must be closed by the server. */
  async function ask(lines: string[], port = gateway.port): Promise<string> {
    const socket = connect({ port, host: '127.0.0.1', allowHalfOpen: true });
    opened.push({ stop: () => socket.destroy() });
    socket.on('error', () => {});
    socket.write(`${lines.join('\r\n')}\r\n\r\n`);
    let answer = '';
    socket.on('data', (bytes: Buffer) => {
      answer += bytes.toString();
    });
    await until('an answer and its end', () => socket.readableEnded, 5_000);
    return answer;
  }

  const upgrade = (path: string, more: string[] = []) => [
    `GET ${path} HTTP/1.1`,
    'Host: test',
    'Connection: Upgrade',
    'Upgrade: websocket',
    'Sec-WebSocket-Version: 13',
    'Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==',
    ...more,
  ];

  it('on another path are refused with 404', async () => {
    for (const path of ['/', '/wsx', '/ws/', '/api/items', '/WS']) {
      const answer = await ask(upgrade(path));
      expect([path, answer.slice(0, 12)]).toEqual([path, 'HTTP/1.1 404']);
      expect(answer).toContain('application/problem+json');
    }
  });

  it('with a malformed handshake are refused with 4xx', async () => {
    for (const lines of [
      upgrade('/ws').filter((line) => !line.startsWith('Sec-WebSocket-Key')),
      upgrade('/ws').map((line) => line.replace('Version: 13', 'Version: 7')),
      upgrade('//'),
    ])
      expect(await ask(lines)).toMatch(/^HTTP\/1\.1 4\d\d/);
  });

  it('that are refused leave nothing behind, though the client keeps its end open', async () => {
    const socket = connect({ port: gateway.port, host: '127.0.0.1', allowHalfOpen: true });
    opened.push({ stop: () => socket.destroy() });
    socket.resume().on('error', () => {});
    socket.write(`${upgrade('/nowhere').join('\r\n')}\r\n\r\n`);
    await once(socket, 'end');
    // the server's end is gone altogether when writing to it is answered with a reset
    const poke = setInterval(() => socket.write('x'), 20);
    await until('the server has closed its end', () => socket.destroyed, 3_000).finally(() => clearInterval(poke));
  });

  it('from a foreign, a missing or a null Origin are refused with 403 where an allow-list is set', async () => {
    const strict = await startGateway({ CORS_ORIGINS: 'https://shop.example,https://other.example' });
    for (const origin of [
      ['Origin: https://evil.example'],
      ['Origin: null'],
      ['Origin: https://shop.example.evil.example'],
      [],
    ])
      expect(await ask(upgrade('/ws', origin), strict.port)).toMatch(/^HTTP\/1\.1 403/);
    const client = await open({ url: urlOf(strict), origin: 'https://other.example' });
    expect(client.isOpen).toBe(true);
  });

  it('beyond MAX_CONNECTIONS are refused with 503, until one leaves', async () => {
    const clients = await Promise.all(Array.from({ length: maxConnections }, () => open()));
    await expect(open()).rejects.toThrow('refused with 503');
    clients[0]!.stop();
    await until('a place is free', async () => (await connections()) < maxConnections, 2_000);
    await open();
  });
});

describe('clients that misbehave', () => {
  /** A raw connection after its handshake, and all that has come since. */
  async function raw(path = '/ws'): Promise<{ socket: Socket; received: Buffer[] }> {
    const socket = connect({ port: gateway.port, host: '127.0.0.1' });
    opened.push({ stop: () => socket.destroy() });
    socket.on('error', () => {});
    socket.write(
      `GET ${path} HTTP/1.1\r\nHost: test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n`,
    );
    const [answer] = (await once(socket, 'data')) as [Buffer];
    expect(answer.toString()).toMatch(/^HTTP\/1\.1 101/);
    const received: Buffer[] = [];
    socket.on('data', (bytes: Buffer) => received.push(bytes));
    return { socket, received };
  }

  /** A client's frame, masked with zeros, which leave the payload as it is. */
  function masked(first: number, payload: Buffer): Buffer {
    if (payload.length > 125) throw new Error('too long for a short frame');
    return Buffer.concat([Buffer.from([first, 0x80 | payload.length, 0, 0, 0, 0]), payload]);
  }

  it.each([
    ['an unmasked frame', Buffer.from([0x81, 0x01, 0x78]), 1002],
    ['a reserved bit', masked(0xc1, Buffer.from('x')), 1002],
    ['a reserved opcode', masked(0x83, Buffer.from('x')), 1002],
    ['a continuation of nothing', masked(0x80, Buffer.from('x')), 1002],
    ['a fragmented ping', masked(0x09, Buffer.from('x')), 1002],
    ['a close with half a code', masked(0x88, Buffer.from([3])), 1002],
    ['bad UTF-8', masked(0x81, Buffer.from([0xff, 0xfe])), 1007],
    ['a length of 2^63', Buffer.from([0x81, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]), 1009],
    [
      '65 fragments',
      Buffer.concat([
        masked(0x01, Buffer.from('x')),
        ...Array.from({ length: 65 }, () => masked(0x00, Buffer.from('x'))),
      ]),
      1008,
    ],
  ])('%s closes with the right code, and the process lives', async (_, bytes, code) => {
    const { socket, received } = await raw('/ws?tables=');
    socket.write(bytes);
    await until('a close frame', () => Buffer.concat(received).length >= 4, 3_000);
    const close = Buffer.concat(received);
    expect(close[0]).toBe(0x88);
    expect(close.readUInt16BE(2)).toBe(code);
    socket.destroy();
    expect((await fetch(`http://127.0.0.1:${gateway.port}/health/live`)).status).toBe(200);
  });

  it('a flood of pings that reads nothing is cut off', async () => {
    const { socket } = await raw();
    socket.pause();
    const pings = Buffer.concat(Array.from({ length: 500 }, () => masked(0x89, Buffer.alloc(125))));
    const flood = setInterval(() => socket.write(pings), 1);
    try {
      await until('the gateway has dropped it', async () => (await connections()) === 0, 5_000);
    } finally {
      clearInterval(flood);
    }
    await until('its end of the connection is closed', () => socket.destroyed, 3_000);
  });

  it('a dead one, which answers no ping, is dropped within two intervals', async () => {
    const { socket } = await raw();
    socket.pause();
    expect(await connections()).toBe(1);
    const ms = await until('it is dropped', async () => (await connections()) === 0, 3 * pingIntervalMs);
    expect(ms).toBeLessThan(2 * pingIntervalMs + 250);
  });

  it('a silent one that answers pings stays', async () => {
    const client = await open({ tables: 'items' });
    await until('four pings', () => client.pings >= 4, 10 * pingIntervalMs);
    expect(client.isOpen).toBe(true);
    await insert('still here');
    expect(names(await client.take(1))).toEqual(['still here']);
  });
});

describe('stop', () => {
  it('closes with 1012, refuses new ones and may be called twice', async () => {
    const own = await startGateway();
    const clients = await Promise.all(Array.from({ length: 5 }, () => open({ url: urlOf(own), tables: 'items' })));
    await insert('before');
    for (const client of clients) await client.take(1);
    await Promise.all([own.stop(), own.stop()]);
    for (const client of clients) {
      expect(await client.closed()).toBe(1012);
      expect(client.count).toBe(1);
    }
    // where it was, a client goes on at another gateway
    await insert('meanwhile');
    const resumed = await open({ tables: 'items', since: clients[0]!.pos! });
    expect(names(await resumed.take(1))).toEqual(['meanwhile']);
    expect(seqOf(resumed.pos!)).toBeGreaterThan(seqOf(clients[0]!.pos!));
  });
});
