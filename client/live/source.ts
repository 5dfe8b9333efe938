/**
 * A live query as `useSyncExternalStore` needs it: a snapshot that stays the same object until
 * something has changed. What must stay true: the query is opened for the first subscriber, and
 * closed after the last one.
 */
import type { Row } from '../../shared/wire.ts';
import type { SubscriptionState } from '../state/delivery.ts';
import type { LiveQuery } from './query.ts';
import type { RowKey } from './rows.ts';

/** What `useLive` returns. */
export interface Live<Item extends object = Row> {
  /** by primary key, as in `LiveQuery`; a new Map whenever something has changed */
  rows: ReadonlyMap<RowKey, Item>;
  /** the rows were complete once; `state` tells whether they are now */
  isReady: boolean;
  state: SubscriptionState;
  /** while `state` is `stale`: when the server last confirmed that changes can arrive; or null */
  staleSince: Date | null;
  /** why the query has ended, or a TypeError where the options are invalid; null while it runs */
  error: Error | null;
}

/** The arguments of `useSyncExternalStore`. */
export interface Source<Item extends object> {
  current: () => Live<Item>;
  subscribe: (draw: () => void) => () => void;
}

const frameMs = 16;
export const nothing: Live = { rows: new Map(), isReady: false, state: 'offline', staleSince: null, error: null };

/** A source without a query: there is no table yet, or the options are invalid. */
export function createStill(error: Error | null): Source<Row> {
  const live: Live = error ? { ...nothing, state: 'ended', error } : nothing;
  return { current: () => live, subscribe: () => () => {} };
}

/** Draws at most once in 16 ms. */
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
      // a component that was hidden and comes back must not show old rows as if they were current
      drawn = { version: -1, live: nothing as Live<Item> };
    };
  };
  return { current, subscribe };
}
