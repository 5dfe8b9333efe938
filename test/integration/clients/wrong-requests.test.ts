// Wrong requests of /ws and of event streams: the answer names what is wrong, and no request waits for ever.

import { connect, type Socket } from 'node:net';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { WebSocket } from 'ws';
import { type LocalNginx, startNginx } from '#deploy/local/nginx.ts';
import { Stage } from '../../support/stage/stage.ts';
import { until } from '../../support/wait.ts';

const stage = Stage.of(`
  create table todo (id integer primary key, doc json);
  create table slow (id integer primary key);
  select plank.attach('todo'), plank.attach('slow')`);

let nginx: LocalNginx;
beforeAll(async () => {
  nginx = await startNginx({ upstreams: [new URL(stage.embedded.url).host] });
});
afterAll(() => nginx.stop());
const urls = () => ({ gateway: stage.embedded.url, nginx: nginx.url, operators: stage.embedded.opsUrl });

/** The answer to these bytes on one connection, until `enough` or its end. */
async function exchange(
  bytes: string,
  enough: (text: string) => boolean,
  url = stage.embedded.url,
): Promise<{ text: string; ended: boolean; socket: Socket }> {
  const { port } = new URL(url);
  const socket = connect(Number(port), '127.0.0.1');
  let text = '';
  let ended = false;
  socket.on('data', (chunk) => {
    text += chunk.toString();
  });
  socket.on('error', () => {});
  socket.on('close', () => {
    ended = true;
  });
  socket.write(bytes);
  await until('the bytes are answered', () => ended || enough(text), 5_000);
  return { text, ended, socket };
}

const request = (path: string, method = 'GET', body = '') =>
  `${method} ${path} HTTP/1.1\r\nHost: x\r\n${body ? `Content-Type: application/json\r\nContent-Length: ${body.length}\r\n` : ''}\r\n${body}`;
const count = (text: string, part: string) => text.split(part).length - 1;

describe('plain requests of /ws', () => {
  test.each(['gateway', 'nginx', 'operators'] as const)(
    'the %s answers a plain request of /ws with 426',
    async (where) => {
      for (const path of ['/ws', '/ws/', '/ws?tables=todo']) {
        const answer = await fetch(urls()[where] + path);
        expect([path, answer.status, answer.headers.get('upgrade')]).toEqual([path, 426, 'websocket']);
        expect(await answer.json()).toMatchObject({ code: 'UPGRADE_REQUIRED' });
      }
      expect((await fetch(`${urls()[where]}/ws`, { method: 'POST' })).status).toBe(405);
    },
  );
});

describe('parameters of /ws', () => {
  test.each([
    ['table=todo', '', 'table: is no parameter of /ws; did you mean tables?'],
    ['Tables=todo', '', 'Tables: is no parameter of /ws; did you mean tables?'],
    ['tables[]=todo', '', 'tables[]: is no parameter of /ws; did you mean tables?'],
    ['from=e1.1', '', 'from: is no parameter of /ws: there are tables and since'],
    ['tables=todo&tables=slow', '', 'tables: is there more than once'],
    ['since=e1.1&since=e1.1', '', 'since: is there more than once'],
    ['__proto__=1', '', '__proto__: is no parameter of /ws: there are tables and since'],
    [`${'é'.repeat(100)}=1`, '', /^é+: is no/],
    ['tables=todo', 'plank.v1', 'tables: is no parameter of /ws in plank.v1: a subscribe message says what is wanted'],
  ])('the parameter in %s is refused by name', async (query, protocol, reason) => {
    const url = `${stage.embedded.url.replace('http', 'ws')}/ws?${query}`;
    const ws = protocol ? new WebSocket(url, protocol) : new WebSocket(url);
    const closed = await new Promise<[number, string]>((resolve) =>
      ws.on('close', (code, text) => resolve([code, text.toString()])),
    );
    expect(closed[0]).toBe(4400);
    if (typeof reason === 'string') expect(closed[1]).toBe(reason);
    else expect(closed[1]).toMatch(reason);
  });
});

