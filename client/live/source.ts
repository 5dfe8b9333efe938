/**
 * A live query as React wants its sources: something to subscribe to, and a picture that is the same object until it has changed. What
 * must stay true: nothing is asked for before somebody watches, nor after the last one has gone.
 */
import type { Row } from '../../shared/wire.ts';
import type { LiveOptions, Table } from '../api.ts';
import type { SubscriptionState } from '../state/stream.ts';
import type { LiveQuery } from './query.ts';
import type { RowKey } from './rows.ts';

export interface Live<Item extends object = Row> {
  /** by key; another Map whenever something has changed */
  rows: ReadonlyMap<RowKey, Item>;
  /** the rows are there and current */
  isReady: boolean;
  state: SubscriptionState;
  /** while the state is `stale`, when something last said that changes can arrive; else null */
  staleSince: Date | null;
  error: Error | null;
}

/** As useSyncExternalStore wants it. */
export interface Source<Item extends object> {
  current: () => Live<Item>;
  subscribe: (draw: () => void) => () => void;
}

const frameMs = 16;
export const nothing: Live = { rows: new Map(), isReady: false, state: 'offline', staleSince: null, error: null };

/** What a part is shown that asks for nothing, or for nothing that can be asked for. */
export function createStill(error: Error | null): Source<Row> {
  const live: Live = error ? { ...nothing, state: 'ended', error } : nothing;
  return { current: () => live, subscribe: () => () => {} };
}

/** Opens the query with the first watcher and closes it with the last. */
export function createSource<Item extends object>(table: Table<Item>, options: LiveOptions): Source<Item> {
  let query: LiveQuery<Item> | null = null;
  let watchers = 0;
  let drawn: { version: number; live: Live<Item> } = { version: -1, live: nothing as Live<Item> };

  const current = (): Live<Item> => drawn.live;
  const refresh = () => {
    if (!query || query.version === drawn.version) return;
    const { version, state, staleSince, error, rows } = query;
    const isReady = drawn.live.isReady || state === 'live';
    drawn = { version, live: { rows: new Map(rows), isReady, state, staleSince, error } };
  };
  const subscribe = (draw: () => void) => {
    query ??= table.live({ ...options, where: options.where ?? {} });
    watchers++;
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
      if (--watchers > 0) return;
      query?.close();
      query = null;
      // whoever comes back later (a part that was hidden) must not be shown what has been since as the present
      drawn = { version: -1, live: nothing as Live<Item> };
    };
  };
  return { current, subscribe };
}
