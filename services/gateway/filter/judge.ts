/**
 * Compiles a filter to a function of a row's image, and finds the keys under which an index can hold the
 * filter. sql.ts turns the same filter into SQL. Both must agree on every row;
 * test/integration/clients/filter.test.ts compares them.
 */
import type { FilterColumn, ParsedRow } from './image.ts';
import type { Filter, Order } from './parse.ts';
import { type Comparable, compare, indexKey } from './types.ts';

/** Judges a row by SQL's three values: true, false, and null for unknown. */
type Judge = (row: ParsedRow) => boolean | null;

/**
 * Returns a function that tells whether the filter admits a row. That function throws ImageError if the
 * image lacks the value of a column, for example because it is older than the column's type.
 */
export function compileFilter(filter: Filter): (row: ParsedRow) => boolean {
  const judge = compile(filter);
  return (row) => judge(row) === true;
}

function compile(filter: Filter): Judge {
  switch (filter.kind) {
    case 'and':
      return junction(filter.filters.map(compile), false);
    case 'or':
      return junction(filter.filters.map(compile), true);
    case 'not': {
      const judge = compile(filter.filter);
      return (row) => {
        const verdict = judge(row);
        return verdict === null ? null : !verdict;
      };
    }
    case 'null': {
      const { column } = filter;
      return (row) => row.read(column) === null;
    }
    case 'equal':
      return onValue(filter.column, equality(filter.values));
    case 'member': {
      const { column, values, set } = filter;
      if (values === null) throw new Error(`the values of ${set.table.name}.${set.column.name} are not loaded`);
      const test = onValue(column, (value) => values.has(value));
      // As in Postgres, a comparison with an empty set is false even if the column is null. With any other set, a
      // comparison of a null column is unknown.
      return values.size === 0 ? () => false : test;
    }
    default: {
      const { column, value: bound } = filter;
      const holds = orders[filter.order];
      return onValue(column, (value) => holds(value, bound));
    }
  }
}

/**
 * Combines filters by `and` or `or`. If one filter has the value `decisive` (false for `and`, true for
 * `or`), the result is this value. Otherwise, if one filter is unknown, the result is unknown.
 */
function junction(judges: readonly Judge[], decisive: boolean): Judge {
  return (row) => {
    let verdict: boolean | null = !decisive;
    for (const judge of judges) {
      const one = judge(row);
      if (one === decisive) return decisive;
      if (one === null) verdict = null;
    }
    return verdict;
  };
}

function onValue(column: FilterColumn, test: (value: Comparable) => boolean): Judge {
  return (row) => {
    const value = row.read(column);
    return value === null ? null : test(value);
  };
}

function equality(values: readonly Comparable[]): (value: Comparable) => boolean {
  const [only] = values;
  if (values.length === 1 && typeof only !== 'object') return (value) => value === only;
  if (typeof only !== 'object') {
    const all = new Set(values);
    return (value) => all.has(value);
  }
  const keys = new Set(values.map(indexKey));
  return (value) => keys.has(indexKey(value));
}

const orders: Record<Order, (value: Comparable, bound: Comparable) => boolean> = {
  gt: (value, bound) => compare(value, bound) > 0,
  gte: (value, bound) => compare(value, bound) >= 0,
  lt: (value, bound) => compare(value, bound) < 0,
  lte: (value, bound) => compare(value, bound) <= 0,
};

/** an index does not use a set with more values: for such a set, the index would take more memory than the set */
const maxIndexed = 1_000;

export interface Equality {
  column: FilterColumn;
  /** the index keys of the values that the filter admits in this column */
  values: string[];
}

/**
 * Finds a condition that every admitted row meets: a column equals one of some values. An index that has
 * this condition tests the filter only for rows whose indexKey(row.read(column)) is among these values.
 * If the filter has several such conditions, returns the one with the fewest values. If the filter has
 * none, returns null.
 */
export function equalityOf(filter: Filter): Equality | null {
  let best: (Filter & { kind: 'equal' }) | undefined;
  let smallest: (Filter & { kind: 'member' }) | undefined;
  for (const part of filter.kind === 'and' ? filter.filters : [filter]) {
    if (part.kind === 'equal' && (best === undefined || part.values.length < best.values.length)) best = part;
    if (part.kind !== 'member' || part.values === null || part.values.size > maxIndexed) continue;
    if (smallest === undefined || part.values.size < smallest.values!.size) smallest = part;
  }
  if (best !== undefined) return { column: best.column, values: best.values.map(indexKey) };
  return smallest === undefined ? null : { column: smallest.column, values: [...smallest.values!.indexKeys()] };
}
