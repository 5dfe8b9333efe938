// Row queries as AUTH=off makes them, without a catalog.

import type { Table } from '#gateway/catalog/catalog.ts';
import type { RowQuery } from '#gateway/channels/row-query.ts';
import type { RowFilter } from '#gateway/filter/row-filter.ts';

export function openQuery(table: Table, filter: RowFilter | null = null): RowQuery {
  const digest = filter?.key ?? 'all';
  const request = { table: table.name };
  const open = { whereKey: filter?.key ?? null, columns: null, readable: null, isRuled: false };
  return { name: digest, digest, rule: digest, table, filter, ...open, request };
}
