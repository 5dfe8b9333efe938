// PROTOCOL.md's plank.v1, case by case: over WebSocket and event streams, and in each way to run (embedded, one gateway,
// four gateways behind nginx).

import { randomUUID } from 'node:crypto';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { Cluster } from '#deploy/local/cluster.ts';
import type { Pool } from '#shared/postgres/postgres.ts';
import { testPool } from '../support/servers/pool.ts';
import { createDatabase, type TestDatabase } from '../support/servers/servers.ts';
import { startEmbedded } from '../support/stage/embedded.ts';
import { overEvents, overWebSocket, type Transport } from '../support/stage/frames.ts';
import { until } from '../support/wait.ts';

interface Topology {
  url: string;
  gateways: readonly { url: string }[];
  stop(): Promise<void>;
}

const topologies: Record<string, (databaseUrl: string) => Promise<Topology>> = {
  embedded: async (databaseUrl) => {
    const embedded = await startEmbedded(databaseUrl);
    return { ...embedded, gateways: [embedded] };
  },
  'one gateway': (databaseUrl) => Cluster.start({ gateways: 1, databaseUrl, balanced: false }),
  'four gateways behind nginx': (databaseUrl) => Cluster.start({ gateways: 4, databaseUrl }),
};
const transports: Record<string, Transport> = { WebSocket: overWebSocket, 'an event stream': overEvents };

