// What a viewer may do with a table: which policy applies, what it says with the viewer's claims, and that everything that cannot be judged
// allows nothing.

import { pino } from 'pino';
import { describe, expect, test } from 'vitest';
import { anonymous, type Viewer } from '#gateway/access/viewer.ts';
import type { Catalog, Column, PolicyRow, Table } from '#gateway/catalog/catalog.ts';
import { parseImage, type Source, Values } from '#gateway/filter/row-filter.ts';
import { Rights } from '#gateway/rights/rights.ts';

const column = (name: string, type: string): Column => ({
  name,
  type,
  base: type,
  nullable: true,
  optional: true,
  writable: true,
});

const tableOf = (id: number, name: string, columns: Record<string, string>, policies: PolicyRow[] = []): Table => ({
  id,
  name,
  schema: 'public',
  table: name,
  keyColumns: ['id'],
  columns: Object.entries(columns).map(([of, type]) => column(of, type)),
  imageSql: '',
  largeSql: null,
  rowBytes: 1_000_000,
  version: '1',
  policies,
  policiesVersion: null,
});

const policyOf = (role: string, given: Partial<PolicyRow>): PolicyRow => ({
  role,
  read: null,
  insert: null,
  update: null,
  delete: null,
  check: null,
  read_columns: null,
  write_columns: null,
  presets: null,
  ...given,
});

const columns = {
  id: 'integer',
  owner: 'text',
  n: 'integer',
  big: 'bigint',
  at: 'date',
  flag: 'boolean',
  doc: 'jsonb',
};
const members = tableOf(2, 'members', { id: 'integer', who: 'text', team: 'integer', big: 'bigint' });
const teams = tableOf(3, 'teams', { id: 'integer', boss: 'text' });

function setUp(...policies: PolicyRow[]) {
  const table = tableOf(1, 'docs', columns, policies);
  const tables = [table, members, teams];
  const logged: string[] = [];
  const catalog = { tables, byName: (name: string) => tables.find((one) => one.name === name) } as unknown as Catalog;
  const log = pino({ level: 'info' }, { write: (line: string) => void logged.push(line) });
  return { rights: new Rights({ catalog, log }), table, tables, logged };
}

const viewer = (claims: object = {}, role = 'user'): Viewer => ({
  user: 'ada',
  role,
  claims: { sub: 'ada', ...claims },
});

const admits = (policy: unknown, row: object, who: Viewer | null = viewer()): boolean | null => {
  const { rights, table } = setUp(policyOf('user', { read: policy }));
  const read = rights.of(table, who)?.read;
  return read ? read.admits(parseImage(JSON.stringify({ id: 1, ...row }))) : null;
};

describe('the policy that applies', () => {
  const roles = ['user', 'authenticated', 'anonymous'].map((role) => policyOf(role, { read: {} }));
  test.each([
    ['user', 'ada', ['user', 'authenticated', 'anonymous'], 'user'],
    ['other', 'ada', ['user', 'authenticated', 'anonymous'], 'authenticated'],
    ['other', 'ada', ['user', 'anonymous'], 'anonymous'],
    ['other', 'ada', ['user'], null],
    ['anonymous', null, ['user', 'authenticated', 'anonymous'], 'anonymous'],
    ['anonymous', null, ['user', 'authenticated'], null],
    ['anonymous', null, [], null],
    // a token may not name a role of the class
    ['__proto__', 'ada', ['user'], null],
    ['constructor', 'ada', ['user'], null],
  ])('of the role %s of %s with policies for %j is that of %s', (role, user, given, wanted) => {
    const { rights, table } = setUp(...roles.filter((one) => given.includes(one.role)));
    expect(rights.of(table, { user, role, claims: {} })?.role ?? null).toBe(wanted);
  });

  test('without authentication everything is allowed, whatever the policies are', () => {
    const { rights, table } = setUp(policyOf('user', {}));
    const all = rights.of(table, null)!;
    for (const name of ['read', 'insert', 'update', 'check', 'delete'] as const) expect(all[name]!.isEmpty).toBe(true);
    expect([all.readable, all.writable, all.presets.size]).toEqual([null, null, 0]);
  });

  test('a client without a token is anonymous and has no rights without a policy', () => {
    const { rights, table, tables } = setUp(policyOf('user', { read: {} }));
    expect(rights.of(table, anonymous)).toBeNull();
    expect(rights.tablesFor(anonymous)).toEqual([]);
    expect(rights.tablesFor(viewer())).toEqual([tables[0]]);
  });

  test('what a policy does not name is not allowed', () => {
    const { rights, table } = setUp(policyOf('user', { read: {}, update: { owner: 'x' } }));
    const { read, insert, update, check, delete: remove } = rights.of(table, viewer())!;
    expect([read!.isEmpty, insert, update!.text, check!.text, remove]).toEqual([
      true,
      null,
      'owner = "x"',
      'owner = "x"',
      null,
    ]);
  });
});

