// What a client sees under a policy, on each path on which changes reach clients: rows that the policy admits, columns that may be
// read, and nothing else.

import { beforeEach, describe, expect, test } from 'vitest';
import { Stage } from '../../support/stage/stage.ts';
import { secret, tokenOf } from '../../support/stage/tokens.ts';
import { leaks, policySchema, type Seen, Viewers, type Watcher } from '../../support/stage/viewers.ts';

const stage = Stage.of(policySchema, { AUTH: 'jwt', AUTH_JWT_SECRET: secret });
const { sql } = stage;
const viewers = new Viewers(stage);
const ada = tokenOf({ sub: 'ada' });
const bob = tokenOf({ sub: 'bob' });
const admin = tokenOf({ sub: 'root', role: 'admin' });

beforeEach(async () => {
  await sql(`truncate doc, own`);
  await sql(
    `insert into doc values (1, 'ada', 'a', 'hush 1'), (2, 'bob', 'b', 'hush 2'), (3, 'eve', 'public', 'hush 3')`,
  );
  await stage.arrived();
});

interface Path {
  /** Opens a client that gets what follows. */
  open: () => Promise<Watcher>;
  isPlain?: boolean;
  /** the client leaves, and comes back after the statements */
  again?: (former: Watcher) => Promise<Watcher>;
}

const paths: Record<string, Path> = {
  'plank.v1': { open: () => viewers.live(ada) },
  'plank.v1 with a snapshot': { open: () => viewers.live(ada, { snapshot: true }) },
  'plank.v1, chosen columns': { open: () => viewers.live(ada, { columns: ['owner', 'status'] }) },
  'plank.v1, resumed': {
    open: () => viewers.live(ada),
    again: ({ pos, ch }) => viewers.live(ada, { from: pos, ch: ch! }),
  },
  'plank.v1 with a snapshot, resumed': {
    open: () => viewers.live(ada, { snapshot: true }),
    again: ({ pos, ch }) => viewers.live(ada, { from: pos, ch: ch!, snapshot: true }),
  },
  'server-sent events': { open: () => viewers.stream(ada) },
  'server-sent events, resumed': {
    open: () => viewers.stream(ada),
    again: ({ id }) => viewers.stream(ada, { id }),
  },
  plain: { open: () => viewers.plain(ada), isPlain: true },
  'plain, one table': { open: () => viewers.plain(ada, '?tables=doc'), isPlain: true },
  'plain, resumed': {
    open: async () => {
      const watcher = await viewers.plain(ada);
      // only a change gives it a position
      await sql(`insert into doc values (900, 'ada', 'x', 'hush'); delete from doc where id = 900`);
      await watcher.frame({ id: 900, action: 'DELETE' });
      return watcher;
    },
    again: ({ pos }) => viewers.plain(ada, `?since=${pos}`),
    isPlain: true,
  },
};

interface Case {
  does: string;
  /** in plank.v1 */
  sees: Seen[];
  /** in plain mode, where it is not the same in its words */
  plain?: Seen[];
}

const row = (id: number, status: string) => ({ id, owner: 'ada', status });

const cases: Record<string, Case> = {
  'an own row is inserted': {
    does: `insert into doc values (10, 'ada', 'n', 'hush')`,
    sees: [['add', 10, row(10, 'n')]],
  },
  "another user's row is inserted, changed and deleted": {
    does: `insert into doc values (10, 'bob', 'n', 'hush'); update doc set status = 'm' where id in (2, 10); delete from doc where id = 10`,
    sees: [],
  },
  'a column that may be read changes': {
    does: `update doc set status = 'z'`,
    sees: [['change', 1, row(1, 'z')]],
  },
  'a hidden column changes': { does: `update doc set secret = 'hush again'`, sees: [] },
  'nothing changes': { does: `update doc set status = status`, sees: [] },
  'a row is given away': {
    does: `update doc set owner = 'bob', status = 'given' where id = 1`,
    sees: [['remove', 1]],
    plain: [['DELETE', 1, row(1, 'a')]],
  },
  'a row is given to the user': {
    does: `update doc set owner = 'ada', status = 'got' where id = 2`,
    sees: [['add', 2, row(2, 'got')]],
  },
  'rows are deleted': {
    does: `delete from doc`,
    sees: [['remove', 1]],
    plain: [['DELETE', 1, row(1, 'a')]],
  },
  'keys change': {
    does: `update doc set id = id + 100`,
    sees: [
      ['remove', 1],
      ['add', 101, row(101, 'a')],
    ],
    plain: [
      ['DELETE', 1, row(1, 'a')],
      ['INSERT', 101, row(101, 'a')],
    ],
  },
  'the table is truncated': { does: `truncate doc`, sees: [['remove', null]], plain: [['TRUNCATE', null, null]] },
  'a row that is not admitted is changed in its transaction': {
    does: `begin; update doc set owner = 'ada' where id = 2; update doc set owner = 'bob' where id = 2; commit`,
    sees: [
      ['add', 2, { id: 2, owner: 'ada', status: 'b' }],
      ['remove', 2],
    ],
    plain: [
      ['INSERT', 2, { id: 2, owner: 'ada', status: 'b' }],
      ['DELETE', 2, { id: 2, owner: 'ada', status: 'b' }],
    ],
  },
  'a table without a policy changes': { does: `insert into hidden values (1, 'hush'); delete from hidden`, sees: [] },
};

