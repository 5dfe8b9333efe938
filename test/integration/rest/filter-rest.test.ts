// GET /api/<table>?where=: the same filters over REST, page by page.

import { expect, test } from 'vitest';
import { Stage } from '../../support/stage/stage.ts';

const stage = Stage.of(`
  create table orders (id bigint primary key, status text, total numeric(20,2), placed timestamptz);
  insert into orders select i, case when i % 3 = 0 then null when i % 3 = 1 then 'open' else 'done' end, i * 1.5,
    '2026-01-01T00:00:00Z'::timestamptz + i * interval '1 hour' from generate_series(1, 50) i;
  select plank.attach('orders')`);

const get = async (query: string) => {
  const response = await fetch(`${stage.embedded.url}/api/orders?${query}`);
  return { status: response.status, link: response.headers.get('link'), json: (await response.json()) as unknown };
};
const idsOf = (rows: unknown): number[] => (rows as { id: number }[]).map(({ id }) => id);

test('GET returns the rows that the filter admits', async () => {
  const where = encodeURIComponent('{"or":[{"status":null},{"status":"done"}],"total":{"gt":60.0,"lte":"67.50"}}');
  const { status, json } = await get(`where=${where}`);
  expect([status, idsOf(json)]).toEqual([200, [41, 42, 44, 45]]);
  expect(idsOf((await get('where={}')).json)).toHaveLength(50);
});

test('pages of a filtered list return each row once', async () => {
  const ids: number[] = [];
  const where = encodeURIComponent('{"status":{"in":["open","é&%"]},"placed":{"gte":"2026-01-01T12:00:00+02:00"}}');
  for (let next: string | undefined = `limit=4&where=${where}`; next !== undefined; ) {
    const { status, link, json } = await get(next);
    expect(status).toBe(200);
    expect(idsOf(json).length).toBeLessThanOrEqual(4);
    ids.push(...idsOf(json));
    next = /\?(.*)>; rel="next"/.exec(link ?? '')?.[1];
  }
  expect(ids).toEqual([10, 13, 16, 19, 22, 25, 28, 31, 34, 37, 40, 43, 46, 49]);
});

test.each([
  ['{"total":{"gt":"x"}}', 'where.total.gt'],
  ['{"or":[{},{"nope":1}]}', 'where.or.1.nope'],
  ['{"id":9223372036854775808}', 'where.id'],
  ['[]', 'where'],
  ['{', 'where'],
  ['', 'where'],
  ['['.repeat(2_000), 'where'],
  ['{"not":'.repeat(500) + '{}' + '}'.repeat(500), `where${'.not'.repeat(8)}`],
])('GET refuses the filter %.40s', async (where, path) => {
  const { status, json } = await get(`where=${encodeURIComponent(where)}`);
  expect(status).toBe(400);
  expect(json).toMatchObject({ code: 'INVALID', errors: [{ path }] });
});

test('GET refuses two filters', async () => {
  expect(await get('where={}&where={}')).toMatchObject({ status: 400, json: { errors: [{ path: 'where' }] } });
});
