/**
 * A filter, ready for use by an index, a channel, a snapshot or a REST page. Other folders import only this
 * file of the folder.
 */
import type { Table } from '../catalog/catalog.ts';
import { type FilterColumn, ImageError, type ParsedRow, parseImage } from './image.ts';
import { compileFilter, type Equality, equalityOf } from './judge.ts';
import { type Filter, FilterError, parseFilter } from './parse.ts';
import { filterSql } from './sql.ts';
import { filterText } from './text.ts';
import { indexKey } from './types.ts';

export { type FilterColumn, FilterError, ImageError, type ParsedRow, parseImage };

export class RowFilter {
  /** equal for filters that differ only in order or notation */
  readonly key: string;
  readonly admits: (row: ParsedRow) => boolean;
  /**
   * a column that must have one of some values for the row to be admitted; null: there is none, and the
   * filter must be tested for every row
   */
  readonly equality: Equality | null;
  readonly #filter: Filter;

  /** Throws FilterError. */
  constructor(table: Table, where: unknown) {
    this.#filter = parseFilter(table, where);
    this.key = this.#filter.key;
    this.admits = compileFilter(this.#filter);
    this.equality = equalityOf(this.#filter);
  }

  /** Whether the filter admits every row because it has no condition. */
  get isEmpty(): boolean {
    return this.#filter.kind === 'and' && this.#filter.filters.length === 0;
  }

  /** The filter as text for people: `value > 10`. */
  get text(): string {
    return filterText(this.#filter);
  }

  /**
   * The filter as a condition for the WHERE of a statement, in which the row has the alias t. The first
   * parameter is $`firstParameter`.
   */
  sql(firstParameter = 1): { text: string; values: unknown[] } {
    return filterSql(this.#filter, firstParameter);
  }
}

/** The key of a row in an index by `column`; null if the column is null. */
export function rowKey(row: ParsedRow, column: FilterColumn): string | null {
  const value = row.read(column);
  return value === null ? null : indexKey(value);
}
