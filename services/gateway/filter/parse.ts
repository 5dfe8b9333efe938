/**
 * Parses filters from a client's JSON into a normal form: filters that differ only in order or notation
 * have the same `key`. Invariants:
 * - For every filter that this parser accepts, judge.ts and sql.ts agree on every row.
 * - Parsing costs a bounded effort for input of any shape and depth. Every wrong input gets a clear error.
 */

import { exactJson } from '#shared/exact-json.ts';
import type { Table } from '../catalog/catalog.ts';
import type { FilterColumn } from './image.ts';
import { type Comparable, codecOf, compare, indexKey } from './types.ts';

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
);

const maxDepth = 8;
const maxNodes = 100;
const maxValues = 100;
const maxNameLength = 100;

/**
 * A mistake in a filter. `path` is the place of the mistake: "where.or.1.price.gt". The message begins with
 * the path.
 */
export class FilterError extends Error {
  override readonly name = 'FilterError';
  readonly code: 'INVALID_FILTER' | 'UNKNOWN_COLUMN';
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

/**
 * `where` is parsed JSON. Parse it with parseExactJson: if JSON.parse did it, numbers beyond 2^53 are
 * refused, and a numeric has lost its digits after the 17th. Throws FilterError.
 */
export function parseFilter(table: Table, where: unknown): Filter {
  let nodes = 0;

  const count = (path: string, more = 1) => {
    nodes += more;
    if (nodes > maxNodes) throw new FilterError(path, `is too much: a filter has at most ${maxNodes} nodes`);
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
    const column = columnOf(table, name.startsWith('column:') ? name.slice('column:'.length) : name, path);
    if (!isObject(value)) {
      count(path);
      return value === null ? isNull(column) : equal(column, [valueOf(column, value, path)]);
    }
    const operators = Object.entries(value);
    if (operators.length === 0) throw new FilterError(path, 'must be a value, null, or an object with an operator');
    return junction(
      'and',
      operators.map(([operator, operand]) => {
        count(path);
        return parseComparison(column, operator, operand, within(path, operator));
      }),
    );
  };

  return parseObject(where, 'where', 1);
}

function parseComparison(column: FilterColumn, operator: string, operand: unknown, path: string): Filter {
  switch (operator) {
    case 'eq':
      return equal(column, [valueOf(column, operand, path)]);
    case 'ne':
      return negation(equal(column, [valueOf(column, operand, path)]));
    case 'in':
      if (!Array.isArray(operand) || operand.length > maxValues)
        throw new FilterError(path, `must be an array of at most ${maxValues} values`);
      return equal(
        column,
        Array.from(operand, (item: unknown, index) => valueOf(column, item, path, index)),
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
      const value = valueOf(column, operand, path);
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

function columnOf(table: Table, name: string, path: string): FilterColumn {
  const column = table.columns.find((candidate) => candidate.name === name);
  if (!column) throw new FilterError(path, `is not a column of ${table.name}`, 'UNKNOWN_COLUMN');
  const codec = codecOf(column);
  // for a virtual column, this does not use the column itself: if its expression fails for one row, the
  // whole query fails
  const value = column.virtual ? `(${column.value} operator(pg_catalog.#>>) '{}')::${column.type}` : undefined;
  if (codec) return value === undefined ? { name, codec } : { name, codec, value };
  const why = column.nondeterministic ? 'has a non-deterministic collation' : `is of type ${column.type}`;
  throw new FilterError(path, `${why}, which filters cannot compare`);
}

/** `index`: the value's place in a list of values. The path with this place is made only if there is an error. */
function valueOf(column: FilterColumn, value: unknown, path: string, index?: number): Comparable {
  const parsed = value === null ? undefined : column.codec.parse(value);
  if (parsed !== undefined) return parsed;
  const problem =
    value === null ? 'must not be null: use {"is": null} or {"is": "not null"}' : `must be ${column.codec.expected}`;
  throw new FilterError(index === undefined ? path : within(path, String(index)), problem);
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
function junction(kind: 'and' | 'or', filters: readonly Filter[]): Filter {
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
