// Sets of other tables: they have the values at a position, become invalid before the transaction that changes them, and not by others.

import { describe, expect, test } from 'vitest';
import { maxUnfinishedBytes } from '#gateway/relay/unfinished.ts';
import { type Batch, packBatches, splitBefore } from '#shared/log/batch.ts';
import { LogReader } from '#shared/log/log-reader.ts';
import { followSets } from '../../support/stage/sets.ts';
import { Stage } from '../../support/stage/stage.ts';
import { TcpProxy } from '../../support/stage/tcp-proxy.ts';
import { until } from '../../support/wait.ts';

const stage = Stage.of(`
  create table todo (id int primary key, status text);
  create table docs (id int primary key, team int);
  create table members (who text, team int, note text, primary key (who, team));
  create table teams (team int, boss text, primary key (team, boss));
  select plank.attach('todo'); select plank.attach('docs'); select plank.attach('members'); select plank.attach('teams');
  insert into members values ('ada', 1), ('ada', 2), ('bob', 3); insert into teams values (1, 'ada'), (3, 'bob')`);
const { sql } = stage;

const ofAda = { team: { in: { $from: 'members', select: 'team', where: { who: { $claim: 'sub' } } } } };
const nested = {
  team: {
    in: {
      $from: 'members',
      select: 'team',
      where: { team: { in: { $from: 'teams', select: 'team', where: { boss: { $claim: 'sub' } } } } },
    },
  },
};

const follow = (url?: string) => followSets(stage, url);

