// Sessions of plank.v1: subscriptions with their rows, that lag behind, and that end; and the history of the replica.

import { randomBytes } from 'node:crypto';
import { describe, expect, test } from 'vitest';
import { parsePosition } from '#shared/wire.ts';
import { startEmbedded } from '../../support/stage/embedded.ts';
import { changesOf, closed, type Peer, Stage, seqOf } from '../../support/stage/stage.ts';
import { until } from '../../support/wait.ts';

const stage = Stage.of(
  `create table todo (id int primary key, status text);
   create table big (id int primary key, note text);
   create table secret (id int primary key, word text);
   select plank.attach(t) from unnest('{todo,big,secret}'::regclass[]) t`,
  { MAX_QUEUE_BYTES: '16384', RING_BYTES: '65536' },
);
const { sql } = stage;

describe('subscriptions', () => {
  test('nothing of a subscription comes after the ok of its end', async () => {
    await sql(`truncate todo; insert into todo select g, 'open' from generate_series(1, 3000) g`);
    const one = await stage.peer();
    const witness = await stage.peer();
    await stage.subscribe(witness, { table: 'todo', where: { id: 300 } });
    await witness.reader.expect('live');
    for (let turn = 0; turn < 20; turn++) {
      const ch = await stage.subscribe(one, { table: 'todo', snapshot: turn % 2 === 0 });
      const written = sql(`update todo set status = 'x' || $1 where id <= 300`, [turn]);
      one.send({ type: 'unsubscribe', id: 5_000 + turn, ch });
      while ((await one.reader.next()).type !== 'ok');
      await written;
      // the other client has the changes that this one would have got
      await witness.reader.changes(1);
      one.send({ type: 'ping' });
      await one.reader.expect('pong');
    }
  });

  test('a subscription without new changes still gets positions', async () => {
    const one = await stage.peer();
    await stage.subscribe(one, { table: 'todo', where: { id: -1 } });
    const { pos } = await one.reader.expect('live');
    await sql(`update todo set status = 'quiet' where id = (select min(id) from todo)`);
    await sql(`insert into big values (-1, '') on conflict (id) do update set note = big.note || 'x'`);
    const next = await one.reader.next();
    expect(next.type).toBe('pos');
    expect(seqOf(next)).toBeGreaterThan(parsePosition(pos)!.seq);
  });

  test('subscriptions of a connection that reads nothing lag behind, and get every change later', async () => {
    await sql('truncate big, todo');
    await stage.arrived();
    const slow = await stage.peer();
    const quick = await stage.peer();
    const asks = [{ table: 'big' }, { table: 'big', where: { id: { lt: 5_000 } }, columns: ['id'] }, { table: 'todo' }];
    const channels: string[] = [];
    for (const ask of asks) {
      channels.push(await stage.subscribe(slow, ask));
      await slow.reader.expect('live');
    }
    await stage.subscribe(quick, { table: 'todo' });
    await quick.reader.expect('live');
    slow.ws.pause();
    let written = 0;
    await until(
      'the slow one lags behind',
      async () => {
        await sql(`insert into big select g, repeat('x', 1000) from generate_series($1::int, $1::int + 999) g`, [
          written,
        ]);
        await sql('insert into todo values ($1, $2)', [written, 'open']);
        written += 1_000;
        return (await stage.metric('plank_catching_up')) >= 3;
      },
      20_000,
    );
    await sql(`insert into todo values (-1, 'end')`);
    // the quick one does not wait for it
    const quicks = await quick.reader.changes(written / 1_000 + 1);
    expect(quicks.at(-1)!.id).toBe(-1);
    slow.ws.resume();
    await until(
      'the slow one has every change',
      () => {
        if (slow.code !== 0) throw new Error(`closed with ${slow.code}`);
        return count(slow, channels[0]!) >= written && count(slow, channels[2]!) > written / 1_000;
      },
      20_000,
    );
    for (const [i, ch] of channels.entries()) {
      const changes = changesOf(slow, ch);
      const ids = changes.map(({ id }) => id);
      const all = Array.from({ length: written }, (_, id) => id);
      expect(ids).toEqual([all, all.slice(0, 5_000), [...all.filter((id) => id % 1_000 === 0), -1]][i]);
      const seqs = changes.map(seqOf);
      expect(seqs.every((seq, at) => at === 0 || seq > seqs[at - 1]!)).toBe(true);
    }
  });

  test('a client that takes no rows does not hold up the rows of others, and gets its own later', async () => {
    await sql(`truncate big; insert into big select g, repeat('x', 1000) from generate_series(1, 20000) g`);
    const slow: Peer[] = [];
    // as many large results as are read at once
    for (let n = 1; n <= 4; n++) {
      const one = await stage.peer();
      await stage.subscribe(one, { table: 'big', where: { id: { gt: -n } }, snapshot: true });
      await one.reader.expect('rows');
      one.ws.pause();
      slow.push(one);
    }
    const other = await stage.peer();
    await stage.subscribe(other, { table: 'big', where: { id: 7 }, snapshot: true });
    expect(await other.reader.rows()).toHaveLength(1);
    const [first] = slow;
    first!.ws.resume();
    await until('the first has every row', () => first!.reader.all.some(({ type }) => type === 'live'), 10_000);
    const rows = first!.reader.all.flatMap((frame) => (frame.type === 'rows' ? frame.rows : []));
    expect(rows).toHaveLength(20_000);
  });

  test('a TRUNCATE during a snapshot leaves no hole', async () => {
    await sql(`truncate todo; insert into todo values (1, 'a'), (2, 'b')`);
    const waits = (query: string) => async () =>
      Number(
        (await sql(`select from pg_stat_activity where wait_event_type = 'Lock' and query like $1`, [query])).rowCount,
      ) > 0;
    const holder = await stage.pool.connect();
    let truncated: Promise<unknown>;
    const one = await stage.peer();
    try {
      // the snapshot's transaction has begun, and waits for plank.leader
      await holder.query('begin; lock table plank.leader in access exclusive mode');
      await stage.subscribe(one, { table: 'todo', snapshot: true });
      await until('the snapshot is being taken', waits('%unnumbered%'), 5_000);
      let isDone = false;
      truncated = sql(`update todo set status = 'c' where id = 1`)
        .then(() => sql('truncate todo'))
        .finally(() => {
          isDone = true;
        });
      await until('the TRUNCATE is done or waits', async () => isDone || (await waits('truncate todo')()), 5_000);
    } finally {
      await holder.query('rollback');
      holder.release();
    }
    await truncated;
    const rows = new Map((await one.reader.rows()).map((row) => [row['id'], row]));
    expect(new Set(rows.keys())).toEqual(new Set([1, 2]));
    while (rows.size > 0) {
      const frame = await one.reader.next();
      if (frame.type !== 'change') continue;
      if (frame.id === null) rows.clear();
      else expect([frame.effect, rows.has(frame.id)]).toEqual(['change', true]);
    }
    expect(one.reader.all.filter((frame) => frame.type === 'change').map(({ id }) => id)).toContain(null);
  });

  test('a subscription that waits for the changes of its rows ends with its connection', async () => {
    await sql('truncate todo');
    await stage.undrained(async () => {
      await sql(`insert into todo values (1, 'seen by the rows, and without a position yet')`);
      const one = await stage.peer();
      const ch = await stage.subscribe(one, { table: 'todo', snapshot: true });
      const other = await stage.subscribe(one, { table: 'todo', where: { id: 1 }, snapshot: true });
      const rows: unknown[] = [];
      while (rows.length < 2) {
        const frame = await one.reader.next();
        if (frame.type === 'rows') rows.push(...frame.rows);
      }
      await until('both subscriptions wait', async () => (await stage.metric('plank_catching_up')) === 2, 5_000);
      one.send({ type: 'unsubscribe', id: 900, ch });
      await until('one subscription waits', async () => (await stage.metric('plank_catching_up')) === 1, 5_000);
      one.ws.terminate();
      await until('no subscription waits', async () => (await stage.metric('plank_catching_up')) === 0, 5_000);
      expect(other).not.toBe(ch);
    });
  });

  test('rows that the gateway may not read are refused for good, and their changes are not', async () => {
    const role = `reader_${randomBytes(4).toString('hex')}`;
    await sql(`create role ${role} login password 'x' in role pg_monitor;
      grant usage on schema plank to ${role};
      grant select, insert, update, delete on all tables in schema plank to ${role};
      grant usage on all sequences in schema plank to ${role}; grant execute on all functions in schema plank to ${role};
      grant select on todo, big to ${role}`);
    const url = new URL(stage.databaseUrl);
    url.username = role;
    url.password = 'x';
    const poor = await startEmbedded(url.href);
    try {
      const one = await stage.peer(poor.url);
      const ch = await stage.subscribe(one, { table: 'secret', snapshot: true });
      expect(await one.reader.expect('error')).toMatchObject({ ch, code: 'UNREADABLE', retry: false });
      const changes = await stage.subscribe(one, { table: 'secret' });
      await one.reader.expect('live');
      await sql(`insert into secret values (1, 'x')`);
      expect((await one.reader.changes(1))[0]).toMatchObject({ ch: changes, id: 1 });
      const stream = await stage.stream({ table: 'secret', snapshot: true }, poor.url);
      expect(await stream.expect('error')).toMatchObject({ code: 'UNREADABLE', retry: false });
      await until('the stream ends', () => stream.ended !== undefined, 5_000);
      expect((await poor.registry.metrics()).match(/^plank_snapshots_total.* (\d+)$/m)?.[1]).toBe('2');
    } finally {
      await poor.stop();
      await sql(`drop owned by ${role}; drop role ${role}`);
    }
  });
});

