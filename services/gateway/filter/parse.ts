/**
 * Parses filters of clients and policies from JSON into a normal form: filters that differ only in order or
 * notation have the same `key`. Only filters of policies may refer to claims (claims.ts) and to sets of other tables.
 * Invariants:
 * - For every filter that this parser accepts, judge.ts and sql.ts agree on every row.
 * - Parsing costs a bounded effort for input of any shape and depth. Every wrong input gets a clear error.
 */

import { exactJson } from '#shared/exact-json.ts';
import type { Claims } from '../access/claims.ts';
import type { Column, Table } from '../catalog/catalog.ts';
import { ClaimMissing, claimAt } from './claims.ts';
import type { FilterColumn } from './image.ts';
import { type Comparable, codecOf, compare, indexKey } from './types.ts';
import type { Values } from './values.ts';

const orders = ['gt', 'gte', 'lt', 'lte'] as const;
export type Order = (typeof orders)[number];

/**
 * A filter in normal form. Equal filters of one table have equal keys. An empty `and` is true, and an empty
 * `or` is false.
 */
export type Filter = { readonly key: string } & (
  | { readonly kind: 'and' | 'or'; readonly filters: readonly Filter[] }
  | { readonly kind: 'not'; readonly filter: Filter }
  | { readonly kind: 'null'; readonly column: FilterColumn }
  /** the column equals one of the values; there is at least one value */
  | { readonly kind: 'equal'; readonly column: FilterColumn; readonly values: readonly Comparable[] }
  | { readonly kind: 'order'; readonly column: FilterColumn; readonly order: Order; readonly value: Comparable }
  /** the column equals one of the values of the set; `values` is null until the set is loaded */
  | { readonly kind: 'member'; readonly column: FilterColumn; readonly set: SetQuery; readonly values: Values | null }
);

/** A set: the values of a column in some rows of another table. In a policy, it has `$from`, `select` and `where`. */
export interface SetQuery {
  /** equal for equal sets, and different for different values of the claims in the set's filter */
  readonly key: string;
  readonly table: Table;
  readonly column: FilterColumn;
  readonly where: Filter;
}

/** The claims and tables that a policy may refer to. */
export interface PolicyTerms {
  /** null: the policy is only checked, and a claim may have any value */
  claims: Claims | null;
  tableNamed: (name: string) => Table | undefined;
}

const maxDepth = 8;
const maxNodes = 100;
const maxValues = 100;
const maxClaimValues = 1_000;
/** a set may depend on another set, but no further */
const maxSets = 2;
const maxNameLength = 100;

/**
 * A mistake in a filter. `path` is the place of the mistake: "where.or.1.price.gt". The message begins with
 * the path.
 */
export class FilterError extends Error {
  override readonly name = 'FilterError';
  readonly code: 'INVALID_FILTER' | 'UNKNOWN_COLUMN' | 'UNREADABLE_COLUMN';
  readonly path: string;
  /** the message without the path */
  readonly problem: string;

  constructor(path: string, problem: string, code: FilterError['code'] = 'INVALID_FILTER') {
    super(`${path} ${problem}`);
    this.code = code;
    this.path = path;
    this.problem = problem;
  }
}

interface Rules {
  /** columns that the filter may name; null: all */
  readable: readonly string[] | null;
  /** null: the filter comes from a client */
  policy: (PolicyTerms & { sets: number }) | null;
  /** the number of nodes of the whole filter, including the nodes of its sets */
  nodes: { count: number };
}

/**
 * `where` is parsed JSON. Parse it with parseExactJson, which keeps all digits. JSON.parse rounds: this
 * function then refuses whole numbers beyond 2^53, and a numeric has no digits after the 17th. `readable`:
 * the columns that the client may read; null: all. Throws FilterError.
 */
export function parseFilter(table: Table, where: unknown, readable: readonly string[] | null = null): Filter {
  return parse(table, where, { path: 'where', rules: { readable, policy: null, nodes: { count: 0 } } });
}

/** Parses a policy's filter. `path`: the filter's name in errors ("read"). Throws FilterError or ClaimMissing. */
export function parsePolicy(table: Table, filter: unknown, path: string, terms: PolicyTerms): Filter {
  const rules: Rules = { readable: null, policy: { ...terms, sets: 0 }, nodes: { count: 0 } };
  return parse(table, filter, { path, rules });
}

