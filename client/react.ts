/** Live queries as a React hook. What must stay true: nothing is subscribed while rendering, so that a render may be thrown away. */
import { useMemo, useSyncExternalStore } from 'react';
import type { Row } from '../shared/wire.ts';
import type { LiveOptions, Table } from './api.ts';
import { checkLiveOptions } from './input.ts';
import { createSource, createStill, type Live, nothing, type Source } from './live/source.ts';
import { canonical } from './values/canonical.ts';

export type { Live } from './live/source.ts';

/**
 * The rows of a table that the options admit, kept current: `const { rows } = useLive(plank.table<Item>('items'), {where})`. The
 * options may be written inline. Draws at most once in 16 ms. Components with the same options share one subscription. Without a table
 * (null) nothing is asked for: a filter may have to wait for its value. What cannot be asked for is the `error`.
 */
export function useLive<Item extends object = Row>(table: Table<Item> | null, options: LiveOptions = {}): Live<Item> {
  const problem = table === null ? null : problemOf(options);
  const source = useMemo(
    (): Source<Item> =>
      table === null || problem ? (createStill(problem) as Source<never>) : createSource(table, options),
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
