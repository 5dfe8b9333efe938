// Input of the SDK: whatever JSON would drop or change in silence is refused at once by every
// function that takes input, with an error that names the place. Everything else is sent as the
// application meant it.

import { describe, expect, test } from 'vitest';
import { createPlank, type Plank } from '#client/plank-client.ts';
import { subprotocol } from '#shared/wire.ts';

/** Opens at once, and keeps what is sent on it. */
function rig(): { plank: Plank; sent: Record<string, unknown>[] } {
  const sent: Record<string, unknown>[] = [];
  class Kept {
    constructor(_url: string, protocol: string) {
      expect(protocol).toBe(subprotocol);
    }
    addEventListener(type: string, listener: (event: object) => void): void {
      if (type === 'open') queueMicrotask(() => listener({}));
    }
    send(text: string): void {
      sent.push(JSON.parse(text));
    }
    close(): void {}
  }
  return { plank: createPlank({ url: 'ws://localhost/ws', WebSocket: Kept }), sent };
}

class Id {
  value = 7;
}
const gap: unknown[] = ['a'];
gap[2] = 'c';
const cyclic: Record<string, unknown> = {};
cyclic['and'] = [cyclic];

/** by what it is: what a filter cannot hold, and where the message finds it */
const values: [string, unknown, string][] = [
  ['undefined', undefined, 'undefined'],
  ['a function', () => 7, 'a function'],
  ['a symbol', Symbol('x'), 'a symbol'],
  ['NaN', Number.NaN, 'NaN'],
  ['Infinity', Number.POSITIVE_INFINITY, 'Infinity'],
  ['-Infinity', Number.NEGATIVE_INFINITY, '-Infinity'],
  ['an invalid Date', new Date(Number.NaN), 'an invalid Date'],
  ['a Map', new Map([['eq', 7]]), 'a Map'],
  ['a Set', new Set([7]), 'a Set'],
  ['an instance of a class', new Id(), 'a Id'],
  ['a boxed number', Object(7), 'a Number'],
  ['a RegExp', /x/, 'a RegExp'],
  ['bytes', new Uint8Array([1]), 'a Uint8Array'],
  ['an object with toJSON', { toJSON: () => 7 }, 'an object'],
  ['an object with a prototype of its own', Object.create({ eq: 7 }), 'an object'],
  ['an array with a gap', gap, 'an array'],
  ['an array with a name', Object.assign(['a'], { b: 1 }), 'an array'],
];
const places: [string, (value: unknown) => unknown, string][] = [
  ['as a value', (value) => ({ owner: value }), 'where.owner'],
  ['under an operator', (value) => ({ owner: { gt: value } }), 'where.owner.gt'],
  ['within in', (value) => ({ owner: { in: [1, value] } }), 'where.owner.in[1]'],
  ['within and', (value) => ({ and: [{ a: 1 }, { owner: value }] }), 'where.and[1].owner'],
  ['within or', (value) => ({ or: [{ owner: value }] }), 'where.or[0].owner'],
  ['within not', (value) => ({ not: { owner: value } }), 'where.not.owner'],
  [
    'under __proto__',
    (value) => JSON.parse('{"__proto__":0}', (name, old) => (name === '__proto__' ? value : old)),
    'where',
  ],
];

const entries: [string, (plank: Plank, where: unknown) => unknown][] = [
  ['live(filter)', (plank, where) => plank.table('t').live(where as never)],
  ['live(options)', (plank, where) => plank.table('t').live({ where, columns: ['id'] } as never)],
  ['subscribe', (plank, where) => plank.table('t').subscribe({ where } as never, {})],
  ['changes', (plank, where) => plank.table('t').changes({ where } as never)],
];

