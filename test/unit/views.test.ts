// What a change becomes under a policy: in a channel of plank.v1 and in plain mode. A row that becomes visible is added, one that stops being
// visible is removed, an update of hidden columns is not sent, and no frame has a column that the viewer may not read.

import { pino } from 'pino';
import { describe, expect, test } from 'vitest';
import type { Viewer } from '#gateway/access/viewer.ts';
import type { Catalog, Column, PolicyRow, Table } from '#gateway/catalog/catalog.ts';
import { webSocketFraming } from '#gateway/channels/framing.ts';
import { Ring } from '#gateway/channels/ring.ts';
import { isSame, nameOf, otherNameOf, queryOf, Refused, wholeTable } from '#gateway/channels/row-query.ts';
import { RowsChannel } from '#gateway/channels/rows-channel.ts';
import { ViewsChannel, viewsKey } from '#gateway/channels/views-channel.ts';
import { Rights } from '#gateway/rights/rights.ts';
import { type ChangeRow, packBatches } from '#shared/log/batch.ts';

const column = (name: string, type: string): Column => ({
  name,
  type,
  base: type,
  nullable: true,
  optional: true,
  writable: true,
});

const policy = (role: string, read: unknown, columns: string[] | null): PolicyRow => ({
  role,
  read,
  insert: null,
  update: null,
  delete: null,
  check: null,
  read_columns: columns,
  write_columns: null,
  presets: null,
});

const tableOf = (id: number, name: string, policies: PolicyRow[]): Table => ({
  id,
  name,
  schema: 'public',
  table: name,
  keyColumns: ['id'],
  columns: [column('id', 'integer'), column('owner', 'text'), column('a', 'text'), column('hidden', 'text')],
  imageSql: '',
  version: '',
  largeSql: null,
  rowBytes: 1_000_000,
  policies,
  policiesVersion: null,
});

const docs = tableOf(7, 'docs', [policy('user', { owner: { $claim: 'sub' } }, ['owner', 'a'])]);
const notes = tableOf(8, 'notes', [policy('user', {}, null)]);
const secrets = tableOf(9, 'secrets', [policy('admin', {}, null)]);
const tables = [docs, notes, secrets];
const catalog = {
  tables,
  byName: (name: string) => tables.find((table) => table.name === name),
  byId: (id: number) => tables.find((table) => table.id === id),
} as unknown as Catalog;
const rights = new Rights({ catalog, log: pino({ level: 'silent' }) });
const terms = { catalog, rights };
const ada: Viewer = { user: 'ada', role: 'user', claims: { sub: 'ada' } };
const bob: Viewer = { user: 'bob', role: 'user', claims: { sub: 'bob' } };
const ring = new Ring(1);

const image = (owner: string, a: string, hidden = 'h') => JSON.stringify({ id: 1, owner, a, hidden });

const batchOf = (...changes: [table: Table, action: string, old: string | null, now: string | null][]) =>
  packBatches(
    1,
    changes.map(
      ([{ id }, action, old, now], i): ChangeRow => [
        `${i + 1}`,
        '9',
        '0',
        `${id}`,
        action,
        action === 'T' ? null : '1',
        now,
        old,
        i === changes.length - 1 ? 't' : 'f',
      ],
    ),
  )[0]!;

/** The payloads of the text frames. */
function payloads({ buffer }: { buffer: Buffer }): Record<string, unknown>[] {
  const found: Record<string, unknown>[] = [];
  for (let at = 0; at < buffer.length; ) {
    const isLong = buffer[at + 1] === 126;
    const length = isLong ? buffer.readUInt16BE(at + 2) : buffer[at + 1]!;
    const start = at + (isLong ? 4 : 2);
    found.push(JSON.parse(buffer.toString('utf8', start, start + length)) as Record<string, unknown>);
    at = start + length;
  }
  return found;
}

const seen = (owner: string, a: string) => ({ id: 1, owner, a });