describe('claims', () => {
  test.each([
    [{ owner: { $claim: 'sub' } }, {}, { owner: 'ada' }, true],
    [{ owner: { $claim: 'sub' } }, {}, { owner: 'bob' }, false],
    [{ owner: { ne: { $claim: 'sub' } } }, {}, { owner: 'bob' }, true],
    [{ owner: { $claim: 'org.id' } }, { org: { id: 'x' } }, { owner: 'x' }, true],
    // a whole name comes before a path
    [{ owner: { $claim: 'org.id' } }, { 'org.id': 'y', org: { id: 'x' } }, { owner: 'y' }, true],
    [{ n: { gte: { $claim: 'level' } } }, { level: 3 }, { n: 3 }, true],
    [{ n: { in: { $claim: 'list' } } }, { list: [1, 2] }, { n: 2 }, true],
    [{ n: { in: { $claim: 'list' } } }, { list: [] }, { n: 2 }, false],
    [{ n: { in: [1, { $claim: 'level' }] } }, { level: 3 }, { n: 3 }, true],
    [{ big: { $claim: 'big' } }, { big: '9007199254740993' }, { big: 1 }, false],
    [{ not: { owner: { $claim: 'sub' } } }, {}, { owner: null }, false],
    [{ flag: { $claim: 'flag' } }, { flag: true }, { flag: true }, true],
    [{ owner: { $claim: 'list.1' } }, { list: ['x', 'y'] }, { owner: 'y' }, true],
    [{ owner: { $claim: '__proto__.id' } }, JSON.parse('{"__proto__": {"id": "x"}}'), { owner: 'x' }, true],
    [{ n: { in: { $claim: 'list' } } }, { list: Array.from({ length: 1_000 }, (_, i) => i) }, { n: 999 }, true],
  ])('%j with %j admits %j: %s', (policy, claims, row, wanted) => {
    expect(admits(policy, row, viewer(claims))).toBe(wanted);
  });

  // also under not and or, where the rest of the policy would admit the row
  test.each([
    [{ owner: { $claim: 'missing' } }, {}],
    [{ or: [{ n: 1 }, { owner: { $claim: 'missing' } }] }, {}],
    [{ not: { owner: { $claim: 'missing' } } }, {}],
    [{ not: { n: { in: { $claim: 'list' } } } }, { list: 'x' }],
    [{ not: { n: { in: { $claim: 'list' } } } }, { list: ['x'] }],
    [{ not: { n: { in: { $claim: 'list' } } } }, { list: [null] }],
    [{ not: { n: { in: { $claim: 'list' } } } }, { list: { length: 1, 0: 1 } }],
    [{ not: { n: { in: { $claim: 'list' } } } }, { list: Array.from({ length: 1_001 }, (_, i) => i) }],
    [{ not: { n: { $claim: 'level' } } }, { level: '3' }],
    [{ not: { n: { $claim: 'level' } } }, { level: null }],
    [{ not: { n: { $claim: 'level' } } }, { level: 3.5 }],
    [{ not: { n: { $claim: 'level' } } }, { level: [3] }],
    [{ not: { big: { $claim: 'level' } } }, { level: 2 ** 53 }],
    [{ not: { owner: { $claim: 'constructor.name' } } }, {}],
    [{ not: { owner: { $claim: '__proto__' } } }, {}],
    [{ not: { owner: { $claim: 'org.id' } } }, { org: 'x' }],
    [{ not: { n: { $claim: 'list.length' } } }, { list: [1] }],
    [{ not: { owner: { $claim: 'org.__proto__.id' } } }, { org: {} }],
    [{ not: { owner: { $claim: 'org.toString' } } }, { org: {} }],
    [{ not: { owner: { in: ['x', { $claim: 'list' }] } } }, { list: ['y'] }],
    [{ not: { n: { in: { $from: 'members', select: 'team', where: { who: { $claim: 'missing' } } } } } }, {}],
  ])('%j with %j allows nothing at all', (policy, claims) => {
    expect(admits(policy, { owner: 'ada', n: 1, big: 1 }, viewer(claims))).toBeNull();
  });

  test('viewers with the same claims share one filter, and others do not', () => {
    const { rights, table } = setUp(policyOf('user', { read: { owner: { $claim: 'sub' } } }));
    const ada = rights.of(table, viewer());
    expect(rights.of(table, viewer({ other: 1 }))).toBe(ada);
    expect(rights.of(table, viewer({ sub: 'bob' }))!.read!.text).toBe('owner = "bob"');
  });
});

