// The SDK where a table gets another key, live and while it is away, to come back to the same
// gateway or to another one: its rows are those that SELECT gives, each once and under its new key.

import { expect, test } from 'vitest';
import { createSource } from '#client/live/source.ts';
import { createPlank, type LiveQuery } from '#client/plank-client.ts';
import type { Row } from '#shared/wire.ts';
import { Stage } from '../../support/stage/stage.ts';
import { until } from '../../support/wait.ts';

interface Case {
  ddl: string;
  /** the key's columns afterwards */
  key: string[];
  writes?: string;
}

const cases: Record<string, Case> = {
  renamed: {
    ddl: 'alter table T rename column id to nr',
    key: ['nr'],
    writes: 'delete from T where nr = 1; update T set v = v || v where nr = 2; insert into T (nr, n) values (9, 90)',
  },
  replaced: { ddl: 'alter table T drop constraint T_pkey, add primary key (n)', key: ['n'] },
  longer: { ddl: 'alter table T drop constraint T_pkey, add primary key (n, id)', key: ['n', 'id'] },
  replaced_in_steps: { ddl: 'alter table T drop constraint T_pkey; alter table T add primary key (n)', key: ['n'] },
  column_given_up: {
    ddl: 'alter table T drop column id; alter table T add column id int; alter table T add primary key (n)',
    key: ['n'],
  },
  retyped: { ddl: 'alter table T alter id type text', key: ['id'], writes: "delete from T where id = '1'" },
  exchanged: {
    ddl: 'alter table T rename column id to other; alter table T rename column n to id; alter table T rename column other to n',
    key: ['n'],
  },
};
const writes = `delete from T where id = 1; update T set v = v || v where id = 2; insert into T (id, n) values (9, 90);
  update T set n = 31 where n = 30`;
const situations = ['live', 'away', 'elsewhere'] as const;

const all = situations.flatMap((situation) =>
  Object.keys(cases).map((name) => ({ situation, name, table: `${name}_${situation}` })),
);
const stage = Stage.of(
  `create table todo (id int primary key, status text); select plank.attach('todo');
   ${all.map(({ table }) => `create table ${table} (id int primary key, v text, n int not null); insert into ${table} values (1, 'a', 10), (2, 'b', 20), (3, 'c', 30); select plank.attach('${table}');`).join('\n')}`,
);

test.each(situations)('live queries have the rows of SELECT under the new key of a table: %s', async (situation) => {
  const other = situation === 'elsewhere' ? await stage.embedded.startGateway({ NODE_NAME: 'other' }) : null;
  const sockets: WebSocket[] = [];
  let url = stage.plainUrl;
  const Elsewhere = class extends WebSocket {
    constructor(_: string, protocol: string) {
      super(url, protocol);
      sockets.push(this);
    }
  };
  const plank = createPlank({ url, WebSocket: Elsewhere, onError: () => {} });
  stage.afterwards(() => plank.close());
  const pictures = all
    .filter((each) => each.situation === situation)
    .map(({ table, name }) => {
      const of = plank.table(table);
      // `key` is for servers that do not send it
      const queries: LiveQuery[] = [
        of.live({ key: ['id'] }),
        of.live({ columns: ['v'] }),
        of.live({ where: { v: { is: 'not null' } } }),
      ];
      const source = createSource(() => of.live());
      source.subscribe(() => {});
      return { table, ...cases[name]!, queries, source };
    });
  const queries = pictures.flatMap((picture) => picture.queries);
  await Promise.all(queries.map(({ ready }) => ready));
  if (situation !== 'live') {
    url = 'ws://127.0.0.1:1';
    for (const socket of sockets) socket.close();
    await until('every query is offline', () => queries.every(({ state }) => state === 'offline'), 5_000);
  }
  for (const { table, ddl, writes: own = writes } of pictures)
    for (const statement of `${ddl};${own}`.replaceAll(/\bT(?=_|\b)/g, table).split(';')) await stage.sql(statement);
  await stage.arrived();
  url = other ? `ws://127.0.0.1:${other.port}/ws` : stage.plainUrl;

  for (const {
    table,
    key,
    queries: [whole, some, filtered],
    source,
  } of pictures) {
    const select = async (columns: string, where = 'true') => {
      const { rows } = await stage.sql(
        `select to_json(t) as row from (select ${columns} from ${table} where ${where}) t`,
      );
      return picture(rows.map(({ row }) => [keyOf(row as Row, key), row as Row]));
    };
    const wanted = [
      await select('*'),
      await select([...new Set([...key, 'v'])].join(', ')),
      await select('*', 'v is not null'),
      await select('*'),
    ];
    const shown = () => [whole!.rows, some!.rows, filtered!.rows, source.current().rows].map((rows) => picture(rows));
    await until(`${table} is right`, () => JSON.stringify(shown()) === JSON.stringify(wanted), 15_000).catch(() => {
      expect(shown(), table).toEqual(wanted);
    });
  }
});

const keyOf = (row: Row, key: string[]) =>
  key.length === 1
    ? row[key[0]!]
    : `{${[...key]
        .sort()
        .map((name) => `${JSON.stringify(name)}:${JSON.stringify(row[name])}`)
        .join(',')}}`;

const picture = (entries: Iterable<readonly [unknown, object]>) =>
  [...entries]
    .map(([key, row]) => JSON.stringify([key, Object.entries(row).sort(([a], [b]) => (a < b ? -1 : 1))]))
    .sort();
