/**
 * A live query in the form that `useSyncExternalStore` needs: the value that the hook reads stays the same object until
 * the query has changed. What must stay true: the query is opened for the first subscriber and closed after the last
 * one.
 */
import type { Row } from '../../shared/wire.ts';
import type { SubscriptionState } from '../state/delivery.ts';
import type { LiveQuery } from './query.ts';
import type { RowKey } from './rows.ts';

/** The value that `useLive` returns. */
export interface Live<Item extends object = Row> {
  /** the rows by primary key, as in `LiveQuery`; a new Map after each change */
  rows: ReadonlyMap<RowKey, Item>;
  /** whether the rows have ever been complete; if `state` is `live`, they are complete now */
  isReady: boolean;
  state: SubscriptionState;
  /** if `state` is `stale`: the time when the server last confirmed that changes can arrive; otherwise null */
  staleSince: Date | null;
  /** the reason why the query has ended, or a TypeError if the options are invalid; null while the query runs */
  error: Error | null;
}

/** The arguments of `useSyncExternalStore`. */
export interface Source<Item extends object> {
  current: () => Live<Item>;
  subscribe: (draw: () => void) => () => void;
}

const frameMs = 16;
export const nothing: Live = { rows: new Map(), isReady: false, state: 'offline', staleSince: null, error: null };

/** Makes a source without a query, for the case that there is no table yet or the options are invalid. */
export function createStill(error: Error | null): Source<Row> {
  const live: Live = error ? { ...nothing, state: 'ended', error } : nothing;
  return { current: () => live, subscribe: () => () => {} };
}

/** Makes a source of a query. Each subscriber's `draw` is called at most once in 16 ms. */
export function createSource<Item extends object>(open: () => LiveQuery<Item>): Source<Item> {
  let query: LiveQuery<Item> | null = null;
  let subscribers = 0;
  let drawn: { version: number; live: Live<Item> } = { version: -1, live: nothing as Live<Item> };

  const current = (): Live<Item> => drawn.live;
  const refresh = () => {
    if (!query || query.version === drawn.version) return;
    const { version, state, staleSince, error, rows } = query;
    const isReady = drawn.live.isReady || state === 'live';
    drawn = { version, live: { rows: new Map(rows), isReady, state, staleSince, error } };
  };
  const subscribe = (draw: () => void) => {
    query ??= open();
    subscribers++;
    let timer: ReturnType<typeof setTimeout> | undefined;
    const flush = () => {
      timer = undefined;
      refresh();
      draw();
    };
    refresh();
    const end = query.subscribe(() => {
      timer ??= setTimeout(flush, frameMs);
    });
    return () => {
      clearTimeout(timer);
      end();
      if (--subscribers > 0) return;
      query?.close();
      query = null;
      // If a hidden component is shown again, it must not draw old rows as if these were current.
      drawn = { version: -1, live: nothing as Live<Item> };
    };
  };
  return { current, subscribe };
}
