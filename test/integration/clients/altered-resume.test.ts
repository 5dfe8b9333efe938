// A resume across a change of the table, in every way to subscribe, from memory and from history: each ends in `live` with the
// rows of SELECT (I4), or in an error with the reason, within seconds. No subscription waits without an end.

import { beforeAll, describe, expect, test } from 'vitest';
import type { Row, ServerFrame } from '#shared/wire.ts';
import { type FrameReader, overEvents, overWebSocket } from '../../support/stage/frames.ts';
import { Stage } from '../../support/stage/stage.ts';
import { until } from '../../support/wait.ts';

interface Case {
  /** T is the table */
  ddl: string;
  /** statements after the DDL, which add a row to T */
  after?: string;
  /** how pictures of the table end: a resync of this reason, no resync, or an error of this code */
  ends: 'shape' | 'rows' | 'goes on' | 'UNKNOWN_TABLE';
  /** how pictures that need the column v (a column list) or n (a filter) end instead */
  v?: string;
  n?: string;
  /** the key's columns afterwards */
  key?: string[];
}

const insert = 'insert into T (id, n) values (9, 9)';
const cases: Record<string, Case> = {
  'a column was added': { ddl: 'alter table T add column w int default 7', ends: 'shape' },
  'a column was dropped': { ddl: 'alter table T drop column v', ends: 'shape', v: 'UNKNOWN_COLUMN' },
  'a column was renamed': { ddl: 'alter table T rename column v to w', ends: 'shape', v: 'UNKNOWN_COLUMN' },
  'a column got another type': { ddl: 'alter table T alter n type text', ends: 'shape', n: 'INVALID_FILTER' },
  'a column got a wider type': { ddl: 'alter table T alter n type bigint', ends: 'shape' },
  'a column got another type twice': {
    ddl: 'alter table T alter n type text; alter table T alter n type int using n::int + 1',
    ends: 'shape',
  },
  'the key was renamed': {
    ddl: 'alter table T rename column id to nr',
    after: 'insert into T (nr, n) values (9, 9)',
    ends: 'shape',
    key: ['nr'],
  },
  'the key was replaced': {
    ddl: 'alter table T drop constraint T_pkey, add primary key (n)',
    ends: 'shape',
    key: ['n'],
  },
  'the key got more columns': {
    ddl: 'alter table T drop constraint T_pkey, add primary key (n, id)',
    ends: 'shape',
    key: ['n', 'id'],
  },
  'the key got another type': {
    ddl: 'alter table T alter id type text',
    after: "insert into T (id, n) values ('9', 9)",
    ends: 'shape',
  },
  'the table was created again': {
    ddl: `drop table T; create table T (id int primary key, v text, n int); insert into T values (5, 'e', 5); select plank.attach('T')`,
    ends: 'shape',
  },
  'the table was dropped': { ddl: 'drop table T', after: 'select', ends: 'UNKNOWN_TABLE' },
  'the table was detached': { ddl: `select plank.detach('T')`, ends: 'UNKNOWN_TABLE' },
  'the table was detached and attached': {
    ddl: `select plank.detach('T'); update T set v = 'unseen'; select plank.attach('T')`,
    ends: 'shape',
  },
  'the table was renamed': {
    ddl: 'alter table T rename to T_2',
    after: 'insert into T_2 (id, n) values (9, 9)',
    ends: 'UNKNOWN_TABLE',
  },
  'a column was excluded': {
    ddl: `select plank.attach('T', exclude => '{v}')`,
    ends: 'shape',
    v: 'UNKNOWN_COLUMN',
  },
  'the table was truncated': { ddl: 'truncate T', ends: 'goes on' },
};

const filter = { n: { in: [1, 2, 3, 9] } };
const ways = {
  rows: { snapshot: true },
  'rows, filtered': { snapshot: true, where: filter },
  'rows, some columns': { snapshot: true, columns: ['v'] },
  changes: {},
  'changes, filtered': { where: filter },
  'changes, some columns': { columns: ['v'] },
} as const;

const names = Object.keys(cases);
const tableOf = (name: string) => `t${names.indexOf(name)}`;

const stage = Stage.of(
  `create table todo (id int primary key, status text); select plank.attach('todo');
   ${names.map((name) => `create table ${tableOf(name)} (id int primary key, v text, n int); select plank.attach('${tableOf(name)}');`).join('\n')}`,
);
/** the position of each client, and the rows that it had */
let pos = '';
const had: Row[] = [
  { id: 1, v: 'a', n: 1 },
  { id: 2, v: 'b', n: 2 },
];
const urls: Record<string, string> = {};

beforeAll(async () => {
  for (const name of names) await stage.sql(`insert into ${tableOf(name)} values (1, 'a', 1), (2, 'b', 2)`);
  await stage.arrived();
  pos = (await stage.health()).position;
  for (const [name, { ddl, after = insert }] of Object.entries(cases)) {
    const sql = `insert into T values (3, 'c', 3); update T set v = 'z' where id = 1;\n${ddl};\n${after}`;
    for (const statement of sql.replaceAll(/\bT(?=_|\b)/g, tableOf(name)).split(/;\s/)) await stage.sql(statement);
  }
  await stage.arrived();
  const other = await stage.embedded.startGateway({ NODE_NAME: 'other' });
  Object.assign(urls, { memory: stage.embedded.url, history: `http://127.0.0.1:${other.port}` });
});