describe('a change of a table with a policy', () => {
  test.each([
    ['a row of hers comes', 'I', null, image('ada', 'x'), 'add', 'INSERT', seen('ada', 'x')],
    ['a row of another comes', 'I', null, image('bob', 'x'), null, null, null],
    ['her row changes', 'U', image('ada', 'x'), image('ada', 'y'), 'change', 'UPDATE', seen('ada', 'y')],
    ['a hidden column changes', 'U', image('ada', 'x', '1'), image('ada', 'x', '2'), null, null, null],
    ['a row becomes hers', 'U', image('bob', 'x'), image('ada', 'x'), 'add', 'INSERT', seen('ada', 'x')],
    ['a row is hers no longer', 'U', image('ada', 'x'), image('bob', 'x'), 'remove', 'DELETE', seen('ada', 'x')],
    ['a row of another changes', 'U', image('bob', 'x'), image('bob', 'y'), null, null, null],
    ['her row goes', 'D', image('ada', 'x'), null, 'remove', 'DELETE', seen('ada', 'x')],
    ['a row of another goes', 'D', image('bob', 'x'), null, null, null, null],
    ['all rows go', 'T', null, null, 'remove', 'TRUNCATE', null],
  ] as const)('%s', (_what, action, old, now, effect, plainAction, data) => {
    const batch = batchOf([docs, action, old, now]);
    const rows = new RowsChannel(queryOf({ table: 'docs' }, terms, ada), { ring, framing: webSocketFraming });
    const sent = payloads(rows.framesAfter(batch, 0, null));
    const plain = new ViewsChannel([wholeTable(docs, rights, ada)!], { ring });
    const plainSent = payloads(plain.framesAfter(batch, 0, null));
    if (effect === null) {
      expect([sent, plainSent]).toEqual([[], []]);
      return;
    }
    expect(sent).toHaveLength(1);
    expect([sent[0]!.effect, sent[0]!.data]).toEqual([effect, effect === 'remove' ? undefined : data]);
    const id = action === 'T' ? null : 1;
    expect(plainSent).toEqual([{ table: 'docs', action: plainAction, id, data, pos: 'e1.1' }]);
  });

  test('that lacks a visible column, as the row is large, is sent as truncated', () => {
    const batch = batchOf([docs, 'U', ' {"id":1,"owner":"ada"}', ' {"id":1,"owner":"ada"}']);
    const plain = new ViewsChannel([wholeTable(docs, rights, ada)!], { ring });
    const [frame] = payloads(plain.framesAfter(batch, 0, null));
    expect(frame).toMatchObject({ data: null, truncated: true });
  });

  test('that cannot be judged is reported, with what came before it', () => {
    const batch = batchOf([docs, 'I', null, image('ada', 'x')], [docs, 'I', null, ' {"id":1}']);
    const plain = new ViewsChannel([wholeTable(docs, rights, ada)!], { ring });
    const frames = plain.framesAfter(batch, 0, null);
    expect([frames.count, frames.undecodable]).toEqual([1, 'left out']);
  });
});

describe('plain mode under policies', () => {
  const channel = new ViewsChannel(
    tables.flatMap((table) => wholeTable(table, rights, ada) ?? []),
    { ring },
  );

  test('has the tables that exist for the viewer, in the order of the log', () => {
    const batch = batchOf(
      [notes, 'I', null, image('x', '1')],
      [secrets, 'I', null, image('x', '2')],
      [docs, 'I', null, image('ada', '3')],
      [notes, 'D', image('x', '1'), null],
    );
    expect(payloads(channel.framesAfter(batch, 0, null)).map(({ table, action }) => [table, action])).toEqual([
      ['notes', 'INSERT'],
      ['docs', 'INSERT'],
      ['notes', 'DELETE'],
    ]);
    expect(payloads(channel.framesAfter(batch, 3, null))).toHaveLength(1);
    expect([channel.covers('docs'), channel.covers('secrets'), channel.table]).toEqual([true, false, null]);
    expect(channel.describe()).toEqual({
      table: 'docs, notes',
      filter: 'docs: owner = "ada"; notes: every row',
      columns: null,
    });
    expect(new ViewsChannel([], { ring }).describe()).toEqual({ table: 'no table', filter: null, columns: null });
  });

  test('is shared by viewers with the same rights, and by no others', () => {
    const of = (viewer: Viewer, table: Table) => viewsKey([wholeTable(table, rights, viewer)!]);
    expect(of(ada, notes)).toBe(of(bob, notes));
    expect(of(ada, docs)).not.toBe(of(bob, docs));
  });
});

describe('a request under a policy', () => {
  test.each([
    [{ table: 'secrets' }, 'UNKNOWN_TABLE', 'there is no table "secrets"'],
    [{ table: 'nosuch' }, 'UNKNOWN_TABLE', 'there is no table "nosuch"'],
    [{ table: 'docs', where: { hidden: 'x' } }, 'FORBIDDEN', 'hidden'],
    [{ table: 'docs', where: { gone: 'x' } }, 'UNKNOWN_COLUMN', 'gone'],
    [{ table: 'docs', columns: ['hidden'] }, 'FORBIDDEN', 'hidden'],
    [{ table: 'docs', columns: ['gone'] }, 'UNKNOWN_COLUMN', 'gone'],
    [{ table: 'docs', where: { owner: { $claim: 'sub' } } }, 'INVALID_FILTER', '$claim'],
    [{ table: 'docs', where: { id: { in: { $from: 'secrets', select: 'id' } } } }, 'INVALID_FILTER', 'where.id.in'],
  ])('%j is refused: %s', (request, code, text) => {
    let error: unknown;
    try {
      queryOf(request, terms, ada);
    } catch (caught) {
      error = caught;
    }
    expect(error).toBeInstanceOf(Refused);
    expect(error).toMatchObject({ code, message: expect.stringContaining(text) });
  });

  test('has the rows and columns of both, and never more', () => {
    const query = queryOf({ table: 'docs', where: { or: [{ owner: 'bob' }, { a: 'x' }] }, columns: ['a'] }, terms, ada);
    expect(query.filter!.text).toBe('owner = "ada" and (a = "x" or owner = "bob")');
    expect([query.columns, query.readable]).toEqual([
      ['id', 'a'],
      ['id', 'owner', 'a'],
    ]);
    const other = queryOf({ table: 'docs', where: { or: [{ owner: 'bob' }, { a: 'x' }] }, columns: ['a'] }, terms, bob);
    expect(isSame(query, other)).toBe(false);
    expect(query.name).toBe(nameOf(query.digest));
    expect(new Set([query.name, other.name, otherNameOf(query.digest)]).size).toBe(3);
  });
});
