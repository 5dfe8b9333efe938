// How a connection begins, and what ends it below Plank's protocols: upgrades that are refused, frames that violate RFC 6455, and
// clients that are silent, dead or do not read.

import { once } from 'node:events';
import { connect, type Socket } from 'node:net';
import { describe, expect, test } from 'vitest';
import { Stage } from '../../support/stage/stage.ts';
import { until } from '../../support/wait.ts';

const pingIntervalMs = 500;
const maxConnections = 20;
const stage = Stage.of('', {
  PING_INTERVAL_MS: `${pingIntervalMs}`,
  MAX_CONNECTIONS: `${maxConnections}`,
  MAX_QUEUE_BYTES: `${64 * 1024}`,
});
const connections = async () => (await stage.health()).connections;
const gatewayPort = () => Number(new URL(stage.embedded.url).port);

/** The lines of an upgrade request. */
const upgrade = (path: string, more: string[] = []) => [
  `GET ${path} HTTP/1.1`,
  'Host: test',
  'Connection: Upgrade',
  'Upgrade: websocket',
  'Sec-WebSocket-Version: 13',
  'Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==',
  ...more,
];

describe('upgrades', () => {
  /** The whole answer to a raw request, which the server must end by closing the socket. */
  async function ask(lines: string[], port = gatewayPort()): Promise<string> {
    const socket = connect({ port, host: '127.0.0.1', allowHalfOpen: true });
    stage.afterwards(() => socket.destroy());
    socket.on('error', () => {});
    socket.write(`${lines.join('\r\n')}\r\n\r\n`);
    let answer = '';
    socket.on('data', (bytes: Buffer) => {
      answer += bytes.toString();
    });
    await until('an answer and its end', () => socket.readableEnded, 5_000);
    return answer;
  }

  test('an upgrade of another path is refused with 404', async () => {
    for (const path of ['/', '/wsx', '/ws/', '/api/items', '/WS']) {
      const answer = await ask(upgrade(path));
      expect([path, answer.slice(0, 12)]).toEqual([path, 'HTTP/1.1 404']);
      expect(answer).toContain('application/problem+json');
    }
  });

  test('a malformed handshake is refused with 4xx', async () => {
    for (const lines of [
      upgrade('/ws').filter((line) => !line.startsWith('Sec-WebSocket-Key')),
      upgrade('/ws').map((line) => line.replace('Version: 13', 'Version: 7')),
      upgrade('//'),
    ])
      expect(await ask(lines)).toMatch(/^HTTP\/1\.1 4\d\d/);
  });

  test('a refused upgrade leaves nothing behind, though the client keeps its end open', async () => {
    const socket = connect({ port: gatewayPort(), host: '127.0.0.1', allowHalfOpen: true });
    stage.afterwards(() => socket.destroy());
    socket.resume().on('error', () => {});
    socket.write(`${upgrade('/nowhere').join('\r\n')}\r\n\r\n`);
    await once(socket, 'end');
    // a reset on a write shows that the server has closed its end
    const poke = setInterval(() => socket.write('x'), 20);
    await until('the server has closed its end', () => socket.destroyed, 3_000).finally(() => clearInterval(poke));
  });

  test('a foreign, missing or null Origin is refused with 403 if there is an allow-list', async () => {
    const strict = await stage.embedded.startGateway({ CORS_ORIGINS: 'https://shop.example,https://other.example' });
    for (const origin of [
      ['Origin: https://evil.example'],
      ['Origin: null'],
      ['Origin: https://shop.example.evil.example'],
      [],
    ])
      expect(await ask(upgrade('/ws', origin), strict.port)).toMatch(/^HTTP\/1\.1 403/);
    const client = await stage.plain({ url: `ws://127.0.0.1:${strict.port}/ws`, origin: 'https://other.example' });
    expect(client.isOpen).toBe(true);
  });

  test('an upgrade ends the connection while an earlier request is unanswered, and succeeds afterwards', async () => {
    const holder = await stage.pool.connect();
    const request = ['GET /api/items HTTP/1.1', 'Host: test'];
    const both = `${request.join('\r\n')}\r\n\r\n${upgrade('/ws', ['Sec-WebSocket-Protocol: plank.v1']).join('\r\n')}`;
    try {
      await holder.query('begin; lock table items in access exclusive mode');
      expect(await ask([both])).toBe('');
    } finally {
      await holder.query('rollback');
      holder.release();
    }
    const socket = connect({ port: gatewayPort(), host: '127.0.0.1' });
    stage.afterwards(() => socket.destroy());
    let answers = '';
    socket.on('data', (bytes: Buffer) => {
      answers += bytes.toString();
    });
    socket.write(`${request.join('\r\n')}\r\n\r\n`);
    await until('the rows', () => answers.endsWith(']'), 3_000);
    answers = '';
    socket.write(`${upgrade('/ws').join('\r\n')}\r\n\r\n`);
    await until('the upgrade', () => answers.startsWith('HTTP/1.1 101'), 3_000);
  });

  test('an upgrade above MAX_CONNECTIONS is refused with 503, until a client leaves', async () => {
    const clients = await Promise.all(Array.from({ length: maxConnections }, () => stage.plain()));
    await expect(stage.plain()).rejects.toThrow('refused with 503');
    clients[0]!.stop();
    await until('a place is free', async () => (await connections()) < maxConnections, 2_000);
    await stage.plain();
  });
});

