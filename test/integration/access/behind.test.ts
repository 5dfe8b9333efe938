// A gateway that is behind the log. Postgres and the fan-out have changes, revocations and policies that the gateway has not applied yet:
// nothing after them reaches a client, whether it catches up from history or takes a snapshot.

import { expect, test } from 'vitest';
import { parsePosition } from '#shared/wire.ts';
import { Stage } from '../../support/stage/stage.ts';
import { now, secret, tokenOf } from '../../support/stage/tokens.ts';
import { Viewers } from '../../support/stage/viewers.ts';
import { until } from '../../support/wait.ts';

const stage = Stage.of(
  `create table todo (id int primary key, status text); create table doc (id int primary key, body text);
   create table other (id serial primary key, filling text); create index on doc (body);
   select plank.attach('todo'), plank.attach('doc'), plank.attach('other');
   select plank.allow('todo', 'anonymous', read => '{}'), plank.allow('doc', 'authenticated', read => '{}')`,
  // nearly nothing is kept in memory, so clients catch up from history
  { AUTH: 'jwt', AUTH_JWT_SECRET: secret, RING_BYTES: '1024' },
);
const { sql } = stage;
const viewers = new Viewers(stage);

const newest = async () => Number((await sql('select next_seq - 1 as seq from plank.leader')).rows[0].seq);
const position = async () => parsePosition((await stage.health()).position)!;

/** Waits until the listener has drained what was committed before. */
async function drained(): Promise<number> {
  const { rows } = await sql(`insert into todo values (-78, 'x') on conflict (id) do update set status = todo.status
                              returning pg_current_xact_id() as tx`);
  await until(
    'the change is drained',
    async () =>
      (await sql('select pg_visible_in_snapshot($1::text::xid8, snap) as is from plank.leader', [rows[0].tx])).rows[0]
        .is === true,
    5_000,
  );
  return newest();
}

/** Runs `work` while the gateway cannot load the catalog, as of an event S, and so stays at its place in the log. */
async function whileBehind(work: (held: number) => Promise<void>): Promise<void> {
  await sql(`insert into other (filling) values (repeat('x', 4000))`);
  await stage.arrived();
  await sql('alter view plank.former rename to hidden');
  try {
    await sql(`insert into plank.outbox (relation, action) select id, 'S' from plank.attached where name = 'other'`);
    const at = await drained();
    await work((await position()).seq);
    expect((await position()).seq).toBeLessThan(at);
  } finally {
    await sql('alter view plank.hidden rename to former');
  }
}

test('a client that catches up gets nothing that is ahead of its gateway, and so nothing after its revocation', async () => {
  await stage.arrived();
  const from = (await stage.health()).position;
  await sql(`insert into doc values (1, 'before')`);
  await stage.arrived();
  let client: Awaited<ReturnType<typeof viewers.peer>>;
  let held = 0;
  await whileBehind(async (seq) => {
    held = seq;
    await sql(`select plank.revoke('eve')`);
    await sql(`insert into doc values (2, 'after')`);
    await drained();
    client = await viewers.peer(tokenOf({ sub: 'eve', iat: now() - 5 }));
    client.send({ type: 'subscribe', id: 1, table: 'doc', from });
    await client.frame({ type: 'live' });
    expect(client.seen.map(([, id]) => id)).toEqual([1]);
    expect(parsePosition(client.pos)!.seq).toBeLessThanOrEqual(held);
  });
  await client!.ended();
  expect([client!.code, client!.reason]).toEqual([4401, 'the token was revoked']);
  expect(client!.seen.map(([, id]) => id)).toEqual([1]);
});

test('a client that catches up gets nothing after a change of its policy, under the policy before', async () => {
  await stage.arrived();
  const from = (await stage.health()).position;
  await sql(`insert into doc values (3, 'before')`);
  await stage.arrived();
  let client: Awaited<ReturnType<typeof viewers.peer>>;
  await whileBehind(async () => {
    await sql(`select plank.allow('doc', 'authenticated', read => '{"body": "public"}')`);
    await sql(`insert into doc values (4, 'private'), (5, 'public')`);
    await drained();
    client = await viewers.peer(tokenOf({ sub: 'fay' }));
    client.send({ type: 'subscribe', id: 1, table: 'doc', from });
    await client.frame({ type: 'live' });
    expect(client.seen.map(([, id]) => id)).toEqual([3]);
  });
  await client!.frame({ type: 'resync', reason: 'access' });
  await client!.frame({ id: 5 });
  expect(client!.texts.join()).not.toContain('private');
  await sql(`select plank.allow('doc', 'authenticated', read => '{}')`);
  await stage.arrived();
});

test('while nobody drains the log, a snapshot with rows from after a revocation reaches others, but not the user', async () => {
  await stage.arrived();
  await stage.embedded.stopListener();
  try {
    const [gia, hal] = await Promise.all(
      ['gia', 'hal'].map((sub) => viewers.peer(tokenOf({ sub, iat: now() - 5, exp: now() + 300 }))),
    );
    await sql(`select plank.revoke('gia')`);
    await sql(`insert into doc values (6, 'after')`);
    for (const one of [gia!, hal!]) one.send({ type: 'subscribe', id: 1, table: 'doc', snapshot: true });
    await hal!.frame({ type: 'rows' });
    expect(hal!.rows().map(({ id }) => id)).toContain(6);
    await gia!.ended();
    expect([gia!.code, gia!.rows()]).toEqual([4401, []]);
    const again = await fetch(`${stage.embedded.url}/api/doc`, {
      headers: { authorization: `Bearer ${tokenOf({ sub: 'gia', iat: now() - 5 })}` },
    });
    expect(again.status).toBe(401);
  } finally {
    await stage.embedded.startListener();
  }
});
