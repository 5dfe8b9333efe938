// Tables that change under their subscriptions: changes committed before come before, each in one shape.

import { expect, test } from 'vitest';
import { Stage, seqOf } from '../../support/stage/stage.ts';

const stage = Stage.of(
  `create table todo (id int primary key, status text);
   create table gone (id int primary key);
   create table typed (id int primary key, n int);
   create table keyed (id int primary key, other int not null);
   select plank.attach(t) from unnest('{todo,gone,typed,keyed}'::regclass[]) t`,
);
const { sql } = stage;

test('a dropped table ends its subscriptions, and no others', async () => {
  const one = await stage.peer();
  const kept = await stage.subscribe(one, { table: 'todo', where: { id: 77_777 } });
  await one.reader.expect('live');
  const ch = await stage.subscribe(one, { table: 'gone', snapshot: true });
  await one.reader.rows();
  await one.reader.expect('live');
  await sql('drop table gone');
  expect(await one.reader.expect('error')).toMatchObject({ ch, code: 'UNKNOWN_TABLE', retry: false });
  one.send({ type: 'unsubscribe', id: 901, ch });
  expect(await one.reader.expect('error')).toMatchObject({ id: 901, code: 'UNKNOWN_CHANNEL' });
  await sql('insert into todo values (77777)');
  expect((await one.reader.changes(1))[0]).toMatchObject({ ch: kept, id: 77_777 });
});

test('a position from before a column got another type begins again, and changes follow', async () => {
  const first = await stage.peer();
  await stage.subscribe(first, { table: 'typed' });
  const { pos } = await first.reader.expect('live');
  await sql('insert into typed values (1, 5)');
  await first.reader.changes(1);
  await sql('alter table typed alter n type text');
  expect(await first.reader.expect('resync')).toMatchObject({ reason: 'shape' });
  const again = await stage.peer();
  await stage.subscribe(again, { table: 'typed', where: { n: '5' }, from: pos, snapshot: true });
  expect(await again.reader.expect('resync')).toMatchObject({ reason: 'shape' });
  expect(await again.reader.rows()).toEqual([{ id: 1, n: '5' }]);
  await again.reader.expect('live');
  await sql(`insert into typed values (2, '5')`);
  expect((await again.reader.changes(1))[0]).toMatchObject({ effect: 'add', id: 2 });
});

test.each([
  ['is cut off', '{"id":3,"status":"op'],
  ['is no object', '3'],
  ['is nothing', ''],
])("an image that its table's owner made up and that %s voids pictures of that table only", async (_, image) => {
  const asking = await stage.peer();
  await stage.subscribe(asking, { table: 'todo', where: { status: 'open' }, snapshot: true });
  await asking.reader.rows();
  await asking.reader.expect('live');
  const cutting = await stage.peer();
  await stage.subscribe(cutting, { table: 'todo', columns: ['status'], snapshot: true });
  await cutting.reader.rows();
  await cutting.reader.expect('live');
  const other = await stage.peer();
  await stage.subscribe(other, { table: 'keyed' });
  await other.reader.expect('live');
  await sql(
    `insert into plank.outbox (relation, action, key, new) select id, 'I', '3', '${image}' from plank.attached where name = 'todo';
     insert into keyed values (3, 3); delete from keyed; select plank.ring()`,
  );
  for (const { reader } of [asking, cutting]) {
    expect(await reader.expect('resync')).toMatchObject({ reason: 'shape' });
    await reader.rows();
    await reader.expect('live');
  }
  expect(await other.reader.changes(2)).toMatchObject([{ effect: 'add' }, { effect: 'remove' }]);
  await sql(`insert into todo values (4, 'open')`);
  for (const { reader } of [asking, cutting]) expect((await reader.changes(1))[0]).toMatchObject({ id: 4 });
  await sql('delete from todo where id = 4');
});

test('a resync has the new key, and channels stay the same, each with its requested columns', async () => {
  const columnLists = [['other'], ['id', 'other'], ['other', 'id', 'id']];
  const peers = await Promise.all(columnLists.map(() => stage.peer()));
  const channels = [];
  for (const [i, columns] of columnLists.entries())
    channels.push(await stage.subscribe(peers[i]!, { table: 'keyed', columns }));
  const [ch] = channels;
  expect(channels).toEqual([ch, ch, ch]);
  for (const { reader } of peers) await reader.expect('live');
  expect(await stage.metric('plank_channels')).toBe(1);
  await sql('alter table keyed drop constraint keyed_pkey, add primary key (other)');
  for (const { reader } of peers) {
    expect(await reader.expect('resync')).toMatchObject({ ch, reason: 'shape', key: ['other'] });
    await reader.expect('live');
  }
  const ask = async (i: number, columns: string[]) => {
    peers[i]!.send({ type: 'subscribe', id: 900, table: 'keyed', columns });
    for (;;) {
      const frame = await peers[i]!.reader.next();
      if ('id' in frame && frame.id === 900) return frame;
    }
  };
  // with the column list that named the same columns before, and with the one that does now
  for (const columns of [['other'], ['id']]) {
    const mine = columns[0] === 'other' ? 0 : 1;
    expect(await ask(mine, columns)).toMatchObject({ code: 'ALREADY_SUBSCRIBED', ch });
    const ok = await ask(1 - mine, columns);
    expect(ok).toMatchObject({ type: 'ok', key: ['other'] });
    expect(ok).not.toMatchObject({ ch });
    await peers[1 - mine]!.reader.expect('live');
    peers[1 - mine]!.send({ type: 'unsubscribe', id: 901, ch: 'ch' in ok && ok.ch });
    await peers[1 - mine]!.reader.expect('ok');
  }
  await sql('insert into keyed values (8, 80)');
  for (const [i, data] of [{ other: 80 }, { id: 8, other: 80 }, { id: 8, other: 80 }].entries())
    expect(await peers[i]!.reader.changes(1)).toMatchObject([{ ch, id: 80, data }]);
});