describe('a set', () => {
  test('has the values of SELECT, and is shared', async () => {
    const at = await follow();
    const [a, b] = await Promise.all([at.resolve(ofAda), at.resolve(ofAda)]);
    expect(a.teams()).toEqual([1, 2]);
    expect(a.filter.key).toBe(b.filter.key);
    expect((await at.resolve(nested)).teams()).toEqual([1]);
  });

  test.each([
    ['a row that comes', `insert into members values ('ada', 4)`, true],
    ['a row that goes', `delete from members where who = 'ada' and team = 2`, true],
    ['a value that changes', `update members set team = 5 where who = 'ada' and team = 2`, true],
    ['a row that becomes hers', `update members set who = 'ada' where who = 'bob'`, true],
    ['a row that is hers no longer', `update members set who = 'eve' where who = 'ada' and team = 2`, true],
    ['another column of a row', `update members set note = 'x' where who = 'ada'`, false],
    ['a row of another user', `insert into members values ('bob', 9); delete from members where team = 9`, false],
    ['a row of another table', `insert into docs values (99, 1); delete from docs where id = 99`, false],
    ['TRUNCATE', `truncate members`, true],
    ['DDL', `alter table members add column more int`, true],
    [
      'a membership that goes and comes again',
      `delete from members where who = 'ada' and team = 1; insert into members values ('ada', 1)`,
      true,
    ],
  ])('changes by %s: %s: %s', async (_what, statement, isChanged) => {
    const at = await follow();
    const { release } = await at.resolve(ofAda);
    at.events.length = 0;
    await sql(`begin; ${statement}; commit`);
    await at.moveOn();
    expect(at.events.filter((event) => event.startsWith('set'))).toHaveLength(isChanged ? 1 : 0);
    const { rows } = await sql(`select array_agg(team order by team) as teams from members where who = 'ada'`);
    expect((await at.resolve(ofAda)).teams()).toEqual(rows[0].teams ?? []);
    release();
    await sql(`begin; truncate members; insert into members values ('ada', 1), ('ada', 2), ('bob', 3); commit`);
  });

  test('becomes invalid when its table is detached', async () => {
    const at = await follow();
    await at.resolve(nested);
    await sql(`select plank.detach('teams')`);
    await at.moveOn();
    expect(at.events.filter((event) => event.startsWith('set'))).toHaveLength(1);
    await sql(`select plank.attach('teams')`);
  });

  test('depends on the sets within it', async () => {
    const at = await follow();
    await at.resolve(nested);
    await sql(`insert into teams values (2, 'bob')`);
    await at.moveOn();
    expect(at.events.filter((event) => event.startsWith('set'))).toEqual([]);
    await sql(`insert into teams values (3, 'ada')`);
    await at.moveOn();
    expect(at.events.filter((event) => event.startsWith('set'))).toHaveLength(1);
    expect((await at.resolve(nested)).teams()).toEqual([1, 3]);
    await sql(`delete from teams where boss = 'ada' and team = 3`);
  });

  test('becomes invalid before the whole transaction that changes it', async () => {
    const at = await follow();
    await at.resolve(ofAda);
    const before = at.seq;
    at.events.length = 0;
    await stage.undrained(async () => {
      await sql('insert into docs values (1, 1)');
      await sql(`begin; insert into docs values (2, 1); insert into members values ('ada', 4);
                 insert into docs values (3, 1); commit`);
      await sql('insert into docs values (4, 1)');
    });
    await at.moveOn();
    expect(at.events.slice(0, 3)).toEqual([
      `${before + 1}-${before + 1}`,
      `set at ${before + 1}`,
      expect.stringMatching(`^${before + 2}-`),
    ]);
    await sql(`delete from members where team = 4; delete from docs`);
  });

  test('holds back a transaction whose end has not arrived, and is invalid before its beginning if it changes it', async () => {
    const at = await follow();
    await at.resolve(ofAda);
    const half = ([batch]: Batch[]) => splitBefore(batch!, [batch!.firstSeq + 4]).slice(0, 1);
    for (const [change, isChanged] of [
      ['insert into docs select n, 1 from generate_series(10, 19) n', false],
      [`delete from docs; insert into members values ('ada', 4)`, true],
    ] as const) {
      const before = at.seq;
      at.events.length = 0;
      await sql(`begin; ${change}; commit`);
      await at.moveOn(half);
      expect(at.events).toEqual([]);
      await at.moveOn();
      expect(at.events.slice(0, isChanged ? 2 : 1)).toEqual([
        ...(isChanged ? [`set at ${before}`] : []),
        `${before + 1}-${before + 4}`,
      ]);
      expect(at.events.filter((event) => event.startsWith('set'))).toHaveLength(isChanged ? 1 : 0);
    }
    expect((await at.resolve(ofAda)).teams()).toEqual([1, 2, 4]);
    await sql('delete from members where team = 4');
  });

  test('is invalid before a transaction of more than 16 MB, and loaded again after it', async () => {
    const at = await follow();
    await at.resolve(ofAda);
    const before = at.seq;
    at.events.length = 0;
    await sql(`begin; insert into members select 'eve', n, repeat('x', 1000) from generate_series(1, 20000) n;
               insert into members values ('ada', 4); commit`);
    await at.moveOn((batches) => {
      expect(batches.reduce((sum, { buffer }) => sum + buffer.length, 0)).toBeGreaterThan(maxUnfinishedBytes);
      return batches;
    });
    expect(at.events[0]).toBe(`set at ${before}`);
    expect(at.events.filter((event) => event.startsWith('set'))).toHaveLength(1);
    expect((await at.resolve(ofAda)).teams()).toEqual([1, 2, 4]);
    await sql(`delete from members where who = 'eve' or team = 4`);
  });

  test('that is read ahead of the gateway is used when the gateway has come there', async () => {
    const at = await follow();
    let isResolved = false;
    let resolving!: Promise<{ teams: () => number[] }>;
    await stage.undrained(async () => {
      // the snapshot sees it, and it has no seq yet
      await sql(`insert into members values ('ada', 4)`);
      resolving = at.resolve(ofAda).finally(() => {
        isResolved = true;
      });
      resolving.catch(() => {});
      await until(
        'the set was read',
        async () =>
          (await sql(`select from pg_stat_activity where application_name = 'plank tests' and query = 'commit'`))
            .rowCount! > 0,
        5_000,
      );
    });
    expect(isResolved).toBe(false);
    await at.moveOn();
    expect((await resolving).teams()).toEqual([1, 2, 4]);
    expect(at.events.filter((event) => event.startsWith('set'))).toEqual([]);
    await sql(`delete from members where team = 4`);
    await at.moveOn();
    expect(at.events.filter((event) => event.startsWith('set'))).toHaveLength(1);
  });

  test('guards those who come back: a change of it in history is found, others are not', async () => {
    const at = await follow();
    const { guard } = await at.resolve(ofAda);
    const before = at.seq;
    expect(guard!.since).toBeLessThanOrEqual(before);
    await sql(`insert into members values ('bob', 7)`);
    await sql(`insert into members values ('ada', 7)`);
    await stage.arrived();
    const [batch] = packBatches(1, await new LogReader(stage.pool).page(before, 1_000));
    const { rows } = await sql(`select seq::int from plank.read_log(${before}) where new like '%ada%'`);
    expect([guard!.isChangedIn(batch!, before), guard!.isChangedIn(batch!, rows[0].seq)]).toEqual([true, false]);
    await sql('delete from members where team = 7');
  });

  test('is not waited for longer than 5 s where Postgres is silent', async () => {
    const proxy = await TcpProxy.start(stage.databaseUrl);
    stage.afterwards(() => void proxy.stop());
    const at = await follow(proxy.through(stage.databaseUrl));
    (await at.resolve(nested)).release();
    proxy.blackhole();
    const started = performance.now();
    await expect(at.resolve(ofAda)).rejects.toThrow();
    expect(performance.now() - started).toBeLessThan(6_000);
  });
});
