// Gateways apply changes of policies in the order of the log: at the place of each, also where one batch has several, where a column of
// the policy is renamed, and where the catalog is loaded at the same time.

import { expect, test } from 'vitest';
import { Catalog } from '#gateway/catalog/catalog.ts';
import { Stage } from '../../support/stage/stage.ts';
import { secret, tokenOf } from '../../support/stage/tokens.ts';
import { Viewers } from '../../support/stage/viewers.ts';

const stage = Stage.of(
  `create table todo (id int primary key, status text); create table doc (id int primary key, owner text);
   create index on doc (owner); select plank.attach('todo'), plank.attach('doc');
   select plank.allow('todo', 'anonymous', read => '{}'), plank.allow('doc', 'user', read => '{}')`,
  { AUTH: 'jwt', AUTH_JWT_SECRET: secret },
);
const { sql } = stage;
const viewers = new Viewers(stage);
const token = tokenOf({ sub: 'ada', role: 'user' });
const own = `select plank.allow('doc', 'user', read => '{"owner": {"$claim": "sub"}}')`;

test('each change of a batch is judged by the policy at its place', async () => {
  const client = await viewers.live(token);
  await stage.undrained(async () => {
    await sql(`insert into doc values (1, 'bob')`);
    await sql(own);
    await sql(`insert into doc values (2, 'bob'), (3, 'ada')`);
    await sql(`select plank.allow('doc', 'user', read => '{}')`);
    await sql(`insert into doc values (4, 'bob')`);
  });
  await client.frame({ id: 4 });
  const from = client.frames.findIndex(({ type }) => type === 'live') + 1;
  const brief = client.frames
    .slice(from)
    .flatMap(({ type, id, reason }) => (type === 'change' ? [id] : type === 'resync' ? [reason] : []));
  expect(brief).toEqual([1, 'access', 3, 'access', 4]);
});

test('a policy allows nothing from the rename of its column on, and again after the rename back', async () => {
  await sql(own);
  await stage.arrived();
  const client = await viewers.live(token);
  await stage.undrained(async () => {
    await sql(`insert into doc values (5, 'ada')`);
    await sql('alter table doc rename owner to former; alter table doc add column owner text');
    await sql(`insert into doc values (6, 'bob', 'ada'), (7, 'ada', 'bob')`);
  });
  await client.frame({ type: 'error', code: 'UNKNOWN_TABLE' });
  expect(client.seen.map(([, id]) => id)).toEqual([5]);
  const refused = await viewers.peer(token);
  refused.send({ type: 'subscribe', id: 1, table: 'doc' });
  await refused.frame({ type: 'error', id: 1 });
  await sql('alter table doc drop column owner; alter table doc rename former to owner');
  await stage.arrived();
  const again = await viewers.live(token, { snapshot: true });
  await sql(`insert into doc values (8, 'bob'), (9, 'ada')`);
  await again.frame({ id: 9 });
  expect(again.rows().map(({ id }) => id)).toEqual([3, 5, 7]);
  expect(again.seen.map(([, id]) => id)).toEqual([9]);
});

test('a load of the catalog keeps policies that were set while it waited', async () => {
  let onFormer = () => {};
  const query = (async (...asked: unknown[]) => {
    if (JSON.stringify(asked).includes('plank.former')) onFormer();
    return stage.pool.query(...(asked as [string]));
  }) as typeof stage.pool.query;
  const catalog = new Catalog(
    new Proxy(stage.pool, { get: (of, name) => (name === 'query' ? query : Reflect.get(of, name)) }),
  );
  await catalog.begin();
  const { id, policies } = catalog.byName('doc')!;
  expect(policies).toMatchObject([{ role: 'user' }]);
  onFormer = () => catalog.setPolicies(id, [], { seq: 7, xid: 7n });
  await catalog.load();
  expect(catalog.byName('doc')).toMatchObject({ policies: [], policiesVersion: '7' });
  onFormer = () => {};
  // policies are taken from the database again when the log did not go on
  await catalog.begin();
  expect(catalog.byName('doc')!.policies).toEqual(policies);
  expect(catalog.policiesChangedAt(id)).not.toBe(7);
  // with another shape, a policy is not used before its event comes
  await sql('alter table doc rename owner to former');
  await catalog.load();
  expect(catalog.byName('doc')!.policies).toEqual([
    { ...policies[0], problem: 'names the column owner, which was dropped, renamed or excluded' },
  ]);
  await sql('alter table doc rename former to owner');
});
