// A database whose search_path finds operators, functions and types that hide those of Postgres: REST, filters, snapshots and changes
// work as elsewhere.

import { expect, test } from 'vitest';
import { Stage } from '../../support/stage/stage.ts';

// `same` for each type: every "=" is false, every ">" true
const shadows = ['int4', 'int8', 'text', 'uuid', 'bool', 'numeric', 'float8', 'timestamptz', 'name', 'oid']
  .map(
    (type) => `
    create function hostile.never(pg_catalog.${type}, pg_catalog.${type}) returns pg_catalog.bool language sql as 'select false';
    create function hostile.always(pg_catalog.${type}, pg_catalog.${type}) returns pg_catalog.bool language sql as 'select true';
    create operator hostile.= (leftarg = pg_catalog.${type}, rightarg = pg_catalog.${type}, function = hostile.never);
    create operator hostile.> (leftarg = pg_catalog.${type}, rightarg = pg_catalog.${type}, function = hostile.always);
    create operator hostile.<= (leftarg = pg_catalog.${type}, rightarg = pg_catalog.${type}, function = hostile.always);`,
  )
  .join('');

const stage = Stage.of(`
  create table things (id integer primary key, name text, n numeric, r real, at timestamptz, u uuid, doc jsonb, tags text[], pair point[]);
  select plank.attach('things');
  insert into things values (1, 'a', 1.5, 0.1, '2026-01-01', 'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11', '{"a": 1}', '{x}', '{"(1,2)"}'),
    (2, 'b', 2.5, 0.2, '2026-01-02', null, null, null, null);
  create schema hostile;
  ${shadows}
  create function hostile.to_json(anyelement) returns pg_catalog.json language sql as $$ select '"hostile"'::pg_catalog.json $$;
  create function hostile."left"(pg_catalog.text, pg_catalog.int4) returns pg_catalog.text language sql as $$ select 'hostile' $$;
  create function hostile.format(pg_catalog.text) returns pg_catalog.text language sql as $$ select 'hostile' $$;
  create function hostile.sha256(pg_catalog.bytea) returns pg_catalog.bytea language sql as $$ select '\\x00'::pg_catalog.bytea $$;
  create function hostile.btrim(pg_catalog.text, pg_catalog.text) returns pg_catalog.text language sql as $$ select 'hostile' $$;
  create domain hostile.text as pg_catalog.text check (value = 'never');
  create domain hostile.numeric as pg_catalog.numeric check (false);
  create domain hostile.float8 as pg_catalog.float8 check (false);
  create type hostile.json as enum ('hostile');
  create type hostile.jsonb as enum ('hostile');
  create type hostile.uuid as (x pg_catalog.int4);
  create type hostile.bool as enum ('hostile');
  do $$ begin execute format('alter database %I set search_path = hostile, pg_catalog, public', pg_catalog.current_database()); end $$;
`);

test('a hostile search_path changes neither REST nor filters, snapshots and changes', async () => {
  const address = `${stage.embedded.url}/api/things`;
  const call = async (path: string, method = 'GET', body?: unknown, headers: Record<string, string> = {}) => {
    const answer = await fetch(address + path, {
      method,
      headers: { 'content-type': 'application/json', ...headers },
      ...(body === undefined ? {} : { body: JSON.stringify(body) }),
    });
    return { status: answer.status, text: await answer.text(), headers: answer.headers };
  };
  const one = await call('/1');
  expect(JSON.parse(one.text)).toMatchObject({ id: 1, name: 'a', doc: { a: 1 }, tags: ['x'], pair: ['(1,2)'] });
  expect((await call('?limit=1')).text).toBe(`[${one.text}]`);
  const next = /<([^>]*)>/.exec((await call('?limit=1')).headers.get('link')!)![1]!;
  expect((await (await fetch(new URL(next, address))).json()) as unknown).toMatchObject([{ id: 2 }]);
  for (const where of [
    { name: 'a' },
    { name: { lte: 'a' } },
    { n: 1.5 },
    { r: { lt: 0.15 } },
    { at: { lte: '2026-01-01T00:00:00Z' } },
    { u: 'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11' },
    { id: { in: [1, 7] } },
  ])
    expect([where, (await call(`?where=${encodeURIComponent(JSON.stringify(where))}`)).text]).toEqual([
      where,
      `[${one.text}]`,
    ]);
  const tag = one.headers.get('etag')!;
  expect((await call('/1', 'PUT', JSON.parse(one.text), { 'if-match': tag })).text).toBe(one.text);
  expect((await call('/1', 'PATCH', { name: 'c' }, { 'if-match': '"x"' })).status).toBe(412);
  expect((await call('', 'POST', { id: 3, name: 'c', pair: ['(1,2)'] })).status).toBe(201);
  expect((await call('/3', 'DELETE')).status).toBe(204);

  const stream = await stage.stream({ table: 'things', where: { n: { lte: 2 } }, snapshot: true });
  expect(await stream.rows()).toMatchObject([{ id: 1 }]);
  await stream.expect('live');
  await call('/2', 'PATCH', { n: 1 });
  expect(await stream.changes(1)).toMatchObject([{ effect: 'add', id: 2 }]);
  stream.close();
});
