// A user is revoked under load while one gateway is stopped with SIGSTOP, and another one is killed. On every transport and at every gateway,
// the user gets no change after the revocation's place in the log, and the tokens are refused from then on.

import { afterAll, beforeAll, beforeEach, expect, test } from 'vitest';
import { WebSocket } from 'ws';
import { Cluster } from '#deploy/local/cluster.ts';
import type { Pool } from '#shared/postgres/postgres.ts';
import { parsePosition } from '#shared/wire.ts';
import { testPool } from '../support/servers/pool.ts';
import { createDatabase, redisUrl } from '../support/servers/servers.ts';
import { tellOnFailure } from '../support/stage/nodes.ts';
import { now, secret, tokenOf } from '../support/stage/tokens.ts';
import { until } from '../support/wait.ts';

const stack = new AsyncDisposableStack();
let cluster: Cluster;
let pool: Pool;

beforeAll(async () => {
  const database = await createDatabase();
  stack.defer(() => database.drop());
  pool = testPool(database.url);
  stack.defer(() => pool.end());
  await pool.query(`create table todo (id int primary key, at timestamptz); select plank.attach('todo');
                    select plank.allow('todo', 'authenticated', read => '{}')`);
  const env = { PLANK_LOG_NAME: database.name, AUTH: 'jwt', AUTH_JWT_SECRET: secret };
  const options = { databaseUrl: database.url, redisUrl: await redisUrl(), env };
  cluster = await Cluster.start({ ...options, gateways: 3, balanced: false });
  stack.defer(() => cluster.stop());
});

beforeEach(() => tellOnFailure(() => [...cluster.listeners, ...cluster.gateways]));

afterAll(() => stack.disposeAsync());

interface Follower {
  /** of the changes that came */
  seqs: number[];
  /** the close code or the HTTP status; 0: the connection is open */
  code: number;
}

const seqIn = (text: string) => parsePosition((JSON.parse(text) as { pos: string }).pos)!.seq;

function overSocket(url: string, token: string, protocol: string[]): Follower {
  const self: Follower = { seqs: [], code: 0 };
  const ws = new WebSocket(`${url.replace('http', 'ws')}/ws`, protocol, {
    headers: { authorization: `Bearer ${token}` },
  });
  stack.defer(() => ws.terminate());
  ws.on('error', () => {});
  ws.on('unexpected-response', (request, response) => {
    request.destroy();
    self.code = response.statusCode!;
  });
  ws.on('open', () => {
    if (protocol.length === 0) return;
    ws.send(JSON.stringify({ type: 'hello' }));
    ws.send(JSON.stringify({ type: 'subscribe', id: 1, table: 'todo' }));
  });
  ws.on('message', (data: Buffer) => {
    const { type = 'change' } = JSON.parse(data.toString()) as { type?: string };
    if (type === 'change') self.seqs.push(seqIn(data.toString()));
  });
  ws.on('close', (code) => (self.code ||= code));
  return self;
}

function overEvents(url: string, token: string): Follower {
  const self: Follower = { seqs: [], code: 0 };
  const abort = new AbortController();
  stack.defer(() => abort.abort());
  const read = async () => {
    const headers = { authorization: `Bearer ${token}` };
    const response = await fetch(`${url}/api/todo/changes`, { headers, signal: abort.signal });
    let text = '';
    if (response.ok)
      for await (const chunk of response.body!.pipeThrough(new TextDecoderStream())) {
        const lines = (text + chunk).split('\n');
        text = lines.pop()!;
        for (const line of lines) if (line.startsWith('data: {"type":"change"')) self.seqs.push(seqIn(line.slice(6)));
      }
    self.code = response.status;
  };
  read().catch(() => (self.code ||= 1006));
  return self;
}

const everyTransport = (url: string, token: string) => [
  overSocket(url, token, []),
  overSocket(url, token, ['plank.v1']),
  overEvents(url, token),
];

test('no change after a revocation reaches the user, at a gateway that runs, was stopped, or was killed', async () => {
  const [runs, stopped, killed] = cluster.gateways;
  const ada = tokenOf({ sub: 'ada', iat: now() - 5 });
  const of = cluster.gateways.map(({ url }) => everyTransport(url, ada));
  const bob = everyTransport(runs!.url, tokenOf({ sub: 'bob' }));
  const stop = new AbortController();
  const writing = (async () => {
    for (let id = 1; !stop.signal.aborted; id++)
      await pool.query('insert into todo values ($1, clock_timestamp())', [id]);
  })();
  await until('changes reach everybody', () => [...of, bob].flat().every(({ seqs }) => seqs.length > 5), 10_000);
  stopped!.signal('SIGSTOP');
  await killed!.kill();
  await pool.query(`select plank.revoke('ada')`);
  await until('the running gateway ends its clients', () => of[0]!.every(({ code }) => code !== 0), 5_000);
  stopped!.signal('SIGCONT');
  await killed!.start();
  await until('the stopped one does too', () => of[1]!.every(({ code }) => code !== 0), 10_000);
  const again = cluster.gateways.map(({ url }) => everyTransport(url, ada));
  await until('the tokens are refused', () => again.flat().every(({ code }) => code !== 0), 5_000);
  stop.abort();
  await writing;
  const { rows } = await pool.query(`select max(seq)::int as seq from plank.read_log(0) where action = 'V'`);
  const { seq } = rows[0] as { seq: number };
  await until('others get the changes after it', () => bob.every(({ seqs }) => seqs.at(-1)! > seq), 5_000);
  expect(of.flat().flatMap(({ seqs }) => seqs.filter((one) => one > seq))).toEqual([]);
  expect(of.slice(0, 2).flatMap((followers) => followers.slice(0, 2).map(({ code }) => code))).toEqual([
    4401, 4401, 4401, 4401,
  ]);
  expect(again.flat().every(({ code, seqs }) => code === 401 && seqs.length === 0)).toBe(true);
  expect(bob.map(({ code }) => code)).toEqual([0, 0, 0]);
});
