// How clients are asked to leave: each is sent a moment, and is closed then and not before. Once the drain is called off,
// no more clients are sent one.

import type { Socket } from 'node:net';
import { PassThrough } from 'node:stream';
import { expect, test } from 'vitest';
import { depart } from '#gateway/balance/departure.ts';
import { Draining } from '#gateway/balance/draining.ts';
import { webSocketFraming } from '#gateway/channels/framing.ts';
import { type Client, nextClientId } from '#gateway/clients/client.ts';
import { Clients } from '#gateway/clients/clients.ts';
import { Outlet } from '#gateway/relay/outlet.ts';
import { createLog } from '#shared/process/logger.ts';
import { until } from '../support/wait.ts';

const log = createLog('silent', 'test', 'test');

class FakeClient implements Client {
  readonly id = nextClientId();
  readonly transport = 'websocket';
  readonly mode = 'plain';
  readonly address = '';
  readonly openedAt = 0;
  readonly cursors = [];
  readonly viewer = null;
  readonly expiresAt = null;
  readonly outlet = new Outlet(new PassThrough() as unknown as Socket, webSocketFraming, this);
  readonly resumes = true;
  sentAt = 0;
  afterMs = Number.NaN;
  closedAt = Number.NaN;

  warn(afterMs: number): void {
    this.sentAt = performance.now();
    this.afterMs = afterMs;
  }

  dismiss(): void {
    this.outlet.end();
    this.closedAt = performance.now();
  }

  disconnect(): void {
    this.dismiss();
  }

  cut(): void {
    this.dismiss();
  }

  get isClosed(): boolean {
    return !this.outlet.open;
  }
}

const crowd = (count: number) => Array.from({ length: count }, () => new FakeClient());

function registered(crowd: readonly Client[]): Clients {
  const clients = new Clients({ max: Infinity, seq: () => 0 });
  for (const client of crowd) clients.add(client);
  return clients;
}

test('each client is closed at the moment that it was sent, spread over the given time', async () => {
  const clients = crowd(1_200);
  await depart(clients, { overMs: 300, reason: '', signal: new AbortController().signal });
  const sent = clients.map(({ afterMs }) => afterMs);
  expect(sent).toEqual([...sent].sort((a, b) => a - b));
  expect([sent[0], sent.at(-1)]).toEqual([1, 300]);
  expect(new Set(sent).size).toBeGreaterThan(250);
  // the clock started before the first was sent its moment
  const lateBy = clients.map(({ sentAt, afterMs, closedAt }) => closedAt - sentAt - afterMs);
  expect(Math.min(...lateBy)).toBeGreaterThan(-100);
  expect(clients[600]!.closedAt - clients[0]!.closedAt).toBeGreaterThan(100);
});

test('a client that has gone already is sent nothing', async () => {
  const clients = crowd(2);
  clients[0]!.outlet.end();
  await depart(clients, { overMs: 10, reason: '', signal: new AbortController().signal });
  expect(clients.map(({ afterMs }) => afterMs)).toEqual([Number.NaN, 10]);
});

test('clients that are left stay when the drain is called off', async () => {
  const clients = crowd(100);
  const abort = new AbortController();
  const done = depart(clients, { overMs: 60_000, reason: '', signal: abort.signal });
  await until('the first has gone', () => clients[0]!.isClosed, 5_000);
  abort.abort();
  await done;
  expect(clients.filter(({ isClosed }) => isClosed).length).toBeLessThan(50);
});

test('clients that were not reached yet are sent nothing when the drain is called off', async () => {
  const clients = crowd(2_000);
  const abort = new AbortController();
  const done = depart(clients, { overMs: 60_000, reason: '', signal: abort.signal });
  abort.abort();
  await done;
  const sent = clients.filter(({ afterMs }) => afterMs > 0).length;
  expect(sent).toBeGreaterThan(0);
  expect(sent).toBeLessThan(1_000);
});

test('a gateway drains once, reports each state, and can be undrained', async () => {
  const clients = crowd(50);
  const states: string[] = [];
  const draining = new Draining({
    clients: registered(clients),
    windowMs: 100,
    log,
    onChange: () => states.push(draining.state),
  });
  const first = draining.drain();
  expect(draining.drain()).toBe(first);
  expect(draining.state).toBe('draining');
  await first;
  expect(clients.every(({ isClosed }) => isClosed)).toBe(true);
  draining.undrain();
  draining.undrain();
  await draining.drain();
  expect(states).toEqual(['draining', 'drained', 'serving', 'draining', 'drained']);
});

test('a drain of few clients takes less than the whole window', async () => {
  const draining = new Draining({ clients: registered(crowd(10)), windowMs: 60_000, log, onChange: () => {} });
  const startedAt = performance.now();
  await draining.drain();
  expect(performance.now() - startedAt).toBeLessThan(2_000);
});

test('clients that are left stay when the gateway is undrained in the middle', async () => {
  const clients = crowd(1_000);
  const draining = new Draining({ clients: registered(clients), windowMs: 60_000, log, onChange: () => {} });
  const done = draining.drain();
  await until('the first have gone', () => clients.some(({ isClosed }) => isClosed), 5_000);
  draining.undrain();
  await done;
  expect(draining.state).toBe('serving');
  expect(clients.filter(({ isClosed }) => isClosed).length).toBeLessThan(500);
});