describe.each(Object.keys(topologies))('%s', (topologyName) => {
  let database: TestDatabase;
  let topology: Topology;
  let pool: Pool;
  const sql = (text: string, values: unknown[] = []) => pool.query(text, values);

  beforeAll(async () => {
    database = await createDatabase();
    pool = testPool(database.url);
    await sql(`create table todo (id int primary key, title text, status text, price numeric, at timestamptz)`);
    await sql(`create table pair (a int, b text, n int, primary key (b, a))`);
    await sql(`select plank.attach('todo'), plank.attach('pair')`);
    topology = await topologies[topologyName]!(database.url);
  });
  afterAll(async () => {
    await topology?.stop();
    await pool?.end();
    await database?.drop();
  });

  describe.each(Object.keys(transports))('over %s', (transportName) => {
    const open: Transport = (url, ask) => transports[transportName]!(url, ask);
    /** Empties the tables and waits until every gateway has passed that: a test then sees only its own changes. */
    const clear = async (...tables: string[]) => {
      for (const table of tables) await sql(`truncate ${table}`);
      await arrived();
    };
    const arrived = async () => {
      await until(
        'every gateway is at the end of the log',
        async () => {
          const { rows } = await sql(
            `select 'e' || l.epoch || '.' || l.next_seq - 1 as pos, (select count(*) from plank.between(l.snap, pg_current_snapshot())) as open from plank.leader l`,
          );
          if (rows[0].open !== '0') return false;
          const states = topology.gateways.map(
            async ({ url }) => ((await (await fetch(`${url}/health`)).json()) as { position: string }).position,
          );
          return (await Promise.all(states)).every((position) => position === rows[0].pos);
        },
        10_000,
      );
    };
    const begin = async (ask: Parameters<Transport>[1]) => open(topology.url, ask);

    test('a subscription without from and snapshot begins now, and sends changes alone', async () => {
      await clear('todo');
      const reader = await begin({ table: 'todo' });
      const live = await reader.expect('live');
      await sql(`insert into todo values (1, 'a "quoted" 😀', 'open', 1.50, '2026-01-02T03:04:05.678901Z')`);
      const [change] = await reader.changes(1);
      expect(change).toEqual({
        type: 'change',
        ch: live.ch,
        effect: 'add',
        table: 'todo',
        action: 'INSERT',
        id: 1,
        data: { id: 1, title: 'a "quoted" 😀', status: 'open', price: 1.5, at: '2026-01-02T03:04:05.678901+00:00' },
        pos: expect.stringMatching(/^e\d+\.\d+$/),
        tx: expect.stringMatching(/^\d+$/),
        last: true,
      });
      reader.close();
    });

    test('a snapshot sends the rows that the filter admits, then their changes', async () => {
      await sql('truncate todo');
      await sql(
        `insert into todo select g, 't' || g, case when g % 2 = 0 then 'open' else 'done' end, g from generate_series(1, 1203) g`,
      );
      const reader = await begin({
        table: 'todo',
        where: { status: 'open', price: { gt: 2 } },
        columns: ['title'],
        snapshot: true,
      });
      const rows = await reader.rows();
      expect(rows.length).toBe(600);
      expect(rows.toSorted((a, b) => Number(a.id) - Number(b.id))[0]).toEqual({ id: 4, title: 't4' });
      await reader.expect('live');
      await sql(`update todo set status = 'done' where id = 4`);
      await sql(`update todo set status = 'done' where id = 2`); // the subscription does not have this row
      await sql(`update todo set title = 'x' where id = 6`);
      await sql(`update todo set price = 3, status = 'open' where id = 1`);
      await sql(`delete from todo where id in (3, 8)`);
      await sql(`update todo set id = -6 where id = 6`);
      const changes = await reader.changes(6);
      expect(changes.map(({ effect, action, id, data }) => ({ effect, action, id, data }))).toEqual([
        { effect: 'remove', action: 'UPDATE', id: 4, data: undefined },
        { effect: 'change', action: 'UPDATE', id: 6, data: { id: 6, title: 'x' } },
        { effect: 'add', action: 'UPDATE', id: 1, data: { id: 1, title: 't1' } },
        { effect: 'remove', action: 'DELETE', id: 8, data: undefined },
        { effect: 'remove', action: 'DELETE', id: 6, data: undefined },
        { effect: 'add', action: 'INSERT', id: -6, data: { id: -6, title: 'x' } },
      ]);
      await sql('truncate todo');
      expect((await reader.changes(1))[0]).toMatchObject({ effect: 'remove', action: 'TRUNCATE', id: null });
      reader.close();
    });

    test('a subscription resumes after a position, on any replica, without loss or repeat', async () => {
      await clear('todo');
      const first = await begin({ table: 'todo', where: { status: 'open' } });
      await first.expect('live');
      await sql(`insert into todo values (1, 'a', 'open')`);
      const { pos } = (await first.changes(1))[0]!;
      first.close();
      await sql(`insert into todo values (2, 'b', 'done'), (3, 'c', 'open')`);
      await sql(`update todo set status = 'open' where id = 2`);
      await arrived();
      for (let replica = 0; replica < 4; replica++) {
        const again = await begin({ table: 'todo', where: { status: 'open' }, from: pos });
        expect((await again.changes(2)).map(({ id, effect }) => [id, effect])).toEqual([
          [3, 'add'],
          [2, 'add'],
        ]);
        await again.expect('live');
        again.close();
      }
    });

    test('the last change of a transaction on the channel has last', async () => {
      await clear('todo');
      const reader = await begin({ table: 'todo', where: { status: 'open' } });
      await reader.expect('live');
      await sql(`insert into todo values (1, 'a', 'open'), (2, 'b', 'open'), (3, 'c', 'done')`);
      await sql(`insert into todo values (4, 'd', 'open')`);
      const changes = await reader.changes(3);
      expect(changes.map(({ id, last }) => [id, last ?? false])).toEqual([
        [1, false],
        [2, true],
        [4, true],
      ]);
      expect(changes[0]!.tx).toBe(changes[1]!.tx);
      expect(changes[2]!.tx).not.toBe(changes[1]!.tx);
      reader.close();
    });

    test('a composite key is an object in rows and changes', async () => {
      await clear('pair');
      const reader = await begin({ table: 'pair', columns: ['n'], snapshot: true });
      expect(await reader.rows()).toEqual([]);
      await reader.expect('live');
      await sql(`insert into pair values (1, 'x', 5)`);
      await sql('delete from pair');
      const [added, removed] = await reader.changes(2);
      expect(added).toMatchObject({ id: { b: 'x', a: 1 }, data: { a: 1, b: 'x', n: 5 } });
      expect(removed).toMatchObject({ effect: 'remove', id: { b: 'x', a: 1 } });
      reader.close();
    });

    test('a position that is not kept, or of no history, begins with a resync', async () => {
      await clear('todo');
      await sql(`insert into todo values (1, 'a', 'open')`);
      const reader = await begin({ table: 'todo', from: 'e1.5', snapshot: true });
      expect(await reader.expect('resync')).toMatchObject({ reason: 'epoch' });
      expect(await reader.rows()).toMatchObject([{ id: 1 }]);
      await reader.expect('live');
      reader.close();
      const epoch = /^e\d+/.exec((await liveOf(begin)).pos)![0];
      const ahead = await begin({ table: 'todo', from: `${epoch}.999999999999` });
      expect(await ahead.expect('resync')).toMatchObject({ reason: 'retention' });
      await ahead.expect('live');
      ahead.close();
    });

    test('a change of the columns begins the subscription again', async () => {
      // a name of its own: a gateway may not have noticed yet that a former table of the same name is gone
      const table = `shape_${randomUUID().slice(0, 8)}`;
      await sql(`create table ${table} (id int primary key, a text)`);
      await sql(`select plank.attach('${table}')`);
      await sql(`insert into ${table} values (1, 'x')`);
      // the gateway that answers may not know the table yet
      const reader = await retried(() => begin({ table, snapshot: true }));
      expect(await reader.rows()).toEqual([{ id: 1, a: 'x' }]);
      await reader.expect('live');
      await sql(`alter table ${table} add column b int default 7`);
      expect(await reader.expect('resync')).toMatchObject({ reason: 'shape' });
      expect(await reader.rows()).toEqual([{ id: 1, a: 'x', b: 7 }]);
      await reader.expect('live');
      await sql(`insert into ${table} values (2, 'y', 8)`);
      expect((await reader.changes(1))[0]!.data).toEqual({ id: 2, a: 'y', b: 8 });
      reader.close();
    });

    test.each([
      ['an unknown table', { table: 'nope' }],
      ['an unknown column in the filter', { table: 'todo', where: { nope: 1 } }],
      ['an unknown column', { table: 'todo', columns: ['nope'] }],
      ['an unknown operator', { table: 'todo', where: { id: { like: 'x' } } }],
      ['a value of the wrong type', { table: 'todo', where: { id: 'x' } }],
      ['a filter that is no object', { table: 'todo', where: [1] }],
      ['an array in disguise', { table: 'todo', where: { and: { length: 2, 0: {} } } }],
      ['__proto__', { table: 'todo', where: JSON.parse('{"__proto__": {"id": 1}}') as unknown }],
      ['nine levels', { table: 'todo', where: nested(9) }],
      ['10,000 terms', { table: 'todo', where: { or: Array.from({ length: 1_000 }, (_, id) => ({ id })) } }],
      ['a malformed position', { table: 'todo', from: 'yesterday' }],
    ])('a request with %s is refused', async (_name, ask) => {
      await expect(begin(ask)).rejects.toThrow(/^(?!HTTP_5)[A-Z_0-9]+$/);
    });
  });
});

function nested(levels: number): unknown {
  return levels === 0 ? { id: 1 } : { not: nested(levels - 1) };
}

async function liveOf(begin: (ask: { table: string }) => ReturnType<Transport>): Promise<{ pos: string }> {
  const reader = await begin({ table: 'todo' });
  const live = await reader.expect('live');
  reader.close();
  return live;
}

async function retried<T>(work: () => Promise<T>): Promise<T> {
  const deadline = Date.now() + 5_000;
  for (;;) {
    try {
      return await work();
    } catch (error) {
      if (Date.now() > deadline) throw error;
    }
  }
}