function parse(table: Table, where: unknown, { path: root, rules }: { path: string; rules: Rules }): Filter {
  const { nodes } = rules;

  const count = (path: string, more = 1) => {
    nodes.count += more;
    if (nodes.count > maxNodes) throw new FilterError(path, `is too much: a filter has at most ${maxNodes} nodes`);
  };

  const parseObject = (value: unknown, path: string, depth: number): Filter => {
    if (depth > maxDepth) throw new FilterError(path, `is too deep: a filter has at most ${maxDepth} levels`);
    if (!isObject(value)) throw new FilterError(path, 'must be an object');
    return junction(
      'and',
      Object.entries(value).map(([name, member]) => parseMember(name, member, within(path, name), depth)),
    );
  };

  const parseMember = (name: string, value: unknown, path: string, depth: number): Filter => {
    if (name === 'not') {
      count(path);
      return negation(parseObject(value, path, depth + 1));
    }
    if (name === 'and' || name === 'or') {
      if (!Array.isArray(value)) throw new FilterError(path, 'must be an array of filters');
      count(path, value.length > maxNodes ? maxNodes + 1 : 1);
      return junction(
        name,
        Array.from(value, (item: unknown, index) => parseObject(item, within(path, String(index)), depth + 1)),
      );
    }
    const column = columnOf(table, name.startsWith('column:') ? name.slice('column:'.length) : name, path, rules);
    if (!isObject(value) || isClaim(value, rules)) {
      count(path);
      return value === null ? isNull(column) : equal(column, [valueOf(column, value, path, rules)]);
    }
    const operators = Object.entries(value);
    if (operators.length === 0) throw new FilterError(path, 'must be a value, null, or an object with an operator');
    return junction(
      'and',
      operators.map(([operator, operand]) => {
        count(path);
        return parseComparison(column, operator, operand, within(path, operator), rules);
      }),
    );
  };

  return parseObject(where, root, 1);
}

function parseComparison(column: FilterColumn, operator: string, operand: unknown, path: string, rules: Rules): Filter {
  switch (operator) {
    case 'eq':
      return equal(column, [valueOf(column, operand, path, rules)]);
    case 'ne':
      return negation(equal(column, [valueOf(column, operand, path, rules)]));
    case 'in':
      if (isClaim(operand, rules)) return equal(column, claimedList(column, operand, path, rules));
      if (rules.policy !== null && isObject(operand)) return member(column, operand, path, rules.policy, rules.nodes);
      if (!Array.isArray(operand) || operand.length > maxValues)
        throw new FilterError(path, `must be an array of at most ${maxValues} values`);
      return equal(
        column,
        Array.from(operand, (item: unknown, index) => valueOf(column, item, path, rules, index)),
      );
    case 'is':
      if (operand === null) return isNull(column);
      if (operand === 'not null') return negation(isNull(column));
      throw new FilterError(path, 'must be null or "not null"');
    case 'gt':
    case 'gte':
    case 'lt':
    case 'lte': {
      if (!column.codec.ordered)
        throw new FilterError(path, 'cannot compare this type of column, which has no order in filters');
      const value = valueOf(column, operand, path, rules);
      return {
        kind: 'order',
        column,
        order: operator,
        value,
        key: JSON.stringify([operator, column.name, indexKey(value)]),
      };
    }
    default:
      throw new FilterError(path, `is no operator: use eq, ne, ${orders.join(', ')}, in or is`);
  }
}

/** All filters share these, because thousands of users have filters. Null: filters cannot compare the column. */
const columnsOf = new WeakMap<Column, FilterColumn | null>();

function filterColumn(column: Column): FilterColumn | null {
  const { name } = column;
  const codec = codecOf(column);
  if (!codec) return null;
  // SQL for a filter on a virtual column uses `column.value` and not the column itself. If the SQL read
  // the column, and the column's expression failed for one row, the whole query would fail.
  return column.virtual
    ? { name, codec, value: `(${column.value} operator(pg_catalog.#>>) '{}')::${column.type}` }
    : { name, codec };
}