test('changes from before a column got another type arrive, even in one batch with it', async () => {
  const judging = await stage.peer();
  const plain = await stage.peer();
  await sql('drop table typed; create table typed (id int primary key, n int)');
  await sql(`select plank.attach('typed')`);
  await stage.arrived();
  await stage.subscribe(judging, { table: 'typed', where: { n: { is: 'not null' } } });
  await stage.subscribe(plain, { table: 'typed' });
  for (const { reader } of [judging, plain]) await reader.expect('live');
  await stage.undrained(async () => {
    await sql('insert into typed values (1, 1), (2, 2)');
    await sql('alter table typed alter n type text');
    await sql(`insert into typed values (3, 'x')`);
  });
  for (const { reader } of [judging, plain]) {
    expect((await reader.changes(2)).map(({ data }) => data)).toEqual([
      { id: 1, n: 1 },
      { id: 2, n: 2 },
    ]);
    expect(await reader.expect('resync')).toMatchObject({ reason: 'shape' });
    const { pos } = await reader.expect('live');
    const [after] = await reader.changes(1);
    expect(after!.data).toEqual({ id: 3, n: 'x' });
    expect(seqOf(after!)).toBe(seqOf({ type: 'pos', pos }) + 1);
  }
});

test('a change that a filter cannot judge is a resync, for the subscriptions with that filter only', async () => {
  await sql('drop table typed; create table typed (id int primary key, n int)');
  await sql(`select plank.attach('typed')`);
  await stage.arrived();
  const asks = [{ where: { n: { is: 'not null' } } }, { where: { n: 1 } }, {}, { where: { id: 1 }, snapshot: true }];
  const peers = await Promise.all(asks.map(() => stage.peer()));
  for (const [i, ask] of asks.entries()) {
    await stage.subscribe(peers[i]!, { table: 'typed', ...ask });
    if (ask.snapshot) await peers[i]!.reader.rows();
    await peers[i]!.reader.expect('live');
  }
  await stage.undrained(async () => {
    // a change of another table makes the gateway read the catalog of all tables
    await sql('alter table keyed add column later int');
    await sql('insert into typed values (1, 1)');
    await sql('alter table typed alter n type bigint');
    await sql('alter table typed alter n type text');
    await sql(`insert into typed values (2, '1')`);
  });
  const [judging, indexed, plain, rows] = peers;
  expect(await indexed!.reader.expect('error')).toMatchObject({ code: 'INVALID_FILTER', retry: false });
  for (const { reader } of [judging!, plain!, rows!])
    expect(await reader.expect('resync')).toMatchObject({ reason: 'shape' });
  // its filter cannot judge the row of the old shape
  await judging!.reader.expect('live');
  expect(await judging!.reader.expect('resync')).toMatchObject({ reason: 'shape' });
  await judging!.reader.expect('live');
  expect((await judging!.reader.changes(1))[0]).toMatchObject({ id: 2 });
  await plain!.reader.expect('live');
  expect((await plain!.reader.changes(2)).map(({ data }) => data)).toEqual([
    { id: 1, n: 1 },
    { id: 2, n: '1' },
  ]);
  expect(await rows!.reader.rows()).toEqual([{ id: 1, n: '1' }]);
  await rows!.reader.expect('live');
});

test('a resume from before a column was added reads the rows again, and changes follow', async () => {
  const first = await stage.peer();
  await stage.subscribe(first, { table: 'todo' });
  const { pos } = await first.reader.expect('live');
  await sql(`truncate todo; insert into todo values (1, 'a')`);
  await sql('alter table todo add column rank int default 7');
  await sql(`insert into todo values (2, 'b', 8)`);
  expect((await first.reader.changes(2)).map(({ action }) => action)).toEqual(['TRUNCATE', 'INSERT']);
  await first.reader.expect('resync');
  await first.reader.expect('live');
  await first.reader.changes(1);

  const keeper = await stage.peer();
  await stage.subscribe(keeper, { table: 'todo', from: pos, snapshot: true });
  // changes of earlier batches may come before the resync
  while ((await keeper.reader.next()).type !== 'resync');
  expect(await keeper.reader.rows()).toEqual([
    { id: 1, status: 'a', rank: 7 },
    { id: 2, status: 'b', rank: 8 },
  ]);
  await keeper.reader.expect('live');

  const tailer = await stage.peer();
  await stage.subscribe(tailer, { table: 'todo', from: pos });
  const before = await tailer.reader.changes(2);
  const { reason, pos: at } = await tailer.reader.expect('resync');
  expect(reason).toBe('shape');
  const [after] = await tailer.reader.changes(1);
  expect([...before, after!].map(({ data }) => data)).toEqual([
    undefined,
    { id: 1, status: 'a' },
    { id: 2, status: 'b', rank: 8 },
  ]);
  expect(seqOf(after!)).toBe(seqOf({ type: 'pos', pos: at! }) + 1);
  await tailer.reader.expect('live');
});
