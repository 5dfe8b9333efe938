/** A filter made ready for use: what the hub's index, a channel and a snapshot ask of it. */
import type { Table } from '../catalog/catalog.ts';
import { compileFilter, type Equality, equalityOf, filterSql } from './judge.ts';
import { type FilterColumn, type ParsedRow, parseImage } from './image.ts';
import { type Filter, parseFilter } from './parse.ts';
import { filterText } from './text.ts';
import { indexKey } from './types.ts';

export { type FilterColumn, type ParsedRow, parseImage };

export class RowFilter {
  /** the same for filters that mean the same in other words */
  readonly key: string;
  readonly admits: (row: ParsedRow) => boolean;
  /** a column that must have one of these values; null: every row must be looked at */
  readonly equality: Equality | null;
  readonly #filter: Filter;

  /** Throws FilterError. */
  constructor(table: Table, where: unknown) {
    this.#filter = parseFilter(table, where);
    this.key = this.#filter.key;
    this.admits = compileFilter(this.#filter);
    this.equality = equalityOf(this.#filter);
  }

  /** It admits every row. */
  get isEmpty(): boolean {
    return this.#filter.kind === 'and' && this.#filter.filters.length === 0;
  }

  /** In words that people read. */
  get text(): string {
    return filterText(this.#filter);
  }

  /** For a WHERE over the row `t`, its values from $1 on. */
  sql(): { text: string; values: unknown[] } {
    return filterSql(this.#filter, 1);
  }
}

/** What an index knows a row by; null where the column is null. */
export function rowKey(row: ParsedRow, column: FilterColumn): string | null {
  const value = row.read(column);
  return value === null ? null : indexKey(value);
}
