/**
 * Turns a filter into SQL for the WHERE of a statement. judge.ts compiles the same filter to JavaScript.
 * Both must agree on every row.
 */
import { quoted } from '#shared/postgres/postgres.ts';
import type { FilterColumn } from './image.ts';
import type { Filter, Order, SetQuery } from './parse.ts';

const operators = { gt: '>', gte: '>=', lt: '<', lte: '<=' } as const satisfies Record<Order, string>;

/**
 * A boolean expression over the row with the alias t, and the values of its parameters. The first parameter
 * is $`firstParameter`. PROTOCOL.md defines for which rows the expression is true, false or null; the
 * filter admits a row if it is true. No name in the expression depends on search_path.
 */
export function filterSql(filter: Filter, firstParameter: number): Sql {
  const values: Sql['values'] = [];
  return { text: writer(values, firstParameter)(filter), values };
}

/**
 * A query for the values of a set, each value once, as to_json renders it. The order of the rows depends only
 * on the values.
 */
export function setSql(set: SetQuery): Sql {
  const values: Sql['values'] = [];
  const { column, rows } = setParts(set, writer(values, 1));
  return { text: `select distinct pg_catalog.to_json(${column})::pg_catalog.text as value ${rows} order by 1`, values };
}

interface Sql {
  text: string;
  values: (string | string[])[];
}

/** Within a sub-select, the rows of a set have the alias t. There, this t hides the t of the outer statement. */
function setParts({ table, column, where }: SetQuery, write: (node: Filter) => string) {
  const value = columnSql(column);
  const rows = `from ${quoted(table.schema)}.${quoted(table.table)} t where ${write(where)} and ${value} is not null`;
  return { column: value, rows };
}

function writer(values: Sql['values'], firstParameter: number): (node: Filter) => string {
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
      case 'member': {
        const { equalSql, setSql: valueSql = equalSql } = node.column.codec;
        const column = columnSql(node.column);
        const set = setParts(node.set, write);
        const values = valueSql?.(set.column) ?? set.column;
        return `(${equalSql?.(column) ?? column} operator(pg_catalog.=) any (select ${values} ${set.rows}))`;
      }
      default: {
        const { cast, text, orderSql } = node.column.codec;
        const column = columnSql(node.column);
        const operator = `operator(pg_catalog.${operators[node.order]})`;
        return `(${orderSql?.(column) ?? column} ${operator} ${parameter(text(node.value), cast)})`;
      }
    }
  };
  return write;
}

const columnSql = ({ name, value }: FilterColumn) => value ?? `t.${quoted(name)}`;
