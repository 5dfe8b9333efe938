// Clients that leave before they are answered: their statements end, their places are free, and no other client's statement is hit.

import { connect, type Socket } from 'node:net';
import { expect, test } from 'vitest';
import { Stage } from '../../support/stage/stage.ts';
import { until } from '../../support/wait.ts';

const stage = Stage.of(
  `
  create table slow (id integer primary key, seconds float not null);
  create function slow_down() returns trigger language plpgsql as
    $$ begin perform pg_catalog.pg_sleep(new.seconds); return new; end $$;
  create trigger slow_down before insert on slow for each row execute function slow_down();
  select plank.attach('slow');
`,
  { POOL_SIZE: '4' },
);

/** more than the pool runs and lets wait for one table */
const crowd = 60;
/** a statement ends by itself after this time, within the time that REST gives it */
const slowSeconds = 8;

/** Sends a request on a connection of its own, and reads nothing. */
function send(method: string, path: string, body = ''): Socket {
  const { hostname, port } = new URL(stage.embedded.url);
  const socket = connect(Number(port), hostname);
  stage.afterwards(() => socket.destroy());
  socket.on('error', () => {});
  const head = [`${method} ${path} HTTP/1.1`, 'Host: x', 'Content-Type: application/json'];
  socket.write(`${head.join('\r\n')}\r\nContent-Length: ${Buffer.byteLength(body)}\r\n\r\n${body}`);
  return socket;
}

const insert = (id: number, seconds: number) => JSON.stringify({ id, seconds });

async function running(): Promise<number> {
  const { rows } = await stage.sql(
    `select count(*)::integer as count from pg_stat_activity
     where application_name = 'plank gateway' and state <> 'idle'`,
  );
  return (rows[0] as { count: number }).count;
}

test('a crowd that leaves frees every place, and its writes are rolled back', async () => {
  const sockets = Array.from({ length: crowd }, (_, id) => send('POST', '/api/slow', insert(id, slowSeconds)));
  await until('all places of the table are taken', async () => (await running()) === 3, 5_000);
  for (const socket of sockets) socket.destroy();
  await until('no statement is left', async () => (await running()) === 0, 4_000);
  const answer = await fetch(`${stage.embedded.url}/api/slow`);
  expect([answer.status, await answer.json()]).toEqual([200, []]);
});

test('a read that waits for a lock ends with its client', async () => {
  const holder = await stage.pool.connect();
  try {
    await holder.query('begin; lock table slow in access exclusive mode');
    const socket = send('GET', '/api/slow');
    await until('the read waits', async () => (await running()) === 1, 2_000);
    socket.destroy();
    await until('the read has ended', async () => (await running()) === 0, 2_000);
  } finally {
    await holder.query('rollback');
    holder.release();
  }
});

test('clients that stay are answered, although statements of others are cancelled on the same connections', async () => {
  const leavers: Socket[] = [];
  const answers: Promise<Response>[] = [];
  for (let id = 0; id < 30; id++) {
    const leaver = send('POST', '/api/slow', insert(1_000 + id, 0.05));
    leavers.push(leaver);
    answers.push(
      fetch(`${stage.embedded.url}/api/slow`, {
        method: 'POST',
        headers: { 'content-type': 'application/json' },
        body: insert(2_000 + id, 0.01),
      }),
    );
    // leaves while its own statement runs, or has just ended
    if (id >= 2) {
      await answers[id - 2];
      leavers[id - 2]!.destroy();
    }
  }
  expect((await Promise.all(answers)).map(({ status }) => status)).toEqual(answers.map(() => 201));
});
