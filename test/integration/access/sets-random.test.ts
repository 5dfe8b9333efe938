// Sets under random writes: each set that is held has the values of the log as of every position. The judge replays the log by itself.
// Longer runs: PLANK_TEST_SEED=7 PLANK_TEST_SECONDS=60

import { expect, test } from 'vitest';
import { actions, type Batch, BatchReader, splitBefore } from '#shared/log/batch.ts';
import { followSets } from '../../support/stage/sets.ts';
import { Stage } from '../../support/stage/stage.ts';
import { randomFrom } from '../../support/truth/seam.ts';

const stage = Stage.of(`
  create table todo (id int primary key, status text);
  create table docs (id int primary key, team int);
  create table members (id int primary key, who text, team int);
  create table teams (id int primary key, boss text, team int);
  select plank.attach('todo'); select plank.attach('docs'); select plank.attach('members'); select plank.attach('teams')`);

const seed = Number(process.env.PLANK_TEST_SEED ?? 1);
const seconds = Number(process.env.PLANK_TEST_SECONDS ?? 5);
const below = randomFrom(seed);
const people = ['ada', 'bob', 'eve'];

const members = (where: object) => ({ team: { in: { $from: 'members', select: 'team', where } } });
const mine = members({ who: { $claim: 'sub' } });
const led = members({ team: { in: { $from: 'teams', select: 'team', where: { boss: { $claim: 'sub' } } } } });

interface Row {
  id: number;
  who?: string;
  boss?: string;
  team: number;
}

/** The rows of the two tables as of a position. */
class Replay {
  readonly #rows = new Map<number, Map<number, Row>>();
  readonly #ids: { members: number; teams: number };

  constructor(ids: { members: number; teams: number }) {
    this.#ids = ids;
    for (const id of Object.values(ids)) this.#rows.set(id, new Map());
  }

  apply({ relation, action, buffer, newStart, newEnd, oldStart, oldEnd }: BatchReader): void {
    const rows = this.#rows.get(relation);
    if (!rows) return;
    if (action === actions.truncate) rows.clear();
    if (oldEnd > oldStart) rows.delete(JSON.parse(buffer.toString('utf8', oldStart, oldEnd)).id);
    if (newEnd <= newStart) return;
    const row: Row = JSON.parse(buffer.toString('utf8', newStart, newEnd));
    rows.set(row.id, row);
  }

  teams(policy: object, sub: string): number[] {
    const all = [...this.#rows.get(this.#ids.members)!.values()];
    const leads = [...this.#rows.get(this.#ids.teams)!.values()].filter(({ boss }) => boss === sub);
    const some = all.filter(({ who, team }) =>
      policy === mine ? who === sub : leads.some((row) => row.team === team),
    );
    return [...new Set(some.map(({ team }) => team))].sort((a, b) => a - b);
  }
}

function statement(): string {
  const [id, team, person] = [below(12), 1 + below(5), people[below(3)]];
  const table = below(3) === 0 ? 'teams' : 'members';
  const column = table === 'teams' ? 'boss' : 'who';
  switch (below(8)) {
    case 0:
      return `delete from ${table} where id = ${id}`;
    case 1:
      return `update ${table} set team = ${team} where id = ${id}`;
    case 2:
      return `update ${table} set ${column} = '${person}' where id = ${id}`;
    case 3:
      return below(10) === 0 ? `truncate ${table}` : `delete from ${table} where id > ${id}`;
    case 4:
    case 5:
      return `insert into docs values (${below(1e9)}, ${team}) on conflict do nothing`;
    default:
      return `insert into ${table} (id, ${column}, team) values (${id}, '${person}', ${team}) on conflict do nothing`;
  }
}

test(
  'sets have the values of the log as of each position at which they are held',
  async () => {
    const at = await followSets(stage);
    const replay = new Replay({ members: at.idOf('members'), teams: at.idOf('teams') });
    const held = new Set<{ check: () => void; release: () => void }>();
    const resolving = new Set<Promise<void>>();
    const problems: unknown[] = [];
    const counts = { checks: 0, invalid: 0, refused: 0 };

    const hold = async () => {
      const [policy, sub] = [below(2) === 0 ? mine : led, people[below(3)]!];
      let isValid = true;
      let one: { check: () => void; release: () => void } | undefined;
      const onInvalid = () => {
        isValid = false;
        counts.invalid++;
        if (one) held.delete(one);
      };
      const resolved = await at.resolve(policy, { sub, onInvalid }).catch((error: Error) => error);
      if (resolved instanceof Error) {
        counts.refused++;
        expect(resolved.message).toMatch(/too often|in time|lock timeout/);
        return;
      }
      if (!isValid) return;
      const { teams, release } = resolved;
      one = {
        release,
        check: () => {
          counts.checks++;
          expect(teams(), `seed ${seed}, seq ${at.seq}, ${sub}`).toEqual(replay.teams(policy, sub));
        },
      };
      one.check();
      held.add(one);
    };
    const resolve = () => {
      const done = hold()
        .catch((error: unknown) => void problems.push(error))
        .finally(() => resolving.delete(done));
      resolving.add(done);
    };

    const transaction = async () => {
      const statements = Array.from({ length: 1 + below(6) }, statement);
      const client = await stage.pool.connect();
      try {
        // concurrent writers may meet in a deadlock
        await client.query(`begin; ${statements.join('; ')}; commit`).catch(() => client.query('rollback'));
      } finally {
        client.release();
      }
    };

    const write = () => Promise.all(Array.from({ length: 1 + below(5) }, transaction));

    const cut = (batches: Batch[]) =>
      batches.flatMap((batch) =>
        splitBefore(
          batch,
          Array.from({ length: below(4) }, () => batch.firstSeq + below(batch.lastSeq - batch.firstSeq + 1)),
        ),
      );
    const onPart = (part: Batch) => {
      const reader = new BatchReader(part);
      while (reader.next()) {
        replay.apply(reader);
        if (reader.last) for (const one of held) one.check();
      }
      if (below(3) === 0) resolve();
    };

    for (const end = performance.now() + seconds * 1_000; performance.now() < end; ) {
      await stage.undrained(async () => {
        for (let n = below(3); n > 0; n--) resolve();
        await write();
        for (let n = below(3); n > 0; n--) resolve();
        if (below(2) === 0) await new Promise((done) => setImmediate(done));
        await write();
      });
      await at.moveOn(cut, onPart);
      if (below(3) > 0) await Promise.all(resolving);
      for (const one of held) {
        if (below(4) > 0) continue;
        one.release();
        held.delete(one);
      }
    }
    await at.moveOn(cut, onPart);
    await Promise.all(resolving);
    expect(problems).toEqual([]);
    expect(counts.checks).toBeGreaterThan(200);
    expect(counts.invalid).toBeGreaterThan(20);
    expect(counts.refused).toBeLessThan(counts.checks / 20);
  },
  20_000 + 2_000 * seconds,
);
