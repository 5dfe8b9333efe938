// When a connection counts as dead or stalled, over a real socket whose other end answers, is silent or reads nothing.

import { once } from 'node:events';
import { type AddressInfo, connect, createServer, type Server, type Socket } from 'node:net';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import type { WebSocket } from 'ws';
import { Connection, closeReason } from '#gateway/clients/connection.ts';
import { until } from '../support/wait.ts';

let server: Server;
let near: Socket;
let far: Socket;
let connection: Connection;

beforeEach(async () => {
  server = createServer();
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  far = connect((server.address() as AddressInfo).port, '127.0.0.1');
  [near] = (await once(server, 'connection')) as [Socket];
  // check() does not use the WebSocket
  connection = new Connection({} as WebSocket, near);
});

afterEach(async () => {
  near.destroy();
  far.destroy();
  await new Promise((resolve) => server.close(resolve));
});

const stallMs = 1_000;

/** Fills the socket until the kernel takes no more. */
function clog(): void {
  while (connection.outlet.queuedBytes < 1_000_000) connection.outlet.write(Buffer.alloc(1_000_000));
}

describe('check', () => {
  test('a check pings, and the connection stays as long as something comes back', async () => {
    for (let turn = 1; turn <= 3; turn++) {
      expect(connection.check(turn * 100, stallMs)).toBe('ok');
      const [ping] = (await once(far, 'data')) as [Buffer];
      expect(ping).toEqual(Buffer.from([0x89, 0x00]));
      connection.alive = true;
    }
  });

  test('a connection is dead when nothing has come since the last ping', () => {
    expect(connection.check(0, stallMs)).toBe('ok');
    expect(connection.check(1, stallMs)).toBe('dead');
  });

  test('a check does not ping a client that reads nothing, and gives it up in time', () => {
    far.pause();
    clog();
    connection.alive = false;
    expect(connection.check(5_000, stallMs)).toBe('ok');
    const taken = connection.outlet.takenBytes;
    expect(connection.check(5_000 + stallMs, stallMs)).toBe('ok');
    expect(connection.outlet.takenBytes).toBe(taken);
    expect(connection.check(5_001 + stallMs, stallMs)).toBe('stalled');
  });

  test('a client that reads slowly is not given up', async () => {
    far.pause();
    clog();
    let now = 1_000;
    for (let turn = 0; turn < 5; turn++) {
      const taken = connection.outlet.takenBytes;
      far.resume();
      await until('some more is taken', () => connection.outlet.takenBytes > taken, 5_000);
      far.pause();
      clog();
      expect(connection.check(now, stallMs)).toBe('ok');
      now += stallMs;
      expect(connection.check(now, stallMs)).toBe('ok');
    }
  });

  test('the measurement of a stall starts over after the client has read everything', async () => {
    far.pause();
    clog();
    expect(connection.check(1_000, stallMs)).toBe('ok');
    far.resume();
    await until('all is taken', () => connection.outlet.queuedBytes === 0, 5_000);
    connection.alive = true;
    expect(connection.check(1_500, stallMs)).toBe('ok');
    far.pause();
    clog();
    expect(connection.check(9_000, stallMs)).toBe('ok');
    expect(connection.check(9_000 + stallMs + 1, stallMs)).toBe('stalled');
  });
});

describe('limits of what a client sends', () => {
  const count = (send: () => boolean) => {
    let sent = 0;
    while (sent < 20_000 && send()) sent++;
    return sent;
  };

  test.each<[string, () => boolean, number]>([
    ['frames', () => connection.countFrame(), 1_000],
    ['pieces of a byte', () => connection.countPiece(1), 9_900],
    ['messages of 54 kB', () => connection.countPiece(54 * 1024) && connection.countFrame(), 18],
  ])('a connection accepts a bounded number of %s', (_what, send, most) => {
    const sent = count(send);
    expect(sent).toBeGreaterThanOrEqual(most * 0.99);
    // points come back while the test runs
    expect(sent).toBeLessThan(most * 1.2);
  });

  test('points and event loop credit come back with time', async () => {
    count(() => connection.countFrame());
    connection.spendCredit(41);
    expect([connection.countFrame(), connection.hasCredit]).toEqual([false, false]);
    await until('a frame may come again', () => connection.countFrame(), 2_000);
    await until('it has credit again', () => connection.hasCredit, 2_000);
  });
});

describe('closeReason', () => {
  test('a close reason fits into a close frame, and stays valid text', () => {
    expect(closeReason('short')).toBe('short');
    for (const letter of ['x', 'ß', '€', '🦀']) {
      for (let length = 1; length < 130; length++) {
        const text = letter.repeat(length);
        const reason = closeReason(text);
        expect(Buffer.byteLength(reason)).toBeLessThanOrEqual(123);
        expect(reason).not.toContain('\uFFFD');
        if (Buffer.byteLength(text) <= 123) expect(reason).toBe(text);
        else expect(text.startsWith(reason.slice(0, -1))).toBe(true);
      }
    }
  });
});
