/** Live queries as a React hook. What must stay true: nothing is subscribed while rendering, so that a render may be thrown away. */
import { useMemo, useSyncExternalStore } from 'react';
import type { Row } from '../shared/wire.ts';
import type { LiveOptions, Table } from './api.ts';
import { canonical } from './canonical.ts';
import { createSource, type Live, nothing } from './live-source.ts';

export type { Live } from './live-source.ts';

/**
 * The rows of a table that the options admit, kept current: `const { rows } = useLive(plank.table<Item>('items'), {where})`. The
 * options may be written inline. Draws at most once in 16 ms. Components with the same options share one subscription.
 */
export function useLive<Item extends object = Row>(table: Table<Item>, options: LiveOptions = {}): Live<Item> {
  const source = useMemo(() => createSource(table, options), [table, canonical(options)]);
  return useSyncExternalStore(source.subscribe, source.current, () => nothing as Live<Item>);
}
