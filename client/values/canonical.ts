/** Owns when two values are the same: JSON with sorted keys, and filters that mean the same written the same. Pure. */
import type { Filter } from '../../shared/wire.ts';

/** What a server subscription is about. The same in every respect: one server subscription. */
export interface Subject {
  table: string;
  where?: Filter;
  /** those of the key come always */
  columns?: readonly string[];
}

/** JSON with sorted keys; bigints as their digits, dates and the like as JSON has them. */
export function canonical(value: unknown): string {
  if (typeof value === 'bigint') return String(value);
  if (value instanceof Date) return canonical(value.toJSON());
  if (Array.isArray(value)) return `[${value.map(canonical).join(',')}]`;
  if (value === null || typeof value !== 'object') return JSON.stringify(value) ?? typeof value;
  const members = Object.entries(value)
    .filter(([, member]) => member !== undefined)
    .sort(([a], [b]) => (a < b ? -1 : 1));
  return `{${members.map(([name, member]) => `${JSON.stringify(name)}:${canonical(member)}`).join(',')}}`;
}

/** The same text for subjects that admit the same rows in the same shape, however they are written. */
export function subjectKey({ table, where, columns }: Subject): string {
  const filter = where === undefined ? {} : plainFilter(where);
  return canonical([table, filter, columns ? [...new Set(columns)].sort() : null]);
}

function plainFilter(filter: Filter): unknown {
  const plain: [string, unknown][] = [];
  for (const [name, value] of Object.entries(filter)) {
    if (value === undefined) continue;
    if (name === 'and' || name === 'or') plain.push([name, unordered((value as Filter[]).map(plainFilter))]);
    else if (name === 'not') plain.push([name, plainFilter(value as Filter)]);
    else plain.push([name.replace(/^column:/, ':'), plainComparison(value)]);
  }
  return Object.fromEntries(plain);
}

/** `{"eq": 1}` is `1`, `{"is": null}` is `null`, and the order within `in` means nothing. */
function plainComparison(value: unknown): unknown {
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
