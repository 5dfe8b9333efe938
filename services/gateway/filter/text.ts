/**
 * Turns a filter into text for people, in the console and in explanations: `value > 10 and not name =
 * "Tea"`. Programs must not parse this text.
 */

import type { FilterColumn } from './image.ts';
import type { Filter } from './parse.ts';
import type { Comparable } from './types.ts';

const signs = { gt: '>', gte: '≥', lt: '<', lte: '≤' } as const;
const maxValues = 5;

export function filterText(filter: Filter): string {
  switch (filter.kind) {
    case 'and':
    case 'or':
      if (filter.filters.length === 0) return filter.kind === 'and' ? 'every row' : 'no row';
      return filter.filters.map((part) => within(part)).join(` ${filter.kind} `);
    case 'not':
      return `not ${within(filter.filter)}`;
    case 'null':
      return `${filter.column.name} is null`;
    case 'equal': {
      const { column, values } = filter;
      const texts = values.slice(0, maxValues).map((value) => valueText(column, value));
      if (values.length === 1) return `${column.name} = ${texts[0]}`;
      return `${column.name} in (${texts.join(', ')}${values.length > maxValues ? ', …' : ''})`;
    }
    case 'member': {
      const { column, set } = filter;
      const where = filterText(set.where);
      return `${column.name} in (${set.column.name} of ${set.table.name}${where === 'every row' ? '' : ` where ${where}`})`;
    }
    default:
      return `${filter.column.name} ${signs[filter.order]} ${valueText(filter.column, filter.value)}`;
  }
}

function within(filter: Filter): string {
  const text = filterText(filter);
  const isOne = filter.kind !== 'and' && filter.kind !== 'or';
  return isOne ? text : `(${text})`;
}

function valueText({ codec }: FilterColumn, value: Comparable): string {
  return typeof value === 'string' ? JSON.stringify(value.slice(0, 100)) : codec.text(value);
}
