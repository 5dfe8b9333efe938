/**
 * Turns a filter into SQL for the WHERE of a statement. judge.ts compiles the same filter to JavaScript.
 * Both must agree on every row.
 */
import { quoted } from '#shared/postgres/postgres.ts';
import type { FilterColumn } from './image.ts';
import type { Filter, Order } from './parse.ts';

const operators = { gt: '>', gte: '>=', lt: '<', lte: '<=' } as const satisfies Record<Order, string>;

/**
 * A boolean expression over the row with the alias t, and the values of its parameters. The first parameter
 * is $`firstParameter`. PROTOCOL.md defines for which rows the expression is true, false or null; the
 * filter admits a row if it is true. No name in the expression depends on search_path.
 */
export function filterSql(filter: Filter, firstParameter: number): { text: string; values: (string | string[])[] } {
  const values: (string | string[])[] = [];
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
        const operator = `operator(pg_catalog.${operators[node.order]})`;
        return `(${orderSql?.(column) ?? column} ${operator} ${parameter(text(node.value), cast)})`;
      }
    }
  };
  return { text: write(filter), values };
}

const columnSql = ({ name, value }: FilterColumn) => value ?? `t.${quoted(name)}`;
