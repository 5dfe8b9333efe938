// A subscription that can neither continue nor end normally gets a resync or an error after a few seconds, whatever the reason.

import { expect, test } from 'vitest';
import { Stage } from '../../support/stage/stage.ts';

const stage = Stage.of(
  `create table todo (id int primary key, status text);
   create table large (id int primary key, v text);
   create table flag ();
   create type mood as enum ('well');
   create function mood_json(mood) returns json language plpgsql as
     $$ begin if exists (select from public.flag) then raise 'not now'; end if; return to_json($1::text); end $$;
   create cast (mood as json) with function mood_json(mood);
   create table moody (id int primary key, m mood);
   insert into moody values (1, 'well');
   select plank.attach(t) from unnest('{todo,large,moody}'::regclass[]) t`,
  { RING_BYTES: '65536' },
);
const { sql } = stage;

test('a history that cannot be read though Postgres answers ends in a resync, or a close', async () => {
  const { position } = await stage.health();
  // more changes than memory and the fan-out keep
  for (let i = 0; i < 6; i++)
    await sql(
      `insert into large values (1, repeat('x', 1000000)) on conflict (id) do update set v = excluded.v || $1`,
      [String(i)],
    );
  await sql('delete from large');
  await stage.arrived();
  const givenUp = await stage.metric('plank_catch_ups_given_up_total').catch(() => 0);
  await sql('alter function plank.read_log(bigint) rename to read_log_away');
  try {
    const [rows, changes] = [await stage.peer(), await stage.peer()];
    await stage.subscribe(rows, { table: 'todo', from: position, snapshot: true });
    await stage.subscribe(changes, { table: 'todo', from: position });
    const stream = await stage.stream({ table: 'todo', since: position });
    const plain = await stage.plain({ url: `${stage.plainUrl}?since=${position}` });
    for (const reader of [rows.reader, changes.reader, stream]) {
      expect(await reader.expect('resync')).toMatchObject({ reason: 'retention' });
      if (reader === rows.reader) await reader.rows();
      await reader.expect('live');
    }
    expect(await plain.closed()).toBe(4410);
    expect(await stage.metric('plank_catch_ups_given_up_total')).toBe(givenUp + 4);
  } finally {
    await sql('alter function plank.read_log_away(bigint) rename to read_log');
  }
});

test('rows that cannot be read end a subscription, which can be repeated', async () => {
  const one = await stage.peer();
  await sql('insert into flag default values');
  const ch = await stage.subscribe(one, { table: 'moody', snapshot: true });
  expect(await one.reader.expect('error')).toMatchObject({ ch, code: 'UNAVAILABLE', retry: true });
  await sql('delete from flag');
  await stage.subscribe(one, { table: 'moody', snapshot: true });
  expect(await one.reader.rows()).toEqual([{ id: 1, m: 'well' }]);
  await one.reader.expect('live');
});

test.each(['with rows', 'without'])('a position that is not reached yet ends in a resync, %s', async (rows) => {
  const { position } = await stage.health();
  const from = position.replace(/\d+$/, (seq) => String(Number(seq) + 1_000));
  const one = await stage.peer();
  await stage.subscribe(one, { table: 'moody', from, ...(rows === 'with rows' ? { snapshot: true } : {}) });
  expect(await one.reader.expect('resync')).toMatchObject({ reason: 'retention' });
  if (rows === 'with rows') await one.reader.rows();
  await one.reader.expect('live');
});