function columnOf(table: Table, name: string, path: string, { readable }: Pick<Rules, 'readable'>): FilterColumn {
  const column = table.columns.find((candidate) => candidate.name === name);
  if (!column) throw new FilterError(path, `is not a column of ${table.name}`, 'UNKNOWN_COLUMN');
  if (readable !== null && !readable.includes(name))
    throw new FilterError(path, `is a column of ${table.name} that you may not read`, 'UNREADABLE_COLUMN');
  let shared = columnsOf.get(column);
  if (shared === undefined) columnsOf.set(column, (shared = filterColumn(column)));
  if (shared !== null) return shared;
  const why = column.nondeterministic ? 'has a non-deterministic collation' : `is of type ${column.type}`;
  throw new FilterError(path, `${why}, which filters cannot compare`);
}

/** `index`: the value's place in a list of values. Only an error needs a path that includes this place. */
function valueOf(column: FilterColumn, value: unknown, path: string, rules: Rules, index?: number): Comparable {
  if (isClaim(value, rules)) return claimed(column, value, path, rules);
  const parsed = value === null ? undefined : column.codec.parse(value);
  if (parsed !== undefined) return parsed;
  const problem =
    value === null ? 'must not be null: use {"is": null} or {"is": "not null"}' : `must be ${column.codec.expected}`;
  throw new FilterError(index === undefined ? path : within(path, String(index)), problem);
}

/** `{"$claim": "org.id"}`: stands for a value in a policy. */
interface Claim {
  $claim: unknown;
}

function isClaim(value: unknown, { policy }: Rules): value is Claim {
  return policy !== null && isObject(value) && Object.hasOwn(value, '$claim');
}

/** The claim's value. Undefined: the policy is only checked, without claims. Throws FilterError or ClaimMissing. */
function claimValue(claim: Claim, path: string, { policy }: Rules): unknown {
  const { $claim: name, ...others } = claim;
  if (typeof name !== 'string' || name === '') throw new FilterError(path, '.$claim must be the name of a claim');
  const [other] = Object.keys(others);
  if (other !== undefined) throw new FilterError(path, `has ${other} beside $claim, which stands alone`);
  return policy!.claims === null ? undefined : claimAt(policy!.claims, name);
}

/** Throws ClaimMissing if the claim is not a value of the column's type. */
function claimed(column: FilterColumn, claim: Claim, path: string, rules: Rules): Comparable {
  const value = claimValue(claim, path, rules);
  if (value === undefined) return '';
  const parsed = column.codec.parse(value);
  if (parsed === undefined) throw new ClaimMissing(claim.$claim as string);
  return parsed;
}

/** Throws ClaimMissing if the claim is not an array of values of the column's type. */
function claimedList(column: FilterColumn, claim: Claim, path: string, rules: Rules): Comparable[] {
  const list = claimValue(claim, path, rules);
  if (list === undefined) return [];
  if (!Array.isArray(list) || list.length > maxClaimValues) throw new ClaimMissing(claim.$claim as string);
  return list.map((item: unknown) => {
    const parsed = item === null ? undefined : column.codec.parse(item);
    if (parsed === undefined) throw new ClaimMissing(claim.$claim as string);
    return parsed;
  });
}

function member(
  column: FilterColumn,
  operand: object,
  path: string,
  policy: PolicyTerms & { sets: number },
  nodes: Rules['nodes'],
): Filter {
  if (policy.sets >= maxSets) throw new FilterError(path, `is nested too deeply: at most ${maxSets} sets`);
  const { $from: from, select, where = {}, ...others } = operand as Record<string, unknown>;
  const [other] = Object.keys(others);
  if (other !== undefined) throw new FilterError(within(path, other), 'is unknown here: use $from, select and where');
  if (typeof from !== 'string') throw new FilterError(within(path, '$from'), 'must be the name of a table');
  const table = policy.tableNamed(from);
  if (!table) throw new FilterError(within(path, '$from'), `names ${from}, which is not an attached table`);
  if (typeof select !== 'string') throw new FilterError(within(path, 'select'), 'must be the name of a column');
  const selected = columnOf(table, select, within(path, 'select'), { readable: null });
  if (selected.codec !== column.codec)
    throw new FilterError(within(path, 'select'), `must be of the type of ${column.name}`);
  const rules: Rules = { readable: null, policy: { ...policy, sets: policy.sets + 1 }, nodes };
  const condition = parse(table, where, { path: within(path, 'where'), rules });
  const key = JSON.stringify([table.id, selected.name, condition.key]);
  return loadable({ kind: 'member', column, set: { key, table, column: selected, where: condition }, values: null });
}

