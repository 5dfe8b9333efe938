// The torture run's verdict: it must find each fault that is planted into a correct recording.

import { describe, expect, test } from 'vitest';
import type { Seen } from '../torture/observed.ts';
import { type Entry, judge } from '../torture/truth.ts';

/** Three transactions: two inserts at once, an update beside another table's insert, a delete. */
function recording() {
  const ledger: Entry[] = [
    { id: 1, tx: 10, tbl: 'accounts', action: 'INSERT', key: '1', was: null },
    { id: 2, tx: 10, tbl: 'accounts', action: 'INSERT', key: '2', was: null },
    { id: 3, tx: 11, tbl: 'accounts', action: 'UPDATE', key: '1', was: null },
    { id: 4, tx: 11, tbl: 'things', action: 'INSERT', key: '7', was: null },
    { id: 5, tx: 12, tbl: 'accounts', action: 'DELETE', key: '1', was: 3 },
  ];
  const bySeq = new Map<number, Seen>([
    [100, { table: 'accounts', action: 'INSERT', key: '1', ver: 1 }],
    [101, { table: 'accounts', action: 'INSERT', key: '2', ver: 2 }],
    // 102 is a canary
    [103, { table: 'accounts', action: 'UPDATE', key: '1', ver: 3 }],
    [104, { table: 'things', action: 'INSERT', key: '7', ver: 4 }],
    [105, { table: 'accounts', action: 'DELETE', key: '1', ver: 3 }],
  ]);
  const seqs = [100, 101, 103, 104, 105];
  return {
    ledger,
    bySeq,
    clients: [
      { name: 'early', seqs },
      { name: 'late', seqs: seqs.slice(2) },
    ],
  };
}

type Recording = ReturnType<typeof recording>;

const swap = (bySeq: Map<number, Seen>, a: number, b: number) => {
  const first = bySeq.get(a)!;
  bySeq.set(a, bySeq.get(b)!);
  bySeq.set(b, first);
};

const planted: [fault: string, plant: (to: Recording) => void, finding: RegExp][] = [
  ['a change that nobody got', ({ bySeq }) => bySeq.delete(104), /1 changes came to nobody: INSERT things 7 4/],
  [
    'a change of a rollback',
    ({ bySeq }) => bySeq.set(106, { table: 'accounts', action: 'UPDATE', key: '2', ver: 9 }),
    /106: .* did not commit/,
  ],
  ['a change at two positions', ({ bySeq }) => bySeq.set(106, bySeq.get(104)!), /106: INSERT things 7 4 .*came before/],
  [
    'two changes of a row in reverse',
    ({ bySeq }) => swap(bySeq, 103, 105),
    /103: DELETE of accounts 1 as 3, which was 1/,
  ],
  [
    'a transaction in two parts',
    ({ bySeq }) => {
      swap(bySeq, 101, 104);
    },
    /transaction 11 goes on at 103, after 101|transaction 10 goes on at 104/,
  ],
  ['the wrong row', ({ bySeq }) => (bySeq.get(104)!.key = '8'), /INSERT things 8 4 did not commit/],
  [
    'a change that a client lacks',
    ({ clients }) => clients[0]!.seqs.splice(2, 1),
    /early: change 2 is 104 instead of 103/,
  ],
  ['a change that a client got twice', ({ clients }) => clients[1]!.seqs.push(105), /late: 4 changes instead of 3/],
  ['a client that stopped early', ({ clients }) => clients[1]!.seqs.pop(), /late: change 2 is missing instead of 105/],
];

describe('the verdict of a torture run', () => {
  test('the verdict finds nothing in a recording that is right', () => {
    const { ledger, bySeq, clients } = recording();
    expect(judge(ledger, bySeq, clients)).toEqual([]);
  });

  test.each(planted)('the verdict finds %s', (_, plant, finding) => {
    const to = recording();
    // one list each, so that what is planted into one client is not in the other
    for (const client of to.clients) client.seqs = [...client.seqs];
    plant(to);
    expect(judge(to.ledger, to.bySeq, to.clients).join('\n')).toMatch(finding);
  });
});