interface Followed {
  /** the code of the error that it ended with, or null if it is live */
  error: string | null;
  reasons: string[];
  key: readonly string[];
  picture: Map<string, Row>;
  changes: ServerFrame[];
}

/** Applies the frames that come, as a client with these rows does. */
async function follow(reader: FrameReader, rows: readonly Row[], startsWith: readonly string[]): Promise<Followed> {
  const ok = reader.all.find((frame) => frame.type === 'ok');
  const followed: Followed = { error: null, reasons: [], key: startsWith, picture: new Map(), changes: [] };
  const keyOf = (row: Row) => {
    const { key } = followed;
    return JSON.stringify(key.length === 1 ? row[key[0]!] : Object.fromEntries(key.map((name) => [name, row[name]])));
  };
  for (const row of rows) followed.picture.set(keyOf(row), row);
  if (ok?.type === 'ok') followed.key = ok.key!;
  for (;;) {
    const frame = await reader.next();
    if (frame.type === 'live') return followed;
    if (frame.type === 'error') return { ...followed, error: frame.code };
    if (frame.type === 'resync') {
      followed.reasons.push(frame.reason);
      followed.key = frame.key!;
      followed.picture.clear();
      followed.changes = [];
    } else if (frame.type === 'rows') for (const row of frame.rows) followed.picture.set(keyOf(row), row);
    else if (frame.type === 'change') {
      followed.changes.push(frame);
      if (frame.effect !== 'remove') followed.picture.set(JSON.stringify(frame.id), frame.data!);
      else if (frame.id === null) followed.picture.clear();
      else followed.picture.delete(JSON.stringify(frame.id));
    }
  }
}

const sorted = (rows: Iterable<Row>) => [...rows].map((row) => JSON.stringify(row, Object.keys(row).sort())).sort();

describe.each(['memory', 'history'])('from %s', (source) => {
  describe.each(names)('where %s', (name) => {
    const { ends, v, n, key = ['id'] } = cases[name]!;
    const table = tableOf(name);

    test.each(Object.entries(ways))(
      'a resume of %s ends live with the rows of SELECT, or in an error',
      async (_, way) => {
        const ends_ = ('columns' in way && v) || ('where' in way && n) || ends;
        const isRefused = ends_ === ends_.toUpperCase();
        const columns = 'columns' in way ? ['id', 'v'] : ['id', 'v', 'n'];
        const rows = had.map((row) => Object.fromEntries(columns.map((column) => [column, row[column]])));
        const transports = [
          [overWebSocket, { table, from: pos, ...way }],
          [overEvents, { table, since: pos, ...way }],
        ] as const;
        const resumes = async ([transport, ask]: (typeof transports)[number]) => {
          const reader = await transport(urls[source]!, ask as never).catch((error: Error) => error);
          if (reader instanceof Error) {
            expect(isRefused, reader.message).toBe(true);
            if (transport === overWebSocket) expect(reader.message).toBe(ends_);
            return;
          }
          stage.afterwards(() => reader.close());
          const followed = await follow(reader, rows, ['id']);
          expect(followed.error).toBe(isRefused ? ends_ : null);
          if (isRefused) return;
          expect(new Set(followed.reasons)).toEqual(new Set(ends_ === 'goes on' ? [] : [ends_]));
          if (ends_ !== 'goes on' || 'from' in ask) expect(followed.key).toEqual(key);
          if ('snapshot' in way) {
            const where = 'where' in way ? 'where n in (1, 2, 3, 9)' : '';
            const wanted = 'columns' in way ? [...new Set([...key, 'v'])].join(', ') : '*';
            const shown = name === 'a column was excluded' ? 'id, n' : wanted;
            const { rows: selected } = await stage.sql(
              `select to_json(t) as row from (select ${shown} from ${table} ${where}) t`,
            );
            expect(sorted(followed.picture.values())).toEqual(sorted(selected.map(({ row }) => row as Row)));
          } else if (!('columns' in way)) {
            // the change after the DDL has come
            expect(followed.changes.map((change) => 'data' in change && change.data?.n)).toContainEqual(
              name === 'a column got another type' ? '9' : 9,
            );
          }
        };
        await Promise.all(transports.map(resumes));
      },
    );
  });
});

test('plain mode sends every change, whatever happened to the tables', async () => {
  const attached = names.filter((name) => cases[name]!.ends !== 'UNKNOWN_TABLE');
  for (const url of Object.values(urls)) {
    const client = await stage.plain({ url: `${url.replace('http', 'ws')}/ws?since=${pos}` });
    const isThere = (table: string) =>
      client.frames.some((text) => text.startsWith(`{"table":"${table}","action":"INSERT"`) && /"n":"?9"?/.test(text));
    await until('every insert arrives', () => attached.every((name) => isThere(tableOf(name))), 10_000);
  }
});
