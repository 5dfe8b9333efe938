/**
 * Live queries as a React hook. What must stay true: rendering opens no subscription, so React may discard a render.
 */
import { useMemo, useSyncExternalStore } from 'react';
import type { Row } from '../shared/wire.ts';
import type { LiveOptions, Table } from './api.ts';
import { checkLiveOptions } from './input.ts';
import { createSource, createStill, type Live, nothing, type Source } from './live/source.ts';
import { canonical } from './values/canonical.ts';

export type { Live } from './live/source.ts';

/**
 * Returns the rows of a table that the options admit, and keeps them current:
 *
 *     const { rows, isReady } = useLive(plank.table<Item>('items'), { where: { done: false } });
 *
 * Options may be written inline, because the hook compares them by value. Components with equal options share one
 * subscription. The subscription ends 1 s after the last of these components has unmounted. However many changes
 * arrive, a component is drawn at most once in 16 ms.
 * @param table if null, no subscription is made, for example while a value of the filter is missing
 * @returns the rows and their state. If the options are invalid, `error` is a TypeError. If the query has ended,
 *   `error` is the reason (see `LiveQuery.error`).
 */
export function useLive<Item extends object = Row>(table: Table<Item> | null, options: LiveOptions = {}): Live<Item> {
  const problem = table === null ? null : problemOf(options);
  const source = useMemo(
    (): Source<Item> =>
      table === null || problem
        ? (createStill(problem) as Source<never>)
        : createSource(() => table.live({ ...options, where: options.where ?? {} })),
    [table, problem ? problem.message : canonical(options)],
  );
  return useSyncExternalStore(source.subscribe, source.current, () => nothing as Live<Item>);
}

function problemOf(options: unknown): TypeError | null {
  try {
    checkLiveOptions(options);
    return null;
  } catch (error) {
    return error as TypeError;
  }
}