describe('JSON that is too deep', () => {
  const deep = (depth: number) => `${'['.repeat(depth)}${']'.repeat(depth)}`;

  test.each(['', 'plank.v1'])(
    'a message of JSON that is too deep is answered with the reason (%s)',
    async (protocol) => {
      const url = `${stage.embedded.url.replace('http', 'ws')}/ws`;
      const ws = protocol ? new WebSocket(url, protocol) : new WebSocket(url);
      const answers: string[] = [];
      ws.on('message', (data) => answers.push((data as Buffer).toString()));
      ws.on('close', (code, reason) => answers.push(`${code} ${reason.toString()}`));
      ws.on('open', () => {
        if (protocol) ws.send('{"type":"hello"}');
        ws.send(protocol ? `{"type":"subscribe","id":1,"table":"todo","where":${deep(20_000)}}` : deep(20_000));
      });
      const wanted = protocol ? /"code":"INVALID_FILTER"|^4400 .*nested too deeply/ : /^4400 (?!.*not JSON)/;
      await until('the message is answered', () => answers.some((answer) => wanted.test(answer)), 5_000);
      ws.terminate();
    },
  );

  test.each([5_000, 100_000])('a body of JSON that is too deep is refused as such over REST (%i)', async (depth) => {
    const address = `${stage.embedded.url}/api/todo`;
    const headers = { 'content-type': 'application/json' };
    const made = await fetch(address, { method: 'POST', headers, body: `{"id":1,"doc":${deep(depth)}}` });
    const text = await made.text();
    if (made.status === 201) await stage.sql('truncate todo');
    else expect([made.status, text]).toEqual([400, expect.stringMatching(/nested too deeply|stack depth/)]);
  });
});

describe('requests on one connection', () => {
  const stream = request('/api/todo/changes');
  const isStream = (text: string) => text.includes('text/event-stream') && text.includes('"type":"live"');

  test.each([
    ['alone', stream],
    ['after an answered request', request('/api/todo') + stream],
    ['after several requests', request('/api/todo') + request('/health') + request('/api/todo/9') + stream],
    ['after a write', request('/api/slow', 'POST', '{"id":1}') + stream],
  ])('an event stream is answered %s', async (_where, bytes) => {
    const { text, socket } = await exchange(bytes, isStream);
    expect(count(text, 'HTTP/1.1 ')).toBe(count(bytes, ' HTTP/1.1\r\n'));
    expect(isStream(text)).toBe(true);
    socket.destroy();
    await stage.sql('truncate slow');
  });

  test('an event stream waits for a slow request before it on the connection', async () => {
    const other = await stage.pool.connect();
    await other.query('begin; lock table slow');
    const exchanging = exchange(request('/api/slow') + stream, isStream);
    await until(
      'the request waits',
      async () => {
        const { rowCount } = await stage.pool.query(
          `select from pg_locks where not granted and relation = 'slow'::regclass`,
        );
        return rowCount === 1;
      },
      5_000,
    );
    await other.query('commit');
    other.release();
    const { text, socket } = await exchanging;
    expect(isStream(text)).toBe(true);
    socket.destroy();
  });

  test.each([
    ['an unknown table', {}, request('/api/nothing/changes'), 404],
    ['a wrong filter', {}, request('/api/todo/changes?where=1'), 400],
    ['a full replica', { MAX_CONNECTIONS: '1' }, stream, 429],
    ['a stream that has ended', {}, stream.replace('Host', 'Last-Event-ID: end\r\nHost'), 204],
  ])('a refused event stream leaves the connection to other requests: %s', async (_why, env, bytes, status) => {
    const gateway = await stage.embedded.startGateway(env);
    const one = await stage.peer(`http://127.0.0.1:${gateway.port}`);
    const { text, socket } = await exchange(
      bytes + request('/health/live'),
      (all) => count(all, 'HTTP/1.1 ') === 2,
      `http://127.0.0.1:${gateway.port}`,
    );
    expect(text.match(/HTTP\/1\.1 \d+/g)).toEqual([`HTTP/1.1 ${status}`, 'HTTP/1.1 200']);
    socket.destroy();
    one.ws.terminate();
    await gateway.stop();
  });

  test.each([
    ['a write', request('/api/slow', 'POST', '{"id":7}')],
    ['a read', request('/api/todo')],
    ['another event stream', stream],
    [
      'a WebSocket',
      'GET /ws HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n',
    ],
  ])('a request after an event stream is not run, and the connection ends: %s', async (_what, next) => {
    const { text, ended } = await exchange(stream + next, () => false);
    expect(ended).toBe(true);
    expect(count(text, 'HTTP/1.1 ')).toBeLessThanOrEqual(1);
    expect((await stage.sql('select from slow')).rowCount).toBe(0);
  });
});
