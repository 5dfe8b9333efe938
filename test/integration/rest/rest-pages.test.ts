// A page of rows is bounded in bytes as well as in rows, and its cursor continues after its last row.

import { expect, test } from 'vitest';
import { Stage } from '../../support/stage/stage.ts';

const stage = Stage.of(`create table big (id int primary key, note text); select plank.attach('big')`);
const rowBytes = 700_000;
const mostBytes = 4 * 1024 * 1024 + rowBytes + 100;

test('rows come in pages of some megabytes, whatever the limit, and no row is missing', async () => {
  await stage.sql(`insert into big select i, repeat('x', ${rowBytes}) from generate_series(1, 40) i`);
  // small rows after large ones, whose sizes are not known in advance
  await stage.sql(`insert into big select i, 'small' from generate_series(41, 1400) i`);
  const ids: number[] = [];
  const pages: number[] = [];
  let path: string | undefined = '/api/big?limit=1000';
  while (path !== undefined) {
    const response: Response = await fetch(new URL(path, stage.embedded.url));
    const text = await response.text();
    expect(text.length).toBeLessThan(mostBytes);
    const rows = JSON.parse(text) as { id: number }[];
    pages.push(rows.length);
    ids.push(...rows.map(({ id }) => id));
    path = /^<(.*)>/.exec(response.headers.get('link') ?? '')?.[1];
  }
  expect(ids).toEqual(Array.from({ length: 1_400 }, (_, i) => i + 1));
  expect(pages.slice(0, 6)).toEqual([6, 6, 6, 6, 6, 6]);
  expect(pages.length).toBe(8);
});

test('a row larger than a page is a page of its own', async () => {
  await stage.sql(`truncate big; insert into big values (1, repeat('x', 6000000)), (2, 'y')`);
  const response = await fetch(`${stage.embedded.url}/api/big`);
  expect(((await response.json()) as { id: number }[]).map(({ id }) => id)).toEqual([1]);
  expect(response.headers.get('plank-next-cursor')).not.toBeNull();
});
