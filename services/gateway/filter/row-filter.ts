/**
 * A filter, ready for use by an index, a channel, a snapshot or a REST page. Other folders import only this
 * file of the folder.
 */
import type { Table } from '../catalog/catalog.ts';
import { ClaimMissing, claimAt, isValueOf } from './claims.ts';
import { type FilterColumn, ImageError, type ParsedRow, parseImage } from './image.ts';
import { compileFilter, type Equality, equalityOf } from './judge.ts';
import {
  type Filter,
  FilterError,
  junction,
  type PolicyTerms,
  parseFilter,
  parsePolicy,
  type SetQuery,
  setsOf,
  withValues,
} from './parse.ts';
import { filterSql, setSql } from './sql.ts';
import { filterText } from './text.ts';
import { indexKey } from './types.ts';
import { Values } from './values.ts';

export {
  ClaimMissing,
  claimAt,
  type FilterColumn,
  FilterError,
  ImageError,
  isValueOf,
  type ParsedRow,
  type PolicyTerms,
  parseImage,
  Values,
};

export class RowFilter {
  /** equal for filters that differ only in order or notation */
  readonly key: string;
  readonly #filter: Filter;
  // These two are made only when they are needed. Thousands of users have filters of their own, and most of these
  // filters are used only as SQL.
  #admits: ((row: ParsedRow) => boolean) | undefined;
  #sources: readonly Source[] | undefined;

  private constructor(filter: Filter) {
    this.#filter = filter;
    this.key = filter.key;
  }

  /** Judges a row. Throws ImageError. If the filter has sets, use `withValues` first. */
  get admits(): (row: ParsedRow) => boolean {
    return (this.#admits ??= isLoaded(this.#filter) ? compileFilter(this.#filter) : notLoaded);
  }

  /**
   * A column and some values: in every admitted row, the column has one of the values. Null: there is no
   * such column, and the filter must be tested for every row.
   */
  get equality(): Equality | null {
    return equalityOf(this.#filter);
  }

  /** The sets of other tables that the filter compares with. */
  get sources(): readonly Source[] {
    return (this.#sources ??= setsOf(this.#filter).map(sourceOf));
  }

  /** Parses a client's filter. `readable`: the columns that the filter may name; null: all. Throws FilterError. */
  static parse(table: Table, where: unknown, readable: readonly string[] | null = null): RowFilter {
    return new RowFilter(parseFilter(table, where, readable));
  }

  /** Parses a policy's filter. `path`: the filter's name in errors ("read"). Throws FilterError or ClaimMissing. */
  static policy(table: Table, filter: unknown, path: string, terms: PolicyTerms): RowFilter {
    return new RowFilter(parsePolicy(table, filter, path, terms));
  }

  and(other: RowFilter | null): RowFilter {
    return other === null ? this : new RowFilter(junction('and', [this.#filter, other.#filter]));
  }

  /** The filter with its sets filled in. */
  withValues(valuesOf: (source: Source) => Values): RowFilter {
    if (this.sources.length === 0) return this;
    return new RowFilter(withValues(this.#filter, (set) => valuesOf(sourceOf(set))));
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
   * parameter is $`firstParameter`. A set is a sub-select, whether it is loaded or not.
   */
  sql(firstParameter = 1): { text: string; values: unknown[] } {
    return filterSql(this.#filter, firstParameter);
  }

  /** @internal for sourceOf */
  static of(filter: Filter): RowFilter {
    return new RowFilter(filter);
  }
}

/** A set: the values of a column in some rows of another table. */
export interface Source {
  /** equal for equal sets */
  readonly key: string;
  readonly table: Table;
  readonly column: FilterColumn;
  /** admits the rows whose values are in the set; may have sources itself */
  readonly where: RowFilter;
  /** A query whose column "value" has texts for `Values.add`. The order of the rows depends only on the values. */
  readonly query: { text: string; values: unknown[] };
}

function sourceOf(set: SetQuery): Source {
  const { key, table, column, where } = set;
  return {
    key,
    table,
    column,
    get where() {
      return RowFilter.of(where);
    },
    get query() {
      return setSql(set);
    },
  };
}

function isLoaded(filter: Filter): boolean {
  if (filter.kind === 'and' || filter.kind === 'or') return filter.filters.every(isLoaded);
  if (filter.kind === 'not') return isLoaded(filter.filter);
  return filter.kind !== 'member' || filter.values !== null;
}

function notLoaded(): never {
  throw new Error('the sets of this filter are not loaded');
}

/** The key of a row in an index by `column`; null if the column is null. */
export function rowKey(row: ParsedRow, column: FilterColumn): string | null {
  const value = row.read(column);
  return value === null ? null : indexKey(value);
}