const plainWords: Record<string, string> = { add: 'INSERT', change: 'UPDATE', remove: 'DELETE' };

describe.each(Object.entries(paths))('%s', (_name, path) => {
  test.each(Object.entries(cases))('%s', async (_title, { does, sees, plain }) => {
    let watcher = await path.open();
    const texts = [...watcher.texts];
    if (path.again) {
      watcher.close();
      await sql(does);
      await stage.arrived();
      watcher = await path.again(watcher);
    } else await sql(does);
    await sql(`insert into doc values (999, 'ada', 'end', 'hush')`);
    const seen = await watcher.seenBefore(999);
    const inPlain = plain ?? sees.map(([what, id, data]): Seen => [plainWords[what]!, id, data]);
    expect(seen).toEqual(path.isPlain ? inPlain : sees);
    expect([...texts, ...watcher.texts].filter((text) => leaks.test(text))).toEqual([]);
  });
});

test('plain mode gets the changes of its tables in the order of the log', async () => {
  const watcher = await viewers.plain(ada);
  for (let id = 10; id < 20; id++)
    await sql(`insert into own values (${id}, 'ada', 1); insert into doc values (${id}, 'ada', 'x', 'hush')`);
  await watcher.frame({ id: 19, table: 'doc' });
  const order = watcher.frames.map(({ table, id }) => [table, id]);
  expect(order).toEqual(Array.from({ length: 20 }, (_, i) => [i % 2 ? 'doc' : 'own', 10 + Math.floor(i / 2)]));
  const seqs = watcher.frames.map(({ pos }) => Number(pos!.split('.')[1]));
  expect(seqs).toEqual([...seqs].sort((a, b) => a - b));
});

test('a snapshot has the rows and columns of its viewer, and users do not share theirs', async () => {
  const rowsOf = async (token: string | null) => {
    const watcher = await viewers.live(token, { snapshot: true });
    return { ch: watcher.ch, rows: watcher.rows() };
  };
  const [own, others, all, again, nobody] = await Promise.all([ada, bob, admin, admin, null].map(rowsOf));
  expect(own!.rows).toEqual([row(1, 'a')]);
  expect(others!.rows).toEqual([{ id: 2, owner: 'bob', status: 'b' }]);
  expect(all!.rows.map(({ id, secret: text }) => [id, text])).toEqual([
    [1, 'hush 1'],
    [2, 'hush 2'],
    [3, 'hush 3'],
  ]);
  expect(nobody!.rows).toEqual([{ id: 3, status: 'public' }]);
  expect(again!.ch).toBe(all!.ch);
  expect(new Set([own, others, all, nobody].map((one) => one!.ch)).size).toBe(4);
});

test("a client's own filter narrows the policy and cannot widen it", async () => {
  const where = { or: [{ status: 'b' }, { owner: 'bob' }, { id: { gt: 0 } }] };
  const watcher = await viewers.live(ada, { where, snapshot: true });
  expect(watcher.rows()).toEqual([row(1, 'a')]);
  const none = await viewers.live(ada, { where: { owner: 'bob' }, snapshot: true });
  await sql(`update doc set status = 'x'`);
  await watcher.frame({ effect: 'change' });
  expect(none.rows()).toEqual([]);
  expect([none.seen, watcher.seen]).toEqual([[], [['change', 1, row(1, 'x')]]]);
});

describe('hidden columns', () => {
  const asks: [string, object][] = [
    ['in where', { where: { secret: 'hush 1' } }],
    ['deep in where', { where: { or: [{ id: 1 }, { not: { secret: { gt: 'a' } } }] } }],
    ['in columns', { columns: ['status', 'secret'] }],
  ];
  test.each(asks)('%s are forbidden, by name', async (_name, ask) => {
    const one = await viewers.peer(ada);
    one.send({ type: 'subscribe', id: 1, table: 'doc', ...ask });
    const error = await one.frame({ id: 1 });
    expect(error).toMatchObject({ type: 'error', code: 'FORBIDDEN', retry: false });
    expect(error.message).toContain('secret');
    const stream = await viewers.stream(ada, ask);
    expect([stream.code, stream.reason.includes('secret')]).toEqual([403, true]);
    // who may read the column may name it
    await viewers.live(admin, ask);
  });
});

test('a table without rights looks like one that does not exist', async () => {
  const sawed = (text: string, table: string) => text.replaceAll(table, '…');
  const answers = async (table: string) => {
    const one = await viewers.peer(ada);
    one.send({ type: 'subscribe', id: 1, table, where: { nosuch: 1 }, columns: ['nosuch'] });
    const error = await one.frame({ id: 1 });
    const stream = await viewers.stream(ada, { table, where: { nosuch: 1 } });
    const plain = await viewers.plain(ada, `?tables=doc,${table}`);
    await plain.ended();
    const plains = await Promise.all(
      ['subscribe', 'unsubscribe'].map(async (action) => {
        const client = await viewers.plain(ada);
        client.send({ action, table });
        await client.ended();
        return [client.code, client.reason];
      }),
    );
    return sawed(JSON.stringify([error, stream.code, stream.reason, plain.code, plain.reason, plains]), table);
  };
  expect(await answers('hidden')).toBe(await answers('nosuch'));
});
