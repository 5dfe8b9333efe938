/**
 * What a filter means: as SQL, as a function of an image, and as the keys under which an index may hold it. The first two
 * must agree for every row; test/integration/clients/filter.test.ts holds them against each other.
 */
import { quoted } from '#shared/postgres/postgres.ts';
import type { FilterColumn, ParsedRow } from './image.ts';
import type { Filter, Order } from './parse.ts';
import { type Comparable, compare, indexKey } from './types.ts';

const sqlOrders = { gt: '>', gte: '>=', lt: '<', lte: '<=' } as const satisfies Record<Order, string>;

/**
 * A boolean expression over the row `t`, and the values of its parameters, the first of which is $`firstParameter`.
 * True, false or null as PROTOCOL.md has it: a row is admitted where it is true.
 */
export function filterSql(filter: Filter, firstParameter: number): { text: string; values: (string | string[])[] } {
  const values: (string | string[])[] = [];
  // nothing is looked for along search_path
  const parameter = (value: string | string[], cast: string) =>
    `$${firstParameter + values.push(value) - 1}::pg_catalog.${cast}`;

  const write = (node: Filter): string => {
    switch (node.kind) {
      case 'and':
      case 'or':
        if (node.filters.length === 0) return String(node.kind === 'and');
        return `(${node.filters.map(write).join(` ${node.kind} `)})`;
      case 'not':
        return `(not ${write(node.filter)})`;
      case 'null':
        return `(${columnSql(node.column)} is null)`;
      case 'equal': {
        const { cast, text, equalSql } = node.column.codec;
        const texts = node.values.map(text);
        const column = columnSql(node.column);
        const operand = texts.length === 1 ? parameter(texts[0]!, cast) : `any (${parameter(texts, `${cast}[]`)})`;
        return `(${equalSql?.(column) ?? column} operator(pg_catalog.=) ${operand})`;
      }
      default: {
        const { cast, text, orderSql } = node.column.codec;
        const column = columnSql(node.column);
        return `(${orderSql?.(column) ?? column} operator(pg_catalog.${sqlOrders[node.order]}) ${parameter(text(node.value), cast)})`;
      }
    }
  };
  const columnSql = ({ name, value }: FilterColumn) => value ?? `t.${quoted(name)}`;
  return { text: write(filter), values };
}

/** Null is unknown. */
type Judge = (row: ParsedRow) => boolean | null;

/** Whether a row is admitted. Throws ImageError where the image is of before a column had its type. */
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
    default: {
      const { column, value: bound } = filter;
      const holds = orders[filter.order];
      return onValue(column, (value) => holds(value, bound));
    }
  }
}

/** One that is `decisive` decides; else one that is unknown. */
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

export interface Equality {
  column: FilterColumn;
  /** index keys of the values that the column may have */
  values: string[];
}

/**
 * What a row must equal to be admitted, by the column with the fewest values: the filter need only be asked about rows
 * where indexKey(row.read(column)) is among them. Null where the filter does not say such a thing of every row.
 */
export function equalityOf(filter: Filter): Equality | null {
  let best: (Filter & { kind: 'equal' }) | undefined;
  for (const part of filter.kind === 'and' ? filter.filters : [filter])
    if (part.kind === 'equal' && (best === undefined || part.values.length < best.values.length)) best = part;
  return best === undefined ? null : { column: best.column, values: best.values.map(indexKey) };
}