describe('what is kept', () => {
  const own = policyOf('user', { read: { owner: { $claim: 'sub' } }, insert: { owner: { $claim: 'sub' } } });

  test('parts of a policy that are alike share a filter', () => {
    const { rights, table } = setUp(own);
    const { read, insert } = rights.of(table, viewer())!;
    expect(insert).toBe(read);
  });

  test('rights that are used stay while others come and go', () => {
    const { rights, table } = setUp(own);
    const [ada, bob] = [rights.of(table, viewer()), rights.of(table, viewer({ sub: 'bob' }))];
    for (let other = 0; other < 10_000; other++) {
      rights.of(table, viewer({ sub: `user ${other}` }));
      if (other % 1_000 === 0) expect(rights.of(table, viewer())).toBe(ada);
    }
    expect(rights.of(table, viewer())).toBe(ada);
    expect(rights.of(table, viewer({ sub: 'bob' }))).not.toBe(bob);
  });

  test('long claims are told apart', () => {
    const { rights, table } = setUp(own);
    const [one, other] = ['1', '2'].map((end) => rights.of(table, viewer({ sub: 'x'.repeat(1_000) + end }))!);
    expect(one!.read!.key).not.toBe(other!.read!.key);
  });

  test('an altered table has other rights, also while the table before is still in use', () => {
    const { rights, table, tables } = setUp(own);
    const before = rights.of(table, viewer())!;
    const altered = { ...table, columns: table.columns.filter(({ name }) => name !== 'doc') };
    tables[0] = altered;
    expect(rights.of(altered, viewer())!.table).toBe(altered);
    expect(rights.of(table, viewer())).toBe(before);
    expect(before.table).toBe(table);
  });
});

