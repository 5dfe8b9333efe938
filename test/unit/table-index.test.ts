// The index finds the channels that checking each one would find, in whatever order channels come and go.

import * as fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import type { Column, Table } from '#gateway/catalog/catalog.ts';
import { changesOf } from '#gateway/channels/change.ts';
import { webSocketFraming } from '#gateway/channels/framing.ts';
import { Ring } from '#gateway/channels/ring.ts';
import { RowsChannel } from '#gateway/channels/rows-channel.ts';
import { TableIndex } from '#gateway/channels/table-index.ts';
import { RowFilter } from '#gateway/filter/row-filter.ts';
import { type ChangeRow, packBatches } from '#shared/log/batch.ts';
import { openQuery } from '../support/truth/queries.ts';

const column = (name: string, type: string, base: string): Column => ({
  name,
  type,
  base,
  nullable: true,
  optional: true,
  writable: true,
});
const table: Table = {
  id: 7,
  name: 'todo',
  schema: 'public',
  table: 'todo',
  keyColumns: ['id'],
  columns: [column('id', 'integer', 'int4'), column('a', 'text', 'text'), column('n', 'numeric', 'numeric')],
  imageSql: '',
  version: '',
  largeSql: null,
  rowBytes: 8_388_608,
  policies: [],
  policiesVersion: null,
};
const ring = new Ring(1);

function liveChannel(where: object | null): RowsChannel {
  const filter = where && RowFilter.parse(table, where);
  const channel = new RowsChannel(openQuery(table, filter), { ring, framing: webSocketFraming });
  channel.enter({ slot: -1 });
  return channel;
}

type Row = { id: number; a: string | null; n: string | null };
const text = ({ id, a, n }: Row) => `{"id":${id},"a":${JSON.stringify(a)},"n":${n}}`;

const id = fc.integer({ min: 0, max: 4 });
const a = fc.constantFrom('x', 'y', 'z', '', '["x"]', null);
// equal numbers in different digits are one value
const n = fc.constantFrom('1', '1.0', '1e0', '2', '2.50', '-0', '0', null);
const row: fc.Arbitrary<Row> = fc.record({ id, a, n });
const change = fc.oneof(
  row.map((after) => ['I', null, text(after)] as const),
  fc.tuple(row, row).map(([before, after]) => ['U', text(before), text({ ...after, id: before.id })] as const),
  row.map((before) => ['D', text(before), null] as const),
  fc.constant(['T', null, null] as const),
);
const number = n.map((value) => (value === null ? 1 : Number(value)));
const leaf: fc.Arbitrary<object> = fc.oneof(
  id.map((value) => ({ id: value })),
  fc.array(id, { maxLength: 4 }).map((values) => ({ id: { in: values } })),
  a.map((value) => ({ a: value })),
  fc
    .array(
      a.map((value) => value ?? 'w'),
      { maxLength: 3 },
    )
    .map((values) => ({ a: { in: values } })),
  number.map((value) => ({ n: value })),
  number.map((value) => ({ n: { gt: value } })),
  fc.constant({ a: { ne: 'x' } }),
  fc.constant({ n: { is: 'not null' } }),
);
const where: fc.Arbitrary<object> = fc.oneof(
  leaf,
  fc.array(leaf, { maxLength: 3 }).map((and) => ({ and })),
  fc.array(leaf, { maxLength: 3 }).map((or) => ({ or })),
  leaf.map((not) => ({ not })),
);

describe('table index', () => {
  test('the index finds the channels that asking every channel finds, each once and in order', () => {
    fc.assert(
      fc.property(
        fc.array(fc.option(where), { minLength: 1, maxLength: 12 }),
        fc.array(change, { minLength: 1, maxLength: 8 }),
        fc.infiniteStream(fc.boolean()),
        (filters, changes, isGone) => {
          const index = new TableIndex(table);
          const all = filters.map(liveChannel);
          for (const channel of all) index.add(channel.view);
          const stay = all.filter(() => !isGone.next().value);
          for (const channel of all) if (!stay.includes(channel)) index.remove(channel.view);
          expect(index.size).toBe(stay.length);
          const rows = changes.map(
            ([action, before, after], i): ChangeRow => [`${i + 1}`, '5', '0', '7', action, null, after, before, 't'],
          );
          const touched = new Set<RowsChannel>();
          const list = packBatches(1, rows).flatMap((batch) => changesOf(batch, () => true));
          for (const one of list) index.match(one, touched);
          for (const channel of all) {
            const expected = stay.includes(channel)
              ? list.flatMap((one) => {
                  const effect = channel.effectOf(one);
                  return effect ? [[one.seq, effect]] : [];
                })
              : [];
            expect(channel.pending.map(({ change: { seq }, effect }) => [seq, effect])).toEqual(expected);
            expect(touched.has(channel)).toBe(expected.length > 0);
          }
        },
      ),
      { numRuns: 1_000 },
    );
  });

  test('the index does not look at channels that ask for other values', () => {
    const index = new TableIndex(table);
    let asked = 0;
    for (let value = 0; value < 100; value++) {
      const channel = liveChannel({ id: value });
      const { view } = channel;
      const effectOf = view.effectOf.bind(view);
      view.effectOf = (one) => {
        asked++;
        return effectOf(one);
      };
      index.add(view);
    }
    const rows: ChangeRow[] = [['1', '5', '0', '7', 'U', '3', '{"id":3,"a":"y","n":1}', '{"id":3,"a":"x","n":1}', 't']];
    const [one] = changesOf(packBatches(1, rows)[0]!, () => true);
    index.match(one!, new Set());
    expect(asked).toBe(1);
  });
});