/** The key includes a digest of the set's values: after a change of the set, the filter has a different key. */
function loadable(filter: Omit<Filter & { kind: 'member' }, 'key'>): Filter {
  const { column, set, values } = filter;
  return { ...filter, key: JSON.stringify(['member', column.name, set.key, values?.digest ?? null]) };
}

/** The filter with its sets filled in. */
export function withValues(filter: Filter, valuesOf: (set: SetQuery) => Values): Filter {
  switch (filter.kind) {
    case 'and':
    case 'or':
      return junction(
        filter.kind,
        filter.filters.map((part) => withValues(part, valuesOf)),
      );
    case 'not':
      return negation(withValues(filter.filter, valuesOf));
    case 'member':
      return loadable({ ...filter, values: valuesOf(filter.set) });
    default:
      return filter;
  }
}

/** The sets that the filter compares with, each once. Sets that only the filters of these sets name are left out. */
export function setsOf(filter: Filter): SetQuery[] {
  const found = new Map<string, SetQuery>();
  const collect = (node: Filter): void => {
    if (node.kind === 'and' || node.kind === 'or') for (const part of node.filters) collect(part);
    else if (node.kind === 'not') collect(node.filter);
    else if (node.kind === 'member') found.set(node.set.key, node.set);
  };
  collect(filter);
  return [...found.values()];
}

const isObject = (value: unknown): value is object =>
  typeof value === 'object' && value !== null && !Array.isArray(value) && !exactJson.isRawJSON(value);

const within = (path: string, name: string): string =>
  `${path}.${name.length > maxNameLength ? `${name.slice(0, maxNameLength)}…` : name}`;

// The functions below build the normal form, from the leaves up.

function isNull(column: FilterColumn): Filter {
  return { kind: 'null', column, key: JSON.stringify(['null', column.name]) };
}

/** Without values, the filter is false for every row, even if the column is null. Postgres decides the same. */
function equal(column: FilterColumn, values: readonly Comparable[]): Filter {
  if (values.length === 0) return junction('or', []);
  const distinct = distinctOf(values);
  return {
    kind: 'equal',
    column,
    values: distinct,
    key: JSON.stringify(['equal', column.name, ...distinct.map(indexKey)]),
  };
}

/** The values, sorted and without repetitions. */
function distinctOf(values: readonly Comparable[]): Comparable[] {
  // the usual case: numbers, which a typed array sorts without a call for each comparison
  if (values.every((value) => typeof value === 'number' && !Number.isNaN(value)))
    return Array.from(new Set(Float64Array.from(values as number[]).sort()));
  return [...new Map(values.map((value) => [indexKey(value), value])).values()].sort(compare);
}

function negation(filter: Filter): Filter {
  if (filter.kind === 'not') return filter.filter;
  if ((filter.kind === 'and' || filter.kind === 'or') && filter.filters.length === 0)
    return junction(filter.kind === 'and' ? 'or' : 'and', []);
  return { kind: 'not', filter, key: `not(${filter.key})` };
}

/**
 * Makes an `and` or `or` that is flat and sorted, without repetitions and without constant parts. None of
 * these steps changes the value of the whole, even if a part is unknown (null).
 */
export function junction(kind: 'and' | 'or', filters: readonly Filter[]): Filter {
  const parts = new Map<string, Filter>();
  for (const filter of filters) {
    if (filter.kind === kind) for (const part of filter.filters) parts.set(part.key, part);
    else if ((filter.kind === 'and' || filter.kind === 'or') && filter.filters.length === 0) return filter;
    else parts.set(filter.key, filter);
  }
  const keys = [...parts.keys()].sort();
  if (keys.length === 1) return parts.get(keys[0]!)!;
  return { kind, filters: keys.map((key) => parts.get(key)!), key: `${kind}(${keys.join(',')})` };
}
