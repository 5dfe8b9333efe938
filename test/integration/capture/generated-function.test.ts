// One generated capture function, as plank.attach makes it for a small table. generated-function.sql shows it to people who
// read shared/sql/004_capture.sql.

import { afterAll, beforeAll, expect, test } from 'vitest';
import { admin } from '../../support/servers/admin.ts';
import { createDatabase, type TestDatabase } from '../../support/servers/servers.ts';

const table = 'create table orders (id bigint primary key, status text, at timestamptz)';

let database: TestDatabase;
beforeAll(async () => {
  database = await createDatabase();
});
afterAll(() => database?.drop());

/** The queries of rows, which the function repeats, by the names that the file gives them. */
const names: Record<string, string> = {
  'old offset': 'old_rows',
  'new offset': 'new_rows',
  'old where': 'small_old_rows',
  'new where': 'small_new_rows',
};

/** The function as the file shows it: with a name for each query of rows, and these queries above it. */
function shown(definition: string): string {
  const queries = new Map<string, string>();
  const body = definition
    .replaceAll(
      /\((select i\.\* from .+? from plank_(old|new) r (offset|where).*?)\) i\)/g,
      (_, query, which, kind) => {
        const name = names[`${which} ${kind}`]!;
        queries.set(name, `${query}) i`);
        return `(${name})`;
      },
    )
    .replaceAll(/ +$/gm, '');
  const above = [...queries].map(([name, query]) => {
    const lines = query.replaceAll(
      / (?=cross join lateral|then|end,|as image|where)|(?<=as key,|absent|, true\)|\[|\],) /g,
      '\n--       ',
    );
    return `--   ${name}:\n--     ${lines}\n`;
  });
  return `-- The function that captures UPDATEs of one table, as plank.attach generates it (shared/sql/004_capture.sql):
--
--   ${table};
--   select plank.attach('orders');
--
-- The function repeats the queries of old and new rows. This file shows each of them once, and below only its name:
--
${above.join('--\n')}--
-- Not to be edited: generated-function.test.ts compares this file with what plank.attach generates. To write it again:
-- npx vitest run --project integration test/integration/capture/generated-function.test.ts --update

${body}`;
}

test('the generated function is the one that generated-function.sql shows', async () => {
  await admin(database.url, `${table}; select plank.attach('orders')`);
  const [made] = await admin(
    database.url,
    `select pg_get_functiondef(to_regproc('plank.' || plank.capture_function(id, 'update'))) as text
     from plank.attached where name = 'orders'`,
  );
  await expect(
    shown(made!['text']!),
    'plank.attach generates another function than generated-function.sql shows: its head says how to write it again',
  ).toMatchFileSnapshot('./generated-function.sql');
});
