// A subscription that began with rows and lost its connection before its first `live` has no
// position to go on from: a change that the rows already contain may come after one that they do
// not.

import { expect, test } from 'vitest';
import {
  addMember,
  createGroup,
  disconnect,
  type Group,
  type Output,
  onChange,
  onError,
  onOk,
  onPosition,
  onResync,
  onRows,
  type Request,
  requestStream,
} from '#client/state/stream.ts';
import type { ChangeFrame } from '#shared/wire.ts';

function begun(): { group: Group; output: Output; requests: Request[] } {
  const requests: Request[] = [];
  const output: Output = { request: (request) => requests.push(request), deliver: () => {}, retryLater: () => {} };
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
  let group = addMember(createGroup('k', { table: 'items' }), { id: 1, snapshot: true, position: null }, output);
  if (requests.length === 0) group = requestStream(group, output);
  group = onOk(group, { ch: 'c', key: ['id'] }, output);
  group = onRows(group, { type: 'rows', ch: 'c', rows: [{ id: 1 }], more: false }, output);
  return { group: onChange(group, change, output), output, requests };
}

test('a connection lost before the first live makes the rows be read again', () => {
  const { group, output, requests } = begun();
  requestStream(disconnect(group), output);
  expect(requests.at(-1)).toMatchObject({ type: 'subscribe', from: null, snapshot: true });
});

test('an error before the first live makes the rows be read again', () => {
  const { group, output, requests } = begun();
  const error = { type: 'error', ch: 'c', code: 'UNAVAILABLE', message: 'not now', retry: true } as const;
  requestStream(onError(group, error, output), output);
  expect(requests.at(-1)).toMatchObject({ type: 'subscribe', from: null, snapshot: true });
});

test('a connection lost later makes the subscription go on after its position', () => {
  const { group, output, requests } = begun();
  requestStream(disconnect(onPosition(group, 'e1.11', true, output)), output);
  expect(requests.at(-1)).toMatchObject({ type: 'subscribe', from: 'e1.11', snapshot: true });
});

test.each([
  [undefined, 'c'],
  ['d', 'd'],
])('after a resync with resume_ch %s, the subscription goes on as %s', (resume, ch) => {
  const { group, output, requests } = begun();
  const reason = 'access' as const;
  const frame = { type: 'resync' as const, ch: 'c', reason, ...(resume === undefined ? {} : { resume_ch: resume }) };
  let next = onResync(onPosition(group, 'e1.11', true, output), frame, output);
  next = onRows(next, { type: 'rows', ch: 'c', rows: [{ id: 1 }], more: false }, output);
  requestStream(disconnect(onPosition(next, 'e1.20', true, output)), output);
  expect(requests.at(-1)).toMatchObject({ type: 'subscribe', from: 'e1.20', ch });
});
