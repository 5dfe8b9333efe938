/**
 * Describes the rows that a subscription asks for, and decides whether two subscriptions ask for the same rows.
 * Pure.
 */
import type { Filter } from '../../shared/wire.ts';
import { canonical } from './canonical.ts';

/** Subscriptions with equal queries share one subscription on the server. */
export interface RowQuery {
  table: string;
  where?: Filter;
  /** the server always adds the columns of the primary key */
  columns?: readonly string[];
}

/**
 * Returns a key that is equal for queries that admit the same rows in the same shape, even if the filters are written
 * differently.
 */
export function queryKey({ table, where, columns }: RowQuery): string {
  const filter = where === undefined ? {} : normalFilter(where);
  return canonical([table, filter, columns ? [...new Set(columns)].sort() : null]);
}

function normalFilter(filter: Filter): unknown {
  const normal: [string, unknown][] = [];
  for (const [name, value] of Object.entries(filter)) {
    if (value === undefined) continue;
    if (name === 'and' || name === 'or') normal.push([name, unordered((value as Filter[]).map(normalFilter))]);
    else if (name === 'not') normal.push([name, normalFilter(value as Filter)]);
    else normal.push([name.replace(/^column:/, ':'), normalComparison(value)]);
  }
  return Object.fromEntries(normal);
}

/**
 * Returns the same value for comparisons with the same meaning: `{"eq": 1}` means the same as `1`, and `{"is": null}`
 * the same as `null`. The order of the values in `in` has no meaning.
 */
function normalComparison(value: unknown): unknown {
  if (value === null || typeof value !== 'object') return value;
  const operators = Object.entries(value).filter(([, operand]) => operand !== undefined);
  if (operators.length === 1) {
    const [operator, operand] = operators[0]!;
    if ((operator === 'eq' && operand !== null) || (operator === 'is' && operand === null)) return operand;
  }
  return Object.fromEntries(
    operators.map(([operator, operand]) => [operator, operator === 'in' ? unordered(operand as unknown[]) : operand]),
  );
}

function unordered(values: readonly unknown[]): unknown[] {
  return [...new Map(values.map((value) => [canonical(value), value]))]
    .sort(([a], [b]) => (a < b ? -1 : 1))
    .map(([, value]) => value);
}