describe('clients that misbehave', () => {
  /** A raw connection after its handshake, and the bytes received since. */
  async function raw(path = '/ws'): Promise<{ socket: Socket; received: Buffer[] }> {
    const socket = connect({ port: gatewayPort(), host: '127.0.0.1' });
    stage.afterwards(() => socket.destroy());
    socket.on('error', () => {});
    socket.write(`${upgrade(path).join('\r\n')}\r\n\r\n`);
    const [answer] = (await once(socket, 'data')) as [Buffer];
    expect(answer.toString()).toMatch(/^HTTP\/1\.1 101/);
    const received: Buffer[] = [];
    socket.on('data', (bytes: Buffer) => received.push(bytes));
    return { socket, received };
  }

  /** A client's frame, masked with zeros, which leave the payload unchanged. */
  function masked(first: number, payload: Buffer): Buffer {
    if (payload.length > 125) throw new Error('too long for a short frame');
    return Buffer.concat([Buffer.from([first, 0x80 | payload.length, 0, 0, 0, 0]), payload]);
  }

  test.each([
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
    expect((await fetch(`http://127.0.0.1:${gatewayPort()}/health/live`)).status).toBe(200);
  });

  test('a client that floods with pings and reads nothing is cut off', async () => {
    const { socket } = await raw();
    socket.pause();
    const pings = Buffer.concat(Array.from({ length: 500 }, () => masked(0x89, Buffer.alloc(125))));
    const flood = setInterval(() => socket.write(pings), 1);
    try {
      await until('the gateway has dropped the client', async () => (await connections()) === 0, 5_000);
    } finally {
      clearInterval(flood);
    }
    await until('its end of the connection is closed', () => socket.destroyed, 3_000);
  });

  test('a dead client, which answers no ping, is dropped within two intervals', async () => {
    const { socket } = await raw();
    socket.pause();
    expect(await connections()).toBe(1);
    const ms = await until('the client is dropped', async () => (await connections()) === 0, 3 * pingIntervalMs);
    expect(ms).toBeLessThan(2 * pingIntervalMs + 250);
  });

  test('a silent client that answers pings stays', async () => {
    const client = await stage.plain({ tables: 'items' });
    await until('four pings', () => client.pings >= 4, 10 * pingIntervalMs);
    expect(client.isOpen).toBe(true);
    await stage.sql(`insert into items (name) values ('still here')`);
    expect(await client.take(1)).toEqual([expect.stringContaining('"name":"still here"')]);
  });
});
