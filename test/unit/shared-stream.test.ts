// A subscription that began with rows and was cut before its first `live` has no position to go on from: a change that the rows
// hold already may come behind one that they do not.

import { expect, test } from 'vitest';
import {
  ask,
  createGroup,
  disconnect,
  type Group,
  join,
  type Out,
  onChange,
  onError,
  onOk,
  onPosition,
  onRows,
} from '#client/state/stream.ts';
import type { ChangeFrame } from '#shared/wire.ts';

type Request = Parameters<Out['request']>[0];

function begun(): { group: Group; out: Out; requests: Request[] } {
  const requests: Request[] = [];
  const out: Out = { request: (request) => requests.push(request), deliver: () => {}, pause: () => {} };
  const change: ChangeFrame = {
    type: 'change',
    ch: 'c',
    effect: 'add',
    table: 'items',
    action: 'INSERT',
    id: 2,
    data: { id: 2 },
    pos: 'e1.10',
    tx: '7',
    last: true,
  };
  let group = join(createGroup('k', { table: 'items' }), { id: 1, snapshot: true, position: null }, out);
  if (requests.length === 0) group = ask(group, out);
  group = onOk(group, 'c', ['id'], out);
  group = onRows(group, { type: 'rows', ch: 'c', rows: [{ id: 1 }], more: false }, out);
  return { group: onChange(group, change, out), out, requests };
}

test('asks for rows anew when it was cut before the first live', () => {
  const { group, out, requests } = begun();
  ask(disconnect(group), out);
  expect(requests.at(-1)).toMatchObject({ type: 'subscribe', from: null, snapshot: true });
});

test('asks for rows anew when the server ended it before the first live', () => {
  const { group, out, requests } = begun();
  ask(onError(group, { type: 'error', ch: 'c', code: 'UNAVAILABLE', message: 'not now', retry: true }, out), out);
  expect(requests.at(-1)).toMatchObject({ type: 'subscribe', from: null, snapshot: true });
});

test('goes on behind its position when it was cut later', () => {
  const { group, out, requests } = begun();
  ask(disconnect(onPosition(group, 'e1.11', true, out)), out);
  expect(requests.at(-1)).toMatchObject({ type: 'subscribe', from: 'e1.11', snapshot: true });
});
