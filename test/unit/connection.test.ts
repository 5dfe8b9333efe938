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
  // looking for life asks nothing of the WebSocket itself
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
  test('pings, and goes on as long as something comes back', async () => {
    for (let turn = 1; turn <= 3; turn++) {
      expect(connection.check(turn * 100, stallMs)).toBe('ok');
      const [ping] = (await once(far, 'data')) as [Buffer];
      expect(ping).toEqual(Buffer.from([0x89, 0x00]));
      connection.alive = true;
    }
  });

  test('is dead when nothing has come since the last ping', () => {
    expect(connection.check(0, stallMs)).toBe('ok');
    expect(connection.check(1, stallMs)).toBe('dead');
  });

  test('does not ping somebody who reads nothing, and gives up in time', () => {
    far.pause();
    clog();
    connection.alive = false;
    expect(connection.check(5_000, stallMs)).toBe('ok');
    const taken = connection.outlet.takenBytes;
    expect(connection.check(5_000 + stallMs, stallMs)).toBe('ok');
    expect(connection.outlet.takenBytes).toBe(taken);
    expect(connection.check(5_001 + stallMs, stallMs)).toBe('stalled');
  });

  test('has patience with somebody who reads slowly', async () => {
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

  test('begins to measure anew after everything was taken', async () => {
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

describe('what it may say', () => {
  const count = (say: () => boolean) => {
    let said = 0;
    while (said < 20_000 && say()) said++;
    return said;
  };

  test.each<[string, () => boolean, number]>([
    ['frames', () => connection.countFrame(), 1_000],
    ['pieces of a byte', () => connection.countPiece(1), 9_900],
    ['messages of 54 kB', () => connection.countPiece(54 * 1024) && connection.countFrame(), 18],
  ])('is bounded in %s', (_what, say, most) => {
    const said = count(say);
    expect(said).toBeGreaterThanOrEqual(most * 0.99);
    // the test takes a while as well
    expect(said).toBeLessThan(most * 1.2);
  });

  test('comes back with time, in the event loop as well', async () => {
    count(() => connection.countFrame());
    connection.took(41);
    expect([connection.countFrame(), connection.hasCredit]).toEqual([false, false]);
    await until('a frame may come again', () => connection.countFrame(), 2_000);
    await until('it has credit again', () => connection.hasCredit, 2_000);
  });
});

describe('closeReason', () => {
  test('fits into a close frame, and stays text', () => {
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
