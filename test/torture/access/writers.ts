// Writers that change rows, keys and rights, often in one transaction. What must stay true: each row of `docs` that is written gets a
// version of its own, so that no two images are equal.

import type { Pool } from '#shared/postgres/postgres.ts';
import type { Random } from '../random.ts';
import { allow, editorPolicies } from './policies.ts';

export const users = ['ada', 'bob', 'cyd', 'dan'];
const projects = [1, 2, 3, 4, 5, null];
const statuses = ['open', 'public', 'closed'];
const ids = 60;

export async function write(pool: Pool, random: Random, isOver: () => boolean): Promise<number> {
  let committed = 0;
  while (!isOver()) {
    const client = await pool.connect();
    try {
      await client.query('begin');
      const count = random.chance(0.05) ? random.between(20, 200) : random.between(1, 5);
      for (let i = 0; i < count; i++) await client.query(...step(random));
      await client.query(random.chance(0.1) ? 'rollback' : 'commit');
      committed++;
    } catch (error) {
      await client.query('rollback').catch(() => {});
      // a deadlock, or a key that another transaction took
      if (!['40P01', '23505'].includes((error as { code: string }).code)) throw error;
    } finally {
      client.release();
    }
    await new Promise((resolve) => setTimeout(resolve, random.between(0, 15)));
  }
  return committed;
}

function step(random: Random): [string, unknown[]] {
  const user = random.pick(users);
  const id = random.between(1, ids);
  const project = random.pick(projects);
  const row = [
    id,
    project,
    user,
    random.pick(statuses),
    'x'.repeat(random.chance(0.02) ? 20_000 : random.between(0, 40)),
  ];
  const kinds: (() => [string, unknown[]])[] = [
    () => [
      `insert into docs values ($1, $2, $3, $4, nextval('version'), $5, 'hidden ' || $1::int)
       on conflict (id) do update set project_id = excluded.project_id, owner = excluded.owner,
         status = excluded.status, version = excluded.version, body = excluded.body`,
      row,
    ],
    () => [`update docs set version = nextval('version'), status = $2 where id = $1`, [id, random.pick(statuses)]],
    () => [`update docs set version = nextval('version'), owner = $2 where id = $1`, [id, user]],
    () => [`update docs set version = nextval('version'), project_id = $2 where id % 7 = $1`, [id % 7, project]],
    // changes nothing that most roles see
    () => [`update docs set hidden = 'hidden ' || nextval('version') where id = $1`, [id]],
    () => [`delete from docs where id = $1`, [id]],
    () => [
      `update docs set id = $2, version = nextval('version')
       where id = $1 and not exists (select from docs where id = $2)`,
      [id, random.between(1, ids)],
    ],
    () => [
      'insert into memberships values ($1, $2, $3) on conflict (user_id, project_id) do update set level = excluded.level',
      [user, random.between(1, 5), random.between(0, 2)],
    ],
    () => ['delete from memberships where user_id = $1 and project_id = $2', [user, random.between(1, 5)]],
    () => ['insert into team_members values ($1, $2) on conflict do nothing', [user, random.between(1, 3)]],
    () => ['delete from team_members where user_id = $1 and team_id = $2', [user, random.between(1, 3)]],
    () => [
      'insert into team_projects values ($1, $2) on conflict do nothing',
      [random.between(1, 3), random.between(1, 5)],
    ],
    () => [
      'delete from team_projects where team_id = $1 and project_id = $2',
      [random.between(1, 3), random.between(1, 5)],
    ],
  ];
  // rows change more often than rights
  return random.chance(0.85) ? kinds[random.between(0, 6)]!() : kinds[random.between(7, kinds.length - 1)]!();
}

/** Changes the policy of the role `editor` from time to time. Resolves with the index of the last one. */
export async function changePolicies(pool: Pool, random: Random, isOver: () => boolean): Promise<number> {
  let current = 0;
  while (!isOver()) {
    await new Promise((resolve) => setTimeout(resolve, random.between(300, 1_200)));
    current = (current + random.between(1, editorPolicies.length - 1)) % editorPolicies.length;
    const policy = editorPolicies[current]!;
    await pool.query(policy ? allow('editor', policy) : `select plank.forbid('docs', 'editor')`);
  }
  return current;
}