describe('columns and presets', () => {
  test('the key is always readable, and columns that are gone are not', () => {
    const { rights, table } = setUp(
      policyOf('user', { read: {}, read_columns: ['n', 'gone', 'owner'], write_columns: ['n', 'gone'] }),
    );
    const { readable, writable } = rights.of(table, viewer())!;
    expect([readable, writable]).toEqual([['id', 'owner', 'n'], ['n']]);
  });

  test('presets have the values of claims', () => {
    const presets = { owner: { $claim: 'sub' }, n: 5, doc: { a: 1 } };
    const { rights, table } = setUp(policyOf('user', { insert: {}, presets }));
    expect([...rights.of(table, viewer())!.presets]).toEqual([
      ['owner', 'ada'],
      ['n', 5],
      ['doc', { a: 1 }],
    ]);
    expect(rights.of(table, { user: 'x', role: 'user', claims: {} })).toBeNull();
  });

  test.each([
    ['n', '5'],
    ['n', 5.5],
    ['n', null],
    ['owner', 5],
    ['owner', 'a\0b'],
    ['doc', 2 ** 53],
    ['at', 'yesterday'],
  ])('a preset of %s with the claim %j denies everything', (name, value) => {
    const { rights, table } = setUp(policyOf('user', { read: {}, presets: { [name]: { $claim: 'given' } } }));
    expect(rights.problems()).toEqual([]);
    expect(rights.of(table, viewer({ given: value }))).toBeNull();
  });

  test.each([
    [{ gone: 1 }, 'presets.gone is not a column of docs'],
    [{ n: 'x' }, 'presets.n is not a value of the type integer'],
    [{ n: { $claim: 5 } }, 'presets.n must be a value, or {"$claim": …}'],
    [{ n: { $claim: '' } }, 'presets.n must be a value, or {"$claim": …}'],
    [{ n: { $claim: 'sub', or: 1 } }, 'presets.n must be a value, or {"$claim": …}'],
    [{ doc: JSON.parse('{"$claim": "sub", "__proto__": {}}') }, 'presets.doc must be a value, or {"$claim": …}'],
  ])('the presets %j allow nothing, and say: %s', (presets, problem) => {
    const { rights, table } = setUp(policyOf('user', { read: {}, presets }));
    expect(rights.of(table, viewer())).toBeNull();
    expect(rights.problems()).toEqual([{ table: 'docs', role: 'user', problem: expect.stringContaining(problem) }]);
  });

  test('a claim within a value for a json column is not one that the policy needs', () => {
    const presets = { doc: { a: { $claim: 'missing' } } };
    const { rights, table } = setUp(policyOf('user', { insert: {}, presets }));
    expect([...rights.of(table, viewer())!.presets]).toEqual([['doc', presets.doc]]);
  });
});

describe('sets of other tables', () => {
  const from = (where: object, more: object = {}) => ({
    n: { in: { $from: 'members', select: 'team', where, ...more } },
  });

  function valuesOf(...values: unknown[]) {
    return (source: Source) => {
      const set = new Values();
      for (const value of values) set.add(JSON.stringify(value), source.column.codec);
      return set;
    };
  }

  test.each([
    [from({ who: { $claim: 'sub' } }), [1, 2], { n: 2 }, true],
    [from({}), [1, 2], { n: 3 }, false],
    [from({}), [1, 2], { n: null }, false],
    [{ not: from({}) }, [1, 2], { n: 3 }, true],
    // unknown
    [{ not: from({}) }, [1, 2], { n: null }, false],
    // false, even for a null
    [{ not: from({}) }, [], { n: null }, true],
    [{ or: [{ owner: 'ada' }, from({})] }, [], { n: 1, owner: 'ada' }, true],
  ])('%j with the values %j admits %j: %s', (policy, values, row, wanted) => {
    const { rights, table } = setUp(policyOf('user', { read: policy }));
    const read = rights.of(table, viewer())!.read!;
    expect(() => read.admits(parseImage('{}'))).toThrow('not loaded');
    const loaded = read.withValues(valuesOf(...values));
    expect(loaded.admits(parseImage(JSON.stringify({ id: 1, ...row })))).toBe(wanted);
  });

  test('the key of a filter tells claims and contents of sets apart', () => {
    const { rights, table } = setUp(policyOf('user', { read: from({ who: { $claim: 'sub' } }) }));
    const [ada, bob] = ['ada', 'bob'].map((sub) => rights.of(table, viewer({ sub }))!.read!);
    const keys = [
      ada!,
      bob!,
      ...[[1], [2], []].flatMap((v) => [ada!, bob!].map((one) => one.withValues(valuesOf(...v)))),
    ];
    expect(new Set(keys.map(({ key }) => key)).size).toBe(8);
    expect(ada!.withValues(valuesOf(1)).key).toBe(ada!.withValues(valuesOf(1)).key);
  });

  test('a set is a sub-select in SQL, whose parameters follow those before', () => {
    const nested = from({
      team: { in: { $from: 'teams', select: 'id', where: { boss: { $claim: 'sub' } } } },
      who: 'w',
    });
    const { rights, table } = setUp(policyOf('user', { read: { owner: 'o', ...nested } }));
    const { read } = rights.of(table, viewer())!;
    const { text, values } = read!.sql(3);
    expect(new Set(values)).toEqual(new Set(['ada', 'o', 'w']));
    expect(text.match(/\$\d/g)!.toSorted()).toEqual(['$3', '$4', '$5']);
    expect(read!.sources).toHaveLength(1);
    const [source] = read!.sources;
    expect([source!.table.name, source!.column.name, source!.where.sources[0]!.table.name]).toEqual([
      'members',
      'team',
      'teams',
    ]);
    expect(source!.query.text).toMatch(/^select distinct .* order by 1$/);
  });
});