describe.each(entries)('%s', (_entry, ask) => {
  test.each(
    places.flatMap(([place, put, path]) =>
      values.map(([what, value, said]) => ({ what, place, where: put(value), path, said })),
    ),
  )('a filter with $what $place is refused', ({ where, path, said }) => {
    // a reviver that answers undefined removes the member: then there is nothing left to find
    if (path === 'where' && Object.keys(where as object).length === 0) return;
    const { plank, sent } = rig();
    const expected = path === 'where' ? 'where.__proto__' : path;
    let error: unknown;
    try {
      ask(plank, where);
    } catch (thrown) {
      error = thrown;
    }
    expect(error).toBeInstanceOf(TypeError);
    expect((error as Error).message.startsWith(`${expected} is ${said}: `), (error as Error).message).toBe(true);
    expect(sent).toEqual([]);
  });

  test.each([
    ['undefined', undefined],
    ['null', null],
    ['an array', []],
    ['a text', 'owner = 1'],
    ['a Map', new Map()],
    ['a symbol for a name', { [Symbol('owner')]: 1 }],
    ['a member that is not enumerable', Object.defineProperty({}, 'owner', { value: 1 })],
    ['itself, within itself', cyclic],
  ])('a filter is refused: %s', (_what, where) => {
    const { plank } = rig();
    expect(() => ask(plank, where)).toThrow(TypeError);
    expect(() => ask(plank, where)).toThrow(/^where|^options/);
  });
});

test('an error names the place, the value and the problem', () => {
  const { plank } = rig();
  expect(() => plank.table('t').live({ owner: undefined })).toThrow('where.owner is undefined: JSON has no such value');
});

describe('options', () => {
  const t = (plank: Plank) => plank.table('t');
  test.each<[string, (plank: Plank) => unknown, RegExp]>([
    [
      'live(undefined)',
      (plank) => t(plank).live(undefined),
      /^where is undefined: it must be an object, \{\} for every row$/,
    ],
    [
      'an option taken for a filter',
      (plank) => t(plank).live({ maxRows: 5 }),
      /"maxRows" is an option: write \{where: \{\}, maxRows: …\}/,
    ],
    [
      'an unknown option of live',
      (plank) => t(plank).live({ where: {}, owner: 7 }),
      /^owner is unknown: use one of where, columns, key, maxRows$/,
    ],
    [
      'maxRows of 0',
      (plank) => t(plank).live({ where: {}, maxRows: 0 }),
      /^maxRows is 0: it must be a whole number above 0$/,
    ],
    ['maxRows in words', (plank) => t(plank).live({ where: {}, maxRows: '5' as never }), /^maxRows is "5"/],
    ['no callback', (plank) => t(plank).live({}, {} as never), /^callback is an object: it must be a function$/],
    [
      'a column that is undefined',
      (plank) => t(plank).live({ columns: [undefined] as never }),
      /^columns\[0\] is undefined/,
    ],
    ['no column', (plank) => t(plank).subscribe({ columns: [] }, {}), /^columns is an array: it must not be empty/],
    [
      'columns in one text',
      (plank) => t(plank).subscribe({ columns: 'id,name' as never }, {}),
      /^columns is "id,name": it must be an array/,
    ],
    [
      'columns that are undefined',
      (plank) => t(plank).changes({ columns: undefined } as never),
      /^columns is undefined: leave it out/,
    ],
    [
      'a position that is undefined',
      (plank) => t(plank).changes({ from: undefined } as never),
      /^from is undefined: leave it out/,
    ],
    [
      'a position that is none',
      (plank) => t(plank).subscribe({ from: 'yesterday' }, {}),
      /^from is "yesterday": it must be a position, such as the `pos` of a change$/,
    ],
    [
      'a position as a number',
      (plank) => t(plank).subscribe({ from: 17 as never }, {}),
      /^from is 17: it must be a position/,
    ],
    ['a snapshot in words', (plank) => t(plank).subscribe({ snapshot: 'true' as never }, {}), /^snapshot is "true"/],
    [
      'an unknown option of subscribe',
      (plank) => t(plank).subscribe({ filter: {} } as never, {}),
      /^filter is unknown/,
    ],
    ['an unknown option of changes', (plank) => t(plank).changes({ since: 'e1.1' } as never), /^since is unknown/],
    [
      'a member of Object.prototype as an option',
      (plank) => t(plank).changes({ constructor: 1 } as never),
      /^constructor is unknown/,
    ],
    ['no options', (plank) => t(plank).subscribe(undefined as never, {}), /^options is undefined/],
    ['no handlers', (plank) => t(plank).subscribe({}, undefined as never), /^handlers is undefined/],
    [
      'a handler that is none',
      (plank) => t(plank).subscribe({}, { onChange: true as never }),
      /^handlers\.onChange is true/,
    ],
    [
      'a handler that nobody calls',
      (plank) => t(plank).subscribe({}, { onchange: () => {} } as never),
      /^handlers\.onchange is unknown/,
    ],
    ['a buffer of no size', (plank) => t(plank).changes({ bufferSize: Number.NaN }), /^bufferSize is NaN/],
    ['a signal that is none', (plank) => t(plank).changes({ signal: {} as never }), /^signal is an object/],
    ['a table without a name', (plank) => plank.table(undefined as never), /^table is undefined/],
    ['a url that is undefined', () => createPlank({ url: undefined } as never), /^url is undefined: leave it out/],
    [
      'a token that is undefined',
      () => createPlank({ url: 'ws://x/ws', token: undefined } as never),
      /^token is undefined/,
    ],
    ['a token that is a number', () => createPlank({ url: 'ws://x/ws', token: 7 as never }), /^token is 7/],
    [
      'an unknown option of createPlank',
      () => createPlank({ url: 'ws://x/ws', tokn: 'x' } as never),
      /^tokn is unknown/,
    ],
    ['options that are null', () => createPlank(null as never), /^options is null/],
  ])('the SDK refuses its input: %s', (_what, ask, message) => {
    const { plank, sent } = rig();
    expect(() => ask(plank)).toThrow(TypeError);
    expect(() => ask(plank)).toThrow(message);
    expect(sent).toEqual([]);
  });
});

