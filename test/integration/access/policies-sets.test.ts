// Policies that compare with the rows of another table, on each path: what members see, and what happens to the clients of a member
// whose membership changes.

import { beforeEach, describe, expect, test } from 'vitest';
import { Stage } from '../../support/stage/stage.ts';
import { secret, tokenOf } from '../../support/stage/tokens.ts';
import { Viewers, type Watcher } from '../../support/stage/viewers.ts';

const members = `{"project": {"in": {"$from": "member", "select": "project", "where": {"person": {"$claim": "sub"}}}}}`;
const stage = Stage.of(
  `create table todo (id int primary key, status text);
   select plank.attach('todo');
   create table member (id int primary key, project int, person text, note text);
   select plank.attach('member');
   create table doc (id int primary key, project int, text text);
   select plank.attach('doc');
   select plank.allow('doc', 'authenticated', read => '${members}')`,
  { AUTH: 'jwt', AUTH_JWT_SECRET: secret },
);
const { sql } = stage;
const viewers = new Viewers(stage);
const ada = tokenOf({ sub: 'ada' });

beforeEach(async () => {
  await sql(`truncate member, doc`);
  await sql(`insert into member values (1, 1, 'ada', ''), (2, 2, 'bob', '')`);
  await sql(`insert into doc values (1, 1, 'one'), (2, 2, 'two'), (3, null, 'none')`);
  await stage.arrived();
});

const idsOf = (watcher: Watcher, after = 0) => watcher.rows(after).map(({ id }) => id);
/** What the frames from the index `after` on are. */
const kinds = ({ frames }: Watcher, after: number) =>
  frames.slice(after).map(({ type, action, effect, reason }) => `${type ?? action} ${effect ?? reason ?? ''}`.trim());

const open: [string, () => Promise<Watcher>][] = [
  ['plank.v1', () => viewers.live(ada)],
  ['plank.v1 with a snapshot', () => viewers.live(ada, { snapshot: true })],
  ['server-sent events', () => viewers.stream(ada, { snapshot: true })],
  ['plain mode', () => viewers.plainWithSets(ada)],
];

describe.each(open)('%s', (name, opened) => {
  const isPlain = name === 'plain mode';

  test('a member sees the rows of its projects, and no others', async () => {
    const watcher = await opened();
    await sql(`update doc set text = 'changed'; insert into doc values (10, 1, 'new'), (11, 2, 'new')`);
    await sql(`insert into doc values (999, 1, 'end')`);
    const seen = await watcher.seenBefore(999);
    expect(seen.map(([what, id]) => [what, id])).toEqual([
      [isPlain ? 'UPDATE' : 'change', 1],
      [isPlain ? 'INSERT' : 'add', 10],
    ]);
  });

  test('after a membership ends, nothing comes under it, not even of the same transaction', async () => {
    const watcher = await opened();
    const before = watcher.frames.length;
    await stage.undrained(async () => {
      await sql(`update doc set text = 'seen' where id = 1`);
      await sql(
        `begin; update doc set text = 'hush' where id = 1; delete from member where id = 1; insert into doc values (10, 1, 'hush'); commit`,
      );
      await sql(`insert into doc values (11, 1, 'hush')`);
    });
    if (isPlain) {
      await watcher.ended();
      expect([watcher.code, watcher.reason]).toEqual([1012, 'your rights have changed, read the rows again']);
    } else {
      await watcher.frame({ type: 'live' }, before);
      await stage.arrived();
      expect(kinds(watcher, before)).toEqual([
        'change change',
        'resync access',
        ...(name === 'plank.v1' ? [] : ['rows']),
        'live',
      ]);
      expect(idsOf(watcher, before)).toEqual([]);
    }
    expect(watcher.texts.filter((text) => text.includes('hush'))).toEqual([]);
  });

  test('a change that leaves the memberships as they were disturbs nobody', async () => {
    const watcher = await opened();
    await sql(`insert into member values (9, 3, 'bob', ''); update member set note = 'x'`);
    await sql(`update doc set text = 'changed'`);
    await watcher.frame({ id: 1, action: 'UPDATE' });
    expect([watcher.code, watcher.frames.filter(({ type }) => type === 'resync')]).toEqual([0, []]);
  });
});

test('a new membership brings its rows', async () => {
  const watcher = await viewers.live(ada, { snapshot: true });
  expect(idsOf(watcher)).toEqual([1]);
  const before = watcher.frames.length;
  await sql(`insert into member values (3, 2, 'ada', '')`);
  await watcher.frame({ type: 'live' }, before);
  expect(idsOf(watcher, before)).toEqual([1, 2]);
  await sql(`update doc set text = 'changed' where id = 2`);
  await watcher.frame({ id: 2, effect: 'change' }, before);
});

describe('resuming', () => {
  test('goes on where the memberships are the same', async () => {
    const former = await viewers.live(ada, { snapshot: true });
    former.close();
    await sql(`update doc set text = 'changed'`);
    await stage.arrived();
    const again = await viewers.live(ada, { snapshot: true, from: former.pos, ch: former.ch! });
    expect(kinds(again, 2)).toEqual(['change change', 'live']);
  });

  test.each([
    ['other ones', `delete from member where id = 1`, []],
    [
      'the same ones, after others',
      `delete from member where id = 1; insert into member values (1, 1, 'ada', '')`,
      [1],
    ],
  ])('begins again where the memberships are %s', async (_name, change, rows) => {
    const former = await viewers.live(ada, { snapshot: true });
    const plain = await viewers.plainWithSets(ada);
    await sql(`update doc set text = 'changed' where id = 1`);
    await plain.frame({ id: 1 });
    former.close();
    plain.close();
    await stage.undrained(async () => {
      await sql(change);
      await sql(
        `update doc set text = 'hush' where id = 1; delete from doc where text = 'hush'; insert into doc values (1, 1, 'x')`,
      );
    });
    await stage.arrived();
    const again = await viewers.live(ada, { snapshot: true, from: former.pos, ch: former.ch! });
    expect(kinds(again, 2)).toEqual(['resync access', 'rows', 'live']);
    expect(idsOf(again)).toEqual(rows);
    const stale = await viewers.plainWithSets(ada, `?since=${plain.pos}`);
    await stale.ended();
    expect([stale.code, stale.seen]).toEqual([4410, []]);
    expect(again.texts.filter((text) => text.includes('hush'))).toEqual([]);
  });
});