describe('a policy that cannot be used', () => {
  const nested = (where: object) => ({ n: { in: { $from: 'docs', select: 'n', where } } });
  test.each([
    [{ gone: 1 }, 'read.gone is not a column of docs'],
    [{ doc: 1 }, 'read.doc is of type jsonb, which filters cannot compare'],
    [{ n: 'x' }, 'read.n must be a whole number'],
    [{ owner: { $claim: '' } }, 'read.owner .$claim must be the name of a claim'],
    [{ owner: { $claim: 5 } }, 'read.owner .$claim must be the name of a claim'],
    [{ owner: { $claim: 'sub', more: 1 } }, 'read.owner has more beside $claim'],
    [{ n: { in: { $from: 'nowhere', select: 'team' } } }, 'read.n.in.$from names nowhere'],
    [{ n: { in: { $from: 'members', select: 'gone' } } }, 'read.n.in.select is not a column of members'],
    [{ n: { in: { $from: 'members', select: 'who' } } }, 'read.n.in.select must be of the type of n'],
    [{ n: { in: { $from: 'members', select: 'big' } } }, 'read.n.in.select must be of the type of n'],
    [{ n: { in: { $from: 'members' } } }, 'read.n.in.select must be the name of a column'],
    [{ n: { in: { $from: 'members', select: 'team', limit: 1 } } }, 'read.n.in.limit is unknown here'],
    [{ n: { in: { $from: 'members', select: 'team', where: { gone: 1 } } } }, 'read.n.in.where.gone is not a column'],
    [{ n: { eq: { $from: 'members', select: 'team' } } }, 'read.n.eq must be'],
    [nested(nested(nested({}))), 'is nested too deeply: at most 2 sets'],
    // the sets count too
    [
      {
        and: Array.from({ length: 20 }, () => ({
          n: {
            in: { $from: 'members', select: 'team', where: { or: Array.from({ length: 5 }, (_, id) => ({ id })) } },
          },
        })),
      },
      'is too much: a filter has at most 100 nodes',
    ],
    [{ n: { in: Array.from({ length: 101 }, (_, i) => i) } }, 'read.n.in must be an array of at most 100 values'],
    [JSON.parse(`${'{"not":'.repeat(1_000)}{"n":1}${'}'.repeat(1_000)}`), 'is too deep: a filter has at most 8 levels'],
    [[], 'read must be an object'],
    ['x', 'read must be an object'],
    [JSON.parse('{"__proto__": {"n": 1}}'), 'read.__proto__ is not a column of docs'],
  ])('%j allows nothing, and says: %s', (read, problem) => {
    const { rights, table, logged } = setUp(policyOf('user', { read, insert: {} }));
    expect(rights.of(table, viewer())).toBeNull();
    expect(rights.of(table, viewer({ sub: 'bob' }))).toBeNull();
    expect(rights.problems()).toEqual([{ table: 'docs', role: 'user', problem: expect.stringContaining(problem) }]);
    expect(logged).toHaveLength(1);
  });

  test('becomes usable when the table that it names is attached, and is another when that is altered', () => {
    const { rights, table, tables } = setUp(
      policyOf('user', { read: { n: { in: { $from: 'late', select: 'team', where: { who: { $claim: 'sub' } } } } } }),
    );
    expect(rights.of(table, viewer())).toBeNull();
    tables.push({ ...members, id: 4, name: 'late' });
    const before = rights.of(table, viewer())!;
    expect(rights.of(table, viewer())).toBe(before);
    tables[3] = { ...tables[3]! };
    expect(rights.of(table, viewer())!.read!.sources[0]!.table).toBe(tables[3]);
    tables.pop();
    expect(rights.of(table, viewer())).toBeNull();
  });
});