describe('the replica and its history', () => {
  test('a replica that stops says when to come back', async () => {
    const leaving = await startEmbedded(stage.databaseUrl);
    const one = await stage.peer(leaving.url);
    await stage.subscribe(one, { table: 'todo', where: { id: -1 } });
    await one.reader.expect('live');
    const stopped = leaving.stop();
    const { after_ms } = await one.reader.expect('drain');
    expect(after_ms).toBeGreaterThanOrEqual(0);
    await closed(one);
    expect(one.code).toBe(1012);
    await stopped;
  });

  test('a promotion begins the subscriptions again that were past the fork, and no others', async () => {
    const one = await stage.peer();
    await stage.subscribe(one, { table: 'todo', where: { id: { gt: 100_000 } } });
    await one.reader.expect('live');
    await sql('insert into todo values (100001)');
    const [before] = await one.reader.changes(1);
    const { epoch } = parsePosition(before!.pos)!;
    const { rows } = await sql('select next_seq - 1 as seq from plank.leader');
    const fork = Number(rows[0].seq);
    // the state that a listener finds on a promoted standby
    await sql(
      `update plank.epochs set timeline = '0000FFFF'; update plank.leader set written_by = pg_current_xact_id(), term = term + 1, holder = null, expires_at = '-infinity'`,
    );
    await until(
      'a new epoch has begun',
      async () => (await sql('select epoch from plank.leader')).rows[0].epoch > epoch,
      10_000,
    );
    await sql('insert into todo values (100002)');
    const [after] = await one.reader.changes(1);
    expect(after).toMatchObject({ effect: 'add', id: 100_002 });
    expect(parsePosition(after!.pos)!.epoch).toBeGreaterThan(epoch);
    const ask = { table: 'todo', where: { id: { gt: 100_000 } } };
    for (const seq of [fork - 1, fork]) {
      const shared = await stage.peer();
      await stage.subscribe(shared, { ...ask, from: `e${epoch}.${seq}` });
      const changes: unknown[] = [];
      for (;;) {
        const frame = await shared.reader.next();
        if (frame.type !== 'change') {
          expect(frame.type).toBe('live');
          break;
        }
        changes.push(frame.id);
      }
      expect(changes.at(-1)).toBe(100_002);
    }
    const past = await stage.peer();
    await stage.subscribe(past, { ...ask, from: `e${epoch}.${fork + 1}`, snapshot: true });
    expect(await past.reader.expect('resync')).toMatchObject({ reason: 'epoch' });
    expect(await past.reader.rows()).toMatchObject([{ id: 100_001 }, { id: 100_002 }]);
    await past.reader.expect('live');
  });
});

function count(one: Peer, ch: string): number {
  return changesOf(one, ch).length;
}