describe('filters that are sent', () => {
  test.each([
    ['nothing', undefined, undefined],
    ['every row', {}, {}],
    ['null', { owner: null }, { owner: null }],
    ['a bigint', { id: 2n ** 63n }, { id: '9223372036854775808' }],
    ['a bigint within in', { id: { in: [1n, 2] } }, { id: { in: ['1', 2] } }],
    ['a Date', { at: { gt: new Date(0) } }, { at: { gt: '1970-01-01T00:00:00.000Z' } }],
    ['minus zero', { n: -0 }, { n: 0 }],
    ['an object without a prototype', Object.assign(Object.create(null), { a: 1 }), { a: 1 }],
    ['a column named __proto__', JSON.parse('{"__proto__":1}'), JSON.parse('{"__proto__":1}')],
    ['columns named as options', { key: 'x', from: 'y', snapshot: true }, { key: 'x', from: 'y', snapshot: true }],
    ['an escaped column', { 'column:maxRows': 5 }, { 'column:maxRows': 5 }],
  ])('a filter is sent as it was meant: %s', async (_what, given, expected) => {
    const { plank, sent } = rig();
    if (given === undefined) plank.table('t').live();
    else plank.table('t').live(given as never);
    await new Promise((resolve) => setImmediate(resolve));
    const subscribe = sent.find(({ type }) => type === 'subscribe')!;
    if (expected === undefined) expect(subscribe['where'] ?? {}).toEqual({});
    else expect(subscribe['where']).toEqual(expected);
    plank.close();
  });

  test('a filter is sent as it was at the call', async () => {
    const { plank, sent } = rig();
    const where = { owner: { in: [1] } };
    plank.table('t').live(where);
    where.owner.in.push(2);
    await new Promise((resolve) => setImmediate(resolve));
    expect(sent.find(({ type }) => type === 'subscribe')!['where']).toEqual({ owner: { in: [1] } });
    plank.close();
  });

  test('a position of null counts as no position', () => {
    const { plank } = rig();
    void plank.table('t').changes({ from: null });
    plank.table('t').subscribe({ from: null }, {});
    plank.close();
  });
});
